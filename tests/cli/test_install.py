"""`fallback-plugin install` and `uninstall` as processes: what they say, their exit codes, a disk that is full."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from fallback_plugin.hosts.opencode.installation import MARK, configuration_text


@pytest.fixture
def project(tmp_path):
    directory = tmp_path / "a 'quoted' \"project\""
    directory.mkdir()
    return directory


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "home").mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OPENCODE", "XDG"))}
    return {**kept, "HOME": str(tmp_path / "home")}


@pytest.fixture
def run(project, environment):
    def start(*arguments, file_bytes=None, **variables):
        def limit():
            if file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

        return subprocess.run(
            [sys.executable, "-m", "fallback_plugin", *map(str, arguments)],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
            cwd=project,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1", **variables},
            preexec_fn=limit,
        )

    return start


def names(root):
    return {str(path.relative_to(root)) for path in root.rglob("*")}


ALL = {".opencode", ".opencode/opencode-fallback.jsonc", ".opencode/plugin", ".opencode/plugin/fallback-plugin.js"}


def test_a_dry_run_says_what_would_change_and_changes_nothing(run, project, tmp_path):
    done = run("install", "opencode", "--dry-run")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"would create {project}/.opencode/opencode-fallback.jsonc: a configuration to put your models into",
        f"would create {project}/.opencode/plugin/fallback-plugin.js: OpenCode loads it when it starts",
    ]
    assert names(project) == set()
    assert names(tmp_path / "home") == set()


def test_installed_twice_and_removed_twice(run, project):
    first = run("install", "opencode", "--directory", project)
    assert (first.returncode, first.stderr) == (0, "")
    assert [line.split()[0] for line in first.stdout.splitlines()[:2]] == ["created", "created"]
    assert f"Put your models into {project}/.opencode/opencode-fallback.jsonc." in first.stdout
    assert names(project) == ALL

    again = run("install", "opencode")
    assert again.returncode == 0
    assert [line.split(" ")[:2] for line in again.stdout.splitlines()] == [["left", "alone"]] * 2

    would = run("uninstall", "opencode", "--dry-run")
    assert [line.split(" ")[:2] for line in would.stdout.splitlines()] == [["would", "remove"]] * 2
    assert names(project) == ALL

    removed = run("uninstall", "opencode")
    assert (removed.returncode, removed.stderr) == (0, "")
    assert [line.split()[0] for line in removed.stdout.splitlines()] == ["removed", "removed"]
    assert names(project) == set()

    nothing = run("uninstall", "opencode")
    assert (nothing.returncode, nothing.stderr) == (0, "")
    assert nothing.stdout == f"left alone {project}/.opencode/plugin/fallback-plugin.js: not installed\n"


def test_for_all_projects(run, project, tmp_path):
    assert run("install", "opencode", "--global").returncode == 0
    assert names(project) == set()
    assert (tmp_path / "home/.config/opencode/plugin/fallback-plugin.js").is_file()
    assert (tmp_path / "home/.config/opencode/opencode-fallback.jsonc").read_text("utf-8") == configuration_text()

    assert run("uninstall", "opencode", "--global").returncode == 0
    assert names(tmp_path / "home") == {".config"}


def test_a_changed_configuration_stays_and_it_says_so(run, project):
    run("install", "opencode")
    configuration = project / ".opencode/opencode-fallback.jsonc"
    configuration.write_text('{"fallback_models": ["a/b"]}')
    done = run("uninstall", "opencode")

    assert done.returncode == 0
    assert f"left alone {configuration}: your configuration" in done.stdout
    assert names(project) == {".opencode", ".opencode/opencode-fallback.jsonc"}


def test_a_replacement_is_shown_as_a_difference_that_cannot_steer_the_terminal(run, project):
    run("install", "opencode")
    plugin = project / ".opencode/plugin/fallback-plugin.js"
    written = plugin.read_text("utf-8")
    plugin.write_text(written.replace("const COMMAND", "\x1b[2Jold()\nconst COMMAND"), "utf-8")
    would = run("install", "opencode", "--dry-run")
    done = run("install", "opencode", PYTHONIOENCODING="ascii")

    assert "would replace" in would.stdout
    assert "  -\ufffd[2Jold()" in would.stdout.splitlines()
    assert "\x1b" not in would.stdout + done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert plugin.read_text("utf-8") == written


def test_a_foreign_file_is_refused_with_exit_2_and_nothing_is_written(run, project):
    plugin = project / ".opencode/plugin/fallback-plugin.js"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("// mine")
    for verb in ("install", "uninstall"):
        done = run(verb, "opencode")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"{plugin} was not written by fallback-plugin: move it away and try again; nothing was changed\n"
        )

    assert names(project) == ALL - {".opencode/opencode-fallback.jsonc"}
    assert plugin.read_text() == "// mine"


def test_a_full_disk_leaves_nothing_half_done(run, project):
    limit = 4096
    assert len(configuration_text()) < limit
    done = run("install", "opencode", file_bytes=limit)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{project}/.opencode/plugin/fallback-plugin.js: File too large; nothing was changed\n"
    assert names(project) == set()


def test_a_full_disk_leaves_the_older_file_of_ours(run, project):
    plugin = project / ".opencode/plugin/fallback-plugin.js"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(f"{MARK} older")
    done = run("install", "opencode", file_bytes=4096)

    assert done.returncode == 2
    assert names(project) == ALL - {".opencode/opencode-fallback.jsonc"}
    assert plugin.read_text() == f"{MARK} older"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["claude"], "no host is known by the name 'claude'; there is: opencode\n"),
        (["opencode", "--global", "--directory", "."], "--global is for all projects, --directory for one"),
        (["opencode", "--directory", "none"], "none: no such directory; nothing was changed\n"),
        ([], "HOST"),
        (["opencode", "--no-such-option"], "--no-such-option"),
    ],
)
@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_bad_input_is_told_with_exit_2(run, project, verb, arguments, said):
    done = run(verb, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert names(project) == set()
