"""The directories that one OpenCode process works in: a home and a git project of its own, in a temporary place.

It sees nothing of the user's configuration and fetches nothing from the network. On its start the host brings the
types that plugins are written against into every directory with plugins and into its own configuration directory:
from npm, and it waits for a registry that does not answer. Where there is one of the two, both
therefore hold what npm would have left there; any version will do.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_UNREACHABLE = "http://127.0.0.1:9/"
_TYPES = "@opencode-ai/plugin"
_VERSION = "0.0.0"


class Workspace:
    """A home and a project, as a context manager: there inside of it, gone afterwards.

    Args:
        config: what the project's opencode.json holds.
        files: more files of the project, path inside it to text (plugins, AGENTS.md).
        environment: more environment variables.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.root = Path()
        """What holds both directories; valid once entered."""
        self._files = {"opencode.json": json.dumps(config), "README.md": "A project.\n", **(files or {})}
        self._environment = dict(environment or {})
        self._stack = ExitStack()

    @property
    def project(self) -> Path:
        """The git directory."""
        return self.root / "project"

    @property
    def home(self) -> Path:
        """The home directory."""
        return self.root / "home"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables to start OpenCode with."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            # The host installs its plugin types in the background; from nowhere, so that no test waits for it.
            "npm_config_registry": _UNREACHABLE,
        } | self._environment

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # A killed host's children may still be writing there for a moment.
            directory = tempfile.TemporaryDirectory(prefix="opencode-", ignore_cleanup_errors=True)
            self.root = Path(stack.enter_context(directory))
            self._lay_out()
            self._stack = stack.pop_all()

        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _lay_out(self) -> None:
        self.home.mkdir()
        self.project.mkdir()
        _write(self.project, self._files)
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid"]
        for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "start"]):
            subprocess.run([*git, *command], cwd=self.project, env=self.variables, check=True)  # noqa: S603

        directories = (self.project / ".opencode", self.home / ".config" / "opencode")
        if any(directory.is_dir() for directory in directories):
            for directory in directories:
                _write(directory, _installed_types())


def _write(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _installed_types() -> dict[str, str]:
    wanted = {"dependencies": {_TYPES: _VERSION}}
    packages = {"": wanted, f"node_modules/{_TYPES}": {"version": _VERSION}}
    lock = {"name": "stub", "lockfileVersion": 3, "requires": True, "packages": packages}

    return {
        "package.json": json.dumps(wanted),
        "package-lock.json": json.dumps(lock),
        f"node_modules/{_TYPES}/package.json": json.dumps({"name": _TYPES, "version": _VERSION}),
    }
