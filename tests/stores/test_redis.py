"""The Redis store on a real server: stopped, started again, slow, refusing, and what it leaves there."""

from __future__ import annotations

import socket

import anyio
import pytest

from fallback_plugin.errors import ConfigurationError, StoreError
from fallback_plugin.stores.base import SCHEMA_VERSION, Entry
from fallback_plugin.stores.redis import RedisStore

NOW = 1_800_000_000.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def namespace(request):
    return request.node.name


@pytest.fixture
async def store(valkey_server, namespace):
    opened = RedisStore(valkey_server.url, namespace=namespace)
    await opened.open()
    yield opened
    await opened.close()


async def use_everything(store):
    await store.put("kind", "key", {"n": 1})
    await store.put("kind", "gone", {"n": 1})
    await store.delete("kind", "gone")
    await store.append("stream", [Entry(value={"n": 1}, entry_id="i"), Entry(value={"n": 2})], now_wall=NOW)
    lease = await store.acquire("key", "one", 10, now_wall=NOW)
    await store.refresh(lease, 10, now_wall=NOW)
    await store.alias("stream", "elsewhere")
    await store.changes("kind", after=0)
    await store.scan("kind")
    await store.get("kind", "key")
    await store.entries("stream")
    await store.holder("key", now_wall=NOW)
    await store.resolve("stream")
    await store.truncate("stream", 1)
    await store.release(lease)
    await store.force_release("key")
    await store.forget(before_wall=1.0)


async def test_every_key_is_under_the_prefix_with_one_hash_tag(own_server):
    store = RedisStore(own_server.url, namespace="team")
    await store.open()
    await use_everything(store)
    await store.close()
    with own_server.client() as client:
        keys = client.keys("*")
        assert len(keys) > 8
        assert all(key.startswith(b"fallback:{team}:") for key in keys)
        assert all(key.count(b"{") == 1 for key in keys)


async def test_every_operation_is_one_round_trip(own_server):
    store = RedisStore(own_server.url)
    await store.open()
    # The server learns the scripts.
    await use_everything(store)

    def commands(client):
        statistics = client.info("commandstats")
        return sum(of["calls"] for name, of in statistics.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))

    with own_server.client() as client:
        client.config_resetstat()
        await use_everything(store)
        # The 17 calls above, each one script.
        assert commands(client) == 17
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 17
    await store.close()


async def test_scripts_that_the_server_forgot_are_sent_again(valkey_server, store):
    await store.put("kind", "key", {"n": 1})
    with valkey_server.client() as client:
        client.script_flush()
    assert (await store.put("kind", "key", {"n": 2})).revision == 2


async def test_tombstones_and_leases_expire_by_themselves(valkey_server, store, namespace):
    await store.put("kind", "key", {"n": 1})
    await store.delete("kind", "key")
    await store.acquire("key", "one", 10, now_wall=NOW)
    prefix = f"fallback:{{{namespace}}}:"
    with valkey_server.client() as client:
        assert 6.9 * 86400 < client.ttl(f"{prefix}record:4:kind:key") <= 7 * 86400
        assert 86400 - 60 < client.ttl(f"{prefix}lease:key") <= 86400 + 10
        # What lives again does not expire.
        await store.put("kind", "key", {"n": 2})
        assert client.ttl(f"{prefix}record:4:kind:key") == -1
        # What has expired is seen as gone, and a generation still grows.
        await store.delete("kind", "key")
        client.delete(f"{prefix}record:4:kind:key", f"{prefix}lease:key")
    assert (await store.changes("kind", after=0)).records == ()
    assert (await store.acquire("key", "two", 10, now_wall=NOW)).generation == 2


async def test_a_newer_schema_is_refused(valkey_server, store, namespace):
    with valkey_server.client() as client:
        assert client.get(f"fallback:{{{namespace}}}:schema") == str(SCHEMA_VERSION).encode()
        client.set(f"fallback:{{{namespace}}}:schema", 99)
    other = RedisStore(valkey_server.url, namespace=namespace)
    with pytest.raises(ConfigurationError, match=r"version 99, newer than version 1.*upgrade"):
        await other.open()
    await other.close()


async def test_namespaces_are_apart(valkey_server, store):
    await store.put("kind", "key", {"n": 1})
    other = RedisStore(valkey_server.url, namespace="other")
    await other.open()
    assert await other.get("kind", "key") is None
    await other.close()


async def test_a_server_that_was_stopped_is_an_error_and_one_that_is_back_is_used(own_server):
    store = RedisStore(own_server.url)
    await store.open()
    await store.put("kind", "key", {"n": 1})
    seen = (await store.changes("kind", after=0)).change
    await anyio.to_thread.run_sync(own_server.stop)
    with anyio.fail_after(5), pytest.raises(StoreError, match="can't be reached"):
        await store.put("kind", "key", {"n": 2})
    with anyio.fail_after(5), pytest.raises(StoreError, match="can't be reached"):
        await store.changes("kind", after=seen)

    await anyio.to_thread.run_sync(own_server.start)
    assert (await store.put("kind", "new", {"n": 3})).revision == 1
    # The server came back empty: whoever watched is told of all that is there.
    for _ in range(2):
        await store.put("kind", "new", {"n": 4})
    assert [record.key for record in (await store.changes("kind", after=100)).records] == ["new"]
    await store.close()


async def test_nobody_at_home_is_an_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = RedisStore(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        with pytest.raises(StoreError, match="can't be reached"):
            await store.open()
        await store.close()


async def test_a_wrong_password_is_an_error_that_does_not_tell_it(own_server):
    store = RedisStore(f"redis://:not-the-password@127.0.0.1:{own_server.port}/0")
    with pytest.raises(StoreError, match="refuses the user or password") as caught:
        await store.open()
    assert "not-the-password" not in str(caught.value)
    await store.close()
    missing = RedisStore(f"redis://127.0.0.1:{own_server.port}/0")
    with pytest.raises(StoreError, match="password"):
        await missing.open()
    await missing.close()


async def test_a_server_that_never_answers_is_an_error_in_time():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout=0.2)
        started = anyio.current_time()
        with pytest.raises(StoreError, match="in time"):
            await store.open()
        assert anyio.current_time() - started < 2
        await store.close()


async def test_a_server_that_is_busy_is_an_error_in_time_and_used_afterwards(own_server):
    store = RedisStore(own_server.url, timeout=0.2)
    await store.open()
    with own_server.client() as client:
        client.execute_command("CLIENT", "PAUSE", "800", "ALL")
        with pytest.raises(StoreError, match="in time"):
            await store.put("kind", "key", {"n": 1})
    await anyio.sleep(1)
    assert await store.put("kind", "key", {"n": 2}) is not None
    await store.close()


async def test_full_memory_and_a_read_only_replica_are_errors_with_their_reason(own_server):
    store = RedisStore(own_server.url)
    await store.open()
    with own_server.client() as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(StoreError, match="memory is full"):
            await store.put("kind", "key", {"secret": "word"})
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreError, match="read-only replica"):
            await store.put("kind", "key", {"secret": "word"})
        client.replicaof("no", "one")
    assert await store.put("kind", "key", {"secret": "word"}) is not None
    await store.close()


async def test_a_user_without_rights_is_an_error(own_server):
    with own_server.client() as client:
        client.acl_setuser(
            "weak", enabled=True, passwords=["+weak"], keys=["other:*"], commands=["+get", "+client", "+hello"]
        )
    store = RedisStore(f"redis://weak:weak@127.0.0.1:{own_server.port}/0")
    with pytest.raises(StoreError, match="access list forbids"):
        await store.open()
    await store.close()


async def test_more_calls_than_connections_wait_their_turn(store):
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(store.put, "kind", f"key{number}", {"n": number})
    assert len(await store.scan("kind")) == 200


async def test_a_kind_of_many_records_comes_in_pages(store):
    async with anyio.create_task_group() as tasks:
        for number in range(2300):
            tasks.start_soon(store.put, "kind", f"key{number}", {"n": number})
    changes = await store.changes("kind", after=0)
    assert len(changes.records) == 2300
    assert [record.change for record in changes.records] == sorted(record.change for record in changes.records)
    assert (await store.changes("kind", after=changes.change)).records == ()


async def test_a_cancelled_call_leaves_the_store_usable(own_server):
    store = RedisStore(own_server.url, timeout=2)
    await store.open()
    with own_server.client() as client:
        client.execute_command("CLIENT", "PAUSE", "300", "ALL")
        with anyio.move_on_after(0.05) as scope:
            await store.put("kind", "key", {"n": 1})
        assert scope.cancelled_caught
    for number in range(5):
        assert (await store.put("kind", "other", {"n": number})).value == {"n": number}
    await store.close()


async def test_a_closed_store_says_so(store):
    await store.close()
    with pytest.raises(StoreError, match="not open"):
        await store.get("kind", "key")
