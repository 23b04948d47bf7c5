"""The cache of what is built from records, in virtual time on both event loops, under the row ids of seed 002."""

from __future__ import annotations

import logging

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback_plugin.errors import FallbackPluginError, StoreError
from fallback_plugin.runtime.record_cache import RecordCache
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.testing.virtual_time import VIRTUAL_BACKENDS, settle, virtual_backend

KIND = "session"


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


@pytest.fixture
def store():
    return MemoryStore(wall=lambda: 0.0)


class Agent:
    """What is dear to build."""

    def __init__(self, record):
        self.record = record
        self.resets = 0


class Workshop:
    """Builds agents and notes what became of them."""

    def __init__(self, patience=0.0):
        self.built = []
        self.ended = []
        self.patience = patience

    async def build(self, record):
        await anyio.sleep(self.patience)
        agent = Agent(record)
        self.built.append(agent)
        return agent

    async def teardown(self, agent):
        await anyio.sleep(1)
        self.ended.append(agent)

    def reset(self, agent):
        agent.resets += 1

    def cache(self, store, **settings):
        return RecordCache(store, KIND, teardown=self.teardown, reset=self.reset, **settings)


class Unsteady:
    """A store whose reads take time, and fail while it is away."""

    def __init__(self, store):
        self._store = store
        self.away = False
        self.delay = 0.0

    async def get(self, kind, key):
        record = None if self.away else await self._store.get(kind, key)
        await anyio.sleep(self.delay)
        if self.away:
            raise StoreError("away")

        return record


async def write(store, session_id, **value):
    return await store.put(KIND, session_id, value)


async def use(cache, shop, session_id, key="chat", **fields):
    async with cache.hold(key, session_id, shop.build, **fields) as held:
        return held.value


async def test_h01_another_session_under_the_key_reuses_the_agent(store):
    shop = Workshop()
    await write(store, "A")
    await write(store, "B")
    async with shop.cache(store) as cache:
        first = await use(cache, shop, "A")
        await write(store, "B", n=2)
        assert await use(cache, shop, "B") is first
        assert await use(cache, shop, "A") is first

        await write(store, "A", n=2)
        assert await use(cache, shop, "B") is first
        assert await use(cache, shop, "A") is not first


async def test_h02_k_h1_k_h2_five_own_turns_reuse_the_agent_five_times(store):
    shop = Workshop()
    await write(store, "A")
    async with shop.cache(store) as cache:
        for number in range(6):
            async with cache.hold("chat", "A", shop.build) as held:
                assert held.reused is (number > 0)
                for step in range(3):
                    held.wrote(await write(store, "A", turn=number, step=step))

    assert len(shop.built) == 1


async def test_k_h2_own_writes_count_on_every_path(store):
    shop = Workshop()
    async with shop.cache(store) as cache:

        async def fail():
            async with cache.hold("chat", "A", shop.build) as held:
                held.wrote(await write(store, "A"))
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()

        with anyio.move_on_after(5):
            async with cache.hold("chat", "A", shop.build) as held:
                held.wrote(await write(store, "A", n=2))
                await anyio.sleep_forever()

        await use(cache, shop, "A")

    assert len(shop.built) == 1


async def test_h03_a_foreign_write_to_the_same_session_rebuilds(store):
    shop = Workshop()
    await write(store, "A")
    async with shop.cache(store) as cache:
        first = await use(cache, shop, "A")
        record = await write(store, "A", by="somebody else")
        second = await use(cache, shop, "A")
        assert second is not first
        assert second.record == record
        await anyio.sleep(2)
        assert shop.ended == [first]
        assert await use(cache, shop, "A") is second


async def test_h03_a_foreign_write_between_own_ones_of_a_turn_rebuilds(store):
    shop = Workshop()
    await write(store, "A")
    async with shop.cache(store) as cache:
        async with cache.hold("chat", "A", shop.build) as held:
            held.wrote(await write(store, "A", own=1))
            await write(store, "A", by="somebody else")
            held.wrote(await write(store, "A", own=2))

        await use(cache, shop, "A")

    assert len(shop.built) == 2


async def test_h08_what_can_not_be_read_speaks_for_reuse(store, caplog):
    shop = Workshop()
    await write(store, "A")
    unsteady = Unsteady(store)
    async with shop.cache(unsteady) as cache:
        first = await use(cache, shop, "A")
        unsteady.away = True
        await write(store, "A", by="somebody else")
        with caplog.at_level(logging.WARNING, "fallback_plugin"):
            assert await use(cache, shop, "A") is first

        unsteady.away = False
        assert await use(cache, shop, "A") is not first

    assert "StoreError" in caplog.text


async def test_h08_a_missing_record_speaks_for_reuse(store):
    shop = Workshop()
    await write(store, "A")
    async with shop.cache(store) as cache:
        first = await use(cache, shop, "A")
        await store.delete(KIND, "A")
        assert await use(cache, shop, "A") is first


async def test_h08_another_configuration_builds(store):
    shop = Workshop()
    async with shop.cache(store) as cache:
        first = await use(cache, shop, "A", signature="one")
        assert await use(cache, shop, "A", signature="one") is first
        assert await use(cache, shop, "A", signature="two") is not first


async def test_h09_the_verdict_is_on_the_entry_that_is_cached_then(store):
    shop = Workshop()
    await write(store, "A")
    unsteady = Unsteady(store)
    async with shop.cache(unsteady) as cache:
        await use(cache, shop, "A")
        unsteady.delay = 5.0
        await write(store, "A", by="somebody else")
        used = []

        async def look(after):
            await anyio.sleep(after)
            used.append(await use(cache, shop, "A"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look, 0)
            tasks.start_soon(look, 1)

    assert len(shop.built) == 2
    assert used == [shop.built[1]] * 2


async def test_h09_an_own_write_during_the_read_is_not_taken_for_a_foreign_one(store):
    shop = Workshop()
    await write(store, "A")
    unsteady = Unsteady(store)
    async with shop.cache(unsteady) as cache, cache.hold("chat", "A", shop.build) as held:
        unsteady.delay = 5.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use, cache, shop, "A")
            await anyio.sleep(1)
            held.wrote(await write(store, "A", own=1))

    assert len(shop.built) == 1


async def test_h06_an_agent_that_is_being_built_is_waited_for(store):
    shop = Workshop(patience=10)
    used = []
    async with shop.cache(store) as cache:

        async def look():
            used.append(await use(cache, shop, "A"))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(look)

    assert len(shop.built) == 1
    assert used == shop.built * 5


async def test_h06_a_build_that_fails_leaves_the_next_one_its_turn(store):
    shop = Workshop()

    async def fail(record):
        await anyio.sleep(1)
        raise ValueError("no agent")

    async with shop.cache(store) as cache:
        async with anyio.create_task_group() as tasks:

            async def look():
                with pytest.raises(ValueError, match="no agent"):
                    async with cache.hold("chat", "A", fail):
                        pytest.fail("there is nothing to hold")

            tasks.start_soon(look)
            await settle()
            tasks.start_soon(use, cache, shop, "A")

        assert "chat" in cache
        assert len(shop.built) == 1


async def test_h10_an_agent_replaced_while_in_use_does_not_take_the_writes_of_its_turn_along(store):
    shop = Workshop()
    await write(store, "A")
    async with shop.cache(store) as cache:
        async with cache.hold("chat", "A", shop.build) as held:
            await write(store, "A", by="somebody else")
            second = await use(cache, shop, "A")
            assert second is not held.value
            held.wrote(await write(store, "A", own=1))
            await anyio.sleep(5)
            assert shop.ended == []

        await anyio.sleep(5)
        assert shop.ended == [held.value]
        assert await use(cache, shop, "A") is not second


async def test_h11_the_least_recently_used_goes_first_and_never_one_in_use(store):
    shop = Workshop()
    async with shop.cache(store, capacity=3) as cache:
        async with cache.hold("busy", "S", shop.build):
            for key in ("a", "b"):
                await use(cache, shop, "S", key=key)

            await use(cache, shop, "S", key="a")
            await use(cache, shop, "S", key="c")
            assert [key for key in ("busy", "a", "b", "c") if key in cache] == ["busy", "a", "c"]

        await use(cache, shop, "S", key="d")
        assert [key for key in ("busy", "a", "c", "d") if key in cache] == ["a", "c", "d"]


async def test_h11_many_in_use_exceed_the_capacity_until_they_are_let_go(store):
    shop = Workshop()
    async with shop.cache(store, capacity=1) as cache:
        async with cache.hold("a", "S", shop.build), cache.hold("b", "S", shop.build), cache.hold("c", "S", shop.build):
            assert len(cache) == 3

        assert len(cache) == 1


async def test_h11_an_hour_without_use_ends_a_value_but_not_one_in_use(store):
    shop = Workshop()
    async with shop.cache(store) as cache:
        async with cache.hold("long", "S", shop.build):
            await use(cache, shop, "S", key="quiet")
            await anyio.sleep(2400)
            await use(cache, shop, "S", key="used")
            await anyio.sleep(2400)
            assert [key for key in ("long", "quiet", "used") if key in cache] == ["long", "used"]

        await anyio.sleep(1800)
        assert [key for key in ("long", "quiet", "used") if key in cache] == ["long"]


async def test_h12_k_h3_a_slow_teardown_keeps_nobody_waiting(store):
    shop = Workshop()
    await write(store, "A")
    async with shop.cache(store) as cache:
        await use(cache, shop, "A")
        await write(store, "A", by="somebody else")
        began = anyio.current_time()
        await use(cache, shop, "A")
        await use(cache, shop, "B", key="other")
        assert anyio.current_time() - began < 0.5
        assert shop.ended == []


async def test_h12_a_teardown_that_fails_is_told_and_ends_nothing_else(store, caplog):
    shop = Workshop()

    async def fail(agent):
        raise RuntimeError("secret")

    shop.teardown = fail
    with caplog.at_level(logging.WARNING, "fallback_plugin"):
        async with shop.cache(store, capacity=1) as cache:
            await use(cache, shop, "A", key="a")
            await use(cache, shop, "A", key="b")
            await anyio.sleep(1)
            await use(cache, shop, "A", key="c")

    assert len(shop.built) == 3
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_h12_leaving_the_cache_ends_every_value_once(store):
    shop = Workshop()
    async with shop.cache(store, capacity=2) as cache:
        for key in ("a", "b", "c"):
            await use(cache, shop, "A", key=key)

    assert sorted(map(id, shop.ended)) == sorted(map(id, shop.built))


async def test_h13_a_reused_value_is_reset_once_a_turn_and_not_in_nested_ones(store):
    shop = Workshop()
    async with shop.cache(store) as cache:
        await use(cache, shop, "A")
        assert shop.built[0].resets == 0
        async with cache.hold("chat", "A", shop.build):
            assert shop.built[0].resets == 1
            await use(cache, shop, "A")
            assert shop.built[0].resets == 1

        await use(cache, shop, "A")
        assert shop.built[0].resets == 2


@pytest.mark.parametrize("asked", ["A", "B"])
async def test_k_h4_an_agent_of_an_ended_session_is_not_reused(store, asked):
    shop = Workshop()
    await write(store, "A")
    await write(store, "B")
    async with shop.cache(store) as cache:
        async with cache.hold("chat", "A", shop.build) as held:
            held.wrote(await write(store, "A", ended=True))

        assert await use(cache, shop, asked) is not held.value


async def test_x08_after_a_rotation_a_foreign_write_under_the_new_id_is_noticed(store):
    shop = Workshop()
    await write(store, "A")
    async with shop.cache(store) as cache:
        await use(cache, shop, "A")
        await store.alias("A", "B")
        second = await use(cache, shop, "B")
        assert await use(cache, shop, "A") is second
        await write(store, "B", by="somebody else")
        assert await use(cache, shop, "B") is not second


async def test_a_cache_that_does_not_run_says_so(store):
    shop = Workshop()
    cache = shop.cache(store, capacity=0)
    with pytest.raises(FallbackPluginError, match="not running"):
        await use(cache, shop, "A")


STEPS = st.lists(st.sampled_from(["own", "foreign", "use", "switch"]), max_size=25)


@settings(max_examples=100, deadline=None)
@given(backend=st.sampled_from(VIRTUAL_BACKENDS), steps=STEPS)
def test_h08_a_value_is_rebuilt_exactly_when_its_session_was_written_by_others(backend, steps):
    async def main():
        store = MemoryStore(wall=lambda: 0.0)
        shop = Workshop()
        active, built_for, spoilt, builds = "A", None, False, 0
        for session_id in ("A", "B"):
            await write(store, session_id)

        async with shop.cache(store) as cache:
            for step in steps:
                if step == "switch":
                    active = "B" if active == "A" else "A"
                    continue
                if step == "foreign":
                    await write(store, active)
                    spoilt = spoilt or active == built_for
                    continue

                if built_for is None or (spoilt and active == built_for):
                    built_for, spoilt, builds = active, False, builds + 1

                async with cache.hold("chat", active, shop.build) as held:
                    if step == "own":
                        held.wrote(await write(store, active))

                assert len(shop.built) == builds

    name, options = virtual_backend(backend)
    anyio.run(main, backend=name, backend_options=options)
