"""What the SQLite store does inside a transaction: one function per operation of the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from fallback_plugin.stores.base import Appended, Changes, Lease, Record, Stored
from fallback_plugin.stores.encoding import decode

_GET = """
SELECT aliases.target, records.key, records.value, records.revision, records.change, records.wall
FROM (SELECT ?1 AS kind, ?2 AS key) AS asked
LEFT JOIN aliases ON aliases.old = asked.key
LEFT JOIN records ON records.key = coalesce(aliases.target, asked.key) AND records.kind = asked.kind
"""
_HOLDER = """
SELECT aliases.target, leases.key, leases.owner, leases.generation, leases.expires
FROM (SELECT ?1 AS key) AS asked
LEFT JOIN aliases ON aliases.old = asked.key
LEFT JOIN leases
    ON leases.key = coalesce(aliases.target, asked.key) AND leases.owner IS NOT NULL AND leases.expires > ?2
"""
_CHANGES = """
SELECT key, value, revision, change, wall FROM records WHERE kind = ? AND change > ? ORDER BY change LIMIT ?
"""
_SCAN = """
SELECT key, value, revision, change, wall FROM records WHERE kind = ? AND value IS NOT NULL ORDER BY change
"""
_PUT = "INSERT OR REPLACE INTO records (key, kind, value, revision, change, wall) VALUES (?, ?, ?, ?, ?, ?)"
_ENTRIES = """
SELECT sequence, value, wall, entry_id FROM entries
WHERE stream = coalesce((SELECT target FROM aliases WHERE old = ?1), ?1) AND sequence >= ?2 ORDER BY sequence LIMIT ?3
"""


def get(db: Connection, kind: str, key: str) -> tuple[Record | None, bool]:
    """The record, and whether an alias led to it."""
    target, *row = db.execute(_GET, (kind, key)).fetchone()
    return (None if row[1] is None else _record(kind, row)), target is not None


def put(db: Connection, kind: str, key: str, text: str, *, expected: int | None, wall: float) -> Record | None:
    key = follow(db, key, wall)
    value, revision = _revision(db, kind, key)
    if expected is not None and expected != (0 if value is None else revision):
        return None

    row = (key, text, revision + 1, _write(db, kind, key, text, revision + 1, wall=wall), wall)
    return _record(kind, row)


def delete(db: Connection, kind: str, key: str, *, expected: int | None, wall: float) -> bool:
    key = follow(db, key, wall)
    value, revision = _revision(db, kind, key)
    if value is None or expected not in (None, revision):
        return False

    _write(db, kind, key, None, revision + 1, wall=wall)
    return True


def scan(db: Connection, kind: str) -> tuple[Record, ...]:
    return tuple(_record(kind, row) for row in db.execute(_SCAN, (kind,)))


def changes(db: Connection, kind: str, after: int, limit: int | None) -> Changes | None:
    """The changes, None if they are more than the limit."""
    (newest,) = db.execute("SELECT change FROM counters").fetchone()
    after = 0 if after > newest else after
    rows = db.execute(_CHANGES, (kind, after, -1 if limit is None else limit + 1)).fetchall()
    if limit is not None and len(rows) > limit:
        return None

    return Changes(change=rows[-1][3] if rows else after, records=tuple(_record(kind, row) for row in rows))


def append(db: Connection, stream: str, rows: Sequence[tuple[str, str | None]], wall: float) -> Appended:
    """Append (text, id) rows: the write lock is held, so the end of the stream is known (A17)."""
    stream = follow(db, stream, wall)
    end = _end(db, stream)
    sequences: list[int] = []
    for text, entry_id in rows:
        known = _sequence(db, stream, entry_id)
        sequences.append(end if known is None else known)
        if known is None:
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (stream, end, text, wall, entry_id))
            end += 1

    return Appended(sequences=tuple(sequences), next_sequence=end)


def entries(db: Connection, stream: str, start: int, limit: int | None) -> tuple[Stored, ...]:
    rows = db.execute(_ENTRIES, (stream, start, -1 if limit is None else limit))
    return tuple(
        Stored(sequence=sequence, value=decode(text), at_wall=wall, entry_id=entry_id)
        for sequence, text, wall, entry_id in rows
    )


def truncate(db: Connection, stream: str, start: int) -> int:
    return db.execute("DELETE FROM entries WHERE stream = ? AND sequence >= ?", (resolve(db, stream), start)).rowcount


def acquire(db: Connection, key: str, owner: str, ttl: float, now_wall: float) -> Lease | None:
    key = follow(db, key, now_wall)
    held_by, generation, expires, following = _lease_row(db, key)
    if held_by is not None and expires > now_wall:
        if held_by != owner:
            return None
    else:
        generation, following = following, following + 1

    db.execute(
        "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", (key, owner, generation, now_wall + ttl, following)
    )
    return Lease(key=key, owner=owner, generation=generation, expires_wall=now_wall + ttl)


def refresh(db: Connection, lease: Lease, ttl: float, now_wall: float) -> Lease | None:
    key = follow(db, lease.key, now_wall)
    done = db.execute(
        "UPDATE leases SET expires = ? WHERE key = ? AND owner = ? AND generation = ? AND expires > ?",
        (now_wall + ttl, key, lease.owner, lease.generation, now_wall),
    )
    if not done.rowcount:
        return None

    return Lease(key=key, owner=lease.owner, generation=lease.generation, expires_wall=now_wall + ttl)


def release(db: Connection, lease: Lease) -> bool:
    done = db.execute(
        "UPDATE leases SET owner = NULL WHERE key = ? AND owner = ? AND generation = ?",
        (resolve(db, lease.key), lease.owner, lease.generation),
    )
    return done.rowcount > 0


def force_release(db: Connection, key: str, wall: float) -> int:
    key = follow(db, key, wall)
    _, generation, expires, following = _lease_row(db, key)
    expires = expires or wall
    db.execute("INSERT OR REPLACE INTO leases VALUES (?, NULL, ?, ?, ?)", (key, generation, expires, following))
    return following


def holder(db: Connection, key: str, now_wall: float) -> tuple[Lease | None, bool]:
    """The live lease, and whether an alias led to it."""
    target, found, owner, generation, expires = db.execute(_HOLDER, (key, now_wall)).fetchone()
    if found is None:
        return None, target is not None

    return Lease(key=found, owner=owner, generation=generation, expires_wall=expires), target is not None


def resolve(db: Connection, key: str) -> str:
    row = db.execute("SELECT target FROM aliases WHERE old = ?", (key,)).fetchone()
    return row[0] if row else key


def follow(db: Connection, key: str, wall: float) -> str:
    """Resolve, and note the use."""
    target = resolve(db, key)
    if target != key:
        touch(db, key, wall)

    return target


def touch(db: Connection, key: str, wall: float) -> None:
    """Note an alias's use."""
    db.execute("UPDATE aliases SET used = max(used, ?) WHERE old = ?", (wall, key))


def alias(db: Connection, old: str, new: str, wall: float) -> None:
    old, new = follow(db, old, wall), follow(db, new, wall)
    if old == new:
        return

    for kind, text, revision, change, written in db.execute(
        "SELECT kind, value, revision, change, wall FROM records WHERE key = ? AND value IS NOT NULL", (old,)
    ).fetchall():
        _move_record(db, kind, (old, new), (text, revision, change, written), wall)

    _move_entries(db, old, new)
    _move_lease(db, old, new)
    db.execute("UPDATE aliases SET target = ? WHERE target = ?", (new, old))
    db.execute("INSERT INTO aliases VALUES (?, ?, ?)", (old, new, wall))


def forget(db: Connection, before_wall: float, limit: int) -> int:
    """Drop at most so many tombstones, leases and aliases each."""
    tombstones = "SELECT rowid FROM records WHERE value IS NULL AND wall < ? LIMIT ?"
    dropped = db.execute(f"DELETE FROM records WHERE rowid IN ({tombstones})", (before_wall, limit)).rowcount  # noqa: S608
    expired = db.execute("SELECT key, following FROM leases WHERE expires < ? LIMIT ?", (before_wall, limit)).fetchall()
    if expired:
        highest = max(following for _, following in expired)
        db.execute("UPDATE counters SET first_generation = max(first_generation, ?)", (highest,))
        db.executemany("DELETE FROM leases WHERE key = ?", [(key,) for key, _ in expired])

    # One that is held keeps every name it goes by (K-W7).
    unused = db.execute(
        """SELECT old FROM aliases WHERE used < ?1 AND NOT EXISTS (
            SELECT 1 FROM leases WHERE key = aliases.target AND owner IS NOT NULL AND expires >= ?1
        ) LIMIT ?2""",
        (before_wall, limit),
    ).fetchall()
    db.executemany("DELETE FROM aliases WHERE old = ?", unused)
    return dropped + len(expired) + len(unused)


def _revision(db: Connection, kind: str, key: str) -> tuple[str | None, int]:
    row = db.execute("SELECT value, revision FROM records WHERE key = ? AND kind = ?", (key, kind)).fetchone()
    return row or (None, 0)


def _write(db: Connection, kind: str, key: str, text: str | None, revision: int, *, wall: float) -> int:
    db.execute("UPDATE counters SET change = change + 1")
    (change,) = db.execute("SELECT change FROM counters").fetchone()
    db.execute(_PUT, (key, kind, text, revision, change, wall))
    return change


def _end(db: Connection, stream: str) -> int:
    (newest,) = db.execute("SELECT max(sequence) FROM entries WHERE stream = ?", (stream,)).fetchone()
    return 0 if newest is None else newest + 1


def _sequence(db: Connection, stream: str, entry_id: str | None) -> int | None:
    if entry_id is None:
        return None

    row = db.execute("SELECT sequence FROM entries WHERE stream = ? AND entry_id = ?", (stream, entry_id)).fetchone()
    return row[0] if row else None


def _lease_row(db: Connection, key: str) -> tuple[str | None, int, float, int]:
    row = db.execute("SELECT owner, generation, expires, following FROM leases WHERE key = ?", (key,)).fetchone()
    if row:
        return row

    (first,) = db.execute("SELECT first_generation FROM counters").fetchone()
    return None, 0, 0.0, first


def _move_record(
    db: Connection, kind: str, names: tuple[str, str], ours: tuple[str, int, int, float], wall: float
) -> None:
    old, new = names
    text, revision, change, written = ours
    theirs = db.execute(
        "SELECT value, revision, change, wall FROM records WHERE key = ? AND kind = ?", (new, kind)
    ).fetchone()
    _write(db, kind, old, None, revision + 1, wall=wall)
    if theirs:
        if theirs[0] is not None and theirs[2] > change:
            text, written = theirs[0], theirs[3]
        revision = max(revision, theirs[1]) + 1

    _write(db, kind, new, text, revision, wall=written)


def _move_entries(db: Connection, old: str, new: str) -> None:
    theirs = db.execute(_ENTRIES, (new, 0, -1)).fetchall()
    if theirs and not _end(db, old):
        return

    db.execute("DELETE FROM entries WHERE stream = ?", (new,))
    db.execute("UPDATE entries SET stream = ? WHERE stream = ?", (new, old))
    for _, text, wall, entry_id in theirs:
        append(db, new, [(text, entry_id)], wall)


def _move_lease(db: Connection, old: str, new: str) -> None:
    if not db.execute("SELECT 1 FROM leases WHERE key = ?", (old,)).fetchone():
        return

    ours, theirs = _lease_row(db, old), _lease_row(db, new)
    following = max(ours[3], theirs[3])
    goes_on = max(ours, theirs, key=lambda row: (row[0] is not None, row[2]))
    db.execute("DELETE FROM leases WHERE key = ?", (old,))
    db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", (new, *goes_on[:3], following))


def _record(kind: str, row: Sequence[Any]) -> Record:
    key, text, revision, change, wall = row
    value = None if text is None else decode(text)
    return Record(kind=kind, key=key, value=value, revision=revision, change=change, written_wall=wall)
