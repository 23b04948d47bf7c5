"""Store: what must outlive a process or be shared by several, behind one small protocol.

Theory of operation
===================

Everything is one of five things:

- **Record**: a JSON object under (kind, key) with a revision. It is written by compare-and-set: a writer says which
  revision it saw, 0 for "there is none", and a foreign write in between makes the write fail. Turn intents, session
  states, health and conversations' heads are kinds of records.
- **Stream**: entries with contiguous sequences from 0. Appends never lose or overwrite: a stale offset is answered
  with the true one (A16-A21), and an entry whose id is already in the stream is not stored again (K-A4).
- **Lease**: at most one owner per key until a deadline. Acquired if absent or expired; refreshed and released by its
  owner only, checked in the same step; forced release raises the generation, so that a late owner is refused (A22-A24,
  K-A5, X03).
- **Alias**: an old key leads to a new one (X07). Records, streams and leases are always resolved first, so that both
  names mean the same thing, also when one of them was deleted meanwhile (K-W7).
- **Change**: every write of a record, and every deletion, has a number that grows over the whole store. Whoever
  remembers the last one that it saw asks for what came after.

Each operation is atomic, and one round trip where the store is remote. Times are epoch seconds, given by the caller:
processes share the wall clock, not the monotonic one. Only writes, deletions and the use of an alias are stamped with
the store's own wall clock. Whatever breaks is raised as `StoreError`; nothing else is, but for a value that is not
JSON: `TypeError` or `ValueError`, before anything was touched. A call that is cancelled may still take effect.

What stays unique
-----------------

- A key's revisions never come twice, also over a deletion, which counts as a write: whoever saw revision 2 before the
  record was deleted and written anew is refused. (They begin anew once the tombstone was forgotten.)
- A key's generations only ever grow, also over `forget`. A free lease is always given under a higher generation than
  any before it; first ones need not be 1.
- A change number that is higher than the store's own tells that the store began anew (set aside, flushed): `changes`
  then answers with everything.

Where two names meet
--------------------

`alias` leads the key that `old` leads to, and all others that lead there, to the key that `new` leads to; two names
that mean the same already are left alone, so there are no circles. If both names hold something:

| under both      | what goes on                                                                                    |
|-----------------|-------------------------------------------------------------------------------------------------|
| record          | the one of the newer change, under a revision that neither had; a tombstone never wins          |
| stream          | the entries of `old`, then those of `new` whose ids are not among them, numbered anew           |
| lease           | the one with the later deadline; whoever held the other is refused from then on                 |

Watchers see the tombstone of (kind, old) and the record under (kind, new). Names are kept while a lease is held on
what they lead to; `forget` drops them when they were last used before its time (to the minute).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

Json = Mapping[str, Any]

SCHEMA_VERSION = 1
"""Version of the stored layout; a store with a newer one is refused, an older one is migrated."""
APPEND_TRIES = 5
"""Tries of an append against collisions before the error goes up (A16)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A stored JSON object.

    Attributes:
        revision: 1 for the first write of a key, one more for each further one.
        change: the store-wide number of its last write.
        value: None for a record that was deleted; only `changes` shows such.
        written_wall: when it was last written or deleted, by the writer's clock; tells the newer of two copies.
    """

    kind: str
    key: str
    value: Json | None
    revision: int
    change: int
    written_wall: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is appended to a stream; `entry_id` makes it idempotent, None for no such guard."""

    value: Json
    entry_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An entry in its stream, with the one timestamp of its batch (A18)."""

    sequence: int
    value: Json
    at_wall: float
    entry_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """Where a batch went.

    Attributes:
        sequences: one per entry given, in order: its own, or that of the entry that was there already.
        next_sequence: the next free one.
    """

    sequences: tuple[int, ...]
    next_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to act on a key until a deadline."""

    key: str
    owner: str
    generation: int
    expires_wall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Writes and deletions of one kind since a number.

    Attributes:
        change: the number to ask from next time.
        records: the newest state of each record that changed, oldest change first.
    """

    change: int
    records: tuple[Record, ...] = field(default=())


EMPTY: Json = MappingProxyType({})


class Store(Protocol):
    """See the module's theory. All methods raise `StoreError` when the store can't be used."""

    async def open(self) -> None:
        """Connect, create or migrate.

        Raises:
            ConfigurationError: the URL or the stored schema can't be used by this version.
            StoreError: the store can't be reached.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection; safe to repeat."""
        ...

    async def get(self, kind: str, key: str) -> Record | None:
        """The record, None if there is none."""
        ...

    async def put(self, kind: str, key: str, value: Json, *, expected: int | None = None) -> Record | None:
        """Write a record.

        Args:
            kind: kind of record.
            key: its key.
            value: the whole new value.
            expected: the revision that must be there, 0 for none; None writes in any case.

        Returns:
            The record as written; None when `expected` is not what is there.
        """
        ...

    async def delete(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        """Delete a record; False if there was none, or another revision than `expected`."""
        ...

    async def scan(self, kind: str) -> tuple[Record, ...]:
        """All records of a kind, oldest change first."""
        ...

    async def changes(self, kind: str, *, after: int) -> Changes:
        """What became of a kind after a change number; cheap when nothing did."""
        ...

    async def append(
        self, stream: str, entries: Sequence[Entry], *, offset: int | None = None, now_wall: float
    ) -> Appended:
        """Append a batch with one timestamp; an empty batch changes nothing (A26).

        Args:
            stream: the stream.
            entries: the batch.
            offset: the next free sequence as the caller believes; a stale one is corrected, never obeyed (A21).
            now_wall: the batch's time.
        """
        ...

    async def entries(self, stream: str, *, start: int = 0, limit: int | None = None) -> tuple[Stored, ...]:
        """Entries from a sequence on, in order."""
        ...

    async def truncate(self, stream: str, start: int) -> int:
        """Drop the entries from a sequence on; how many they were."""
        ...

    async def acquire(self, key: str, owner: str, ttl: float, *, now_wall: float) -> Lease | None:
        """Take the lease if nobody holds it, or its holder's time is over; None otherwise.

        The owner of a live lease gets it again, with a new deadline and the same generation. A takeover after expiry
        raises the generation.
        """
        ...

    async def refresh(self, lease: Lease, ttl: float, *, now_wall: float) -> Lease | None:
        """Extend the lease; None when its time is over, or it is no longer this owner's and generation's (A23).

        After None its owner acts no more (K-A7); it may acquire again, under a new generation.
        """
        ...

    async def release(self, lease: Lease) -> bool:
        """Give the lease back; False when it was no longer this owner's."""
        ...

    async def force_release(self, key: str) -> int:
        """Take the lease from whoever holds it; the generation that the next owner will have."""
        ...

    async def holder(self, key: str, *, now_wall: float) -> Lease | None:
        """The live lease on a key, if any."""
        ...

    async def alias(self, old: str, new: str) -> None:
        """Make `old` lead to `new`: records, streams and leases under `old` are found and kept under `new`.

        What is stored under `old` moves. A live lease on either goes on, under one generation (K-W7, W24, W25).
        """
        ...

    async def resolve(self, key: str) -> str:
        """Where a key leads; itself if it has no alias."""
        ...

    async def forget(self, *, before_wall: float) -> int:
        """Drop tombstones, expired leases and aliases that were last used before a time; how many.

        Give it a time before which nobody watched last: a watcher never hears of a forgotten tombstone.
        """
        ...
