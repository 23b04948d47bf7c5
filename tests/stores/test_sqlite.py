"""The SQLite file: its modes, its schema, its corruption, its limits, and several processes on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import pytest

from fallback_plugin.errors import ConfigurationError, StoreError
from fallback_plugin.stores import sqlite_file, sqlite_schema
from fallback_plugin.stores.base import Entry
from fallback_plugin.stores.sqlite import SqliteStore

NOBODY = 65534


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "deep" / "state.db"


@pytest.fixture
async def store(path, anyio_backend):
    opened = SqliteStore(path, patience=0.3)
    await opened.open()
    yield opened
    await opened.close()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def asides(path):
    return sorted(found for found in path.parent.iterdir() if ".corrupt-" in found.name)


def take_away(path, *suffixes):
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink()


@pytest.fixture
def run():
    """Starts a Python process with a script; it gets the package and JSON arguments. None outlives the test."""
    started = []

    def start(script, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def results(processes):
    """What each process printed; each must have ended well."""
    answers = []
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        answers.append(json.loads(output.splitlines()[-1]))

    return answers


PRELUDE = """
import json, sys, time
from pathlib import Path
import anyio
from fallback_plugin.errors import StoreError
from fallback_plugin.stores.base import Entry
from fallback_plugin.stores.sqlite import SqliteStore
arguments = json.loads(sys.argv[1])
"""


# Modes


async def test_the_file_and_what_is_beside_it_are_the_owners_alone(store, path):
    await store.put("kind", "key", {"n": 1})
    assert [mode(Path(f"{path}{suffix}")) for suffix in ("", "-wal", "-shm")] == [0o600] * 3
    assert [mode(path.parent), mode(path.parent.parent)] == [0o700] * 2


async def test_a_file_that_others_could_read_is_closed_to_them(path):
    path.parent.mkdir(parents=True, mode=0o755)
    path.touch(mode=0o666)
    path.chmod(0o666)
    store = SqliteStore(path)
    await store.open()
    await store.close()
    assert mode(path) == 0o600
    # A directory that was there is its maker's business.
    assert mode(path.parent) == 0o755


async def test_the_journal_is_a_wal_that_needs_no_fsync_per_commit(store):
    writer = store._file._writer
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writer.execute("PRAGMA synchronous").fetchone() == (1,)


# Schema


async def test_a_newer_schema_is_refused_and_left_alone(path):
    store = SqliteStore(path)
    await store.open()
    await store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"version 99, newer than version 1.*upgrade fallback-plugin"):
        await store.open()
    assert path.read_bytes() == before
    with pytest.raises(StoreError, match="not open"):
        await store.put("kind", "key", {})
    await store.close()


async def test_another_applications_database_is_refused_and_left_alone(path):
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another application"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_an_older_schema_is_migrated_and_keeps_what_it_holds(store, path, monkeypatch):
    await store.put("kind", "key", {"n": 1})
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", (*sqlite_schema.MIGRATIONS, "CREATE TABLE added (a); SELECT 1;"))
    monkeypatch.setattr(sqlite_schema, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(sqlite_file, "SCHEMA_VERSION", 2)
    newer = SqliteStore(path)
    await newer.open()
    assert (await newer.get("kind", "key")).value == {"n": 1}
    assert newer._file._writer.execute("SELECT count(*) FROM added").fetchone() == (0,)
    await newer.close()

    # The older release, still running, writes no more into a layout that it doesn't know.
    monkeypatch.setattr(sqlite_file, "SCHEMA_VERSION", 1)
    with pytest.raises(StoreError, match="another release of fallback-plugin has taken the store to version 2"):
        await store.put("kind", "key", {})


async def test_a_migration_happens_whole_or_not_at_all(store, path, monkeypatch):
    await store.put("kind", "key", {"n": 1})
    broken = (*sqlite_schema.MIGRATIONS, "CREATE TABLE added (a); CREATE TABLE added (a);")
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", broken)
    monkeypatch.setattr(sqlite_schema, "SCHEMA_VERSION", 2)
    with pytest.raises(StoreError):
        await SqliteStore(path).open()
    await store.put("kind", "key", {"n": 2})
    tables = store._file._writer.execute("SELECT count(*) FROM sqlite_master WHERE name = 'added'").fetchone()
    assert tables == (0,)


# Corruption


@pytest.mark.parametrize(
    "garbage", [b"garbage " * 2000, b"SQLite format 3\x00" + b"\xff" * 5000], ids=["text", "header"]
)
async def test_a_corrupt_file_is_set_aside_and_said_so(path, garbage, caplog):
    path.parent.mkdir(parents=True)
    path.write_bytes(garbage)
    store = SqliteStore(path)
    await store.open()
    await store.put("kind", "key", {"n": 1})
    assert (await store.get("kind", "key")).value == {"n": 1}
    await store.close()

    (aside,) = asides(path)
    assert aside.read_bytes() == garbage
    assert store.warnings == [f"the store's file was corrupt: it is kept as {aside.name}, and a new one was begun"]
    assert store.warnings[0] in caplog.text


@pytest.mark.parametrize("operation", ["get", "put", "changes", "scan", "entries"])
async def test_corruption_that_shows_in_use_is_set_aside_too(store, path, operation):
    for number in range(400):
        await store.put("kind", f"key{number}", {"n": "x" * 500})
    await store.append("stream", [Entry(value={"n": "x" * 500}) for _ in range(50)], now_wall=1.0)
    store._file._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    store._file._writer.execute("PRAGMA shrink_memory")
    store._file.reader.execute("PRAGMA shrink_memory")

    calls = {
        "get": lambda: store.get("kind", "key7"),
        "put": lambda: store.put("kind", "key7", {"n": 2}),
        "changes": lambda: store.changes("kind", after=0),
        "scan": lambda: store.scan("kind"),
        "entries": lambda: store.entries("stream"),
    }
    await calls[operation]()
    (warning,) = store.warnings
    aside = [found for found in asides(path) if not found.name.endswith(("-wal", "-shm"))]
    assert len(aside) == 1
    assert aside[0].name in warning
    assert aside[0].stat().st_size > 200_000
    await store.put("kind", "key", {"n": 3})
    assert (await store.get("kind", "key")).value == {"n": 3}


def test_processes_that_notice_at_once_set_one_file_aside(path, run):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"garbage " * 2000)
    script = """
async def main(path, name):
    store = SqliteStore(Path(path))
    sys.stdin.readline()
    await store.open()
    await store.put("kind", name, {"by": name})
    sys.stdin.readline()
    print(json.dumps([len(store.warnings), sorted(record.key for record in await store.scan("kind"))]))
    await store.close()

anyio.run(main, *arguments)
"""
    processes = [run(script, str(path), f"process{n}") for n in range(4)]
    for line in range(2):
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        time.sleep(2 if line == 0 else 0)

    answers = results(processes)
    assert sum(warnings for warnings, _ in answers) == 1
    assert len(asides(path)) == 1
    names = [f"process{n}" for n in range(4)]
    assert [keys for _, keys in answers] == [names] * 4


async def test_a_file_that_was_taken_away_is_begun_anew(store, path):
    await store.put("kind", "key", {"n": 1})
    take_away(path, "", "-wal", "-shm")
    await store.put("kind", "other", {"n": 2})
    assert path.exists()
    assert [record.key for record in await store.scan("kind")] == ["other"]


async def test_a_file_that_another_process_replaced_is_followed(store, path, tmp_path):
    seen = (await store.changes("kind", after=0)).change
    path.rename(tmp_path / "old.db")
    take_away(path, "-wal", "-shm")
    other = SqliteStore(path)
    await other.open()
    await other.put("kind", "key", {"n": 1})
    await other.close()
    with anyio.fail_after(5):
        while not (await store.changes("kind", after=seen)).records:
            await anyio.sleep(0.05)


# Limits of the machine


async def test_a_full_disk_is_said_and_forgotten_when_there_is_room(store):
    await store.put("kind", "key", {"n": 1})
    writer = store._file._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="no space is left"):
        await store.put("kind", "big", {"n": "x" * 100_000})
    assert (await store.get("kind", "key")).value == {"n": 1}
    assert await store.get("kind", "big") is None
    writer.execute("PRAGMA max_page_count = 100000")
    assert (await store.put("kind", "big", {"n": "x" * 100_000})).revision == 1


def test_a_file_size_limit_is_a_store_error_and_nothing_is_lost(path, run):
    script = """
import resource

async def main(path):
    store = SqliteStore(Path(path))
    await store.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    written, failed = 0, ""
    try:
        for number in range(1000):
            await store.put("kind", f"key{number}", {"n": "x" * 1000})
            written += 1
    except StoreError as error:
        failed = str(error)
    kept = len(await store.scan("kind"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    again = await store.put("kind", "again", {"n": "x" * 1000})
    await store.close()
    print(json.dumps([written, kept, failed, again.revision]))

anyio.run(main, *arguments)
"""
    ((written, kept, failed, revision),) = results([run(script, str(path))])
    assert 0 < written < 1000
    assert kept == written
    assert failed in ("the store's file can't be read or written", "no space is left for the store")
    assert revision == 1


@pytest.mark.parametrize("what", ["file", "directory", "unreadable"])
def test_what_may_not_be_written_is_a_store_error(what, anyio_backend, run):
    # A directory that an unprivileged process can reach; root may write anywhere.
    user = NOBODY if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp())
    try:
        path = directory / "state.db"
        if what != "directory":
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            connection.close()
        if user is not None:
            os.chown(directory, user, user)
            if path.exists():
                os.chown(path, user if what == "file" else 0, -1)
        if path.exists():
            path.chmod(0o000 if what == "unreadable" else 0o400)
        directory.chmod(0o500)
        script = """
import os

async def main(path, user):
    if user is not None:
        # Only now: the interpreter itself may lie where nobody else may read.
        os.seteuid(user)
    store = SqliteStore(Path(path), patience=0.2)
    try:
        await store.open()
        await store.put("kind", "key", {})
    except StoreError as error:
        print(json.dumps(str(error)))

anyio.run(main, *arguments[:2], backend=arguments[2])
"""
        (said,) = results([run(script, str(path), user, anyio_backend)])
        assert said in (
            "the store's file can't be used: Permission denied",
            "the store's file or directory is read-only",
            "the store's file can't be opened",
        )
        assert str(directory) not in said
    finally:
        directory.chmod(0o700)
        shutil.rmtree(directory)


async def test_a_directory_in_the_way_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="can't be used: Is a directory"):
        await SqliteStore(tmp_path).open()


async def test_a_lock_that_is_held_too_long_is_said_and_the_loop_goes_on(store, path):
    await store.put("kind", "key", {"n": 1})
    rival = sqlite3.connect(path, isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    beats = 0

    async def beat():
        nonlocal beats
        while True:
            await anyio.sleep(0.01)
            beats += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        started = anyio.current_time()
        with pytest.raises(StoreError, match="locked for too long"):
            await store.put("kind", "key", {"n": 2})
        assert 0.2 < anyio.current_time() - started < 2
        tasks.cancel_scope.cancel()

    assert beats > 10
    assert (await store.get("kind", "key")).value == {"n": 1}
    rival.execute("ROLLBACK")
    rival.close()
    assert (await store.put("kind", "key", {"n": 3})).revision == 2


async def test_a_cancelled_call_leaves_the_store_usable(store, path):
    rival = sqlite3.connect(path, isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    started = anyio.current_time()
    with anyio.move_on_after(0.05) as scope:
        await store.put("kind", "key", {"n": 1})
    assert scope.cancelled_caught
    assert anyio.current_time() - started < 0.25
    rival.execute("ROLLBACK")
    rival.close()
    assert (await store.put("kind", "key", {"n": 2})) is not None


async def test_a_closed_store_says_so(path):
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="not open"):
        await store.put("kind", "key", {})
    with pytest.raises(StoreError, match="not open"):
        await store.get("kind", "key")


# Several processes

CONTEND = """
async def main(path, name, rounds):
    store = SqliteStore(Path(path), patience=20)
    await store.open()
    sys.stdin.readline()
    refused = 0
    for number in range(rounds):
        while True:
            record = await store.get("kind", "counter")
            count = record.value["count"] if record else 0
            if await store.put("kind", "counter", {"count": count + 1}, expected=record.revision if record else 0):
                break
            refused += 1
        batch = [Entry(value={"by": name}, entry_id=f"{name}-{number}-{part}") for part in (0, 1)]
        appended = await store.append("stream", batch, now_wall=time.time())
        assert appended.sequences[1] == appended.sequences[0] + 1
    taken = [key for key in range(rounds) if await store.acquire(f"key{key}", name, 600, now_wall=time.time())]
    print(json.dumps([refused, taken]))
    await store.close()

anyio.run(main, *arguments)
"""


async def test_processes_on_one_file_lose_nothing_and_share_every_lease_once(store, path, run):
    rounds = 60
    processes = [run(CONTEND, str(path), f"process{n}", rounds) for n in range(4)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()

    answers = await anyio.to_thread.run_sync(results, processes)
    assert (await store.get("kind", "counter")).value == {"count": 4 * rounds}
    assert (await store.get("kind", "counter")).revision == 4 * rounds
    stored = await store.entries("stream")
    assert [entry.sequence for entry in stored] == list(range(4 * rounds * 2))
    assert len({entry.entry_id for entry in stored}) == 4 * rounds * 2
    assert sorted(key for _, taken in answers for key in taken) == list(range(rounds))


async def test_what_a_killed_process_had_written_is_there(store, path, run):
    script = """
async def main(path):
    store = SqliteStore(Path(path))
    await store.open()
    for number in range(100000):
        await store.put("kind", "key", {"n": number})
        print(number, flush=True)

anyio.run(main, *arguments)
"""
    process = run(script, str(path))
    for line in process.stdout:
        if int(line) == 50:
            break
    process.send_signal(signal.SIGKILL)
    said = [int(line) for line in process.stdout if line.endswith("\n")]
    process.communicate()
    record = await store.get("kind", "key")
    assert record.value["n"] >= (said[-1] if said else 50)
    assert (await store.put("kind", "key", {"n": -1})).revision == record.revision + 1


async def test_another_processes_writing_is_seen_at_once(store, path, run):
    script = """
async def main(path):
    store = SqliteStore(Path(path))
    await store.open()
    await store.put("kind", "key", {"n": 1})
    await store.close()
    print("null")

anyio.run(main, *arguments)
"""
    seen = (await store.changes("kind", after=0)).change
    assert (await store.changes("kind", after=seen)).records == ()
    await anyio.to_thread.run_sync(results, [run(script, str(path))])
    assert [record.value for record in (await store.changes("kind", after=seen)).records] == [{"n": 1}]
