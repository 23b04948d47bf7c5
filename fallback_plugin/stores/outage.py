"""Outage: what one process did alone while the store was out, and how it is brought back to it.

Everything is done on the mirror's memory store, and noted. When the store answers again, in this order:

| noted                | brought back                                                                                |
|----------------------|---------------------------------------------------------------------------------------------|
| alias                | made                                                                                        |
| forced release       | made                                                                                        |
| released lease       | released                                                                                    |
| held lease           | refreshed, else acquired anew; if somebody else holds it, it is lost, as its refresh tells  |
| record               | compare-and-set on the revision last seen; if somebody wrote, by the rules of `merging`      |
| truncated stream     | truncated, unless somebody appended: nothing of theirs is dropped                           |
| appended entries     | appended, each batch under its time; every entry has an id, so none is stored twice         |

A note is crossed out after it was brought back, so a second outage on the way loses nothing; what is done meanwhile is
noted too. Sequences given out in an outage are provisional, as any offset is (A21).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from fallback_plugin.stores.base import Appended, Entry, Json, Lease, Record, Store
from fallback_plugin.stores.encoding import decode
from fallback_plugin.stores.memory_rows import Row, Stream
from fallback_plugin.stores.merging import LASTING, merge
from fallback_plugin.stores.mirror import Mirror

T = TypeVar("T")

TRIES = 5
"""Tries of a record against writers that are faster."""


@dataclass(slots=True)
class Tail:
    """What was done to a stream: what it ended with before, where that was cut, and the batches since."""

    end: int
    cut: int
    batches: list[tuple[tuple[Entry, ...], float]]


class Outage:
    """The notes of one outage.

    Attributes:
        written: notes that were brought back.
        conflicts: how many of them met somebody else's writing.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.written = 0
        self.conflicts = 0
        self._mirror = mirror
        self._local = mirror.local
        self._held = dict(mirror.held)
        self._aliases: list[tuple[str, str]] = []
        self._forced: dict[str, int] = {}
        self._leases: dict[str, None] = {}
        self._records: dict[tuple[str, str], int] = {}
        self._streams: dict[str, Tail] = {}

    async def put(self, kind: str, key: str, value: Json, *, expected: int | None) -> Record | None:
        key = self._local.follow(key)
        known = self._base(kind, key, expected)
        record = await self._local.put(kind, key, value, expected=expected)
        if record is not None:
            self._records.setdefault((kind, key), known)

        return record

    async def delete(self, kind: str, key: str, *, expected: int | None) -> bool:
        key = self._local.follow(key)
        known = self._base(kind, key, expected)
        if key not in self._local.kinds[kind]:
            # Never met, yet the store may have it.
            self._local.write(kind, key, None, 1, self._local.wall())
            self._records.setdefault((kind, key), known)

        deleted = await self._local.delete(kind, key, expected=expected)
        if deleted:
            self._records.setdefault((kind, key), known)

        return deleted

    async def append(self, stream: str, entries: Sequence[Entry], *, offset: int | None, now_wall: float) -> Appended:
        stream = self._local.follow(stream)
        tail = self._tail(stream, offset)
        appended = await self._local.append(stream, entries, now_wall=now_wall)
        if entries:
            tail.batches.append((tuple(entries), now_wall))

        return appended

    async def truncate(self, stream: str, start: int) -> int:
        stream = self._local.follow(stream)
        tail = self._tail(stream, None)
        dropped = await self._local.truncate(stream, start)
        kept = {entry_id for _, _, entry_id in self._local.streams[stream].rows}
        batches = [
            (tuple(entry for entry in entries if entry.entry_id in kept), wall) for entries, wall in tail.batches
        ]
        tail.batches = [batch for batch in batches if batch[0]]
        tail.cut = min(tail.cut, start)
        return dropped

    async def acquire(self, key: str, owner: str, ttl: float, *, now_wall: float) -> Lease | None:
        lease = await self._local.acquire(key, owner, ttl, now_wall=now_wall)
        return self._touched(lease)

    async def refresh(self, lease: Lease, ttl: float, *, now_wall: float) -> Lease | None:
        return self._touched(await self._local.refresh(lease, ttl, now_wall=now_wall))

    async def release(self, lease: Lease) -> bool:
        released = await self._local.release(lease)
        if released:
            self._touched(lease)

        return released

    async def force_release(self, key: str) -> int:
        key = self._local.follow(key)
        self._forced[key] = await self._local.force_release(key)
        return self._forced[key]

    async def alias(self, old: str, new: str) -> None:
        old, new = self._local.follow(old), self._local.follow(new)
        await self._local.alias(old, new)
        if old == new:
            return

        self._aliases.append((old, new))
        self._rename(old, new)

    def is_done(self) -> bool:
        """Whether all notes are crossed out."""
        return not (self._aliases or self._forced or self._leases or self._records or self._streams)

    async def bring_back(self, store: Store, now_wall: float) -> None:
        """Bring everything back.

        Raises:
            StoreError: the store is out again; what is left stays noted.
        """
        while not self.is_done():
            if self._aliases:
                await store.alias(*self._aliases[0])
                del self._aliases[0]
            elif self._forced:
                await self._bring_forced(store, next(iter(self._forced)))
            elif self._leases:
                await self._bring_lease(store, next(iter(self._leases)), now_wall)
            elif self._records:
                await self._bring_record(store, *next(iter(self._records)))
            else:
                await self._bring_stream(store, next(iter(self._streams)))

            self.written += 1

    async def _bring_forced(self, store: Store, key: str) -> None:
        seen = self._forced[key]
        self._mirror.fit_generation(key, stored=await store.force_release(key), seen=seen)
        self._held.pop(key, None)
        if self._forced.get(key) == seen:
            del self._forced[key]

    async def _bring_lease(self, store: Store, key: str, now_wall: float) -> None:
        row = self._local.leases.get(key)
        before = self._held.pop(key, None)
        del self._leases[key]
        try:
            if before is not None and (row is None or row.generation != before.generation or row.owner is None):
                await store.release(self._mirror.stored_lease(before))
                before = None

            if row is not None and row.owner is not None and row.expires_wall > now_wall:
                await self._keep_lease(
                    store,
                    Lease(key=key, owner=row.owner, generation=row.generation, expires_wall=row.expires_wall),
                    before,
                    now_wall,
                )
        except BaseException:
            self._leases[key] = None
            if before is not None:
                self._held[key] = before

            raise

    async def _keep_lease(self, store: Store, lease: Lease, before: Lease | None, now_wall: float) -> None:
        lasts = lease.expires_wall - now_wall
        kept = None
        if before is not None:
            kept = await store.refresh(self._mirror.stored_lease(before), lasts, now_wall=now_wall)
        if kept is None:
            kept = await store.acquire(lease.key, lease.owner, lasts, now_wall=now_wall)
        if kept is None:
            self.conflicts += 1
            self._mirror.held.pop(lease.key, None)
            return

        self._mirror.fit_generation(kept.key, stored=kept.generation, seen=lease.generation)
        self._mirror.note_lease(lease.key, kept, mine=True)

    async def _bring_record(self, store: Store, kind: str, key: str) -> None:
        row = self._local.kinds[kind][key]
        written, is_ours = await self._write(store, kind, key, row)
        seen = row.revision if is_ours else row.revision + 1
        if written is not None:
            self._mirror.fit_revision(kind, key, stored=written.revision, seen=seen)

        self._mirror.note_record(kind, key, written)
        if self._local.kinds[kind][key] is row:
            del self._records[kind, key]
        else:
            self._records[kind, key] = written.revision if written else 0

    async def _write(self, store: Store, kind: str, key: str, row: Row) -> tuple[Record | None, bool]:
        ours = None if row.text is None else decode(row.text)
        value, base = ours, self._records[kind, key]
        for attempt in range(TRIES):
            if value is None:
                if await store.delete(kind, key, expected=base):
                    return None, True
            elif written := await store.put(kind, key, value, expected=base):
                return written, value == ours

            theirs = await store.get(kind, key)
            if theirs is None and ours is None:
                return None, True

            self.conflicts += attempt == 0
            value = _merged(kind, ours, row.wall, theirs)
            if theirs is not None and value == theirs.value:
                return theirs, value == ours

            base = theirs.revision if theirs else 0

        return await store.put(kind, key, value or {}), value == ours

    async def _bring_stream(self, store: Store, stream: str) -> None:
        tail = self._streams[stream]
        if tail.cut < tail.end:
            end = (await store.append(stream, (), now_wall=0.0)).next_sequence
            if end == tail.end:
                await store.truncate(stream, tail.cut)
            else:
                self.conflicts += 1

            tail.end = tail.cut
        while tail.batches:
            entries, wall = tail.batches[0]
            await store.append(stream, entries, now_wall=wall)
            del tail.batches[0]

        del self._streams[stream]
        self._local.streams.pop(stream, None)

    def _base(self, kind: str, key: str, expected: int | None) -> int:
        """The store's revision under what is about to be written; a key that was never met is taken at the word."""
        row = self._local.kinds[kind].get(key)
        if row is None and expected:
            row = self._local.write(kind, key, "{}", expected, 0.0)

        seen = 0 if row is None or row.text is None else row.revision
        return self._mirror.stored_revision(kind, key, seen) or 0

    def _tail(self, stream: str, offset: int | None) -> Tail:
        if stream not in self._local.streams:
            self._local.streams[stream] = Stream(first=offset or 0)
        if stream not in self._streams:
            end = self._local.streams[stream].end
            self._streams[stream] = Tail(end=end, cut=end, batches=[])

        return self._streams[stream]

    def _touched(self, lease: Lease | None) -> Lease | None:
        if lease is not None:
            self._leases[self._local.follow(lease.key)] = None

        return lease

    def _rename(self, old: str, new: str) -> None:
        for kind, key in list(self._records):
            if key == old:
                base = self._records.pop((kind, old))
                self._records.setdefault((kind, new), base)

        _rename(self._forced, old, new)
        _rename(self._leases, old, new)
        _rename(self._streams, old, new)
        _rename(self._held, old, new)


def _rename(notes: dict[str, T], old: str, new: str) -> None:
    if old in notes:
        moved = notes.pop(old)
        notes.setdefault(new, moved)


def _merged(kind: str, ours: Json | None, our_wall: float, theirs: Record | None) -> Json | None:
    if theirs is None or theirs.value is None:
        return ours

    newer = our_wall > theirs.written_wall
    if ours is None:
        return None if newer and kind not in LASTING else theirs.value

    return merge(kind, theirs.value, ours) if newer else merge(kind, ours, theirs.value)
