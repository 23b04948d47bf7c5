"""One task, many deadlines: each fires once, in order, at its time."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback_plugin.runtime.timers import Timers
from fallback_plugin.testing.virtual_time import VIRTUAL_BACKENDS, settle, virtual_backend

DAY = 86_400.0


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


class Fired(list):
    def __call__(self, session_id, timer):
        self.append((session_id, timer, round(anyio.current_time(), 6)))


@asynccontextmanager
async def running(timers):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(timers.run)
        await settle()
        yield
        tasks.cancel_scope.cancel()


async def test_timers_fire_in_the_order_of_their_times_whatever_the_order_they_were_set_in():
    fired = Fired()
    timers = Timers(fired)
    async with running(timers):
        now = anyio.current_time()
        for name, after in (("c", 300.0), ("a", 0.5), ("d", DAY), ("b", 30.0)):
            timers.set(name, 1, now + after)
        await anyio.sleep(DAY + 1)

    assert [name for name, _, _ in fired] == ["a", "b", "c", "d"]
    assert [at - now for _, _, at in fired] == pytest.approx([0.5, 30, 300, DAY], abs=1e-3)
    assert len(timers) == 0


async def test_an_earlier_timer_wakes_the_task_that_waits_for_a_later_one():
    fired = Fired()
    timers = Timers(fired)
    async with running(timers):
        timers.set("late", 1, anyio.current_time() + 1000)
        await settle()
        timers.set("early", 1, anyio.current_time() + 1)
        await anyio.sleep(2)
        assert [name for name, _, _ in fired] == ["early"]
        assert len(timers) == 1


async def test_a_time_that_has_passed_fires_at_once():
    fired = Fired()
    timers = Timers(fired)
    async with running(timers):
        await anyio.sleep(50)
        timers.set("past", 1, 10.0)
        await settle()

    assert [name for name, _, _ in fired] == ["past"]


async def test_timers_set_before_the_task_runs_are_not_lost():
    fired = Fired()
    timers = Timers(fired)
    timers.set("a", 1, anyio.current_time() + 5)
    async with running(timers):
        await anyio.sleep(6)

    assert [name for name, _, _ in fired] == ["a"]


async def test_a_timer_set_while_one_fires_is_heard():
    fired = []

    def fire(session_id, timer):
        fired.append((session_id, timer))
        if timer < 5:
            timers.set(session_id, timer + 1, anyio.current_time() + (0 if timer % 2 else 1))

    timers = Timers(fire)
    async with running(timers):
        timers.set("a", 1, anyio.current_time())
        await anyio.sleep(10)

    assert fired == [("a", number) for number in range(1, 6)]


async def test_an_idle_task_wakes_nobody():
    timers = Timers(Fired())
    async with running(timers):
        before = anyio.current_time()
        with anyio.move_on_after(1_000_000):
            await anyio.sleep_forever()
        assert anyio.current_time() - before == pytest.approx(1_000_000)


@pytest.mark.parametrize("backend", VIRTUAL_BACKENDS)
@settings(max_examples=50, deadline=None)
@given(plan=st.lists(st.tuples(st.floats(0, 10_000), st.floats(-10, DAY / 2)), max_size=40))
def test_every_timer_fires_once_and_never_before_its_time(backend, plan):
    due = {}

    async def play():
        fired = Fired()
        timers = Timers(fired)
        async with running(timers):
            for number, (pause, after) in enumerate(plan):
                await anyio.sleep(pause)
                due[number] = anyio.current_time() + after
                timers.set("ses", number, due[number])
            await anyio.sleep(DAY)

        assert sorted(number for _, number, _ in fired) == sorted(due)
        assert all(at >= due[number] - 1e-5 for _, number, at in fired)
        assert [at for *_, at in fired] == sorted(at for *_, at in fired)

    name, options = virtual_backend(backend)
    anyio.run(play, backend=name, backend_options=options)
