"""The examples run as they stand, offline, and their configuration file can be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fallback_plugin.config.load import ConfigSource
from fallback_plugin.config.schema import Settings

EXAMPLES = Path(__file__).parents[2] / "examples"
ALL = sorted(EXAMPLES.rglob("*.py"))
CONFIGURATION = EXAMPLES / "opencode" / "opencode-fallback.jsonc"


def run(example):
    return subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60, check=False)


def test_there_are_examples():
    assert EXAMPLES / "opencode" / "embed.py" in ALL


@pytest.mark.parametrize("example", ALL, ids=lambda path: path.relative_to(EXAMPLES).as_posix())
def test_an_example_runs_without_a_word_of_complaint(example):
    done = run(example)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_embedded_plugin_carries_the_turn_on():
    printed = run(EXAMPLES / "opencode" / "embed.py").stdout

    assert "north/large failed: rate limit, back in 3 h; going on with south/medium" in printed
    assert "north/large → south/medium" in printed
    assert printed.count("user: Say good morning.") == 1
    assert printed.count("assistant: Good morning.") == 1


def test_an_embedding_program_is_short():
    assert len((EXAMPLES / "opencode" / "embed.py").read_text("utf-8").splitlines()) < 60


def test_the_configuration_file_names_every_key():
    loaded = ConfigSource(directory=EXAMPLES, config=CONFIGURATION).load()

    assert loaded.warnings == ()
    assert loaded.settings.model_fields_set == set(Settings.model_fields) - {"schema_url"}


def test_the_configuration_file_shows_the_defaults():
    settings = ConfigSource(directory=EXAMPLES, config=CONFIGURATION).load().settings
    own = {"fallback_models", "agents", "error_rules", "retryable_error_patterns"}

    for key in sorted(settings.model_fields_set - own):
        assert getattr(settings, key) == getattr(Settings(), key), key
