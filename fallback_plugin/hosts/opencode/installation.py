"""The files that make OpenCode load us, and where they go.

OpenCode 1.18.33 loads every .js file of `plugin/` (or `plugins/`) in these directories, in this order:

    $XDG_CONFIG_HOME/opencode, else ~/.config/opencode        always: the place of `--global`
    .opencode of the directory it is started in, and of those above it up to the top of the git repository
    ~/.opencode
    $OPENCODE_CONFIG_DIR                                      beside the others, not in their stead

A file there is ours if it begins with `MARK`, and is a file: we write no symbolic links.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import cast

from fallback_plugin.config.load import candidate_paths, user_paths
from fallback_plugin.errors import InstallationError
from fallback_plugin.hosts.opencode.file_changes import Action, FileChange, read_file, refusing

PLUGIN_NAME = "fallback-plugin.js"
CONFIGURATION_NAME = "opencode-fallback.jsonc"
MARK = "// fallback-plugin for OpenCode:"
"""How every plugin file of ours begins."""
_COMMAND = re.compile(r"^const COMMAND = (.*)$", re.MULTILINE)


def plugin_text(command: list[str]) -> str:
    """The JavaScript file for one interpreter.

    Args:
        command: what starts the bridge, such as that of `bridge_command`.
    """
    line = f"const COMMAND = {json.dumps(command)}"
    return _COMMAND.sub(lambda _: line, _packaged("plugin.js"), count=1)


def command_of(text: str) -> list[str] | None:
    """The command in a plugin file; None if there is none that could be one."""
    found = _COMMAND.search(text)
    try:
        command: object = json.loads(found[1]) if found else None
    except ValueError:
        return None

    if not isinstance(command, list) or not command:
        return None

    words = cast("list[object]", command)
    return [word for word in words if isinstance(word, str)] if all(isinstance(word, str) for word in words) else None


def configuration_text() -> str:
    """The configuration of a user who has none: commented, with an empty chain."""
    return _packaged(CONFIGURATION_NAME)


def _packaged(name: str) -> str:
    return files("fallback_plugin.hosts.opencode").joinpath(name).read_text(encoding="utf-8")


def bridge_command() -> list[str]:
    """What starts the bridge with this interpreter.

    Raises:
        InstallationError: the interpreter has no path that JavaScript could name.
    """
    try:
        sys.executable.encode()
    except UnicodeEncodeError:
        raise InstallationError("the interpreter's path is not UTF-8: install into another environment") from None

    if not sys.executable:
        raise InstallationError("the interpreter does not know its own path: run it by its full path")

    # -P: the bridge runs in the user's project, whose json.py or logging.py must not be taken for Python's.
    return [sys.executable, "-P", "-m", "fallback_plugin", "bridge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one installation goes.

    Attributes:
        root: the directory of OpenCode's that holds `plugin/`.
        configuration: the file to write where there is none.
        configurations: files any of which counts as one, in the order in which they are looked for.
        follows_links: directories may be symbolic links, as those of a user who keeps them elsewhere.
    """

    root: Path
    configuration: Path
    configurations: tuple[Path, ...]
    follows_links: bool

    @property
    def plugin(self) -> Path:
        """The plugin file."""
        return self.root / "plugin" / PLUGIN_NAME


def project_place(directory: Path) -> Place:
    """The place of one project.

    Raises:
        InstallationError: there is no such directory.
    """
    directory = directory.absolute()
    if not directory.is_dir():
        wrong = "not a directory" if os.path.lexists(directory) else "no such directory"
        raise InstallationError(f"{directory}: {wrong}; nothing was changed")

    root = directory / ".opencode"
    return Place(
        root=root,
        configuration=root / CONFIGURATION_NAME,
        # One file is in force, not two: an empty one in the project would hide the chains in the user's.
        configurations=candidate_paths(directory),
        follows_links=False,
    )


def user_place() -> Place:
    """The place for all of the user's projects."""
    return Place(
        root=user_root(),
        configuration=Path("~/.config/opencode").expanduser() / CONFIGURATION_NAME,
        configurations=user_paths(),
        follows_links=True,
    )


def user_root() -> Path:
    """OpenCode's own configuration directory."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path("~/.config").expanduser()).absolute() / "opencode"


def plan_installation(place: Place, command: list[str]) -> tuple[FileChange, ...]:
    """What has to be done so that OpenCode loads us; nothing is done yet.

    Args:
        place: where.
        command: what starts the bridge.

    Raises:
        InstallationError: a file or directory is in the way, or a directory can't be written.
    """
    return _checked(place, (_configure(place), _place_plugin(place, plugin_text(command))))


def plan_removal(place: Place) -> tuple[FileChange, ...]:
    """What has to be done to undo `plan_installation`; nothing is done yet.

    Raises:
        InstallationError: the plugin file is not ours, or a directory can't be written.
    """
    plugin_directory = place.plugin.parent
    if not os.path.lexists(place.plugin):
        plugin = FileChange(action=Action.LEAVE, path=place.plugin, reason="not installed")
    else:
        before = _own_text(place.plugin)
        leftovers = (plugin_directory, place.root)
        plugin = FileChange(
            action=Action.REMOVE, path=place.plugin, reason="written by install", before=before, leftovers=leftovers
        )

    return _checked(place, (plugin, *_unconfigure(place)))


def _checked(place: Place, changes: tuple[FileChange, ...]) -> tuple[FileChange, ...]:
    for change in changes:
        if change.action is not Action.LEAVE:
            _check_directories(place, change.path)

    return changes


def _unconfigure(place: Place) -> Iterable[FileChange]:
    path = place.configuration
    if not os.path.lexists(path):
        return

    with refusing(path):
        text = read_file(path)

    if text != configuration_text():
        yield FileChange(action=Action.LEAVE, path=path, reason="your configuration, not as install wrote it")
        return

    yield FileChange(
        action=Action.REMOVE, path=path, reason="as install wrote it", before=text, leftovers=(path.parent,)
    )


def _configure(place: Place) -> FileChange:
    existing = next(filter(os.path.lexists, place.configurations), None)
    if existing is not None:
        return FileChange(action=Action.LEAVE, path=existing, reason="the configuration in force")

    return FileChange(
        action=Action.CREATE,
        path=place.configuration,
        reason="a configuration to put your models into",
        after=configuration_text(),
    )


def _place_plugin(place: Place, after: str) -> FileChange:
    path = place.plugin
    if not os.path.lexists(path):
        return FileChange(action=Action.CREATE, path=path, reason="OpenCode loads it when it starts", after=after)

    before = _own_text(path)
    if before == after:
        return FileChange(action=Action.LEAVE, path=path, reason="up to date")

    reason = "ours, of another version" if command_of(before) == command_of(after) else "ours, with another command"
    return FileChange(action=Action.REPLACE, path=path, reason=reason, before=before, after=after)


def _own_text(path: Path) -> str:
    with refusing(path):
        text = read_file(path)

    if text is None or not text.startswith(MARK):
        what = "is a symbolic link" if path.is_symlink() else "was not written by fallback-plugin"
        raise InstallationError(f"{path} {what}: move it away and try again; nothing was changed")

    return text


def _check_directories(place: Place, path: Path) -> None:
    """Find out before the first change what would hinder a later one."""
    directories = (path.parent, *path.parent.parents)
    for directory in directories:
        own = directory == place.root or place.root in directory.parents
        if own and directory.is_symlink() and not place.follows_links:
            raise InstallationError(
                f"{directory} is a symbolic link, and what it leads to may not be this project's; nothing was changed"
            )

    nearest = next(filter(os.path.lexists, directories))
    if not nearest.is_dir():
        raise InstallationError(f"{nearest} is in the way: it is not a directory; nothing was changed")

    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InstallationError(f"{nearest} can't be written: check its owner and mode; nothing was changed")
