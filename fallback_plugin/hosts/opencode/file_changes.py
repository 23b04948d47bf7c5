"""Changes to files as values, shown before they are made, and made all or not at all."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fallback_plugin.errors import InstallationError

DIFF_LINES = 60
"""Lines of a difference that are shown; a file of ours differs from another version of it by less."""
_NEW_FILE_MODE = 0o666


class Action(StrEnum):
    """What becomes of a file."""

    CREATE = "create"
    REPLACE = "replace"
    REMOVE = "remove"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """What becomes of one file, and why.

    Attributes:
        action: what.
        path: the file.
        reason: why, in a few words.
        before: its text; None where there is none, or it is left alone.
        after: the text that it gets; empty where it gets none.
        leftovers: directories that go with it if they are left empty, the inner ones first.
    """

    action: Action
    path: Path
    reason: str
    before: str | None = None
    after: str = ""
    leftovers: tuple[Path, ...] = ()

    def difference(self) -> list[str]:
        """The lines that a replacement changes, as a unified diff; empty for other actions."""
        if self.action is not Action.REPLACE:
            return []

        lines = list(
            difflib.unified_diff(
                (self.before or "").splitlines(),
                self.after.splitlines(),
                fromfile=f"{self.path} (now)",
                tofile=f"{self.path} (then)",
                lineterm="",
                n=1,
            )
        )
        more = len(lines) - DIFF_LINES
        return [*lines[:DIFF_LINES], f"… {more} more lines"] if more > 0 else lines


def read_file(path: Path) -> str | None:
    """The text of a regular file; None for a symbolic link, anything else that is no file, and text not in UTF-8.

    Raises:
        OSError: it can't be read.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        return None

    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        return None


def carry_out(changes: Sequence[FileChange]) -> None:
    """Make the changes, in order. A file is replaced whole, by a rename.

    Raises:
        InstallationError: one can't be made, or its file is no longer what it was when the change was planned. Those
            before it were undone.
    """
    with ExitStack() as undo:
        for change in changes:
            with refusing(change.path):
                _make(change, undo)

        undo.pop_all()

    for directory in (leftover for change in changes for leftover in change.leftovers):
        # Others' files, or a link in its place: then it stays.
        with suppress(OSError):
            directory.rmdir()


@contextmanager
def refusing(path: Path) -> Generator[None]:
    """Turn an error of the file system into an `InstallationError` that names the path."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        raise InstallationError(f"{where}: {error.strerror or type(error).__name__}; nothing was changed") from error


def _make(change: FileChange, undo: ExitStack) -> None:
    if change.action is Action.LEAVE:
        return

    _check_unchanged(change)
    match change.action:
        case Action.CREATE:
            _make_directories(change.path.parent, undo)
            _write(change.path, change.after, _NEW_FILE_MODE)
            undo.callback(change.path.unlink)
        case Action.REPLACE:
            mode = stat.S_IMODE(change.path.stat().st_mode)
            _write(change.path, change.after, mode, exactly=True)
            undo.callback(_write, change.path, change.before or "", mode, exactly=True)
        case Action.REMOVE:
            mode = stat.S_IMODE(change.path.stat().st_mode)
            change.path.unlink()
            undo.callback(_write, change.path, change.before or "", mode, exactly=True)


def _check_unchanged(change: FileChange) -> None:
    there = os.path.lexists(change.path)
    if there == (change.before is None) or (there and read_file(change.path) != change.before):
        raise InstallationError(f"{change.path}: changed by somebody else meanwhile; nothing was changed by this run")


def _make_directories(directory: Path, undo: ExitStack) -> None:
    missing = [each for each in (directory, *directory.parents) if not os.path.lexists(each)]
    for each in reversed(missing):
        each.mkdir()
        undo.callback(each.rmdir)


def _write(path: Path, text: str, mode: int, *, exactly: bool = False) -> None:
    """Write beside the file and rename; `exactly` sets the mode whatever the umask says."""
    # OpenCode loads every .js there.
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(text.encode())

        if exactly:
            beside.chmod(mode)

        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
