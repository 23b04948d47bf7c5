"""The directories that an OpenCode process of a test works in."""

from __future__ import annotations

import json
import subprocess

from fallback_plugin.testing.opencode_workspace import Workspace


def test_a_project_under_git_and_an_empty_home():
    with Workspace({"model": "a/b"}, files={"src/main.py": "pass\n"}) as workspace:
        assert json.loads((workspace.project / "opencode.json").read_text()) == {"model": "a/b"}
        assert (workspace.project / "src" / "main.py").read_text() == "pass\n"
        status = ["git", "status", "--porcelain"]
        done = subprocess.run(status, cwd=workspace.project, capture_output=True, text=True, check=True)
        assert done.stdout == ""
        assert list(workspace.home.iterdir()) == []

    assert not workspace.root.exists()


def test_the_environment_is_its_own(monkeypatch):
    monkeypatch.setenv("OPENCODE_CONFIG", "of the user")
    with Workspace({}, environment={"MORE": "1", "OPENCODE_DISABLE_AUTOUPDATE": "0"}) as workspace:
        assert workspace.variables["HOME"] == str(workspace.home)
        assert workspace.variables["MORE"] == "1"
        assert workspace.variables["OPENCODE_DISABLE_AUTOUPDATE"] == "0"
        assert "OPENCODE_CONFIG" not in workspace.variables


def test_with_plugins_their_types_seem_installed():
    with Workspace({}, files={".opencode/plugin/it.js": "export {}\n"}) as workspace:
        for directory in (workspace.project / ".opencode", workspace.home / ".config" / "opencode"):
            lock = json.loads((directory / "package-lock.json").read_text())
            wanted = json.loads((directory / "package.json").read_text())["dependencies"]
            for name, version in wanted.items():
                package = json.loads((directory / "node_modules" / name / "package.json").read_text())
                assert package == {"name": name, "version": version}
                assert lock["packages"][f"node_modules/{name}"]["version"] == version
