"""Installing and removing: real files in a directory of the test's own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.config.load import ConfigSource, parse
from fallback_plugin.errors import InstallationError
from fallback_plugin.hosts.opencode.file_changes import Action, FileChange, carry_out
from fallback_plugin.hosts.opencode.installation import (
    MARK,
    bridge_command,
    command_of,
    configuration_text,
    plan_installation,
    plan_removal,
    plugin_text,
    project_place,
    user_place,
)

COMMAND = ["/opt/python", "-P", "-m", "fallback_plugin", "bridge"]
AWKWARD = [
    "/with space/python",
    "/quo'te\"s`/py",
    "C:\\Users\\né\\python.exe",
    "/日本語/🐍",
    "/a\u2028b\nc",
    "/$&/\\1/${x}",
    "/*/ // ]",
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    place = tmp_path / "home"
    place.mkdir()
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(place))

    for name in ("XDG_CONFIG_HOME", "OPENCODE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)

    return place


@pytest.fixture
def project(tmp_path):
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


def tree(root):
    """Everything under a directory: modes, contents, targets of links, and when files were written."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None,
            path.lstat().st_mtime_ns if path.is_file() else None,
        )
        for path in sorted(root.rglob("*"))
    }


def install(place, command=COMMAND):
    changes = plan_installation(place, command)
    carry_out(changes)
    return [change.action for change in changes]


def remove(place):
    changes = plan_removal(place)
    carry_out(changes)
    return [change.action for change in changes]


# ── the texts ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", AWKWARD)
def test_javascript_reads_the_command_as_it_was_given(tmp_path, path):
    command = [path, "-m", "fallback_plugin", "bridge"]
    text = plugin_text(command)
    file = tmp_path / "plugin.mjs"
    file.write_text(text, "utf-8")
    subprocess.run(["node", "--check", str(file)], check=True, timeout=30)
    [line] = re.findall(r"^const COMMAND = (.*)$", text, re.MULTILINE)
    script = "console.log(JSON.stringify(eval(process.argv[1])))"
    said = subprocess.run(["node", "-e", script, line], capture_output=True, check=True, timeout=30).stdout

    assert json.loads(said) == command
    assert text.startswith(MARK)


@given(st.lists(st.text(), min_size=1))
def test_a_command_is_read_back_from_the_file(command):
    assert command_of(plugin_text(command)) == command


@pytest.mark.parametrize(
    "line", ["", "const COMMAND = []", "const COMMAND = [1]", "const COMMAND = {", 'COMMAND = ["a"]']
)
def test_no_command_is_read_where_there_is_none(line):
    assert command_of(f"{MARK}\n{line}\n") is None


def test_the_command_is_this_interpreter_which_takes_no_module_from_the_project():
    assert bridge_command() == [sys.executable, "-P", "-m", "fallback_plugin", "bridge"]


def test_an_interpreter_that_javascript_could_not_name_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/py\udc80")
    with pytest.raises(InstallationError, match="UTF-8"):
        bridge_command()

    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(InstallationError, match="its own path"):
        bridge_command()


def test_the_configuration_loads_and_so_do_the_examples_in_it():
    settings, warnings = parse(configuration_text(), name="new", is_toml=False)
    examples = re.findall(r'^ *// +("\w+": .*?),?$', configuration_text(), re.MULTILINE)

    assert (settings.fallback_models, settings.on_unattributed_abort, warnings) == ((), "stop", ())
    assert len(examples) == 2
    assert parse(f"{{{examples[0]}}}", name="chain", is_toml=False)[0].fallback_models[0] == "openai/gpt-5.1"
    assert "build" in parse(f'{{"agents": {{{examples[1]}}}}}', name="agent", is_toml=False)[0].agents


# ── installing ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_project_gets_the_plugin_and_a_configuration_and_the_second_time_nothing(project):
    place = project_place(project)
    assert plan_installation(place, COMMAND)[1].action is Action.CREATE
    assert tree(project) == {}

    assert install(place) == [Action.CREATE, Action.CREATE]
    before = tree(project)
    assert set(before) == {
        ".opencode", ".opencode/opencode-fallback.jsonc", ".opencode/plugin", ".opencode/plugin/fallback-plugin.js"
    }  # fmt: skip
    assert (project / ".opencode/plugin/fallback-plugin.js").read_text("utf-8") == plugin_text(COMMAND)
    assert ConfigSource(directory=project).load().settings.on_unattributed_abort == "stop"

    assert install(place) == [Action.LEAVE, Action.LEAVE]
    assert tree(project) == before


def test_new_files_have_the_mode_that_the_umask_leaves(project):
    install(project_place(project))
    (project / "other").write_text("")
    expected = (project / "other").stat().st_mode
    for file in (project_place(project).plugin, project_place(project).configuration):
        assert file.stat().st_mode == expected


@pytest.mark.parametrize(
    "existing",
    [
        "project/.opencode/opencode-fallback.jsonc",
        "project/.opencode/opencode-fallback.json",
        "project/.opencode/opencode-fallback.toml",
        "home/.config/fallback-plugin/opencode-fallback.json",
        "home/.config/opencode/opencode-fallback.jsonc",
    ],
)
def test_a_configuration_in_force_is_left_alone_and_not_hidden_by_another(tmp_path, project, existing):
    file = tmp_path / existing
    file.parent.mkdir(parents=True)
    file.write_text("not even a configuration")

    assert install(project_place(project)) == [Action.LEAVE, Action.CREATE]
    assert file.read_text() == "not even a configuration"
    assert list(tmp_path.rglob("opencode-fallback*")) == [file]


def test_an_older_file_of_ours_is_replaced_and_keeps_its_mode(project):
    place = project_place(project)
    install(place, ["/old/python", "-m", "fallback_plugin", "bridge"])
    place.plugin.chmod(0o640)

    [_, change] = plan_installation(place, COMMAND)
    assert change.action is Action.REPLACE
    assert [line for line in change.difference() if line[0] in "+-"] == [
        f"--- {place.plugin} (now)",
        f"+++ {place.plugin} (then)",
        '-const COMMAND = ["/old/python", "-m", "fallback_plugin", "bridge"]',
        '+const COMMAND = ["/opt/python", "-P", "-m", "fallback_plugin", "bridge"]',
    ]
    carry_out([change])
    assert place.plugin.read_text("utf-8") == plugin_text(COMMAND)
    assert place.plugin.stat().st_mode & 0o777 == 0o640
    assert list(place.plugin.parent.iterdir()) == [place.plugin]


def test_a_long_difference_is_cut():
    change = FileChange(action=Action.REPLACE, path=Path("p"), reason="", before="a\n" * 500, after="b\n" * 500)
    assert len(change.difference()) == 61
    assert change.difference()[-1] == "… 943 more lines"


def test_for_all_projects_it_goes_where_opencode_keeps_its_own(home, tmp_path, monkeypatch):
    assert user_place().plugin == home / ".config/opencode/plugin/fallback-plugin.js"
    # OpenCode reads that directory beside its own, and only where the variable is set.
    monkeypatch.setenv("OPENCODE_CONFIG_DIR", str(tmp_path / "extra"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))

    assert install(user_place()) == [Action.CREATE, Action.CREATE]
    assert (tmp_path / "xdg/opencode/plugin/fallback-plugin.js").is_file()
    assert (home / ".config/opencode/opencode-fallback.jsonc").is_file()
    assert not (tmp_path / "extra").exists()
    assert ConfigSource(directory=tmp_path).load().path == home / ".config/opencode/opencode-fallback.jsonc"


def test_directories_of_the_user_may_be_links(home, tmp_path):
    (tmp_path / "dotfiles").mkdir()
    (home / ".config").symlink_to(tmp_path / "dotfiles")
    install(user_place())

    assert (tmp_path / "dotfiles/opencode/plugin/fallback-plugin.js").is_file()


# ── what is not ours ─────────────────────────────────────────────────────────────────────────────────────────────


def text_file(path):
    path.write_text("export const Mine = async () => ({})\n")


def empty_file(path):
    path.write_text("")


def bytes_file(path):
    path.write_bytes(b"\xff\xfe")


def mark_further_down(path):
    path.write_text("\n" + plugin_text(COMMAND), "utf-8")


def link_to_ours(path):
    target = path.parent / "elsewhere.txt"
    target.write_text(plugin_text(COMMAND), "utf-8")
    path.symlink_to(target)


def link_to_nowhere(path):
    path.symlink_to("nowhere")


def directory(path):
    path.mkdir()


@pytest.mark.parametrize(
    "make", [text_file, empty_file, bytes_file, mark_further_down, link_to_ours, link_to_nowhere, directory]
)
def test_a_file_that_is_not_ours_is_refused_and_nothing_is_changed(project, make):
    place = project_place(project)
    place.plugin.parent.mkdir(parents=True)
    make(place.plugin)
    before = tree(project)

    for plan in (lambda: plan_installation(place, COMMAND), lambda: plan_removal(place)):
        with pytest.raises(InstallationError, match=re.escape(str(place.plugin))):
            plan()
    assert tree(project) == before


def file_for_root(project):
    (project / ".opencode").write_text("")


def file_for_plugins(project):
    (project / ".opencode").mkdir()
    (project / ".opencode/plugin").write_text("")


def link_for_root(project):
    (project.parent / "shared").mkdir()
    (project / ".opencode").symlink_to(project.parent / "shared")


def link_for_plugins(project):
    (project.parent / "shared").mkdir()
    (project / ".opencode").mkdir()
    (project / ".opencode/plugin").symlink_to(project.parent / "shared")


def dangling_root(project):
    (project / ".opencode").symlink_to("nowhere")


@pytest.mark.parametrize("make", [file_for_root, file_for_plugins, link_for_root, link_for_plugins, dangling_root])
def test_what_is_in_the_way_is_named_and_nothing_is_changed(project, make):
    make(project)
    before = tree(project.parent)
    with pytest.raises(InstallationError, match=r"\.opencode.*nothing was changed"):
        plan_installation(project_place(project), COMMAND)

    assert tree(project.parent) == before


def test_a_project_must_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallationError, match="file: not a directory"):
        project_place(tmp_path / "file")
    with pytest.raises(InstallationError, match="none: no such directory"):
        project_place(tmp_path / "none")


# ── all or nothing ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_done_is_undone_when_a_later_change_fails(project):
    (project / "replaced").write_text("old")
    (project / "replaced").chmod(0o600)
    (project / "removed").write_text("kept")
    (project / "removed").chmod(0o640)
    (project / "file").write_text("")
    before = {path: facts[:2] for path, facts in tree(project).items()}
    changes = [
        FileChange(action=Action.CREATE, path=project / "a/b/new", reason="", after="new"),
        FileChange(action=Action.REPLACE, path=project / "replaced", reason="", before="old", after="new"),
        FileChange(action=Action.REMOVE, path=project / "removed", reason="", before="kept", leftovers=(project,)),
        FileChange(action=Action.CREATE, path=project / "file/below/x", reason="", after="never"),
    ]
    with pytest.raises(InstallationError, match="file/below: Not a directory; nothing was changed"):
        carry_out(changes)

    assert {path: facts[:2] for path, facts in tree(project).items()} == before


@pytest.mark.parametrize("planned", ["create", "replace", "remove"])
def test_what_somebody_else_wrote_meanwhile_stays(project, planned):
    place = project_place(project)
    if planned != "create":
        install(place, ["/old/python"])
    changes = plan_removal(place) if planned == "remove" else plan_installation(place, COMMAND)
    place.plugin.parent.mkdir(parents=True, exist_ok=True)
    place.plugin.write_text(f"{MARK} theirs")
    before = {path: facts[:2] for path, facts in tree(project).items()}

    with pytest.raises(InstallationError, match="meanwhile"):
        carry_out(changes)
    assert {path: facts[:2] for path, facts in tree(project).items()} == before


# ── removing ─────────────────────────────────────────────────────────────────────────────────────────────────────


def nothing(project):
    pass


def other_files(project):
    (project / ".opencode").mkdir()
    (project / ".opencode/opencode.json").write_text("{}")
    (project / ".opencode/agent").mkdir()


def other_plugins(project):
    (project / ".opencode/plugin").mkdir(parents=True)
    (project / ".opencode/plugin/mine.js").write_text("export {}")


def own_configuration(project):
    (project / ".opencode/plugin").mkdir(parents=True)
    (project / ".opencode/opencode-fallback.json").write_text("{}")
    (project / ".opencode/plugin/mine.js").write_text("export {}")


@pytest.mark.parametrize("make", [nothing, other_files, other_plugins, own_configuration])
def test_removing_leaves_the_tree_as_it_was_before_installing(project, make):
    make(project)
    before = tree(project)
    install(project_place(project))
    assert tree(project) != before

    remove(project_place(project))
    assert tree(project) == before
    assert remove(project_place(project))[0] is Action.LEAVE
    assert tree(project) == before


def test_removing_for_all_projects_leaves_the_home_as_it_was(home):
    (home / ".config").mkdir()
    before = tree(home)
    install(user_place())
    remove(user_place())

    assert tree(home) == before


def test_a_configuration_that_was_changed_stays(project):
    place = project_place(project)
    install(place)
    place.configuration.write_text(configuration_text() + "\n")

    assert remove(place) == [Action.REMOVE, Action.LEAVE]
    assert set(tree(project)) == {".opencode", ".opencode/opencode-fallback.jsonc"}
