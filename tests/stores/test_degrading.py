"""The store that never fails: alone while the real one is out, and in step with it afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fallback_plugin.errors import ConfigurationError, StoreError
from fallback_plugin.stores.base import Entry
from fallback_plugin.stores.degrading import ALONE_CHANGES, PROBE_KIND, DegradingStore, StoreNoticeType
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.stores.redis import RedisStore
from fallback_plugin.stores.sqlite import SqliteStore
from fallback_plugin.testing.virtual_time import settle, virtual_backend

TTL = 60.0
NOBODY = 65534
REAL = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


class Flaky:
    """A store that others use too (`shared`), which this process reaches, or not.

    `trouble` is None, "out" (nothing happens), "lost" (it happens, the answer is lost) or "slow" (an hour).
    """

    def __init__(self, clock):
        self.shared = MemoryStore(wall=clock)
        self.trouble = None
        self.calls = []
        self.fail_after = None

    def __getattr__(self, name):
        async def call(*arguments, **named):
            self.calls.append((name, anyio.current_time()))
            await anyio.lowlevel.checkpoint()
            if self.fail_after is not None:
                self.fail_after -= 1
                if self.fail_after < 0:
                    raise StoreError("it broke on the way")
            if self.trouble == "slow":
                await anyio.sleep(3600)
            if self.trouble == "out":
                raise StoreError("it is out")
            answer = await getattr(self.shared, name)(*arguments, **named)
            if self.trouble == "lost":
                raise StoreError("the answer is lost")
            return answer

        return call


@pytest.fixture
def inner(clock):
    return Flaky(clock)


@pytest.fixture
def notices():
    return []


@pytest.fixture
async def store(inner, notices, clock, anyio_backend):
    opened = DegradingStore(inner, notices.append, wall=clock)
    await opened.open()
    return opened


async def come_back(store, inner):
    """The store answers again, and the next call finds out."""
    inner.trouble = None
    await anyio.sleep(40)
    await store.changes(PROBE_KIND, after=0)
    assert not store.is_degraded


def value(number):
    return {"n": number}


# Outages and notices


async def test_one_warning_when_it_goes_out_and_one_notice_when_it_is_back(store, inner, notices):
    await store.put("kind", "key", value(1))
    inner.trouble = "out"
    for number in range(5):
        await store.put("kind", "key", value(number))
        await store.get("kind", "other")
    (out,) = notices
    assert (out.notice, out.reason) == (StoreNoticeType.DEGRADED, "it is out")
    assert out.text == "the shared store is out (it is out); going on with what this process knows"
    assert store.is_degraded

    await come_back(store, inner)
    _, back = notices
    assert (back.notice, back.written, back.conflicts) == (StoreNoticeType.BACK, 1, 0)
    assert back.seconds == pytest.approx(40, abs=1)
    assert back.text == "the shared store is back after 40 s; 1 changes brought back"


async def test_a_second_outage_is_told_again(store, inner, notices):
    for _ in range(2):
        inner.trouble = "out"
        await store.get("kind", "key")
        await come_back(store, inner)
    told = [notice.notice for notice in notices]
    assert told == [StoreNoticeType.DEGRADED, StoreNoticeType.BACK] * 2


async def test_probes_back_off_from_one_second_to_thirty(store, inner, notices):
    inner.trouble = "out"
    started = anyio.current_time()
    await store.get("kind", "key")
    inner.calls.clear()
    for _ in range(1000):
        await anyio.sleep(0.1)
        await store.get("kind", "key")
    probes = [at - started for name, at in inner.calls if name == "open"]
    assert [round(at) for at in probes] == [1, 3, 7, 15, 31, 61, 91]
    assert len(notices) == 1


async def test_many_calls_at_once_make_one_outage_and_one_probe(store, inner, notices):
    async def call_often():
        for number in range(5):
            await store.put("kind", f"key{number}", value(number))
            await anyio.sleep(0.5)

    inner.trouble = "out"
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(call_often)
    assert len(notices) == 1
    assert len([name for name, _ in inner.calls if name == "open"]) == 2  # the first open, and one probe


async def test_run_probes_so_that_no_call_has_to(store, inner, notices):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.run)
        await settle()
        inner.trouble = "out"
        await store.put("kind", "key", value(1))
        await anyio.sleep(20)
        inner.calls.clear()
        await store.put("kind", "key", value(2))
        assert inner.calls == []
        inner.trouble = None
        await anyio.sleep(31)
        assert not store.is_degraded
        tasks.cancel_scope.cancel()

    assert (await inner.shared.get("kind", "key")).value == value(2)


async def test_a_store_that_is_slow_is_out(store, inner, notices):
    inner.trouble = "slow"
    started = anyio.current_time()
    assert (await store.put("kind", "key", value(1))).value == value(1)
    assert anyio.current_time() - started == pytest.approx(3, abs=0.01)
    assert (await store.get("kind", "key")).value == value(1)
    assert anyio.current_time() - started == pytest.approx(3, abs=0.01)
    assert notices[0].reason == "it doesn't answer in time"
    await come_back(store, inner)
    assert (await inner.shared.get("kind", "key")).value == value(1)


async def test_a_store_that_is_out_from_the_beginning(inner, notices, clock):
    inner.trouble = "out"
    store = DegradingStore(inner, notices.append, wall=clock)
    await store.open()
    assert await store.get("kind", "key") is None
    await store.put("kind", "key", value(1), expected=0)
    await come_back(store, inner)
    assert (await inner.shared.get("kind", "key")).value == value(1)


async def test_what_the_user_must_mend_is_told_at_the_opening(clock, notices):
    class Newer(MemoryStore):
        async def open(self):
            raise ConfigurationError("upgrade")

    with pytest.raises(ConfigurationError):
        await DegradingStore(Newer(wall=clock), notices.append).open()
    assert notices == []


async def test_reads_that_work_are_not_taken_for_a_store_that_is_back(store, inner, notices):
    """A full disk answers reads."""
    inner.shared.put, put = _refuse, inner.shared.put
    await store.put("kind", "key", value(1))
    await anyio.sleep(40)
    await store.get("kind", "key")
    assert store.is_degraded
    inner.shared.put = put
    await come_back(store, inner)
    assert [notice.notice for notice in notices] == [StoreNoticeType.DEGRADED, StoreNoticeType.BACK]


async def _refuse(*arguments, **named):
    raise StoreError("no space is left")


async def test_closing_brings_back_what_is_left(store, inner):
    inner.trouble = "out"
    await store.put("kind", "key", value(1))
    inner.trouble = None
    await store.close()
    assert (await inner.shared.get("kind", "key")).value == value(1)


async def test_closing_while_it_is_out_is_no_error(store, inner):
    inner.trouble = "out"
    await store.put("kind", "key", value(1))
    await store.close()
    assert (await store.get("kind", "key")).value == value(1)


# Records


async def test_what_was_seen_is_known_in_the_outage(store, inner):
    await store.put("kind", "put", value(1))
    await inner.shared.put("kind", "got", value(2))
    await inner.shared.put("kind", "scanned", value(3))
    await store.get("kind", "got")
    await store.scan("kind")
    inner.trouble = "out"
    assert [record.value for record in await store.scan("kind")] == [value(1), value(2), value(3)]
    assert (await store.get("kind", "got")).value == value(2)


async def test_what_is_known_to_be_gone_is_gone_in_the_outage(store, inner):
    for key in ("deleted", "seen"):
        await store.put("kind", key, value(1))
    seen = (await store.changes("kind", after=0)).change
    await store.delete("kind", "deleted")
    await inner.shared.delete("kind", "seen")
    await store.changes("kind", after=seen)
    inner.trouble = "out"
    assert await store.scan("kind") == ()


async def test_compare_and_set_goes_on_over_an_outage(store, inner):
    first = await store.put("kind", "key", value(1))
    inner.trouble = "out"
    second = await store.put("kind", "key", value(2), expected=first.revision)
    assert await store.put("kind", "key", value(9), expected=first.revision) is None
    third = await store.put("kind", "key", value(3), expected=second.revision)
    await come_back(store, inner)
    assert (await inner.shared.get("kind", "key")).value == value(3)
    # The newest revision stands; the older ones are as stale as they were.
    assert await store.put("kind", "key", value(9), expected=first.revision) is None
    assert await store.put("kind", "key", value(9), expected=second.revision) is None
    assert (await store.get("kind", "key")).revision == third.revision
    fourth = await store.put("kind", "key", value(4), expected=third.revision)
    assert fourth.revision > third.revision
    assert (await inner.shared.get("kind", "key")).value == value(4)


async def test_a_record_that_was_never_met_is_taken_at_the_writers_word(store, inner):
    known = await inner.shared.put("kind", "key", value(1))
    inner.trouble = "out"
    assert await store.get("kind", "key") is None
    assert await store.put("kind", "key", value(2), expected=known.revision) is not None
    await come_back(store, inner)
    assert (await inner.shared.get("kind", "key")).value == value(2)


async def test_a_deletion_is_brought_back(store, inner, clock):
    await store.put("kind", "key", value(1))
    await inner.shared.put("kind", "never met", value(1))
    inner.trouble = "out"
    clock.now += 1
    assert await store.delete("kind", "key")
    assert not await store.delete("kind", "key")
    await store.delete("kind", "never met")
    await come_back(store, inner)
    assert await inner.shared.scan("kind") == ()


async def test_an_answer_that_was_lost_is_no_conflict_for_the_caller(store, inner):
    first = await store.put("kind", "key", value(1), expected=0)
    inner.trouble = "lost"
    second = await store.put("kind", "key", value(2), expected=first.revision)
    assert second.value == value(2)
    await come_back(store, inner)
    assert (await inner.shared.get("kind", "key")).value == value(2)
    assert await store.put("kind", "key", value(3), expected=(await store.get("kind", "key")).revision) is not None


@pytest.mark.parametrize(
    ("kind", "ours", "theirs", "later", "goes_on"),
    [
        ("health", {"until_wall": 9.0}, {"until_wall": 5.0}, "theirs", {"until_wall": 9.0}),
        ("health", {"until_wall": 5.0}, {"until_wall": 9.0}, "ours", {"until_wall": 9.0}),
        ("any", {"by": "us"}, {"by": "them"}, "ours", {"by": "us"}),
        ("any", {"by": "us"}, {"by": "them"}, "theirs", {"by": "them"}),
        ("any", {"by": "us"}, None, "theirs", {"by": "us"}),
        ("any", None, {"by": "them"}, "ours", None),
        ("any", None, {"by": "them"}, "theirs", {"by": "them"}),
        ("turn", None, {"advances": []}, "ours", {"advances": []}),
        ("conversation", None, {"generation": 1}, "ours", {"generation": 1}),
        (
            "turn",
            {"intent": {"a": 1}, "advances": [["m", "a"]]},
            {"intent": None, "advances": []},
            "theirs",
            {"intent": {"a": 1}, "advances": [["m", "a"]]},
        ),
    ],
)
async def test_two_who_wrote_apart(store, inner, notices, clock, kind, ours, theirs, later, goes_on):
    await store.put(kind, "key", {"first": True})
    inner.trouble = "out"

    async def write(who):
        clock.now += 1
        target, written = (store, ours) if who == "ours" else (inner.shared, theirs)
        if written is None:
            await target.delete(kind, "key")
        else:
            await target.put(kind, "key", written)

    await write("theirs" if later == "ours" else "ours")
    await write(later)
    await come_back(store, inner)
    record = await inner.shared.get(kind, "key")
    assert (record and record.value) == goes_on
    assert notices[-1].conflicts == 1
    seen = await store.get(kind, "key")
    assert (seen and seen.value) == goes_on
    if seen is not None:
        assert await store.put(kind, "key", {}, expected=seen.revision) is not None


async def test_a_revision_from_before_a_conflict_is_refused_after_it(store, inner, clock):
    await store.put("kind", "key", value(1))
    inner.trouble = "out"
    mine = await store.put("kind", "key", value(2))
    for number in range(5):
        clock.now += 1
        await inner.shared.put("kind", "key", value(10 + number))
    await come_back(store, inner)
    seen = await store.get("kind", "key")
    assert seen.value == value(14)
    assert seen.revision > mine.revision
    for revision in range(mine.revision + 1):
        assert await store.put("kind", "key", value(9), expected=revision) is None


# Streams


async def test_entries_of_an_outage_are_appended_once_beside_those_of_others(store, inner):
    await store.append("stream", [Entry(value=value(0)), Entry(value=value(1))], now_wall=1.0)
    inner.trouble = "out"
    appended = await store.append("stream", [Entry(value=value(2), entry_id="mine")], now_wall=2.0)
    assert (appended.sequences, appended.next_sequence) == ((2,), 3)
    assert [stored.value["n"] for stored in await store.entries("stream")] == [0, 1, 2]
    await inner.shared.append("stream", [Entry(value=value(100))], now_wall=2.0)
    await store.append("stream", [Entry(value=value(3)), Entry(value=value(2), entry_id="mine")], now_wall=3.0)
    await come_back(store, inner)
    stored = await store.entries("stream")
    assert [(entry.sequence, entry.value["n"], entry.at_wall) for entry in stored] == [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (2, 100, 2.0),
        (3, 2, 2.0),
        (4, 3, 3.0),
    ]
    assert (await store.append("stream", [Entry(value=value(4))], offset=3, now_wall=4.0)).sequences == (5,)


async def test_an_append_whose_answer_was_lost_is_stored_once(store, inner):
    inner.trouble = "lost"
    await store.append("stream", [Entry(value=value(0)), Entry(value=value(1))], now_wall=1.0)
    await come_back(store, inner)
    assert [stored.value["n"] for stored in await inner.shared.entries("stream")] == [0, 1]


async def test_a_stream_that_was_never_met_begins_where_the_caller_says(store, inner):
    await inner.shared.append("stream", [Entry(value=value(n)) for n in range(3)], now_wall=1.0)
    inner.trouble = "out"
    assert (await store.append("stream", [Entry(value=value(3))], offset=3, now_wall=2.0)).sequences == (3,)
    await come_back(store, inner)
    assert [stored.value["n"] for stored in await store.entries("stream")] == [0, 1, 2, 3]


async def test_a_truncation_is_brought_back(store, inner):
    await store.append("stream", [Entry(value=value(n)) for n in range(4)], now_wall=1.0)
    inner.trouble = "out"
    await store.append("stream", [Entry(value=value(4)), Entry(value=value(5))], now_wall=2.0)
    assert await store.truncate("stream", 5) == 1
    assert await store.truncate("stream", 2) == 3
    await store.append("stream", [Entry(value=value(6))], now_wall=3.0)
    assert [stored.value["n"] for stored in await store.entries("stream")] == [0, 1, 6]
    await come_back(store, inner)
    assert [stored.value["n"] for stored in await inner.shared.entries("stream")] == [0, 1, 6]


async def test_a_truncation_drops_nothing_of_others(store, inner, notices):
    await store.append("stream", [Entry(value=value(n)) for n in range(3)], now_wall=1.0)
    inner.trouble = "out"
    await store.truncate("stream", 1)
    await inner.shared.append("stream", [Entry(value=value(100))], now_wall=2.0)
    await come_back(store, inner)
    assert [stored.value["n"] for stored in await inner.shared.entries("stream")] == [0, 1, 2, 100]
    assert notices[-1].conflicts == 1


async def test_a_truncation_of_what_is_there_already_is_known(store, inner):
    await store.append("stream", [Entry(value=value(n)) for n in range(3)], now_wall=1.0)
    await store.truncate("stream", 1)
    await store.entries("stream")
    inner.trouble = "out"
    assert [stored.value["n"] for stored in await store.entries("stream")] == [0]


# Leases


async def test_a_lease_is_kept_over_an_outage(store, inner, clock):
    lease = await store.acquire("key", "me", TTL, now_wall=clock())
    inner.trouble = "out"
    clock.now += 50
    lease = await store.refresh(lease, TTL, now_wall=clock())
    assert await store.acquire("key", "other", TTL, now_wall=clock()) is None
    await come_back(store, inner)
    clock.now += 50
    assert (await inner.shared.holder("key", now_wall=clock())).owner == "me"
    assert (await store.refresh(lease, TTL, now_wall=clock())).generation == lease.generation
    assert await store.release(lease)


async def test_a_lease_of_an_outage_is_acquired_when_it_is_over(store, inner, clock):
    for _ in range(3):
        await inner.shared.force_release("key")
        await inner.shared.release(await inner.shared.acquire("key", "before", TTL, now_wall=clock()))
    inner.trouble = "out"
    lease = await store.acquire("key", "me", TTL, now_wall=clock())
    await come_back(store, inner)
    assert (await inner.shared.holder("key", now_wall=clock())).owner == "me"
    assert (await store.holder("key", now_wall=clock())).generation == lease.generation
    assert (await store.refresh(lease, TTL, now_wall=clock())) is not None
    following = await store.force_release("key")
    assert following > lease.generation
    assert await store.refresh(lease, TTL, now_wall=clock()) is None
    assert (await store.acquire("key", "next", TTL, now_wall=clock())).generation == following


async def test_a_lease_that_somebody_else_took_is_lost(store, inner, clock, notices):
    mine = await store.acquire("key", "me", TTL, now_wall=clock())
    inner.trouble = "out"
    mine = await store.refresh(mine, 10 * TTL, now_wall=clock())
    theirs = await inner.shared.acquire("key", "them", TTL, now_wall=clock() + TTL)
    await come_back(store, inner)
    assert await store.refresh(mine, TTL, now_wall=clock()) is None
    assert not await store.release(mine)
    assert await inner.shared.holder("key", now_wall=clock()) == theirs
    assert notices[-1].conflicts == 1


async def test_a_lease_given_back_in_an_outage_is_given_back(store, inner, clock):
    lease = await store.acquire("key", "me", TTL, now_wall=clock())
    forced = await store.acquire("forced", "me", TTL, now_wall=clock())
    inner.trouble = "out"
    assert await store.release(lease)
    following = await store.force_release("forced")
    assert following > forced.generation
    await come_back(store, inner)
    assert await inner.shared.holder("key", now_wall=clock()) is None
    assert await inner.shared.holder("forced", now_wall=clock()) is None
    assert await store.refresh(forced, TTL, now_wall=clock()) is None
    assert (await store.acquire("forced", "next", TTL, now_wall=clock())).generation == following


# Aliases


async def test_a_rotation_in_an_outage_takes_everything_along(store, inner, clock):
    await store.put("kind", "old", value(1))
    await store.append("old", [Entry(value=value(0))], now_wall=1.0)
    lease = await store.acquire("old", "me", TTL, now_wall=clock())
    inner.trouble = "out"
    await store.put("kind", "old", value(2))
    await store.append("old", [Entry(value=value(1))], now_wall=2.0)
    lease = await store.refresh(lease, TTL, now_wall=clock())
    await store.alias("old", "new")
    await store.alias("new", "newest")
    await store.put("kind", "old", value(3))
    await come_back(store, inner)
    assert await inner.shared.resolve("old") == "newest"
    assert (await inner.shared.get("kind", "old")).value == value(3)
    assert [stored.value["n"] for stored in await inner.shared.entries("newest")] == [0, 1]
    assert (await inner.shared.holder("newest", now_wall=clock())).owner == "me"
    assert (await store.refresh(lease, TTL, now_wall=clock())).generation == lease.generation


async def test_an_alias_made_before_is_known_in_the_outage(store, inner, clock):
    await store.put("kind", "old", value(1))
    lease = await store.acquire("old", "me", TTL, now_wall=clock())
    await store.alias("old", "new")
    await inner.shared.alias("ancient", "new")
    await store.resolve("ancient")
    inner.trouble = "out"
    for name in ("ancient", "old", "new"):
        assert (await store.get("kind", name)).value == value(1)
        assert (await store.holder(name, now_wall=clock())).generation == lease.generation


# Watching


async def test_a_watcher_misses_nothing_over_two_outages(store, inner):
    seen, after = {}, 0

    async def watch():
        nonlocal after
        changes = await store.changes("kind", after=after)
        after = changes.change
        for record in changes.records:
            if record.value is None:
                seen.pop(record.key, None)
            else:
                seen[record.key] = record.value

    await store.put("kind", "first", value(0))
    await watch()
    for outage in range(2):
        await inner.shared.put("kind", f"unseen{outage}", value(1))
        inner.trouble = "out"
        await watch()
        await store.put("kind", f"mine{outage}", value(2))
        await watch()
        assert seen[f"mine{outage}"] == value(2)
        assert after > ALONE_CHANGES
        await inner.shared.put("kind", f"theirs{outage}", value(3))
        await inner.shared.delete("kind", "first")
        await come_back(store, inner)
        await watch()
        assert after < ALONE_CHANGES
        shared = {record.key: record.value for record in await inner.shared.scan("kind")}
        assert seen == shared

    await watch()
    assert (await store.changes("kind", after=after)).records == ()


# On the way back


async def test_what_is_written_while_coming_back_is_brought_back_too(store, inner):
    inner.trouble = "out"
    for number in range(10):
        await store.put("kind", f"key{number}", value(0))
    inner.trouble = None
    await anyio.sleep(2)

    async def write():
        for number in range(10):
            await store.put("kind", f"key{number}", value(1))
            await store.append("stream", [Entry(value=value(number))], now_wall=1.0)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        tasks.start_soon(store.get, "kind", "key0")
    await store.get("kind", "key0")
    assert not store.is_degraded
    assert [record.value for record in await inner.shared.scan("kind")] == [value(1)] * 10
    assert [stored.value["n"] for stored in await inner.shared.entries("stream")] == list(range(10))


@pytest.mark.parametrize("steps", range(14))
async def test_a_second_outage_on_the_way_back_loses_nothing(store, inner, clock, notices, steps):
    held = await store.acquire("held", "me", TTL, now_wall=clock())
    inner.trouble = "out"
    await store.alias("old", "new")
    await store.put("kind", "old", value(1))
    await store.put("kind", "other", value(2))
    await store.append("stream", [Entry(value=value(0))], now_wall=1.0)
    await store.append("stream", [Entry(value=value(1))], now_wall=2.0)
    held = await store.refresh(held, TTL, now_wall=clock())
    await store.acquire("lease", "me", TTL, now_wall=clock())
    await store.force_release("forced")

    inner.trouble, inner.fail_after = None, steps
    await anyio.sleep(40)
    await store.get("kind", "key")
    inner.fail_after = None
    await come_back(store, inner)
    assert (await inner.shared.get("kind", "new")).value == value(1)
    assert (await inner.shared.get("kind", "other")).value == value(2)
    assert [stored.value["n"] for stored in await inner.shared.entries("stream")] == [0, 1]
    for key in ("held", "lease"):
        assert (await inner.shared.holder(key, now_wall=clock())).owner == "me"
    assert await store.refresh(held, TTL, now_wall=clock()) is not None
    assert [notice.notice for notice in notices][:1] == [StoreNoticeType.DEGRADED]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trouble"), st.sampled_from([None, "out", "lost"])),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 40.0])),
        st.tuples(st.just("put"), st.sampled_from("abc")),
        st.tuples(st.just("swap"), st.sampled_from("abc")),
        st.tuples(st.just("delete"), st.sampled_from("abc")),
        st.tuples(st.just("append"), st.sampled_from("st")),
        st.tuples(st.just("break"), st.integers(0, 6)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(steps=STEPS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_process_sees_its_own_writing_whatever_the_store_does(backend, steps):
    async def main():
        now = 1_800_000_000.0

        def wall():
            return now + anyio.current_time()

        inner = Flaky(wall)
        store = DegradingStore(inner, lambda notice: None, wall=wall)
        await store.open()
        records, streams = {}, {"s": [], "t": []}
        for number, (step, argument) in enumerate(steps):
            match step:
                case "trouble":
                    inner.trouble, inner.fail_after = argument, None
                case "break":
                    inner.trouble, inner.fail_after = None, argument
                case "wait":
                    await anyio.sleep(argument)
                case "put":
                    await store.put("kind", argument, value(number))
                    records[argument] = value(number)
                case "swap":
                    seen = await store.get("kind", argument)
                    assert (seen and seen.value) == records.get(argument)
                    expected = seen.revision if seen else 0
                    swapped = await store.put("kind", argument, value(number), expected=expected)
                    # An outage's end may come between; then it is refused, and the same again goes through.
                    if swapped is None:
                        seen = await store.get("kind", argument)
                        swapped = await store.put(
                            "kind", argument, value(number), expected=seen.revision if seen else 0
                        )
                    assert swapped is not None
                    records[argument] = value(number)
                case "delete":
                    await store.delete("kind", argument)
                    records.pop(argument, None)
                case "append":
                    await store.append(argument, [Entry(value=value(number))], now_wall=now)
                    streams[argument].append(number)

            for key in "abc":
                seen = await store.get("kind", key)
                assert (seen and seen.value) == records.get(key)

        inner.trouble, inner.fail_after = None, None
        for _ in range(3):
            await anyio.sleep(40)
            await store.get("kind", "a")
        assert not store.is_degraded
        assert {record.key: record.value for record in await inner.shared.scan("kind")} == records
        for stream, numbers in streams.items():
            assert [stored.value["n"] for stored in await inner.shared.entries(stream)] == numbers

    name, options = virtual_backend(backend)
    anyio.run(main, backend=name, backend_options=options)


# Real stores


async def use(store, number):
    """What a turn does, more or less; nothing of it may fail."""
    lease = await store.acquire("turn", "me", 3600, now_wall=1_800_000_000.0)
    assert lease is not None
    record = await store.get("turn", "session")
    intent = {"advances": [["m", str(number)]], "intent": value(number)}
    assert await store.put("turn", "session", intent, expected=record.revision if record else 0) is not None
    await store.append("log", [Entry(value=value(number))], now_wall=float(number))


async def wait_until_back(store):
    with anyio.fail_after(20):
        while store.is_degraded:
            await anyio.sleep(0.05)
            await store.changes("turn", after=0)


async def test_a_real_server_is_stopped_and_started(own_server, notices):
    def main():
        async def run():
            store = DegradingStore(RedisStore(own_server.url, timeout=0.5), notices.append)
            await store.open()
            await use(store, 0)
            await anyio.to_thread.run_sync(own_server.stop)
            for number in (1, 2, 3):
                await use(store, number)
            assert store.is_degraded
            assert [stored.value["n"] for stored in await store.entries("log")] == [0, 1, 2, 3]
            await anyio.to_thread.run_sync(own_server.start)
            await wait_until_back(store)
            await use(store, 4)
            # It came back empty; what this process did alone is there, and its turn.
            fresh = RedisStore(own_server.url)
            await fresh.open()
            assert (await fresh.get("turn", "session")).value["intent"] == value(4)
            assert [stored.value["n"] for stored in await fresh.entries("log")] == [1, 2, 3, 4]
            assert (await fresh.holder("turn", now_wall=1_800_000_000.0)).owner == "me"
            await fresh.close()
            await store.close()

        anyio.run(run)

    await anyio.to_thread.run_sync(main)
    assert [notice.notice for notice in notices] == [StoreNoticeType.DEGRADED, StoreNoticeType.BACK]
    assert notices[0].reason == "the server can't be reached"


@REAL
async def test_a_real_disk_is_full_and_has_room_again(tmp_path, notices):
    sqlite = SqliteStore(tmp_path / "state.db")
    store = DegradingStore(sqlite, notices.append)
    await store.open()
    await use(store, 0)
    writer = sqlite._file._writer
    writer.execute(f"PRAGMA max_page_count = {writer.execute('PRAGMA page_count').fetchone()[0]}")
    await store.put("big", "key", {"text": "x" * 200_000})
    await use(store, 1)
    assert notices[0].reason == "no space is left for the store"
    await anyio.sleep(1.1)
    await use(store, 2)
    assert store.is_degraded
    writer.execute("PRAGMA max_page_count = 1000000")
    await wait_until_back(store)
    assert [stored.value["n"] for stored in await sqlite.entries("log")] == [0, 1, 2]
    assert (await sqlite.get("turn", "session")).value["intent"] == value(2)
    assert len((await sqlite.get("big", "key")).value["text"]) == 200_000
    await store.close()
    assert len(notices) == 2


@pytest.fixture
def read_only_directory():
    """A directory that this process may not write to; while it is there, root is nobody."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o500)
    privileged = os.geteuid() == 0
    if privileged:
        os.chown(directory, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield directory
    if privileged:
        os.seteuid(0)
    shutil.rmtree(directory)


def open_up(directory):
    directory.chmod(0o700)


@REAL
async def test_a_real_directory_is_read_only_and_writable_again(read_only_directory, notices):
    sqlite = SqliteStore(read_only_directory / "state.db")
    store = DegradingStore(sqlite, notices.append)
    await store.open()
    for number in (1, 2):
        await use(store, number)
    assert notices[0].reason == "the store's file can't be used: Permission denied"
    open_up(read_only_directory)
    await wait_until_back(store)
    await use(store, 3)
    assert [stored.value["n"] for stored in await sqlite.entries("log")] == [1, 2, 3]
    await store.close()
