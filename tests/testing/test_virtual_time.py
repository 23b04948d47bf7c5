"""The clock that jumps: waits take no time, happen in order, and leave ready work its turn."""

from __future__ import annotations

import time

import anyio
import pytest

from fallback_plugin.testing.virtual_time import MOMENT, settle


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


async def test_a_day_passes_at_once():
    started, began = time.perf_counter(), anyio.current_time()

    await anyio.sleep(86_400)

    assert anyio.current_time() - began == pytest.approx(86_400)
    assert time.perf_counter() - started < 5


async def test_waits_end_in_the_order_of_their_times():
    ended = []

    async def wait(seconds):
        await anyio.sleep(seconds)
        ended.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (30, 0.5, 3600, 2):
            tasks.start_soon(wait, seconds)

    assert ended == [0.5, 2, 30, 3600]


async def test_a_limit_cuts_what_waits_for_ever():
    began = anyio.current_time()
    with anyio.move_on_after(45) as scope:
        await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert anyio.current_time() - began == pytest.approx(45)


async def test_settle_runs_long_chains_of_ready_work_and_takes_a_moment():
    rounds = []

    async def work():
        for number in range(500):
            await anyio.lowlevel.checkpoint()
            rounds.append(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        before = anyio.current_time()
        await settle()

        assert len(rounds) == 500
        assert anyio.current_time() - before == pytest.approx(MOMENT)


async def test_settle_leaves_what_waits_waiting():
    done = anyio.Event()

    async def wait():
        await anyio.sleep(0.01)
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await settle()
        assert not done.is_set()
