"""What the memory store holds at rest."""

from __future__ import annotations

from dataclasses import dataclass, field

from fallback_plugin.stores.base import Lease, Record
from fallback_plugin.stores.encoding import decode


@dataclass(slots=True, kw_only=True)
class Row:
    """A record at rest; no text for a tombstone."""

    text: str | None
    revision: int
    change: int
    wall: float


@dataclass(slots=True, kw_only=True)
class LeaseRow:
    """A lease at rest; no owner when it is free.

    Attributes:
        following: the generation that the next owner will have.
    """

    owner: str | None
    generation: int
    expires_wall: float
    following: int


@dataclass(slots=True, kw_only=True)
class Alias:
    """Where an old key leads, and when that was last asked."""

    target: str
    used_wall: float


@dataclass(slots=True)
class Stream:
    """A stream at rest: (text, wall, id) each, from the sequence `first` on."""

    first: int = 0
    rows: list[tuple[str, float, str | None]] = field(default_factory=list[tuple[str, float, str | None]])
    sequences: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def end(self) -> int:
        """The next free sequence."""
        return self.first + len(self.rows)

    def add(self, text: str, wall: float, entry_id: str | None) -> int:
        """The sequence of the entry, which is stored unless its id is known."""
        if entry_id is not None and entry_id in self.sequences:
            return self.sequences[entry_id]

        sequence = self.end
        self.rows.append((text, wall, entry_id))
        if entry_id is not None:
            self.sequences[entry_id] = sequence

        return sequence

    def cut(self, start: int) -> int:
        """Drop from a sequence on; how many."""
        dropped = self.rows[max(0, start - self.first) :]
        del self.rows[len(self.rows) - len(dropped) :]
        for _, _, entry_id in dropped:
            if entry_id is not None:
                del self.sequences[entry_id]

        return len(dropped)

    def trim(self, limit: int) -> None:
        """Keep the newest so many."""
        excess = self.rows[: max(0, len(self.rows) - limit)]
        del self.rows[: len(excess)]
        self.first += len(excess)
        for _, _, entry_id in excess:
            if entry_id is not None:
                del self.sequences[entry_id]


def record_of(kind: str, key: str, row: Row) -> Record:
    value = None if row.text is None else decode(row.text)
    return Record(kind=kind, key=key, value=value, revision=row.revision, change=row.change, written_wall=row.wall)


def lease_of(key: str, row: LeaseRow) -> Lease:
    return Lease(key=key, owner=row.owner or "", generation=row.generation, expires_wall=row.expires_wall)


def is_held_by(row: LeaseRow, lease: Lease) -> bool:
    return row.owner == lease.owner and row.generation == lease.generation
