"""Checkpoints in virtual time: when one is written, and when none."""

from __future__ import annotations

import logging
from itertools import pairwise

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.errors import StoreError
from fallback_plugin.runtime.checkpoint import FORCED, INTERVAL, Checkpointer, Written, fingerprint, is_due


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


class Answer:
    """What grows, and what was written of it."""

    def __init__(self):
        self.text = ""
        self.written = []
        self.verdicts = []
        self.refusals = 0

    async def write(self, content):
        self.written.append((anyio.current_time(), content))
        verdict = self.verdicts.pop(0) if self.verdicts else True
        if isinstance(verdict, Exception):
            raise verdict

        return verdict

    def refused(self):
        self.refusals += 1

    def checkpointer(self, **settings):
        return Checkpointer(lambda: self.text, self.write, refused=self.refused, **settings)

    @property
    def contents(self):
        return [content for _, content in self.written]


@pytest.mark.parametrize(
    ("grown", "changed", "age", "due"),
    [
        (False, False, 0, False),
        (False, True, 0, False),
        (False, True, FORCED * 9, False),
        (True, True, 0, True),
        (True, False, FORCED - 1, False),
        (True, False, FORCED, True),
    ],
)
def test_the_table(grown, changed, age, due):
    last = Written(at=100.0, activity=4, fingerprint="x")

    assert is_due(last, 5 if grown else 4, "y" if changed else "x", 100.0 + age) is due


def test_k_w9_what_is_not_known_to_have_arrived_is_written_again():
    assert is_due(Written(at=0.0), 1, "x", 0.0)


async def test_w07_growing_activity_writes_at_least_once_per_growth():
    answer = Answer()
    worker = answer.checkpointer(interval=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        for word in ("a", "ab", "abc"):
            answer.text = word
            worker.touch()
            await anyio.sleep(1.5)

        worker.stop()

    assert answer.contents == ["a", "ab", "abc"]


async def test_w08_no_activity_writes_nothing():
    answer = Answer()
    worker = answer.checkpointer()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        answer.text = "changed without a sign of it"
        await anyio.sleep(3600)
        worker.stop()

    assert answer.written == []


async def test_w09_the_worker_stops_at_once_on_its_signal():
    answer = Answer()
    worker = answer.checkpointer()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await anyio.sleep(1)
        worker.touch()
        before = anyio.current_time()
        worker.stop()

    assert anyio.current_time() == before
    assert answer.written == []


async def test_w09_a_write_under_way_is_finished_before_the_worker_ends():
    landed = []

    async def write(content):
        await anyio.sleep(3)
        landed.append(content)
        return True

    worker = Checkpointer(lambda: "text", write)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        worker.touch()
        await anyio.sleep(INTERVAL + 1)
        worker.stop()

    assert landed == ["text"]


async def test_w31_activity_is_looked_at_every_15_seconds():
    answer = Answer()
    worker = answer.checkpointer()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        for number in range(590):
            answer.text = f"{number}"
            worker.touch()
            await anyio.sleep(0.1)

        worker.stop()

    assert [round(at) for at, _ in answer.written] == [15, 30, 45]


async def test_k_w9_identical_content_is_not_written_again():
    answer = Answer()
    answer.text = "same"
    worker = answer.checkpointer(interval=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        for _ in range(200):
            worker.touch()
            await anyio.sleep(1)

        worker.stop()

    assert answer.contents == ["same"]


async def test_k_w9_activity_forces_a_refresh_every_300_seconds():
    answer = Answer()
    answer.text = "same"
    worker = answer.checkpointer(interval=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        for _ in range(1000):
            worker.touch()
            await anyio.sleep(1)

        worker.stop()

    times = [at for at, _ in answer.written]
    assert len(times) == 4
    assert all(FORCED <= later - earlier <= FORCED + 2 for earlier, later in pairwise(times))


async def test_a_failed_write_is_made_again_and_told_once(caplog):
    answer = Answer()
    answer.text = "kept"
    answer.verdicts = [StoreError("away"), StoreError("away"), True]
    worker = answer.checkpointer(interval=1)
    with caplog.at_level(logging.WARNING, "fallback_plugin"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            worker.touch()
            await anyio.sleep(10)
            worker.stop()

    assert answer.contents == ["kept"] * 3
    assert [record.getMessage() for record in caplog.records] == ["checkpoint not written: StoreError"]


async def test_what_is_no_json_is_told_without_its_content(caplog):
    answer = Answer()
    answer.text = {"secret": object()}
    worker = answer.checkpointer(interval=1)
    with caplog.at_level(logging.WARNING, "fallback_plugin"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            worker.touch()
            await anyio.sleep(5)
            answer.text = "good"
            await anyio.sleep(2)
            worker.stop()

    assert answer.contents == ["good"]
    assert "secret" not in caplog.text


async def test_k_w5_a_refused_worker_ends_and_says_so():
    answer = Answer()
    answer.verdicts = [True, False]
    worker = answer.checkpointer(interval=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        for word in ("a", "b", "c", "d"):
            answer.text = word
            worker.touch()
            await anyio.sleep(1.1)

    assert answer.contents == ["a", "b"]
    assert answer.refusals == 1


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_fingerprint_knows_content_and_not_the_order_of_keys(content):
    turned = dict(reversed(content.items())) if isinstance(content, dict) else content

    assert fingerprint(content) == fingerprint(turned)
    assert fingerprint([content]) != fingerprint([content, content])
