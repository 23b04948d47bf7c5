"""Follow the configuration files and read them again when one changes.

The operating system's events only wake the watcher; what counts is whether the files' marks (inode, size,
time) changed since the last look. So an editor's rename-save, a file or directory that appears later, a link
whose target changes and a network mount without events all end in one reload: at the event, or within
`POLL_SECONDS` where there is none. Where watching is impossible (limits, platform) only that look remains.
"""

from __future__ import annotations

import os
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread
from watchfiles import Change, awatch

from fallback_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from anyio.abc import TaskStatus

    from fallback_plugin.config.load import ConfigSource, LoadedConfig

POLL_SECONDS = 1.0
"""The longest that a change goes unseen where the system tells nothing: a handful of `stat` calls a second."""

_DEBOUNCE_MILLISECONDS = 400
_Marks = tuple[tuple[int, int, int] | None, ...]


async def watch_config(
    source: ConfigSource,
    on_change: Callable[[LoadedConfig], Awaitable[None]],
    on_error: Callable[[ConfigurationError], Awaitable[None]],
    *,
    current: LoadedConfig | None = None,
) -> None:
    """Reload `source` whenever one of its files changes. Runs until it is cancelled.

    A broken file is reported once for each time it was written and changes nothing else: the caller keeps
    the last good configuration. What the two callbacks raise ends the watch.

    Args:
        source: the files.
        on_change: gets each new good configuration, also the same one again after an error.
        on_error: gets the error of a file that can't be used.
        current: the configuration in force; `on_change` gets only what differs from it.
    """
    reloader = _Reloader(source=source, on_change=on_change, on_error=on_error, current=current)
    while True:
        await reloader.look()
        directories = await to_thread.run_sync(_watched_directories, source.candidates())
        if not await _follow(directories, reloader):
            await anyio.sleep(POLL_SECONDS)


@dataclass(slots=True, kw_only=True)
class _Reloader:
    source: ConfigSource
    on_change: Callable[[LoadedConfig], Awaitable[None]]
    on_error: Callable[[ConfigurationError], Awaitable[None]]
    current: LoadedConfig | None
    marks: _Marks | None = None
    failed: bool = False

    async def look(self) -> None:
        marks = await to_thread.run_sync(_marks, self.source.candidates())
        if marks == self.marks:
            return

        self.marks = marks
        try:
            loaded = await to_thread.run_sync(self.source.load)
        except ConfigurationError as error:
            self.failed = True
            await self.on_error(error)
            return

        if self.failed or not _says_the_same(loaded, self.current):
            self.failed, self.current = False, loaded
            await self.on_change(loaded)


def _says_the_same(one: LoadedConfig, other: LoadedConfig | None) -> bool:
    if other is None or one.path != other.path:
        return False

    # Which keys are written counts too: an agent's 30 s is not the global value that happens to be 30 s.
    return one.settings.model_dump(exclude_unset=True) == other.settings.model_dump(exclude_unset=True)


def _marks(paths: Sequence[Path]) -> _Marks:
    return tuple(map(_mark, paths))


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - as cheap as it gets, it runs at every wake-up
    except (OSError, ValueError):
        return None

    return status.st_ino, status.st_size, status.st_mtime_ns


def _watched_directories(paths: Sequence[Path]) -> frozenset[Path]:
    return frozenset(
        next((parent for parent in path.absolute().parents if parent.is_dir()), Path.cwd()) for path in paths
    )


async def _follow(directories: frozenset[Path], reloader: _Reloader) -> bool:
    """Reload at every wake-up; False if the system can't watch, True when other directories count."""
    paths = reloader.source.candidates()
    names = {step.name for path in paths for step in (path, *path.parents)}

    def concerns_us(_: Change, path: str) -> bool:
        return Path(path).name in names

    stop = anyio.Event()
    changes = awatch(
        *directories,
        watch_filter=concerns_us,
        debounce=_DEBOUNCE_MILLISECONDS,
        stop_event=stop,
        rust_timeout=int(POLL_SECONDS * 1000),
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
    )
    async with aclosing(changes):
        while await _woken(changes, stop):
            await reloader.look()
            if await to_thread.run_sync(_watched_directories, paths) != directories:
                return True

    return False


async def _woken(changes: AsyncGenerator[object, None], stop: anyio.Event) -> bool:
    """Wait for the next wake-up; False if there will be none.

    The watching thread can't be cancelled, it can only be stopped: without the task beside it a cancelled
    watch would last until the thread's own timeout.
    """
    is_waiting, goes_on = True, False

    async def stop_when_cancelled(*, task_status: TaskStatus[None]) -> None:
        try:
            task_status.started()
            await anyio.sleep_forever()
        finally:
            if is_waiting:
                stop.set()

    async with anyio.create_task_group() as group:
        await group.start(stop_when_cancelled)
        try:
            await anext(changes)
            goes_on = True
        except (StopAsyncIteration, OSError, RuntimeError, ExceptionGroup):
            pass

        is_waiting = False
        group.cancel_scope.cancel()

    return goes_on
