"""The layout of the SQLite store, and how older files get there."""

from __future__ import annotations

import sqlite3

from fallback_plugin.errors import ConfigurationError
from fallback_plugin.stores.base import SCHEMA_VERSION

APPLICATION_ID = 0x46425031
"""Marks the file as ours ("FBP1"), so that another application's database is never written to."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE counters (
        id INTEGER PRIMARY KEY CHECK (id = 1), change INTEGER NOT NULL, first_generation INTEGER NOT NULL
    );
    INSERT INTO counters VALUES (1, 0, 1);

    CREATE TABLE records (
        key TEXT NOT NULL, kind TEXT NOT NULL, value TEXT, revision INTEGER NOT NULL, change INTEGER NOT NULL,
        wall REAL NOT NULL, PRIMARY KEY (key, kind)
    );
    CREATE UNIQUE INDEX records_changed ON records (kind, change);
    CREATE INDEX records_deleted ON records (wall) WHERE value IS NULL;

    CREATE TABLE entries (
        stream TEXT NOT NULL, sequence INTEGER NOT NULL, value TEXT NOT NULL, wall REAL NOT NULL, entry_id TEXT,
        PRIMARY KEY (stream, sequence)
    );
    CREATE UNIQUE INDEX entries_identified ON entries (stream, entry_id) WHERE entry_id IS NOT NULL;

    CREATE TABLE leases (
        key TEXT PRIMARY KEY, owner TEXT, generation INTEGER NOT NULL, expires REAL NOT NULL,
        following INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX leases_expired ON leases (expires);

    CREATE TABLE aliases (old TEXT PRIMARY KEY, target TEXT NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX aliases_leading ON aliases (target);
    CREATE INDEX aliases_used ON aliases (used);
    """,
)
"""The script at n takes a file from version n to n + 1; version 0 is an empty file."""


def read_version(connection: sqlite3.Connection) -> int:
    """The file's version, 0 for an empty one.

    Raises:
        ConfigurationError: it is newer than this version's, or another application's.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application not in (APPLICATION_ID, 0) or (application == 0 and (version or tables)):
        raise ConfigurationError("the store's file is the database of another application: name another file")

    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"the store's schema is version {version}, newer than version {SCHEMA_VERSION}, the newest that this "
            "release of fallback-plugin knows: upgrade fallback-plugin, or name another file"
        )

    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to `SCHEMA_VERSION`, inside the transaction that the caller has begun.

    Raises:
        ConfigurationError: as `read_version`.
    """
    for script in MIGRATIONS[read_version(connection) : SCHEMA_VERSION]:
        # executescript would commit; no statement of ours holds a semicolon of its own.
        for statement in filter(None, map(str.strip, script.split(";"))):
            connection.execute(statement)

    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
