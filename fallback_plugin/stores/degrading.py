"""DegradingStore: a store that never fails its callers. While the real one is out, this process goes on alone.

Theory of operation
===================

| state    | calls go to                    | what ends it                                                            |
|----------|--------------------------------|-------------------------------------------------------------------------|
| attached | the store; what they show is   | a StoreError, or no answer within the deadline: one warning, and the    |
|          | remembered (`mirror`)          | call that failed is done alone                                          |
| alone    | a memory store that begins     | a probe that writes, then everything done alone brought back            |
|          | with what is remembered        | (`outage`): one notice                                                  |

Probes come after 1 s, 2 s, 4 s … 30 s, by `run`, which its owner starts in a task group; where nobody runs it, by
whichever call comes after the time. What is done alone and not brought back is lost with the process: a store that is
out can't keep it.

A failed call may have taken effect: that is why a record that is brought back is compared, and why every appended entry
has an id, given here if it had none.

Change numbers given out alone lie above `ALONE_CHANGES`, each outage's in a range of its own. Whoever asks with one
when the store is back gets everything since the number with which that outage was entered: some of it twice, nothing
left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast
from uuid import uuid4

import anyio

from fallback_plugin.errors import ConfigurationError, StoreError
from fallback_plugin.stores.base import Appended, Changes, Entry, Json, Lease, Record, Store, Stored
from fallback_plugin.stores.mirror import Mirror
from fallback_plugin.stores.notices import StoreNotice, StoreNoticeType, StoreObserver, log_notice
from fallback_plugin.stores.outage import Outage

logger = logging.getLogger("fallback_plugin.stores")

T = TypeVar("T")

DEADLINE_SECONDS = 3.0
"""Longest wait for the store; above its own patience, so that its own reason is told."""
FIRST_PROBE_SECONDS = 1.0
LONGEST_PROBE_SECONDS = 30.0
PROBE_KIND = "probe"
ALONE_CHANGES = 1 << 61
_CHANGES_PER_OUTAGE = 1 << 32
_OUTAGES_KEPT = 64


class DegradingStore:
    """Implements `Store`; `open` raises `ConfigurationError` alone, every other method nothing of the store's.

    Args:
        store: the real one.
        observer: told of each outage and its end.
        deadline: seconds to wait for the store.
        wall: epoch seconds, as the real store's.
    """

    def __init__(
        self,
        store: Store,
        observer: StoreObserver = log_notice,
        *,
        deadline: float = DEADLINE_SECONDS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._observer = observer
        self._deadline = deadline
        self._wall = wall
        # A deadline costs more than a read that waits for nobody.
        self._reads_wait = not getattr(store, "inline_reads", False)
        self._mirror = Mirror(wall=wall)
        self._outage: Outage | None = None
        self._outages = 0
        self._since = 0.0
        self._delay = FIRST_PROBE_SECONDS
        self._next_probe = 0.0
        self._probing = False
        self._running = False
        self._asked_with: dict[tuple[int, str], int] = {}

    @property
    def is_degraded(self) -> bool:
        """Whether the process is on its own."""
        return self._outage is not None

    async def run(self) -> None:
        """Probe the store while it is out, until cancelled; so no call has to."""
        self._running = True
        try:
            while True:
                await anyio.sleep(FIRST_PROBE_SECONDS / 4)
                await self._probe_if_due()
        finally:
            self._running = False

    async def open(self) -> None:
        try:
            await self._bounded(self._store.open())
        except StoreError as error:
            self._degrade(str(error))

    async def close(self) -> None:
        """Bring back what was done alone, if the store answers by now, and let go."""
        with anyio.CancelScope(shield=True):
            if self._outage is not None:
                self._next_probe = 0.0
                await self._probe_if_due()
            try:
                await self._bounded(self._store.close())
            except StoreError as error:
                logger.debug("the store was not closed: %s", error)

    async def get(self, kind: str, key: str) -> Record | None:
        if not self._reads_wait and self._outage is None:
            try:
                return self._mirror.note_record(kind, key, await self._store.get(kind, key))
            except StoreError as error:
                self._degrade(str(error))

        async def attached() -> Record | None:
            return self._mirror.note_record(kind, key, await self._store.get(kind, key))

        return await self._call(attached, lambda _: self._mirror.local.get(kind, key))

    async def put(self, kind: str, key: str, value: Json, *, expected: int | None = None) -> Record | None:
        async def attached() -> Record | None:
            stored = self._mirror.stored_revision(kind, self._follow(key), expected)
            record = await self._store.put(kind, key, value, expected=stored)
            return record and self._mirror.note_record(kind, key, record)

        return await self._call(attached, lambda outage: outage.put(kind, key, value, expected=expected))

    async def delete(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        async def attached() -> bool:
            stored = self._mirror.stored_revision(kind, self._follow(key), expected)
            deleted = await self._store.delete(kind, key, expected=stored)
            if deleted:
                self._mirror.note_record(kind, self._follow(key), None)

            return deleted

        return await self._call(attached, lambda outage: outage.delete(kind, key, expected=expected))

    async def scan(self, kind: str) -> tuple[Record, ...]:
        async def attached() -> tuple[Record, ...]:
            return self._mirror.note_records(await self._store.scan(kind))

        return await self._call(attached, lambda _: self._mirror.local.scan(kind))

    async def changes(self, kind: str, *, after: int) -> Changes:
        async def attached() -> Changes:
            changes = await self._store.changes(kind, after=self._entered_with(kind, after))
            return replace(changes, records=self._mirror.note_records(changes.records)) if changes.records else changes

        async def alone(_: Outage) -> Changes:
            asked_with, entered_with = (self._outages, kind), self._entered_with(kind, after)
            self._asked_with[asked_with] = min(entered_with, self._asked_with.get(asked_with, entered_with))
            return await self._mirror.local.changes(kind, after=after)

        if not self._reads_wait and self._outage is None:
            try:
                return await attached()
            except StoreError as error:
                self._degrade(str(error))

        return await self._call(attached, alone)

    async def append(
        self, stream: str, entries: Sequence[Entry], *, offset: int | None = None, now_wall: float
    ) -> Appended:
        named = [entry if entry.entry_id is not None else replace(entry, entry_id=uuid4().hex) for entry in entries]

        async def attached() -> Appended:
            appended = await self._store.append(stream, named, offset=offset, now_wall=now_wall)
            self._mirror.note_append(self._follow(stream), named, appended, now_wall)
            return appended

        return await self._call(attached, lambda outage: outage.append(stream, named, offset=offset, now_wall=now_wall))

    async def entries(self, stream: str, *, start: int = 0, limit: int | None = None) -> tuple[Stored, ...]:
        async def attached() -> tuple[Stored, ...]:
            stored = await self._store.entries(stream, start=start, limit=limit)
            self._mirror.note_entries(self._follow(stream), stored)
            return stored

        return await self._call(attached, lambda _: self._mirror.local.entries(stream, start=start, limit=limit))

    async def truncate(self, stream: str, start: int) -> int:
        async def attached() -> int:
            dropped = await self._store.truncate(stream, start)
            self._mirror.local.streams.pop(self._follow(stream), None)
            return dropped

        return await self._call(attached, lambda outage: outage.truncate(stream, start))

    async def acquire(self, key: str, owner: str, ttl: float, *, now_wall: float) -> Lease | None:
        async def attached() -> Lease | None:
            lease = await self._store.acquire(key, owner, ttl, now_wall=now_wall)
            return self._mirror.note_lease(key, lease, mine=True)

        return await self._call(attached, lambda outage: outage.acquire(key, owner, ttl, now_wall=now_wall))

    async def refresh(self, lease: Lease, ttl: float, *, now_wall: float) -> Lease | None:
        async def attached() -> Lease | None:
            kept = await self._store.refresh(self._mirror.stored_lease(lease), ttl, now_wall=now_wall)
            if kept is None:
                self._drop_held(lease)

            return self._mirror.note_lease(lease.key, kept, mine=True)

        return await self._call(attached, lambda outage: outage.refresh(lease, ttl, now_wall=now_wall))

    async def release(self, lease: Lease) -> bool:
        async def attached() -> bool:
            released = await self._store.release(self._mirror.stored_lease(lease))
            self._drop_held(lease)
            return released

        return await self._call(attached, lambda outage: outage.release(lease))

    async def force_release(self, key: str) -> int:
        async def attached() -> int:
            generation = await self._store.force_release(key)
            self._mirror.held.pop(self._follow(key), None)
            return self._mirror.shown_generation(key, generation)

        return await self._call(attached, lambda outage: outage.force_release(key))

    async def holder(self, key: str, *, now_wall: float) -> Lease | None:
        async def attached() -> Lease | None:
            return self._mirror.note_lease(key, await self._store.holder(key, now_wall=now_wall), mine=False)

        return await self._call(attached, lambda _: self._mirror.local.holder(key, now_wall=now_wall))

    async def alias(self, old: str, new: str) -> None:
        async def attached() -> None:
            await self._store.alias(old, new)
            self._mirror.move(old, new)

        await self._call(attached, lambda outage: outage.alias(old, new))

    async def resolve(self, key: str) -> str:
        async def attached() -> str:
            target = await self._store.resolve(key)
            if target != key:
                self._mirror.note_alias(key, target)

            return target

        return await self._call(attached, lambda _: self._mirror.local.resolve(key))

    async def forget(self, *, before_wall: float) -> int:
        """As the store's; nothing is forgotten alone."""

        async def alone(_: Outage) -> int:
            return 0

        return await self._call(lambda: self._store.forget(before_wall=before_wall), alone)

    async def _call(self, attached: Callable[[], Awaitable[T]], alone: Callable[[Outage], Awaitable[T]]) -> T:
        if self._outage is not None and not self._running:
            await self._probe_if_due()

        outage = self._outage
        if outage is None:
            try:
                return await self._bounded(attached())
            except StoreError as error:
                outage = self._degrade(str(error))

        return await alone(outage)

    async def _bounded(self, call: Awaitable[T]) -> T:
        with anyio.move_on_after(self._deadline):
            return await call

        raise StoreError("it doesn't answer in time")

    def _degrade(self, reason: str) -> Outage:
        if self._outage is not None:
            return self._outage

        self._outages += 1
        self._asked_with = {
            asked: number for asked, number in self._asked_with.items() if asked[0] > self._outages - _OUTAGES_KEPT
        }
        self._mirror.take_over(ALONE_CHANGES + self._outages * _CHANGES_PER_OUTAGE)
        outage = self._outage = Outage(self._mirror)
        self._since = anyio.current_time()
        self._delay = FIRST_PROBE_SECONDS
        self._next_probe = self._since + self._delay
        self._observer(StoreNotice(notice=StoreNoticeType.DEGRADED, reason=reason))
        return outage

    async def _probe_if_due(self) -> None:
        outage = self._outage
        if outage is None or self._probing or anyio.current_time() < self._next_probe:
            return

        self._probing = True
        try:
            await self._bounded(self._store.open())
            # Reads may work where writes don't: a full disk, a replica.
            await self._bounded(self._store.put(PROBE_KIND, PROBE_KIND, {}))
            await outage.bring_back(cast("Store", _Bounded(self._store, self._bounded)), self._wall())
            # Nothing was awaited since the last note was crossed out.
            self._end_outage(outage)
        except (StoreError, ConfigurationError) as error:
            logger.debug("the store is still out: %s", error)
            self._delay = min(LONGEST_PROBE_SECONDS, self._delay * 2)
            self._next_probe = anyio.current_time() + self._delay
        finally:
            self._probing = False

    def _end_outage(self, outage: Outage) -> None:
        self._outage = None
        seconds = anyio.current_time() - self._since
        self._observer(
            StoreNotice(
                notice=StoreNoticeType.BACK, seconds=seconds, written=outage.written, conflicts=outage.conflicts
            )
        )

    def _entered_with(self, kind: str, after: int) -> int:
        """The store's change number behind one that was given out alone."""
        if after < ALONE_CHANGES:
            return after

        return self._asked_with.get(((after - ALONE_CHANGES) // _CHANGES_PER_OUTAGE, kind), 0)

    def _follow(self, key: str) -> str:
        return self._mirror.local.follow(key)

    def _drop_held(self, lease: Lease) -> None:
        key = self._follow(lease.key)
        held = self._mirror.held.get(key)
        if held is not None and held.owner == lease.owner:
            del self._mirror.held[key]


class _Bounded:
    """A store whose every call has the deadline."""

    def __init__(self, store: Store, bounded: Callable[[Awaitable[Any]], Awaitable[Any]]) -> None:
        self._store = store
        self._bounded = bounded

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)
        return lambda *arguments, **named: self._bounded(method(*arguments, **named))
