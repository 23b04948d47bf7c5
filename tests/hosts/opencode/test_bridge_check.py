"""Commands that do not do what a bridge does, as real processes."""

from __future__ import annotations

import sys
import venv

import pytest

from fallback_plugin import __version__
from fallback_plugin.hosts.opencode import bridge_check
from fallback_plugin.hosts.opencode.bridge_check import check_command, check_round_trip
from fallback_plugin.hosts.opencode.finding import Grade
from fallback_plugin.hosts.opencode.installation import bridge_command

ANSWER = '{"jsonrpc":"2.0","id":1,"result":{}}'


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FALLBACK_PLUGIN_HOME", str(tmp_path / "state"))


def script(text):
    return [sys.executable, "-c", text]


async def test_the_bridge_answers_also_where_the_project_has_modules_with_pythons_names(tmp_path):
    for name in ("json", "logging", "anyio", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the project')")

    interpreter, trip = await check_command(bridge_command(), tmp_path)
    assert (interpreter.grade, interpreter.text) == (Grade.OK, f"{sys.executable} has version {__version__}")
    assert trip.grade is Grade.OK, trip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit('no luck')", "ended without an answer: no luck"),
        ("pass", "ended without an answer: it said nothing"),
        ("print('hello'); input(); input()", "something that is not JSON-RPC"),
        ("""print('{"id": 1}')""", "something that is not JSON-RPC"),
        ("print('x' * 100000)", "ended without an answer"),
    ],
)
async def test_what_does_not_answer_is_told(tmp_path, text, said):
    finding = await check_round_trip(script(text), tmp_path)

    assert finding.grade is Grade.FAIL
    assert said in finding.text
    assert "install opencode" in finding.remedy


async def test_what_is_silent_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(bridge_check, "ANSWER_PATIENCE", 0.3)
    finding = await check_round_trip(script("import time; time.sleep(60)"), tmp_path)

    assert (finding.grade, finding.text) == (Grade.FAIL, "the bridge did not answer within 0.3 s")


async def test_what_outlives_its_stdin_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(bridge_check, "END_PATIENCE", 0.3)
    text = f"import time; print({ANSWER!r}, flush=True); time.sleep(60)"
    finding = await check_round_trip(script(text), tmp_path)

    assert finding.grade is Grade.FAIL
    assert "did not end within 0.3 s" in finding.text


async def test_an_interpreter_without_the_package(tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python = str(tmp_path / "bare/bin/python")

    [finding] = await check_command([python, *bridge_command()[1:]], tmp_path)
    assert finding.grade is Grade.FAIL
    assert "can't import fallback_plugin: ModuleNotFoundError" in finding.text


async def test_an_interpreter_with_another_version(tmp_path, monkeypatch):
    (tmp_path / "old/fallback_plugin").mkdir(parents=True)
    (tmp_path / "old/fallback_plugin/__init__.py").write_text("__version__ = '0.0.9'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "old"))

    interpreter, trip = await check_command(bridge_command(), tmp_path)
    assert interpreter.grade is Grade.WARN
    assert f"has version 0.0.9, this is {__version__}" in interpreter.text
    assert trip.grade is Grade.FAIL


@pytest.fixture(params=["missing", "not executable", "a directory"])
def unfit(request, tmp_path):
    python = tmp_path / "python"
    if request.param == "not executable":
        python.write_text("")
    elif request.param == "a directory":
        python.mkdir()

    return str(python), "is not there" if request.param == "missing" else "can't be executed"


async def test_an_interpreter_that_cannot_be_run(tmp_path, unfit):
    python, wrong = unfit
    [finding] = await check_command([python, *bridge_command()[1:]], tmp_path)

    assert (finding.grade, finding.text) == (Grade.FAIL, f"{python} {wrong}")
