"""The demonstration on the loopback host; the one on the real OpenCode is tests/e2e/test_demo.py."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from fallback_plugin import Rules
from fallback_plugin.cli.demo import DemoHost, Demonstration
from fallback_plugin.cli.timeline import Timeline
from fallback_plugin.testing.chronicle import Chronicle
from fallback_plugin.testing.faults import Answer, Fail
from fallback_plugin.testing.opencode_package import install_package, is_installed
from fallback_plugin.testing.provider import FaultyProvider
from fallback_plugin.testing.stages import loopback_stage
from fallback_plugin.testing.story import ROUTES, STORY, Outcome, StoryTurn, perform

DEMO = [sys.executable, "-m", "fallback_plugin", "demo"]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def printed():
    done = subprocess.run([*DEMO, "--host", "loopback"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_it_is_plain_text_where_there_is_no_terminal(printed):
    assert "\x1b" not in printed


def test_each_turn_has_its_part_of_the_timeline(printed):
    for number, turn in enumerate(STORY, 1):
        assert f"\n{number}. {turn.title}\n" in printed
        assert f'user      "{turn.prompt}"' in printed


def test_the_timeline_shows_who_was_asked_what_it_said_and_what_the_plugin_decided(printed):
    lines = [line.strip() for line in printed.splitlines()]
    first = [re.sub(r"^\d+\.\d\d s\s+", "", line) for line in lines if re.match(r"\d+\.\d\d s", line)][:7]

    assert first[1:4] == [
        "host      asks north/large",
        "provider  north/large: 429 insufficient_quota, retry-after 3 h",
        "plugin    north/large failed: quota exhausted, back in 3 h; going on with south/medium",
    ]
    assert "host      asks south/medium" in first


def test_times_never_run_backwards_within_a_turn(printed):
    for turn in re.split(r"\n\d\. ", printed)[1:]:
        offsets = [float(found) for found in re.findall(r"^\s+(\d+\.\d\d) s ", turn, re.MULTILINE)]
        assert offsets == sorted(offsets)
        assert offsets[0] == 0


def test_exhaustion_is_said_once_with_the_earliest_return(printed):
    assert printed.count("every model has failed") == 1
    assert "Earliest back in 20 min" in printed


def test_the_table_counts_requests_messages_and_answers(printed):
    rows = [line.split() for line in printed.splitlines() if re.match(r"\s+[1-4]\s+\d\s", line)]

    assert [row[:6] for row in rows] == [
        ["1", "1", "1", "0", "1", "0"],
        ["2", "2", "1", "0", "1", "1"],
        ["3", "1", "1", "1", "1", "0"],
        ["4", "1", "0", "0", "1", "0"],
    ]
    assert all(row[-1] == "yes" for row in rows)


async def test_a_plugin_that_does_nothing_is_found_out(monkeypatch):
    """Without a chain nothing carries a turn on, and the demonstration must say so."""
    quick = StoryTurn(
        title="Refused for good",
        prompt="hi",
        scripts={"large": [Fail(401)], "medium": [Answer("hello")]},
        expected=Outcome(requests=(1, 1, 0), answers=("hello",)),
    )
    monkeypatch.setattr("fallback_plugin.testing.stages.RULES", Rules())
    async with FaultyProvider() as provider:
        chronicle = Chronicle(provider=provider, routes=ROUTES, tell=lambda happening: None)
        async with loopback_stage(chronicle) as stage:
            [report] = await perform(stage, chronicle, lambda number, turn: None, [quick])

    assert not report.is_right
    assert "requests: expected (1, 1, 0), saw (1, 0, 0)" in report.differences()


async def test_a_wrong_outcome_is_exit_code_1(monkeypatch):
    wrong = StoryTurn(
        title="Not what happens",
        prompt="hi",
        scripts={"large": [Answer("hello")]},
        expected=Outcome(requests=(0, 0, 1), answers=("hello",), last_roles=("user",)),
    )

    async def perform_wrong(stage, chronicle, on_turn):
        return await perform(stage, chronicle, on_turn, [wrong])

    monkeypatch.setattr("fallback_plugin.cli.demo.perform", perform_wrong)
    output = io.StringIO()
    timeline = Timeline(console=Console(file=output, width=120))
    code = await Demonstration(host=DemoHost.LOOPBACK, npm=None, timeline=timeline).run()

    text = output.getvalue()
    assert code == 1
    assert "turn 1: requests: expected (0, 0, 1), saw (1, 0, 0)" in text
    assert "Not every turn ended as it must." in text


def run_without_npm(tmp_path, *arguments):
    """As on a machine that has neither npm nor OpenCode."""
    (tmp_path / "package-lock.json").write_text("{}")
    (tmp_path / "sh").symlink_to(shutil.which("sh"))
    environment = {key: value for key, value in os.environ.items() if key != "FALLBACK_PLUGIN_OPENCODE"}
    return subprocess.run(
        [*DEMO, "--npm", str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**environment, "PATH": str(tmp_path)},
    )


def test_opencode_is_asked_for_and_not_there(tmp_path):
    done = run_without_npm(tmp_path, "--host", "opencode")

    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == "no OpenCode: there is no npm"
    assert done.stderr == ""


def test_without_opencode_the_loopback_host_does(tmp_path):
    done = run_without_npm(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not on the real OpenCode: there is no npm." in done.stdout.splitlines()
    assert done.stdout.rstrip().endswith("Every turn ended as it must.")


async def test_an_npm_that_fails_is_reported_with_its_words(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'no network, sorry' >&2\nexit 1\n")
    npm.chmod(0o755)
    (tmp_path / "package-lock.json").write_text("{}")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert await install_package(tmp_path, patience=20) == "npm ci failed: no network, sorry"
    assert not is_installed(tmp_path)


async def test_an_npm_that_hangs_is_given_up(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nexec sleep 60\n")
    npm.chmod(0o755)
    (tmp_path / "package-lock.json").write_text("{}")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    began = time.monotonic()

    assert await install_package(tmp_path, patience=0.5) == "npm ci was not done within 0.5 s"
    assert time.monotonic() - began < 10


async def test_npm_is_run_once(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho ran >> runs\nmkdir -p node_modules\necho '{}' > node_modules/.package-lock.json\n")
    npm.chmod(0o755)
    (tmp_path / "package-lock.json").write_text(json.dumps({}))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert [await install_package(tmp_path, patience=20) for _ in range(2)] == [None, None]
    assert (tmp_path / "runs").read_text() == "ran\n"
    assert is_installed(tmp_path)


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)],
    ids=["interrupted", "terminated", "both"],
)
def test_an_interruption_ends_it_cleanly(numbers):
    with subprocess.Popen(
        [*DEMO, "--host", "loopback"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while "asks" not in process.stdout.readline():
            assert process.poll() is None

        for number in numbers:
            process.send_signal(number)

        rest, errors = process.communicate(timeout=20)

    assert process.returncode == 130
    assert rest.rstrip().endswith("interrupted")
    assert errors == ""


def test_the_routes_are_of_different_providers():
    """One provider's quota takes its other models out as well; the story needs three."""
    assert len({route.partition("/")[0] for route in ROUTES.values()}) == len(ROUTES)
