"""The file under the SQLite store: created, opened, locked for each write, and set aside when it is corrupt.

Theory of operation
===================

Two connections: the writer's transactions take the write lock at once (BEGIN IMMEDIATE) and are short; the reader never
waits for them (WAL). A lock that another process holds is tried again every few milliseconds, for a bounded time: the
waiting is ours rather than SQLite's, whose pauses grow to 100 ms and leave a busy file idle.

A corrupt file is renamed with the time, never deleted, and a new one begun. Several processes may notice at once, so
that is done under a lock file, and only to the very file (inode) that was found corrupt. Whoever still has the old one
open sees at its next write that the path leads to another file, and opens that.

Everything here blocks: it runs on a worker thread, but for `reader`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

from fallback_plugin.errors import StoreError
from fallback_plugin.stores.base import SCHEMA_VERSION
from fallback_plugin.stores.sqlite_schema import migrate, read_version

logger = logging.getLogger("fallback_plugin.stores")

T = TypeVar("T")

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
SIDE_FILES = ("", "-wal", "-shm")
"""What belongs to a database in WAL mode; SQLite gives the others the first one's mode."""

BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

REASONS: dict[int, str] = {
    sqlite3.SQLITE_BUSY: "another process has kept the store locked for too long",
    sqlite3.SQLITE_LOCKED: "another process has kept the store locked for too long",
    sqlite3.SQLITE_FULL: "no space is left for the store",
    sqlite3.SQLITE_READONLY: "the store's file or directory is read-only",
    sqlite3.SQLITE_PERM: "access to the store's file is denied",
    sqlite3.SQLITE_CANTOPEN: "the store's file can't be opened",
    sqlite3.SQLITE_IOERR: "the store's file can't be read or written",
    sqlite3.SQLITE_CORRUPT: "the store's file is corrupt",
    sqlite3.SQLITE_NOTADB: "the store's file is corrupt",
    sqlite3.SQLITE_NOMEM: "no memory is left for the store",
}

_PAUSE_SECONDS = 0.002
"""Mean pause between two tries of a lock; a transaction of ours takes a tenth of that."""


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error of the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def broken(error: sqlite3.Error | OSError) -> StoreError:
    """The error as a `StoreError` with a reason in a few words."""
    if isinstance(error, OSError):
        return StoreError(f"the store's file can't be used: {error.strerror or type(error).__name__}")

    return StoreError(REASONS.get(code_of(error), f"the store failed: {type(error).__name__}"))


class SqliteFile:
    """An open database file.

    Args:
        path: the file; its directory is made, for its owner alone, where there is none.
        patience: seconds to wait for other processes' locks.
    """

    def __init__(self, path: Path, *, patience: float) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.reader: sqlite3.Connection | None = None
        self._patience = patience
        self._writer: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        # The event loop may be reading from one that was replaced.
        self._retired: list[sqlite3.Connection] = []

    def open(self) -> None:
        """Create, open and migrate; again if the file proves corrupt.

        Raises:
            ConfigurationError: the file is of a newer schema or of another application.
            StoreError: it can't be used.
        """
        try:
            try:
                self._connect()
            except sqlite3.Error as error:
                if code_of(error) not in CORRUPT:
                    raise

                self._set_aside()
                self._connect()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise broken(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; only where nobody is reading."""
        self._retire()
        self._inode = None
        while self._retired:
            self._retired.pop().close()

    def transact(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run the operation in a transaction with the write lock; all of it happens, or nothing.

        Raises:
            StoreError: it could not be done in time, or at all.
        """
        return self._attempt_twice(lambda writer: self._commit(writer, operation))

    def query(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run an operation of a single statement that only reads.

        Raises:
            StoreError: as `transact`.
        """
        return self._attempt_twice(lambda writer: self._persist(lambda: operation(writer)))

    def is_replaced(self) -> bool:
        """Whether the path leads to another file than the one that is open, or to none."""
        return self._inode != _inode(self.path)

    def _attempt_twice(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                return operation(self._current_writer())
            except sqlite3.Error as error:
                if code_of(error) not in CORRUPT:
                    raise

            self._set_aside()
            return operation(self._current_writer())
        except (sqlite3.Error, OSError) as error:
            raise broken(error) from error

    def _current_writer(self) -> sqlite3.Connection:
        if self._inode is None:
            raise StoreError("the store is not open")

        if self._writer is None or self.is_replaced():
            self._retire()
            self._writer = self._connect()

        return self._writer

    def _commit(self, writer: sqlite3.Connection, operation: Callable[[sqlite3.Connection], T]) -> T:
        with self._locked(writer):
            (version,) = writer.execute("PRAGMA user_version").fetchone()
            if version != SCHEMA_VERSION:
                raise StoreError(f"another release of fallback-plugin has taken the store to version {version}")

            return operation(writer)

    @contextlib.contextmanager
    def _locked(self, connection: sqlite3.Connection) -> Generator[None]:
        self._persist(lambda: connection.execute("BEGIN IMMEDIATE"))
        try:
            yield
            self._persist(lambda: connection.execute("COMMIT"))
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")

            raise

    def _persist(self, statement: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return statement()
            except sqlite3.OperationalError as error:
                if code_of(error) not in BUSY or time.monotonic() > deadline:
                    raise

            time.sleep(random.uniform(0, 2 * _PAUSE_SECONDS))  # noqa: S311 - spreads rivals, hides nothing

    def _connect(self) -> sqlite3.Connection:
        self._create()
        self._inode = _inode(self.path)
        self._writer = writer = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        self._persist(lambda: read_version(writer))
        self._persist(lambda: writer.execute("PRAGMA journal_mode = WAL").fetchone())
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute("PRAGMA journal_size_limit = 4194304")
        with self._locked(writer):
            migrate(writer)

        self.reader = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        self.reader.execute("PRAGMA query_only = ON")
        return writer

    def _create(self) -> None:
        missing = [parent for parent in self.path.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(mode=DIRECTORY_MODE, exist_ok=True)

        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, FILE_MODE))
        if self.path.stat().st_mode & 0o077:
            self.path.chmod(FILE_MODE)

    def _retire(self) -> None:
        self._retired += [connection for connection in (self._writer, self.reader) if connection is not None]
        self._writer = self.reader = None

    def _set_aside(self) -> None:
        self._retire()
        with _alone(self.path.with_name(f"{self.path.name}.lock")):
            if self.is_replaced():
                return

            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}-{os.getpid()}")
            for suffix in SIDE_FILES:
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")

        warning = f"the store's file was corrupt: it is kept as {aside.name}, and a new one was begun"
        self.warnings.append(warning)
        logger.warning(warning)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None

    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _alone(path: Path) -> Generator[None]:
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where an open file can't be renamed by two anyway
    except ImportError:
        yield
        return

    lock = os.open(path, os.O_CREAT | os.O_RDWR, FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
