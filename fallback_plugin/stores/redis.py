"""The store for hosts on many machines: Redis 7 or Valkey 9, one round trip and one atomic script per operation.

redis-py is an extra and imported by `open` only; it knows asyncio alone. A call that fails is not tried again here: it
may have taken effect, and only the caller can tell what that means. The next call connects anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from fallback_plugin.errors import ConfigurationError, StoreError
from fallback_plugin.stores import redis_scripts as scripts
from fallback_plugin.stores.base import SCHEMA_VERSION, Appended, Changes, Entry, Json, Lease, Record, Stored
from fallback_plugin.stores.encoding import decode, encode
from fallback_plugin.stores.redis_script import Script

TIMEOUT_SECONDS = 1.0
"""Longest wait for a connection, and for an answer."""
CONNECTIONS = 16
"""Connections at once; more calls wait for one of them."""
TURN_SECONDS = 10.0
"""Longest wait for one; a wait here tells of a busy process, not of a slow server."""
PAGE_ROWS = 1000
"""Records or forgotten keys per script, so that the server isn't kept from others for long."""

REFUSALS: dict[str, str] = {
    "AuthenticationError": "the server refuses the user or password",
    "AuthenticationWrongNumberOfArgsError": "the server refuses the user or password",
    "NoPermissionError": "the server's access list forbids the store's commands",
    "OutOfMemoryError": "the server's memory is full",
    "ReadOnlyError": "the server is a read-only replica",
    "BusyLoadingError": "the server is loading its data",
    "ClusterDownError": "the server's cluster is down",
    "MaxConnectionsError": "the server has too many connections",
    "TimeoutError": "the server doesn't answer in time",
    "MISCONF": "the server can't write to its disk",
    "NOREPLICAS": "the server has too few replicas to write",
    "NOAUTH": "the server asks for a password",
    "BUSY": "the server is busy with another script",
}
"""Reasons by redis-py's exception, or by the code in it where it has no class of its own."""


class RedisStore:
    """Implements `Store` on a Redis or Valkey server.

    Args:
        url: redis://, rediss:// as redis-py reads it.
        namespace: separates users of one server; the hash tag of every key.
        timeout: seconds, for connecting and for each answer.
        wall: epoch seconds; stamps writes, deletions and the use of aliases.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "main",
        timeout: float = TIMEOUT_SECONDS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._prefix = f"fallback:{{{namespace}}}:"
        self._timeout = timeout
        self._wall = wall
        self._client: Any = None
        self.warnings: list[str] = []

    async def open(self) -> None:
        if self._client is None:
            _require_asyncio()
            self._client = self._connect()

        version = await self._run(scripts.OPEN, SCHEMA_VERSION)
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"the store's schema is version {version}, newer than version {SCHEMA_VERSION}, the newest that this "
                "release of fallback-plugin knows: upgrade fallback-plugin, or add ?namespace=… to the store's URL"
            )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def get(self, kind: str, key: str) -> Record | None:
        row = await self._run(scripts.GET, kind, key, self._wall())
        return row and _record(kind, row)

    async def put(self, kind: str, key: str, value: Json, *, expected: int | None = None) -> Record | None:
        row = await self._run(scripts.PUT, kind, key, encode(value), _optional(expected), self._wall())
        return row and _record(kind, row)

    async def delete(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        return bool(await self._run(scripts.DELETE, kind, key, _optional(expected), self._wall()))

    async def scan(self, kind: str) -> tuple[Record, ...]:
        changes = await self.changes(kind, after=0)
        return tuple(record for record in changes.records if record.value is not None)

    async def changes(self, kind: str, *, after: int) -> Changes:
        newest: dict[str, Record] = {}
        while True:
            found, after, *rows = await self._run(scripts.CHANGES, kind, after, PAGE_ROWS)
            for record in (_record(kind, row) for row in rows):
                newest.pop(record.key, None)
                newest[record.key] = record
                after = record.change

            if found < PAGE_ROWS:
                return Changes(change=after, records=tuple(newest.values()))

    async def append(
        self,
        stream: str,
        entries: Sequence[Entry],
        *,
        offset: int | None = None,  # noqa: ARG002 - the end of the stream is known on the server
        now_wall: float,
    ) -> Appended:
        elements = [_element(entry, now_wall) for entry in entries]
        end, sequences = await self._run(scripts.APPEND, stream, self._wall(), *elements)
        return Appended(sequences=tuple(sequences), next_sequence=end)

    async def entries(self, stream: str, *, start: int = 0, limit: int | None = None) -> tuple[Stored, ...]:
        start = max(0, start)
        wanted = -1 if limit is None else limit
        elements = await self._run(scripts.ENTRIES, stream, self._wall(), start, wanted)
        return tuple(_stored(sequence, element) for sequence, element in enumerate(elements, start))

    async def truncate(self, stream: str, start: int) -> int:
        return await self._run(scripts.TRUNCATE, stream, self._wall(), max(0, start))

    async def acquire(self, key: str, owner: str, ttl: float, *, now_wall: float) -> Lease | None:
        expires = now_wall + ttl
        row = await self._run(scripts.ACQUIRE, key, owner, now_wall, expires)
        return row and Lease(key=row[0].decode(), owner=owner, generation=row[1], expires_wall=expires)

    async def refresh(self, lease: Lease, ttl: float, *, now_wall: float) -> Lease | None:
        expires = now_wall + ttl
        row = await self._run(scripts.REFRESH, lease.key, lease.owner, lease.generation, now_wall, expires)
        return row and Lease(key=row[0].decode(), owner=lease.owner, generation=row[1], expires_wall=expires)

    async def release(self, lease: Lease) -> bool:
        return bool(await self._run(scripts.RELEASE, lease.key, lease.owner, lease.generation, self._wall()))

    async def force_release(self, key: str) -> int:
        return await self._run(scripts.FORCE_RELEASE, key, self._wall())

    async def holder(self, key: str, *, now_wall: float) -> Lease | None:
        row = await self._run(scripts.HOLDER, key, self._wall(), now_wall)
        if row is None:
            return None

        found, owner, generation, expires = row
        return Lease(key=found.decode(), owner=owner.decode(), generation=generation, expires_wall=float(expires))

    async def alias(self, old: str, new: str) -> None:
        await self._run(scripts.ALIAS, old, new, self._wall())

    async def resolve(self, key: str) -> str:
        return (await self._run(scripts.RESOLVE, key, self._wall())).decode()

    async def forget(self, *, before_wall: float) -> int:
        forgotten = 0
        while True:
            dropped, seen = await self._run(scripts.FORGET, before_wall, PAGE_ROWS)
            forgotten += dropped
            if not seen:
                return forgotten

    def _connect(self) -> Any:
        try:
            from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415 - an extra, slow to import
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(
                "a redis:// store needs redis-py: install fallback-plugin[redis], or name a sqlite:// store"
            ) from error

        try:
            pool = cast("Any", BlockingConnectionPool).from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=TURN_SECONDS,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                "the store's URL can't be read: write redis://user:password@host:port/0"
            ) from error

        return Redis.from_pool(pool)

    async def _run(self, script: Script, *arguments: str | bytes | float) -> Any:
        if self._client is None:
            raise StoreError("the store is not open")

        from redis.exceptions import NoScriptError, RedisError  # noqa: PLC0415 - loaded by now

        try:
            try:
                return await self._client.evalsha(script.digest, 1, self._prefix, *arguments)
            except NoScriptError:
                return await self._client.eval(script.text, 1, self._prefix, *arguments)
        except (RedisError, OSError) as error:
            raise StoreError(_reason(error)) from error


def _require_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise ConfigurationError(
            "a redis:// store runs on asyncio only: run the host on asyncio, or name a sqlite:// store"
        ) from error


def _reason(error: Exception) -> str:
    from redis.exceptions import ResponseError  # noqa: PLC0415 - loaded by now

    if known := REFUSALS.get(type(error).__name__):
        return known

    if isinstance(error, ResponseError):
        # Only its code: the rest may hold what was sent.
        return REFUSALS.get(str(error).partition(" ")[0], "the server refuses a command of the store's")

    return "the server can't be reached"


def _optional(number: int | None) -> str | int:
    return "" if number is None else number


def _record(kind: str, row: Sequence[Any]) -> Record:
    key, text, revision, change, wall = row
    value = None if text is None else decode(text)
    return Record(kind=kind, key=key.decode(), value=value, revision=revision, change=change, written_wall=float(wall))


def _element(entry: Entry, wall: float) -> bytes:
    entry_id = None if entry.entry_id is None else entry.entry_id.encode()
    length = -1 if entry_id is None else len(entry_id)
    return f"{wall!r} {length} ".encode() + (entry_id or b"") + encode(entry.value).encode()


def _stored(sequence: int, element: bytes) -> Stored:
    wall, length, rest = element.split(b" ", 2)
    size = int(length)
    entry_id = None if size < 0 else rest[:size].decode()
    return Stored(sequence=sequence, value=decode(rest[max(0, size) :]), at_wall=float(wall), entry_id=entry_id)
