"""What a process remembers of a store, so that it can go on alone, and how its numbers fit to the store's afterwards.

An outage of the store makes two lines of revisions and generations: the process counts on from what it saw, and so may
others on the store. Callers must see neither a number go back nor an old one come to mean something new. So a shift
is kept per key from then on: what callers see is the store's number plus the shift.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from fallback_plugin.stores.base import Appended, Entry, Lease, Record, Stored
from fallback_plugin.stores.encoding import encode
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.stores.memory_rows import LeaseRow, Row, Stream

RECORDS_KEPT = 4096
LEASES_KEPT = 4096
STREAMS_KEPT = 256
ENTRIES_KEPT = 512
"""Newest entries kept of each stream."""


class Mirror:
    """The last known state of records, leases and streams that this process has met, bounded.

    Attributes:
        local: the memory store that takes over in an outage.
        held: leases of this process, as it knows them.
    """

    def __init__(self, *, wall: Callable[[], float]) -> None:
        self.local = MemoryStore(wall=wall)
        self.held: OrderedDict[str, Lease] = OrderedDict()
        self._records: OrderedDict[tuple[str, str], Record] = OrderedDict()
        self._revision_shifts: dict[tuple[str, str], int] = {}
        self._generation_shifts: dict[str, int] = {}

    def note_record(self, kind: str, asked: str, record: Record | None) -> Record | None:
        """Remember what the store said of a key; the record as callers see it."""
        if record is None:
            self._records.pop((kind, asked), None)
            return None

        seen = self._shown(record)
        if asked != record.key:
            self.note_alias(asked, record.key)
        if seen.value is None:
            self._records.pop((kind, record.key), None)
            return seen

        self._records[kind, record.key] = seen
        self._records.move_to_end((kind, record.key))
        if len(self._records) > RECORDS_KEPT:
            self._records.popitem(last=False)

        return seen

    def note_records(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """Remember many; as callers see them."""
        seen = (self.note_record(record.kind, record.key, record) for record in records)
        return tuple(record for record in seen if record is not None)

    def note_alias(self, old: str, target: str) -> None:
        """Remember where a key leads."""
        known = self.local.aliases.get(old)
        if known is None or known.target != target:
            self.local.lead(old, target)

    def move(self, old: str, new: str) -> None:
        """Remember that `old` was made to lead to `new`, with all that is known of it."""
        old, new = self.local.follow(old), self.local.follow(new)
        if old == new:
            return

        for kind, key in [known for known in self._records if known[1] == old]:
            ours, theirs = self._records.pop((kind, key)), self._records.get((kind, new))
            if theirs is None:
                self._records[kind, new] = replace(ours, key=new)
            if (kind, old) in self._revision_shifts:
                self._revision_shifts.setdefault((kind, new), self._revision_shifts.pop((kind, old)))

        if old in self._generation_shifts:
            self._generation_shifts.setdefault(new, self._generation_shifts.pop(old))
        if old in self.held:
            self.held.setdefault(new, replace(self.held.pop(old), key=new))
        if old in self.local.streams:
            tail = self.local.streams.pop(old)
            if self.local.streams.pop(new, None) is None:
                self.local.streams[new] = tail

        self.local.redirect(old, new)

    def note_lease(self, asked: str, lease: Lease | None, *, mine: bool) -> Lease | None:
        """Remember a lease, if it is this process's; as callers see it."""
        if lease is None:
            return None

        if asked != lease.key:
            self.note_alias(asked, lease.key)

        seen = replace(lease, generation=lease.generation + self._generation_shifts.get(lease.key, 0))
        if mine:
            self.held[lease.key] = seen
            self.held.move_to_end(lease.key)
            if len(self.held) > LEASES_KEPT:
                self.held.popitem(last=False)

        return seen

    def note_entries(self, stream: str, stored: Sequence[Stored]) -> None:
        """Remember entries that were read, if they reach the end of what is known."""
        if not stored:
            return

        known = self.local.streams.get(stream)
        if known is None or stored[0].sequence <= known.first <= known.end <= stored[-1].sequence + 1:
            known = self._begin(stream, stored[0].sequence)
        for entry in stored:
            if entry.sequence == known.end:
                known.add(encode(entry.value), entry.at_wall, entry.entry_id)

        known.trim(ENTRIES_KEPT)

    def note_append(self, stream: str, entries: Sequence[Entry], appended: Appended, wall: float) -> None:
        """Remember entries that were written."""
        known = self.local.streams.get(stream)
        for entry, sequence in zip(entries, appended.sequences, strict=True):
            if known is None or sequence > known.end:
                known = self._begin(stream, sequence)
            if sequence == known.end:
                known.add(encode(entry.value), wall, entry.entry_id)

        if known is not None:
            known.trim(ENTRIES_KEPT)

    def stored_revision(self, kind: str, key: str, seen: int | None) -> int | None:
        """The store's number for a revision that a caller saw; -1 for one that the store never had."""
        if not seen:
            return seen

        return max(-1, seen - self._revision_shifts.get((kind, key), 0)) or -1

    def stored_lease(self, lease: Lease) -> Lease:
        """The lease as the store knows it."""
        key = self.local.follow(lease.key)
        return replace(lease, generation=lease.generation - self._generation_shifts.get(key, 0))

    def shown_generation(self, key: str, generation: int) -> int:
        """A generation of the store as callers see it."""
        return generation + self._generation_shifts.get(self.local.follow(key), 0)

    def fit_revision(self, kind: str, key: str, *, stored: int, seen: int) -> None:
        """From now on the store's revision `stored` is seen as `seen`."""
        self._revision_shifts[kind, key] = seen - stored
        if seen == stored:
            del self._revision_shifts[kind, key]

    def fit_generation(self, key: str, *, stored: int, seen: int) -> None:
        """From now on the store's generation `stored` is seen as `seen`."""
        self._generation_shifts[key] = seen - stored
        if seen == stored:
            del self._generation_shifts[key]

    def take_over(self, first_change: int) -> None:
        """Let the memory store begin with all that is known; it numbers its changes from `first_change` on."""
        local = self.local
        local.kinds.clear()
        local.leases.clear()
        for record in sorted(self._records.values(), key=lambda record: record.change):
            local.kinds[record.kind][record.key] = Row(
                text=encode(record.value or {}),
                revision=record.revision,
                change=record.change,
                wall=record.written_wall,
            )
        for key, lease in self.held.items():
            local.leases[key] = LeaseRow(
                owner=lease.owner,
                generation=lease.generation,
                expires_wall=lease.expires_wall,
                following=lease.generation + 1,
            )
        local.change = first_change

    def _shown(self, record: Record) -> Record:
        shift = self._revision_shifts.get((record.kind, record.key), 0)
        return replace(record, revision=record.revision + shift) if shift else record

    def _begin(self, stream: str, first: int) -> Stream:
        known = self.local.streams.pop(stream, None)
        if known is None and len(self.local.streams) >= STREAMS_KEPT:
            del self.local.streams[next(iter(self.local.streams))]

        self.local.streams[stream] = Stream(first=first)
        return self.local.streams[stream]
