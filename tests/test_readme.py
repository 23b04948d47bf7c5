"""What README.md says holds: its configuration, its table, its commands, its lines of output, its links."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fallback_plugin.cli import attach, check, classify, demo, doctor, explain, install
from fallback_plugin.config.load import parse
from fallback_plugin.config.rules import to_rules
from fallback_plugin.config.schema import Settings
from fallback_plugin.core.actions import Announce, NoticeType, RouteFailure
from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.runtime.observe import as_record, describe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
VERBS = {
    "attach": attach.attach_command,
    "check": check.check_command,
    "classify": classify.classify_command,
    "demo": demo.demo_command,
    "doctor": doctor.doctor_command,
    "explain": explain.explain_command,
    "install": install.install_command,
    "uninstall": install.uninstall_command,
}
HOUR = 3600.0


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [block for spoken, block in found if spoken == language]


def rows(heading):
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [row for row in cells if set("".join(row)) - set("-")]


def failure(kind, retry_at=None):
    return Failure(kind=kind, scope=Scope.MODEL, should_fallback=True, retry_at=retry_at)


def commands():
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("fallback-plugin ")]


def test_the_configuration_is_of_twelve_lines_and_loads():
    [block] = blocks("jsonc")
    settings, warnings = parse(block, name="README.md", is_toml=False)
    rules = to_rules(settings)

    assert len(block.splitlines()) == 12
    assert warnings == ()
    assert rules.policy("build").chain == ("anthropic/claude-sonnet-4-5", "openai/gpt-5.1")
    assert rules.policy("build").timeout_seconds == 60
    assert rules.policy("plan").chain == ("openai/gpt-5.1", "openrouter/deepseek/deepseek-chat")


def test_the_table_of_keys_holds_every_key_with_its_default():
    said = {row[0].strip("`"): json.loads(row[1].strip("`")) for row in rows("Configuration")[1:]}
    defaults = Settings().model_dump(mode="json", exclude={"schema_url"})

    assert {**defaults, "retry_on_errors": sorted(defaults["retry_on_errors"])} == said


@pytest.mark.parametrize("command", commands())
def test_a_command_exists_with_its_options(command):
    verb, *rest = re.findall(r"[\w./:-]+", command.removeprefix("fallback-plugin "))
    parameters = inspect.signature(VERBS[verb], eval_str=True).parameters.values()
    declared = {
        name
        for parameter in parameters
        for about in getattr(parameter.annotation, "__metadata__", ())
        for name in (getattr(about, "default", None), *(getattr(about, "param_decls", None) or ()))
    }

    assert {word for word in rest if word.startswith("--")} <= declared


def test_the_verbs_are_those_of_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "fallback_plugin", "--help"], capture_output=True, text=True, timeout=30, check=False
    )
    listed = set(re.findall(r"^[│\s]+([a-z]+)  ", done.stdout, re.MULTILINE))

    assert done.returncode == 0
    assert {command.split()[1] for command in commands()} == listed == set(VERBS)


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE))

    assert {"demo", "test"} <= named <= targets


def test_ci_runs_what_the_readme_names():
    script = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()

    assert [line for line in script if line.startswith("make ")] == ["make lint", "make test"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_lines_of_output_are_the_ones_printed():
    quota = failure(Kind.QUOTA_EXHAUSTED, 3 * HOUR)
    routes = {"session_id": "ses_1", "route": "north/large", "next_route": "south/medium", "failure": quota}
    out = (
        RouteFailure(route="north/large", failure=failure(Kind.RATE_LIMIT, 3 * HOUR)),
        RouteFailure(route="south/medium", failure=failure(Kind.OVERLOADED)),
    )
    notices = [
        Announce(notice=NoticeType.FAILURE, **routes),
        Announce(notice=NoticeType.HOP, **routes),
        Announce(session_id="ses_1", notice=NoticeType.RECOVERED, route="south/medium", detail="answered"),
        Announce(session_id="ses_2", notice=NoticeType.EXHAUSTED, failures=out, returns_at=60.0),
    ]
    [block] = [block for block in blocks("") if "ses_1" in block]

    assert [line.split("  ", 1)[1] for line in block.splitlines()] == [
        f"{notice.session_id}  {describe(notice, 0.0)}" for notice in notices
    ]


def test_the_keys_of_the_json_lines_are_named():
    full = Announce(
        session_id="ses_1",
        notice=NoticeType.EXHAUSTED,
        failure=failure(Kind.OVERLOADED),
        failures=(RouteFailure(route="north/large", failure=failure(Kind.OVERLOADED)),),
        returns_at=60.0,
        detail="noModels",
    )
    record = as_record(full, 0.0)
    named = set(re.findall(r"`(\w+)`", README.split("With `--json`")[1].split("\n\n")[0]))

    assert named - {"at"} == {*record, *record["failure"]}
    for notice in NoticeType:
        assert notice.value in README


def test_exit_codes_are_those_of_the_commands():
    codes = {int(row[0]) for row in rows("Commands")[1:]}

    assert codes == {
        0,
        classify.EXIT_BAD_LINE,
        demo.EXIT_WRONG_OUTCOME,
        doctor.EXIT_BROKEN,
        check.EXIT_BAD_CONFIGURATION,
        install.EXIT_REFUSED,
        attach.EXIT_NO_SERVER,
        demo.EXIT_INTERRUPTED,
    }


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "examples/opencode/README.md"])
def test_links_into_the_tree_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
