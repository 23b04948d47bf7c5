"""`fallback-plugin doctor` on real files, a real store, a real bridge process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from fallback_plugin.cli.doctor import doctor_command
from fallback_plugin.hosts.opencode.file_changes import carry_out
from fallback_plugin.hosts.opencode.installation import (
    MARK,
    bridge_command,
    plan_installation,
    plugin_text,
    project_place,
    user_place,
)

CHAIN = '{"fallback_models": ["north/large", "south/medium"]}'


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def project(tmp_path):
    directory = tmp_path / "project"
    (directory / ".git").mkdir(parents=True)
    return directory


@pytest.fixture(autouse=True)
def environment(tmp_path, state, monkeypatch):
    """A home of its own, and an `opencode` on PATH that says a version."""
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    for name in ("XDG_CONFIG_HOME", "OPENCODE_CONFIG_DIR", "OPENCODE_PURE", "OPENCODE_DISABLE_PROJECT_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setenv("FALLBACK_PLUGIN_HOME", str(state))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    says(tmp_path, "1.18.33")


def says(tmp_path, version, code=0):
    binary = tmp_path / "bin/opencode"
    binary.write_text(f"#!/bin/sh\necho {version}\nexit {code}\n")
    binary.chmod(0o755)


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(doctor_command)

    def start(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)))

    return start


@pytest.fixture
def examine(run, project):
    """Runs it with --json: the exit code, and for each check its findings as (grade, text, remedy)."""

    def start(*arguments):
        result = run("--directory", project, "--json", *arguments)
        findings = {}
        for line in result.stdout.splitlines():
            finding = json.loads(line)
            findings.setdefault(finding["check"], []).append((finding["grade"], finding["text"], finding["remedy"]))

        return result.exit_code, findings

    return start


def install(place):
    carry_out(plan_installation(place, bridge_command()))
    return place.plugin


def configure(project, text):
    file = project / ".opencode/opencode-fallback.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_all_is_well(run, project, state, tmp_path):
    file = configure(project, CHAIN)
    plugin = install(project_place(project))
    result = run("--directory", project)

    lines = result.stdout.splitlines()
    assert (result.exit_code, lines[-1]) == (0, "Everything works."), result.output
    assert [line.split("  ")[0] for line in lines[:-1]] == ["ok"] * 7
    assert f"{file} in force" in lines[1]
    assert f"{state / 'state.db'}: opened, written, read" in lines[2]
    assert f"{plugin} is up to date" in lines[3]
    assert f"{sys.executable} has version" in lines[4]
    assert "the bridge answered within" in lines[5]
    assert f"{tmp_path / 'bin/opencode'} is 1.18.33" in lines[6]
    assert (state / "state.db").stat().st_mode & 0o777 == 0o600
    assert (state / "bridge.log").stat().st_mode & 0o777 == 0o600


def test_what_is_freshly_installed_wants_a_chain(examine, project):
    install(project_place(project))
    code, findings = examine()

    assert code == 0
    assert [grade for grade, *_ in findings["configuration"]] == ["ok", "warn"]
    assert "opencode-fallback.jsonc" in findings["configuration"][1][2]


def test_a_plugin_that_is_switched_off_is_told(examine, project):
    configure(project, '{"enabled": false, "fallback_models": ["a/b"]}')
    assert [grade for grade, *_ in examine()[1]["configuration"]] == ["ok", "warn"]


def test_nothing_installed_is_broken_but_for_who_attaches(examine, project, loopback):
    configure(project, CHAIN)
    code, findings = examine()
    assert code == 1
    [(grade, text, remedy)] = findings["plugin"]
    assert (grade, text) == ("fail", f"not installed for {project}, nor for all projects")
    assert "fallback-plugin install opencode" in remedy

    code, findings = examine("--url", loopback.url)
    assert code == 0
    assert findings["plugin"][0][0] == "warn"
    assert findings["server"] == [("ok", f"{loopback.url} offers what is needed", "")]


def test_a_server_that_is_down_is_broken(examine, project, run):
    install(project_place(project))
    code, findings = examine("--url", "http://127.0.0.1:9")
    assert (code, findings["server"][0][0]) == (1, "fail")

    result = run("--directory", project, "--url", "http://opencode:geheim@127.0.0.1:9")
    assert result.exit_code == 1
    assert "geheim" not in result.output


def test_a_broken_configuration_is_told_with_its_place(run, project):
    file = configure(project, '{\n  "fallback_model": "geheim/x",\n  "timeout_seconds": "30"\n}')
    install(project_place(project))
    result = run("--directory", project)

    assert result.exit_code == 1
    assert f"{file}:2:3: fallback_model: " in result.stdout
    assert f"{file}:3:22: timeout_seconds: " in result.stdout
    assert result.stdout.splitlines()[-1] == "1 broken, 0 doubtful"


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("redis://user:geheim@127.0.0.1:9/0", ""),
        ("nonsense://geheim", "nonsense"),
        ("sqlite:///dev/null/x.db", ""),
    ],
)
def test_a_broken_store_is_told_without_its_url(examine, project, store, said):
    configure(project, json.dumps({"store": store, "fallback_models": ["a/b"]}))
    code, findings = examine()
    [(grade, text, remedy)] = findings["store"]

    assert (code, grade) == (1, "fail")
    assert said in text
    assert '"store"' in remedy
    assert "geheim" not in json.dumps(findings)


def test_a_store_in_memory_works(examine, project):
    configure(project, json.dumps({"store": "memory://", "fallback_models": ["a/b"]}))
    assert examine()[1]["store"] == [("ok", "memory: opened, written, read", "")]


def test_files_that_others_may_read_are_told(examine, state):
    log = state / "bridge.log"
    state.mkdir()
    log.touch()
    log.chmod(0o644)
    code, findings = examine()

    assert code == 1
    assert findings["log"] == [("fail", f"{log} is open to others (mode 0644)", f"chmod 600 {log}")]


def test_a_bridge_that_starts_makes_its_log_its_owners_alone(examine, state, project):
    install(project_place(project))
    log = state / "bridge.log"
    state.mkdir()
    log.touch()
    log.chmod(0o644)
    _, findings = examine()

    assert "log" not in findings
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_not_ours_is_told(examine, project):
    plugin = project_place(project).plugin
    plugin.parent.mkdir(parents=True)
    plugin.write_text("// mine")
    code, findings = examine()

    assert code == 1
    assert findings["plugin"] == [
        (
            "fail",
            f"{plugin} is not ours",
            f"move it away, then `fallback-plugin install opencode --directory {project}`",
        )
    ]


def test_a_file_of_another_version_is_doubtful_and_its_bridge_is_tried(examine, project):
    plugin = install(project_place(project))
    plugin.write_text(plugin.read_text("utf-8").replace("const WAIT = 250", "const WAIT = 251"), "utf-8")
    code, findings = examine()

    assert code == 0
    assert findings["plugin"][0][0] == "warn"
    assert findings["plugin"][0][2] == f"`fallback-plugin install opencode --directory {project}`"
    assert findings["round trip"][0][0] == "ok"


def test_a_command_that_install_does_not_write_is_not_started(examine, project, tmp_path):
    plugin = install(project_place(project))
    plugin.write_text(plugin_text(["/bin/sh", "-c", f"touch {tmp_path / 'started'}"]), "utf-8")
    code, findings = examine()

    assert (code, findings["plugin"][0][0]) == (1, "fail")
    assert "it was not started" in findings["plugin"][0][1]
    assert not (tmp_path / "started").exists()
    assert "round trip" not in findings


@pytest.mark.parametrize("text", [f"{MARK}\n", f"{MARK}\nconst COMMAND = [\n"])
def test_a_file_of_ours_without_a_command_is_told(examine, project, text):
    install(project_place(project)).write_text(text, "utf-8")
    code, findings = examine()

    assert (code, findings["plugin"][0][0]) == (1, "fail")


def test_an_interpreter_that_is_gone_is_told(examine, project):
    plugin = install(project_place(project))
    plugin.write_text(plugin_text(["/none/python", *bridge_command()[1:]]), "utf-8")
    code, findings = examine()

    assert code == 1
    [(grade, text, remedy)] = findings["interpreter"]
    assert (grade, text) == ("fail", "/none/python is not there")
    assert "fallback-plugin install opencode" in remedy


def test_installed_twice_is_noted_and_both_are_looked_at(examine, project):
    for_all, for_one = install(user_place()), install(project_place(project))
    code, findings = examine()

    assert code == 0
    assert [text for _, text, _ in findings["plugin"]] == [
        f"{for_all} is up to date",
        f"{for_one} is up to date",
        f"installed 2 times: OpenCode loads all, {for_all} first, and the first is used",
    ]
    assert len(findings["round trip"]) == 1


def test_it_looks_where_opencode_looks(run, project, tmp_path, monkeypatch):
    """Above the directory up to the repository's top, in the home, and in $OPENCODE_CONFIG_DIR."""
    outside = install(project_place(tmp_path))
    above = install(project_place(project))
    in_home = install(project_place(tmp_path / "home"))
    extra = tmp_path / "extra/plugins/fallback-plugin.js"
    extra.parent.mkdir(parents=True)
    extra.write_text(plugin_text(bridge_command()), "utf-8")
    monkeypatch.setenv("OPENCODE_CONFIG_DIR", str(tmp_path / "extra"))
    (project / "below").mkdir()

    said = run("--directory", project / "below").stdout
    assert [str(file) in said for file in (outside, above, in_home, extra)] == [False, True, True, True]
    assert said.index(str(above)) < said.index(str(in_home)) < said.index(str(extra))

    monkeypatch.setenv("OPENCODE_DISABLE_PROJECT_CONFIG", "1")
    said = run("--directory", project / "below").stdout
    assert f"{above} is" not in said
    assert "OPENCODE_DISABLE_PROJECT_CONFIG is set" in said


def test_an_opencode_without_plugins_is_told(examine, project, monkeypatch):
    install(project_place(project))
    monkeypatch.setenv("OPENCODE_PURE", "true")
    code, findings = examine()

    assert code == 1
    assert findings["environment"] == [
        ("fail", "OPENCODE_PURE is set: OpenCode loads no plugins", "unset OPENCODE_PURE")
    ]


@pytest.mark.parametrize(
    ("version", "code", "grade", "said"),
    [
        ("1.18.33", 0, "ok", "is 1.18.33"),
        ("v1.19.0-beta", 0, "ok", "is 1.19.0"),
        ("1.18.9", 0, "warn", "is 1.18.9, older than 1.18.33"),
        ("nonsense", 0, "warn", "does not say its version"),
        ("1.18.33", 3, "warn", "does not say its version"),
    ],
)
def test_the_version_of_opencode(examine, tmp_path, version, code, grade, said):
    says(tmp_path, version, code)
    [(found, text, _)] = examine()[1]["opencode"]

    assert found == grade
    assert said in text


def test_no_opencode_on_the_path_is_doubtful(examine, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    [(grade, text, _)] = examine()[1]["opencode"]

    assert (grade, text) == ("warn", "no `opencode` is on PATH")


def test_warnings_of_the_bridge_are_shown_those_of_old_are_not(run, examine, project, state):
    configure(project, CHAIN)
    install(project_place(project))
    state.mkdir(mode=0o700)
    (state / "bridge.log").touch(0o600)
    old = {"at": "2020-01-01T00:00:00.000+00:00", "pid": 1, "level": "warning", "text": "long ago"}
    (state / "bridge.log").write_text(f"half a line\n[]\n{json.dumps(old)}\n")
    assert "log" not in examine()[1]

    broken = '{"jsonrpc":"2.0","method":"event","params":{"text":"geheim"}}\n'
    subprocess.run(bridge_command(), input=broken * 7, text=True, timeout=30, check=True, cwd=project)
    result = run("--directory", project)
    shown = result.stdout.split("  log")[1].splitlines()

    assert result.exit_code == 0
    assert f"7 warnings of the last day in {state / 'bridge.log'}" in shown[0]
    assert ["event could not be handled: KeyError" in line for line in shown[1:6]] == [True] * 5
    assert "long ago" not in result.stdout
    assert "geheim" not in result.stdout


def test_a_full_log_is_followed_by_one_that_is_its_owners_alone(project, state):
    state.mkdir(mode=0o700)
    log = state / "bridge.log"
    log.touch(0o600)
    log.write_text(f"{'x' * 1024}\n" * 1024)
    line = '{"jsonrpc":"2.0","method":"event","params":{}}\n'
    subprocess.run(bridge_command(), input=line, text=True, timeout=30, check=True, cwd=project)

    assert (state / "bridge.log.1").is_file()
    assert log.stat().st_mode & 0o777 == 0o600
    assert json.loads(log.read_text())["level"] == "warning"


def test_a_directory_that_is_not_there_is_exit_2(run, tmp_path):
    result = run("--directory", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (2, "")
