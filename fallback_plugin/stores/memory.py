"""The store of one process: nothing survives it. It is what the plugin falls back to, and what tests begin with.

No method waits, so each is atomic on its event loop.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from fallback_plugin.stores.base import Appended, Changes, Entry, Json, Lease, Record, Stored
from fallback_plugin.stores.encoding import decode, encode
from fallback_plugin.stores.memory_rows import Alias, LeaseRow, Row, Stream, is_held_by, lease_of, record_of


class MemoryStore:
    """Implements `Store` in dictionaries.

    Args:
        wall: epoch seconds; stamps writes, deletions and the use of aliases.
    """

    inline_reads = True

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self.wall = wall
        self.warnings: list[str] = []
        self.change = 0
        self.first_generation = 1
        self.first_revision = 1
        # Each kind in the order of its changes, so that what is new is found from the end.
        self.kinds: defaultdict[str, dict[str, Row]] = defaultdict(dict)
        self.streams: dict[str, Stream] = {}
        self.leases: dict[str, LeaseRow] = {}
        self.aliases: dict[str, Alias] = {}
        self._leading_to: defaultdict[str, set[str]] = defaultdict(set)

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do; what is stored stays with the object."""

    async def get(self, kind: str, key: str) -> Record | None:
        key = self.follow(key)
        row = self.kinds[kind].get(key)
        return None if row is None or row.text is None else record_of(kind, key, row)

    async def put(self, kind: str, key: str, value: Json, *, expected: int | None = None) -> Record | None:
        text = encode(value)
        key = self.follow(key)
        row = self.kinds[kind].get(key)
        if expected is not None and expected != _revision(row):
            return None

        revision = self.first_revision if row is None else max(self.first_revision, row.revision + 1)
        return record_of(kind, key, self.write(kind, key, text, revision, self.wall()))

    async def delete(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        key = self.follow(key)
        row = self.kinds[kind].get(key)
        if row is None or row.text is None or expected not in (None, row.revision):
            return False

        self.write(kind, key, None, row.revision + 1, self.wall())
        return True

    async def scan(self, kind: str) -> tuple[Record, ...]:
        return tuple(record_of(kind, key, row) for key, row in self.kinds[kind].items() if row.text is not None)

    async def changes(self, kind: str, *, after: int) -> Changes:
        after = 0 if after > self.change else after
        newest_first = takewhile(lambda item: item[1].change > after, reversed(self.kinds[kind].items()))
        records = tuple(record_of(kind, key, row) for key, row in newest_first)[::-1]
        return Changes(change=records[-1].change if records else after, records=records)

    async def append(
        self,
        stream: str,
        entries: Sequence[Entry],
        *,
        offset: int | None = None,  # noqa: ARG002 - the end of the stream is known here
        now_wall: float,
    ) -> Appended:
        texts = [encode(entry.value) for entry in entries]
        stream = self.follow(stream)
        if not texts:
            return Appended(sequences=(), next_sequence=self.streams[stream].end if stream in self.streams else 0)

        rows = self.streams.setdefault(stream, Stream())
        sequences = tuple(rows.add(text, now_wall, entry.entry_id) for text, entry in zip(texts, entries, strict=True))
        return Appended(sequences=sequences, next_sequence=rows.end)

    async def entries(self, stream: str, *, start: int = 0, limit: int | None = None) -> tuple[Stored, ...]:
        rows = self.streams.get(self.follow(stream), Stream())
        start = max(start, rows.first)
        wanted = rows.rows[start - rows.first :][:limit]
        return tuple(
            Stored(sequence=sequence, value=decode(text), at_wall=wall, entry_id=entry_id)
            for sequence, (text, wall, entry_id) in enumerate(wanted, start)
        )

    async def truncate(self, stream: str, start: int) -> int:
        rows = self.streams.get(self.follow(stream))
        return 0 if rows is None else rows.cut(start)

    async def acquire(self, key: str, owner: str, ttl: float, *, now_wall: float) -> Lease | None:
        key = self.follow(key)
        row = self.leases.get(key) or self._free_lease(key)
        if row.owner is not None and row.expires_wall > now_wall:
            if row.owner != owner:
                return None
        else:
            row.owner, row.generation, row.following = owner, row.following, row.following + 1

        row.expires_wall = now_wall + ttl
        return lease_of(key, row)

    async def refresh(self, lease: Lease, ttl: float, *, now_wall: float) -> Lease | None:
        key = self.follow(lease.key)
        row = self.leases.get(key)
        if row is None or not is_held_by(row, lease) or row.expires_wall <= now_wall:
            return None

        row.expires_wall = now_wall + ttl
        return lease_of(key, row)

    async def release(self, lease: Lease) -> bool:
        row = self.leases.get(self.follow(lease.key))
        if row is None or not is_held_by(row, lease):
            return False

        row.owner = None
        return True

    async def force_release(self, key: str) -> int:
        key = self.follow(key)
        row = self.leases.get(key) or self._free_lease(key)
        row.owner = None
        return row.following

    async def holder(self, key: str, *, now_wall: float) -> Lease | None:
        key = self.follow(key)
        row = self.leases.get(key)
        return None if row is None or row.owner is None or row.expires_wall <= now_wall else lease_of(key, row)

    async def alias(self, old: str, new: str) -> None:
        old, new = self.follow(old), self.follow(new)
        if old == new:
            return

        self._move_records(old, new)
        self._move_stream(old, new)
        self._move_lease(old, new)
        self.redirect(old, new)

    async def resolve(self, key: str) -> str:
        return self.follow(key)

    async def forget(self, *, before_wall: float) -> int:
        return (
            self._forget_tombstones(before_wall) + self._forget_leases(before_wall) + self._forget_aliases(before_wall)
        )

    def write(self, kind: str, key: str, text: str | None, revision: int, wall: float) -> Row:
        """Put a row, or a tombstone, at the end of its kind."""
        self.change += 1
        row = Row(text=text, revision=revision, change=self.change, wall=wall)
        rows = self.kinds[kind]
        rows.pop(key, None)
        rows[key] = row
        return row

    def redirect(self, old: str, new: str) -> None:
        """Make a key, and all that lead to it, lead to another."""
        for key in (old, *self._leading_to.pop(old, ())):
            self.lead(key, new)

    def lead(self, old: str, target: str) -> None:
        """Note where a key leads."""
        self.aliases[old] = Alias(target=target, used_wall=self.wall())
        self._leading_to[target].add(old)

    def follow(self, key: str) -> str:
        """Resolve, and note the use."""
        alias = self.aliases.get(key)
        if alias is None:
            return key

        alias.used_wall = self.wall()
        return alias.target

    def _free_lease(self, key: str) -> LeaseRow:
        row = LeaseRow(owner=None, generation=0, expires_wall=self.wall(), following=self.first_generation)
        self.leases[key] = row
        return row

    def _move_records(self, old: str, new: str) -> None:
        for kind, rows in self.kinds.items():
            ours, theirs = rows.get(old), rows.get(new)
            if ours is None or ours.text is None:
                continue

            stays = theirs is not None and theirs.text is not None and theirs.change > ours.change
            kept = theirs if stays and theirs else ours
            revision = ours.revision if theirs is None else max(ours.revision, theirs.revision) + 1
            self.write(kind, old, None, ours.revision + 1, self.wall())
            self.write(kind, new, kept.text, revision, kept.wall)

    def _move_stream(self, old: str, new: str) -> None:
        if old not in self.streams:
            return

        moved = self.streams.pop(old)
        for text, wall, entry_id in self.streams.get(new, Stream()).rows:
            moved.add(text, wall, entry_id)

        self.streams[new] = moved

    def _move_lease(self, old: str, new: str) -> None:
        if old not in self.leases:
            return

        ours = self.leases.pop(old)
        theirs = self.leases.get(new, ours)
        following = max(ours.following, theirs.following)
        self.leases[new] = max(ours, theirs, key=lambda row: (row.owner is not None, row.expires_wall))
        self.leases[new].following = following

    def _forget_tombstones(self, before_wall: float) -> int:
        forgotten = 0
        for rows in self.kinds.values():
            keys = [key for key, row in rows.items() if row.text is None and row.wall < before_wall]
            forgotten += _drop(rows, keys)

        return forgotten

    def _forget_leases(self, before_wall: float) -> int:
        keys = [key for key, row in self.leases.items() if row.expires_wall < before_wall]
        self.first_generation = max([self.first_generation, *(self.leases[key].following for key in keys)])
        return _drop(self.leases, keys)

    def _forget_aliases(self, before_wall: float) -> int:
        # Expired leases are gone by now; one that is held keeps every name it goes by (K-W7).
        held = {key for key, row in self.leases.items() if row.owner is not None}
        keys = [
            old for old, alias in self.aliases.items() if alias.used_wall < before_wall and alias.target not in held
        ]
        for old in keys:
            self._leading_to[self.aliases[old].target].discard(old)

        return _drop(self.aliases, keys)


def _drop(rows: dict[str, Row] | dict[str, LeaseRow] | dict[str, Alias], keys: Iterable[str]) -> int:
    return sum(rows.pop(key, None) is not None for key in keys)


def _revision(row: Row | None) -> int:
    return 0 if row is None or row.text is None else row.revision
