"""The default store: one file in the user's state directory, shared by all processes of a machine.

Writes and long reads run on a worker thread, one at a time, so that a lock is never waited for on the event loop. Short
reads are done in place: 5 µs, beside 150 µs for a thread's answer, and they wait for nobody. Whether anything changed
at all is asked of SQLite's data_version, which costs 2 µs.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from fallback_plugin.errors import StoreError
from fallback_plugin.stores import sqlite_statements as statements
from fallback_plugin.stores.base import Appended, Changes, Entry, Json, Lease, Record, Stored
from fallback_plugin.stores.encoding import encode
from fallback_plugin.stores.sqlite_file import BUSY, CORRUPT, SqliteFile, broken, code_of

T = TypeVar("T")

PATIENCE_SECONDS = 2.0
"""How long other processes' locks are waited for."""
INLINE_ROWS = 64
"""Changed rows that are read in place; more go through the thread."""
FORGET_ROWS = 1000
"""Rows dropped in one transaction, so that nobody waits long for the lock."""
TOUCH_SECONDS = 60.0
"""How exactly the last use of an alias is known: reads write it down no more often."""
_LOOK_SECONDS = 1.0


class SqliteStore:
    """Implements `Store` in one SQLite file, mode 0600.

    Args:
        path: the file; created with its directory.
        patience: seconds to wait for other processes' locks.
        wall: epoch seconds; stamps writes, deletions and the use of aliases.

    Attributes:
        warnings: what its user should be told: a corrupt file that was set aside.
    """

    inline_reads = True

    def __init__(
        self, path: Path, *, patience: float = PATIENCE_SECONDS, wall: Callable[[], float] = time.time
    ) -> None:
        self._file = SqliteFile(path.absolute(), patience=patience)
        self._patience = patience
        self._wall = wall
        self._limiter: anyio.CapacityLimiter | None = None
        # The limiter keeps order; this keeps a call that was cancelled, and runs on, from meeting the next one.
        self._lock = threading.Lock()
        self._unchanged: dict[str, tuple[sqlite3.Connection, int, int]] = {}
        self._touched: dict[str, float] = {}
        self._looked = 0.0

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def warnings(self) -> list[str]:
        """What its user should be told: a corrupt file that was set aside."""
        return self._file.warnings

    async def open(self) -> None:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(1)
        if self._file.reader is None:
            await self._work(self._file.open)

    async def close(self) -> None:
        if self._limiter is None:
            return

        with anyio.CancelScope(shield=True):
            await self._work(self._file.close)

        self._limiter = None

    async def get(self, kind: str, key: str) -> Record | None:
        record, used = await self._read(lambda reader: statements.get(reader, kind, key))
        if used:
            await self._touch(key)

        return record

    async def put(self, kind: str, key: str, value: Json, *, expected: int | None = None) -> Record | None:
        text, wall = encode(value), self._wall()
        return await self._write(lambda writer: statements.put(writer, kind, key, text, expected=expected, wall=wall))

    async def delete(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        wall = self._wall()
        return await self._write(lambda writer: statements.delete(writer, kind, key, expected=expected, wall=wall))

    async def scan(self, kind: str) -> tuple[Record, ...]:
        return await self._query(lambda db: statements.scan(db, kind))

    async def changes(self, kind: str, *, after: int) -> Changes:
        await self._look()
        reader = self._file.reader
        if reader is not None and self._is_unchanged(reader, kind, after):
            return Changes(change=after)

        changes = await self._read(lambda reader: self._changes(reader, kind, after))
        if changes is None:
            changes = await self._query(lambda db: statements.changes(db, kind, after, None))

        return changes or Changes(change=after)

    async def append(
        self,
        stream: str,
        entries: Sequence[Entry],
        *,
        offset: int | None = None,  # noqa: ARG002 - the end of the stream is known here
        now_wall: float,
    ) -> Appended:
        rows = [(encode(entry.value), entry.entry_id) for entry in entries]
        return await self._write(lambda writer: statements.append(writer, stream, rows, now_wall))

    async def entries(self, stream: str, *, start: int = 0, limit: int | None = None) -> tuple[Stored, ...]:
        return await self._query(lambda db: statements.entries(db, stream, start, limit))

    async def truncate(self, stream: str, start: int) -> int:
        return await self._write(lambda writer: statements.truncate(writer, stream, start))

    async def acquire(self, key: str, owner: str, ttl: float, *, now_wall: float) -> Lease | None:
        return await self._write(lambda writer: statements.acquire(writer, key, owner, ttl, now_wall))

    async def refresh(self, lease: Lease, ttl: float, *, now_wall: float) -> Lease | None:
        return await self._write(lambda writer: statements.refresh(writer, lease, ttl, now_wall))

    async def release(self, lease: Lease) -> bool:
        return await self._write(lambda writer: statements.release(writer, lease))

    async def force_release(self, key: str) -> int:
        wall = self._wall()
        return await self._write(lambda writer: statements.force_release(writer, key, wall))

    async def holder(self, key: str, *, now_wall: float) -> Lease | None:
        lease, used = await self._read(lambda reader: statements.holder(reader, key, now_wall))
        if used:
            await self._touch(key)

        return lease

    async def alias(self, old: str, new: str) -> None:
        wall = self._wall()
        await self._write(lambda writer: statements.alias(writer, old, new, wall))

    async def resolve(self, key: str) -> str:
        target = await self._read(lambda reader: statements.resolve(reader, key))
        if target != key:
            await self._touch(key)

        return target

    async def forget(self, *, before_wall: float) -> int:
        forgotten = 0
        while dropped := await self._write(lambda writer: statements.forget(writer, before_wall, FORGET_ROWS)):
            forgotten += dropped

        return forgotten

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        reader = self._file.reader
        if reader is None:
            return await self._query(query)

        try:
            return query(reader)
        except sqlite3.Error as error:
            # The worker waits for a lock, and sets a corrupt file aside.
            if code_of(error) not in BUSY | CORRUPT:
                raise broken(error) from error

        return await self._query(query)

    async def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        return await self._work(lambda: self._file.query(query))

    async def _write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return await self._work(lambda: self._file.transact(operation))

    async def _work(self, work: Callable[[], T]) -> T:
        if self._limiter is None:
            raise StoreError("the store is not open")

        # Not waited for if cancelled, so that a disk that hangs doesn't hang the host.
        return await anyio.to_thread.run_sync(self._exclusively, work, abandon_on_cancel=True, limiter=self._limiter)

    def _exclusively(self, work: Callable[[], T]) -> T:
        if not self._lock.acquire(timeout=self._patience):
            raise StoreError("the store's file is being waited for")

        try:
            return work()
        finally:
            self._lock.release()

    def _changes(self, reader: sqlite3.Connection, kind: str, after: int) -> Changes | None:
        (version,) = reader.execute("PRAGMA data_version").fetchone()
        changes = statements.changes(reader, kind, after, INLINE_ROWS)
        if changes is not None:
            self._unchanged[kind] = (reader, version, changes.change)

        return changes

    def _is_unchanged(self, reader: sqlite3.Connection, kind: str, after: int) -> bool:
        seen, version, change = self._unchanged.get(kind, (None, 0, -1))
        if seen is not reader or change != after:
            return False

        return reader.execute("PRAGMA data_version").fetchone()[0] == version

    async def _look(self) -> None:
        """Notice a file that was replaced, by who never writes."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS or self._file.reader is None:
            return

        self._looked = now
        if self._file.is_replaced():
            await self._query(lambda db: None)

    async def _touch(self, key: str) -> None:
        wall = self._wall()
        if wall - self._touched.get(key, float("-inf")) < TOUCH_SECONDS:
            return

        self._touched = {old: used for old, used in self._touched.items() if wall - used < TOUCH_SECONDS}
        self._touched[key] = wall
        await self._write(lambda writer: statements.touch(writer, key, wall))
