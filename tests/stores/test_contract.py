"""The one contract of all stores: every sentence of `stores.base`, on each store and each event loop it runs on."""

from __future__ import annotations

from types import MappingProxyType

import anyio
import pytest

from fallback_plugin.stores.base import APPEND_TRIES, Entry, Record, Stored

NOW = 1_800_000_000.0
TTL = 10.0


@pytest.fixture
def anyio_backend(pair):
    return pair[1]


@pytest.fixture
async def store(stores, anyio_backend):
    async with stores.opened() as opened:
        yield opened


async def side_by_side(*calls):
    """The results of calls that run at the same time, in order."""
    results = [None] * len(calls)

    async def run(index, call):
        results[index] = await call()

    async with anyio.create_task_group() as tasks:
        for index, call in enumerate(calls):
            tasks.start_soon(run, index, call)

    return results


def plain(records):
    return [(record.key, record.value) for record in records]


# Records


async def test_a_record_that_is_not_there_is_none(store):
    assert await store.get("kind", "key") is None
    assert await store.scan("kind") == ()
    assert not await store.delete("kind", "key")


async def test_what_was_put_is_read(store, clock):
    written = await store.put("kind", "key", {"a": [1, {"b": None}], "ü": "😀 \ud83d \x00", "f": 0.1})
    assert written == Record(
        kind="kind", key="key", value={"a": [1, {"b": None}], "ü": "😀 \ud83d \x00", "f": 0.1}, revision=1, change=1
    )
    assert written.written_wall == clock.now
    assert await store.get("kind", "key") == written
    assert (await store.get("kind", "key")).written_wall == clock.now


async def test_values_are_kept_as_they_were_and_apart(store):
    inner = [1]
    await store.put("kind", "key", MappingProxyType({"list": inner, "view": MappingProxyType({"a": 1})}))
    inner.append(2)
    (await store.get("kind", "key")).value["list"].append(3)
    assert (await store.get("kind", "key")).value == {"list": [1], "view": {"a": 1}}


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}], ids=["nan", "object", "set"])
async def test_what_is_not_json_is_the_callers_fault_and_changes_nothing(store, value):
    await store.put("kind", "key", {"kept": True})
    with pytest.raises((TypeError, ValueError)):
        await store.put("kind", "key", value)
    with pytest.raises((TypeError, ValueError)):
        await store.append("stream", [Entry(value={"fine": 1}), Entry(value=value)], now_wall=NOW)

    assert (await store.get("kind", "key")).value == {"kept": True}
    assert await store.entries("stream") == ()


async def test_kinds_and_keys_are_apart(store):
    for kind, key in [("a", "b:c"), ("a:b", "c"), ("b", "b:c"), ("a", "c"), ("A", "b:c"), ("", ""), ("{x}", "*")]:
        assert await store.put(kind, key, {"is": [kind, key]}, expected=0) is not None
        assert (await store.get(kind, key)).value == {"is": [kind, key]}


async def test_a_write_says_which_revision_it_saw(store):
    first = await store.put("kind", "key", {"n": 1}, expected=0)
    assert first.revision == 1
    assert await store.put("kind", "key", {"n": 2}, expected=0) is None
    second = await store.put("kind", "key", {"n": 2}, expected=1)
    assert second.revision == 2
    assert await store.put("kind", "key", {"n": 3}, expected=1) is None
    assert await store.put("kind", "key", {"n": 3}, expected=7) is None
    assert (await store.get("kind", "key")) == second
    assert (await store.put("kind", "key", {"n": 4})).revision == 3


async def test_a_write_that_expects_a_record_makes_none(store):
    assert await store.put("kind", "key", {}, expected=1) is None
    assert await store.get("kind", "key") is None
    assert (await store.changes("kind", after=0)).records == ()


async def test_a_deletion_says_which_revision_it_saw(store):
    await store.put("kind", "key", {"n": 1})
    assert not await store.delete("kind", "key", expected=2)
    assert not await store.delete("kind", "key", expected=0)
    assert await store.delete("kind", "key", expected=1)
    assert not await store.delete("kind", "key")
    assert await store.get("kind", "key") is None


async def test_revisions_never_come_twice_over_a_deletion(store):
    await store.put("kind", "key", {"n": 1})
    await store.delete("kind", "key")
    again = await store.put("kind", "key", {"n": 2}, expected=0)
    assert again.revision > 1
    assert await store.put("kind", "key", {"n": 3}, expected=1) is None


async def test_scan_shows_live_records_oldest_change_first(store):
    for key in ("a", "b", "c"):
        await store.put("kind", key, {"key": key})
    await store.put("other", "x", {})
    await store.put("kind", "a", {"key": "a2"})
    await store.delete("kind", "b")
    assert plain(await store.scan("kind")) == [("c", {"key": "c"}), ("a", {"key": "a2"})]


async def test_of_many_writers_that_saw_the_same_one_wins(store):
    await store.put("kind", "key", {"by": None})
    results = await side_by_side(*(lambda by=by: store.put("kind", "key", {"by": by}, expected=1) for by in range(50)))
    (winner,) = [result for result in results if result is not None]
    assert await store.get("kind", "key") == winner
    assert winner.revision == 2


async def test_no_increment_is_lost_among_many_writers(stores):
    async def increment(store):
        while True:
            record = await store.get("kind", "counter")
            count = record.value["count"] if record else 0
            if await store.put("kind", "counter", {"count": count + 1}, expected=record.revision if record else 0):
                return

    async with stores.opened() as one, stores.opened() as two:
        await side_by_side(*(lambda store=store: increment(store) for store in (one, two) * 20))
        assert (await two.get("kind", "counter")).value == {"count": 40}
        assert (await one.get("kind", "counter")).revision == 40


# Changes


async def test_changes_tell_what_came_after(store):
    await store.put("kind", "a", {"n": 1})
    await store.put("other", "x", {})
    await store.put("kind", "b", {"n": 1})
    everything = await store.changes("kind", after=0)
    assert plain(everything.records) == [("a", {"n": 1}), ("b", {"n": 1})]
    assert everything.change == everything.records[-1].change

    await store.put("kind", "a", {"n": 2})
    await store.put("kind", "a", {"n": 3})
    newer = await store.changes("kind", after=everything.change)
    assert plain(newer.records) == [("a", {"n": 3})]
    assert newer.records[0].revision == 3


async def test_changes_with_nothing_new_are_empty_and_keep_the_number(store):
    assert await store.changes("kind", after=0) == await store.changes("never", after=0)
    await store.put("kind", "a", {})
    seen = await store.changes("kind", after=0)
    await store.put("other", "x", {})
    for _ in range(3):
        again = await store.changes("kind", after=seen.change)
        assert again.records == ()
        assert again.change == seen.change


async def test_changes_show_deletions(store, clock):
    await store.put("kind", "a", {"n": 1})
    seen = (await store.changes("kind", after=0)).change
    clock.now += 5
    await store.delete("kind", "a")
    (tombstone,) = (await store.changes("kind", after=seen)).records
    assert (tombstone.key, tombstone.value, tombstone.written_wall) == ("a", None, clock.now)
    assert tombstone.revision > 1
    assert tombstone.change > seen


async def test_change_numbers_grow_over_the_whole_store(store):
    numbers = [(await store.put(kind, "key", {})).change for kind in ("a", "b", "a", "c")]
    assert numbers == sorted(set(numbers))


async def test_a_change_number_from_a_former_store_is_answered_with_everything(store):
    await store.put("kind", "a", {})
    assert plain((await store.changes("kind", after=10_000)).records) == [("a", {})]


async def test_changes_by_another_one_are_seen(stores):
    async with stores.opened() as one, stores.opened() as two:
        seen = await two.changes("kind", after=0)
        for number in range(5):
            await one.put("kind", "key", {"n": number})
            seen = await two.changes("kind", after=seen.change)
            assert plain(seen.records) == [("key", {"n": number})]


async def test_many_changes_come_whole(store):
    for number in range(150):
        await store.put("kind", f"key{number}", {"n": number})
    assert [value["n"] for _, value in plain((await store.changes("kind", after=0)).records)] == list(range(150))


# Streams


async def test_a_stream_that_is_not_there_is_empty(store):
    assert await store.entries("stream") == ()
    assert await store.truncate("stream", 0) == 0


async def test_an_empty_batch_changes_nothing_a26(store):
    nothing = await store.append("stream", [], offset=7, now_wall=NOW)
    assert (nothing.sequences, nothing.next_sequence) == ((), 0)
    await store.append("stream", [Entry(value={"n": 0})], now_wall=NOW)
    assert (await store.append("stream", [], now_wall=NOW)).next_sequence == 1


async def test_a_batch_has_contiguous_sequences_and_one_timestamp_a18(stores, store):
    appended = await store.append("stream", [Entry(value={"n": n}, entry_id=f"id{n}") for n in range(3)], now_wall=NOW)
    assert (appended.sequences, appended.next_sequence) == ((0, 1, 2), 3)
    more = await store.append("stream", [Entry(value={"n": 3})], offset=3, now_wall=NOW + 1)
    assert (more.sequences, more.next_sequence) == ((3,), 4)
    stored = await store.entries("stream")
    assert stored[:3] == tuple(Stored(sequence=n, value={"n": n}, at_wall=NOW, entry_id=f"id{n}") for n in range(3))
    assert (stored[3].sequence, stored[3].value, stored[3].at_wall) == (3, {"n": 3}, NOW + 1)
    # A store that may have to repeat an append names every entry.
    assert (stored[3].entry_id is None) == (stores.name != "degrading")


@pytest.mark.parametrize("offset", [0, 1, 9], ids=["stale", "a little stale", "too high"])
async def test_a_wrong_offset_is_corrected_a21(store, offset):
    await store.append("stream", [Entry(value={"n": n}) for n in range(2)], now_wall=NOW)
    appended = await store.append("stream", [Entry(value={"n": 2})], offset=offset, now_wall=NOW)
    assert appended.sequences == (2,)
    assert [stored.value["n"] for stored in await store.entries("stream")] == [0, 1, 2]


async def test_an_entry_whose_id_is_there_is_not_stored_again_k_a4(store):
    await store.append("stream", [Entry(value={"n": 0}, entry_id="a"), Entry(value={"n": 1})], now_wall=NOW)
    again = await store.append(
        "stream",
        [Entry(value={"other": 1}, entry_id="a"), Entry(value={"n": 2}, entry_id="b"), Entry(value={}, entry_id="b")],
        now_wall=NOW,
    )
    assert (again.sequences, again.next_sequence) == ((0, 2, 2), 3)
    assert [stored.value for stored in await store.entries("stream")] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_the_same_id_in_two_streams_is_two_entries(store):
    await store.append("one", [Entry(value={"n": 1}, entry_id="a")], now_wall=NOW)
    assert (await store.append("two", [Entry(value={"n": 2}, entry_id="a")], now_wall=NOW)).sequences == (0,)
    assert (await store.entries("two"))[0].value == {"n": 2}


async def test_ids_of_any_shape_survive(store):
    ids = ["", " ", "a b", "1 2 3", "{}", "ü\n\x00", '"']
    await store.append("stream", [Entry(value={"id": one}, entry_id=one) for one in ids], now_wall=NOW)
    assert [(stored.entry_id, stored.value["id"]) for stored in await store.entries("stream")] == [(i, i) for i in ids]
    assert (await store.append("stream", [Entry(value={}, entry_id="a b")], now_wall=NOW)).sequences == (2,)


async def test_a_part_of_a_stream(store):
    await store.append("stream", [Entry(value={"n": n}) for n in range(5)], now_wall=NOW)

    async def numbers(**part):
        return [stored.sequence for stored in await store.entries("stream", **part)]

    assert await numbers(start=3) == [3, 4]
    assert await numbers(start=1, limit=2) == [1, 2]
    assert await numbers(limit=0) == []
    assert await numbers(start=9) == []


async def test_truncate_drops_the_end_and_frees_ids_and_sequences(store):
    await store.append("stream", [Entry(value={"n": n}, entry_id=f"id{n}") for n in range(4)], now_wall=NOW)
    assert await store.truncate("stream", 9) == 0
    assert await store.truncate("stream", 2) == 2
    appended = await store.append("stream", [Entry(value={"again": 3}, entry_id="id3")], now_wall=NOW)
    assert (appended.sequences, appended.next_sequence) == ((2,), 3)
    assert await store.truncate("stream", 0) == 3
    assert await store.entries("stream") == ()
    assert (await store.append("stream", [Entry(value={}, entry_id="id0")], now_wall=NOW)).sequences == (0,)


async def test_twenty_savers_at_once_lose_nothing_a15_a16(stores):
    async def save(store, saver):
        offset = 0
        for turn in range(3):
            batch = [
                Entry(value={"by": saver, "n": (turn, part)}, entry_id=f"{saver}-{turn}-{part}") for part in (0, 1)
            ]
            tries = 0
            while True:
                tries += 1
                appended = await store.append("stream", batch, offset=offset, now_wall=NOW + saver * 10 + turn)
                if len(set(appended.sequences)) == 2:
                    break

            assert tries <= APPEND_TRIES
            assert appended.sequences[1] == appended.sequences[0] + 1
            offset = appended.sequences[0]

    async with stores.opened() as one, stores.opened() as two:
        savers = [lambda store=store, saver=n: save(store, saver) for n, store in enumerate((one, two) * 10)]
        await side_by_side(*savers)
        stored = await one.entries("stream")
        assert stored == await two.entries("stream")

    assert [entry.sequence for entry in stored] == list(range(120))
    assert len({entry.entry_id for entry in stored}) == 120
    for entry in stored:
        saver, turn, _ = map(int, entry.entry_id.split("-"))
        assert entry.at_wall == NOW + saver * 10 + turn


async def test_two_savers_of_the_same_store_it_once(stores):
    batch = [Entry(value={"n": n}, entry_id=f"id{n}") for n in range(6)]
    async with stores.opened() as one, stores.opened() as two:
        results = await side_by_side(
            *(lambda store=store: store.append("stream", batch, now_wall=NOW) for store in (one, two) * 5)
        )
        assert {result.sequences for result in results} == {(0, 1, 2, 3, 4, 5)}
        assert len(await one.entries("stream")) == 6


# Leases


async def test_a22_one_owner_at_most(store):
    lease = await store.acquire("key", "one", TTL, now_wall=NOW)
    assert (lease.key, lease.owner, lease.expires_wall) == ("key", "one", NOW + TTL)
    assert await store.acquire("key", "two", TTL, now_wall=NOW + TTL - 0.001) is None
    assert await store.holder("key", now_wall=NOW + TTL - 0.001) == lease
    assert (await store.acquire("other", "two", TTL, now_wall=NOW)).owner == "two"


async def test_a22_of_many_one_gets_it(stores):
    async with stores.opened() as one, stores.opened() as two:
        results = await side_by_side(
            *(
                lambda store=store, owner=str(n): store.acquire("key", owner, TTL, now_wall=NOW)
                for n, store in enumerate((one, two) * 15)
            )
        )
        (lease,) = [result for result in results if result is not None]
        assert await one.holder("key", now_wall=NOW) == lease


async def test_the_owner_of_a_live_lease_gets_it_again_under_the_same_generation(store):
    first = await store.acquire("key", "one", TTL, now_wall=NOW)
    again = await store.acquire("key", "one", TTL, now_wall=NOW + 5)
    assert (again.generation, again.expires_wall) == (first.generation, NOW + 5 + TTL)


async def test_a23_refresh_is_the_owners_alone(store):
    lease = await store.acquire("key", "one", TTL, now_wall=NOW)
    refreshed = await store.refresh(lease, TTL, now_wall=NOW + 9)
    assert (refreshed.generation, refreshed.expires_wall) == (lease.generation, NOW + 19)
    assert await store.refresh(lease_of(lease, owner="two"), TTL, now_wall=NOW + 9) is None
    assert await store.refresh(lease_of(lease, generation=99), TTL, now_wall=NOW + 9) is None
    assert await store.refresh(lease_of(lease, key="none"), TTL, now_wall=NOW + 9) is None
    assert await store.holder("key", now_wall=NOW + 18) == refreshed


async def test_a23_refresh_is_refused_after_the_deadline(store):
    lease = await store.acquire("key", "one", TTL, now_wall=NOW)
    assert await store.refresh(lease, TTL, now_wall=NOW + TTL) is None
    assert await store.holder("key", now_wall=NOW + TTL) is None
    again = await store.acquire("key", "one", TTL, now_wall=NOW + TTL)
    assert again.generation > lease.generation
    assert await store.refresh(lease, TTL, now_wall=NOW + TTL) is None


async def test_a24_release_is_the_owners_alone(store):
    lease = await store.acquire("key", "one", TTL, now_wall=NOW)
    assert not await store.release(lease_of(lease, owner="two"))
    assert not await store.release(lease_of(lease, generation=99))
    assert await store.holder("key", now_wall=NOW) == lease
    assert await store.release(lease)
    assert not await store.release(lease)
    assert await store.holder("key", now_wall=NOW) is None
    assert (await store.acquire("key", "two", TTL, now_wall=NOW)).generation > lease.generation


async def test_a_dead_owners_lease_is_taken_over_after_its_ttl(store):
    late = await store.acquire("key", "one", TTL, now_wall=NOW)
    taken = await store.acquire("key", "two", TTL, now_wall=NOW + TTL)
    assert taken.generation > late.generation
    assert await store.refresh(late, TTL, now_wall=NOW + TTL) is None
    assert not await store.release(late)
    assert await store.holder("key", now_wall=NOW + TTL) == taken


async def test_forced_release_raises_the_generation_k_a5(store):
    late = await store.acquire("key", "one", TTL, now_wall=NOW)
    following = await store.force_release("key")
    assert following > late.generation
    assert await store.holder("key", now_wall=NOW) is None
    assert await store.refresh(late, TTL, now_wall=NOW) is None
    assert not await store.release(late)
    taken = await store.acquire("key", "one", TTL, now_wall=NOW)
    assert taken.generation == following
    assert await store.refresh(late, TTL, now_wall=NOW) is None


async def test_forced_release_of_a_free_key_names_the_next_generation(store):
    following = await store.force_release("key")
    assert (await store.acquire("key", "one", TTL, now_wall=NOW)).generation == following


def lease_of(lease, **changed):
    values = {name: getattr(lease, name) for name in ("key", "owner", "generation", "expires_wall")}
    return type(lease)(**{**values, **changed})


# Aliases


async def test_a_key_without_alias_leads_to_itself(store):
    assert await store.resolve("key") == "key"


async def test_what_is_stored_under_the_old_name_moves(store):
    for kind in ("a", "b"):
        await store.put(kind, "old", {"kind": kind})
    await store.put("a", "old", {"kind": "a", "n": 2}, expected=1)
    await store.append("old", [Entry(value={"n": 0}, entry_id="i")], now_wall=NOW)
    await store.alias("old", "new")

    assert await store.resolve("old") == "new"
    for name in ("old", "new"):
        record = await store.get("a", name)
        assert (record.key, record.value) == ("new", {"kind": "a", "n": 2})
        assert (await store.get("b", name)).value == {"kind": "b"}
        assert [stored.value for stored in await store.entries(name)] == [{"n": 0}]

    assert (await store.put("a", "old", {"n": 3}, expected=2)).key == "new"
    assert (await store.get("a", "new")).value == {"n": 3}
    assert (await store.append("old", [Entry(value={}, entry_id="i")], now_wall=NOW)).sequences == (0,)
    assert (await store.append("new", [Entry(value={"n": 1})], now_wall=NOW)).sequences == (1,)
    assert await store.truncate("old", 1) == 1
    assert plain(await store.scan("a")) == [("new", {"n": 3})]


async def test_watchers_see_a_move_as_tombstone_and_record(store):
    await store.put("kind", "old", {"n": 1})
    seen = (await store.changes("kind", after=0)).change
    await store.alias("old", "new")
    assert plain((await store.changes("kind", after=seen)).records) == [("old", None), ("new", {"n": 1})]


@pytest.mark.parametrize("newer", ["old", "new"])
async def test_of_two_records_the_newer_change_goes_on(store, newer):
    for name in ("new", "old") if newer == "old" else ("old", "new"):
        await store.put("kind", name, {"of": name})
    await store.alias("old", "new")
    record = await store.get("kind", "old")
    assert record.value == {"of": newer}
    assert await store.put("kind", "new", {}, expected=1) is None
    assert await store.put("kind", "new", {}, expected=record.revision) is not None


@pytest.mark.parametrize("deleted", ["old", "new"])
async def test_a_tombstone_never_wins(store, deleted):
    for name in ("old", "new"):
        await store.put("kind", name, {"of": name})
    await store.delete("kind", deleted)
    await store.alias("old", "new")
    (survivor,) = {"old", "new"} - {deleted}
    assert (await store.get("kind", "old")).value == {"of": survivor}


async def test_of_two_streams_the_old_ones_entries_come_first(store):
    await store.append("old", [Entry(value={"n": n}, entry_id=f"id{n}") for n in range(2)], now_wall=NOW)
    await store.append("new", [Entry(value={"n": n}, entry_id=f"id{n}") for n in (1, 2)], now_wall=NOW + 1)
    await store.alias("old", "new")
    for name in ("old", "new"):
        stored = await store.entries(name)
        assert [(entry.sequence, entry.value["n"], entry.at_wall) for entry in stored] == [
            (0, 0, NOW),
            (1, 1, NOW),
            (2, 2, NOW + 1),
        ]

    assert (await store.append("new", [Entry(value={}, entry_id="id2")], now_wall=NOW)).sequences == (2,)


async def test_w24_both_names_are_one_lease_while_it_is_held(store):
    lease = await store.acquire("old", "one", TTL, now_wall=NOW)
    await store.alias("old", "new")
    for name in ("old", "new"):
        assert await store.acquire(name, "two", TTL, now_wall=NOW) is None
        held = await store.holder(name, now_wall=NOW)
        assert (held.key, held.owner, held.generation) == ("new", "one", lease.generation)

    refreshed = await store.refresh(lease, TTL, now_wall=NOW + 1)
    assert refreshed.key == "new"
    assert await store.release(lease)
    taken = await store.acquire("old", "two", TTL, now_wall=NOW)
    assert taken.generation > lease.generation
    assert await store.acquire("new", "three", TTL, now_wall=NOW) is None


async def test_k_w7_a_late_caller_of_the_old_name_gets_no_second_lease(store):
    lease = await store.acquire("old", "one", TTL, now_wall=NOW)
    await store.put("kind", "old", {})
    await store.delete("kind", "old")
    await store.alias("old", "new")
    await store.delete("kind", "old")
    assert await store.acquire("old", "late", TTL, now_wall=NOW + 1) is None
    await store.forget(before_wall=NOW + 1)
    assert await store.acquire("old", "late", TTL, now_wall=NOW + 1) is None
    assert (await store.refresh(lease, TTL, now_wall=NOW + 1)).generation == lease.generation


async def test_w25_an_old_name_that_was_pruned_is_no_error(store):
    await store.alias("never", "new")
    assert await store.resolve("never") == "new"
    lease = await store.acquire("new", "one", TTL, now_wall=NOW)
    assert await store.holder("never", now_wall=NOW) == lease


async def test_a_live_lease_on_the_new_name_goes_on(store):
    dead = await store.acquire("old", "dead", TTL, now_wall=NOW - 2 * TTL)
    lease = await store.acquire("new", "one", TTL, now_wall=NOW)
    await store.alias("old", "new")
    assert await store.holder("old", now_wall=NOW) == lease
    assert await store.refresh(dead, TTL, now_wall=NOW) is None
    await store.release(lease)
    assert (await store.acquire("old", "two", TTL, now_wall=NOW)).generation > max(dead.generation, lease.generation)


async def test_of_two_live_leases_the_later_deadline_goes_on(store):
    sooner = await store.acquire("old", "one", TTL, now_wall=NOW)
    later = await store.acquire("new", "two", TTL, now_wall=NOW + 1)
    await store.alias("old", "new")
    assert await store.refresh(sooner, TTL, now_wall=NOW + 2) is None
    assert (await store.refresh(later, TTL, now_wall=NOW + 2)).owner == "two"


async def test_a_forced_release_is_remembered_under_the_new_name(store, clock):
    following = await store.force_release("old")
    await store.alias("old", "new")
    assert await store.forget(before_wall=clock.now - 1) == 0
    assert (await store.acquire("new", "one", TTL, now_wall=NOW)).generation == following


async def test_aliases_chain(store):
    await store.put("kind", "a", {"n": 1})
    lease = await store.acquire("a", "one", TTL, now_wall=NOW)
    await store.alias("a", "b")
    await store.alias("b", "c")
    await store.alias("a", "d")
    for name in "abcd":
        assert await store.resolve(name) == "d"
        assert (await store.get("kind", name)).value == {"n": 1}
        assert (await store.holder(name, now_wall=NOW)).generation == lease.generation


async def test_aliases_make_no_circles(store):
    await store.alias("a", "a")
    assert await store.resolve("a") == "a"
    await store.put("kind", "a", {"n": 1})
    await store.alias("a", "b")
    await store.alias("b", "a")
    assert await store.resolve("a") == await store.resolve("b") == "b"
    assert (await store.get("kind", "a")).value == {"n": 1}


async def test_every_operation_takes_either_name(store):
    await store.alias("old", "new")
    assert (await store.put("kind", "old", {"n": 1})).key == "new"
    assert (await store.append("old", [Entry(value={})], now_wall=NOW)).sequences == (0,)
    lease = await store.acquire("old", "one", TTL, now_wall=NOW)
    assert lease.key == "new"
    assert await store.force_release("old") > lease.generation
    assert await store.holder("new", now_wall=NOW) is None
    assert await store.delete("kind", "old")
    assert await store.get("kind", "new") is None


# Forgetting


async def test_forget_drops_tombstones_before_a_time(store, clock):
    await store.put("kind", "early", {})
    await store.put("kind", "kept", {})
    await store.put("kind", "late", {})
    await store.delete("kind", "early")
    clock.now += 100
    await store.delete("kind", "late")
    assert await store.forget(before_wall=clock.now) == 1
    assert plain((await store.changes("kind", after=0)).records) == [("kept", {}), ("late", None)]
    assert await store.forget(before_wall=clock.now + 1) == 1
    assert await store.forget(before_wall=clock.now + 1) == 0
    assert plain(await store.scan("kind")) == [("kept", {})]


async def test_a_record_written_anew_is_no_tombstone(store, clock):
    await store.put("kind", "key", {"n": 1})
    await store.delete("kind", "key")
    await store.put("kind", "key", {"n": 2})
    assert await store.forget(before_wall=clock.now + 1) == 0
    assert (await store.get("kind", "key")).value == {"n": 2}


async def test_forget_drops_expired_leases_and_generations_still_grow(store):
    late = await store.acquire("expired", "one", TTL, now_wall=NOW)
    for _ in range(3):
        late = await store.acquire("expired", "one", TTL, now_wall=late.expires_wall)
    live = await store.acquire("live", "one", TTL, now_wall=late.expires_wall)
    assert await store.forget(before_wall=late.expires_wall + 1) == 1
    assert await store.refresh(late, TTL, now_wall=NOW) is None
    assert await store.holder("live", now_wall=late.expires_wall) == live
    assert (await store.acquire("expired", "two", TTL, now_wall=NOW + 100)).generation > late.generation


async def test_forget_drops_aliases_that_were_not_used(store, clock):
    await store.alias("unused", "new")
    await store.alias("used", "new")
    await store.put("kind", "new", {"n": 1})
    clock.now += 3600
    assert (await store.get("kind", "used")).value == {"n": 1}
    clock.now += 3600
    assert await store.forget(before_wall=clock.now - 3600) == 1
    assert await store.resolve("unused") == "unused"
    assert await store.resolve("used") == "new"
    assert await store.forget(before_wall=clock.now + 1) == 1
    assert await store.resolve("used") == "used"
    assert (await store.get("kind", "new")).value == {"n": 1}


async def test_forget_keeps_the_names_of_a_held_lease(store, clock):
    await store.acquire("old", "one", 10_000, now_wall=clock.now)
    await store.alias("old", "new")
    assert await store.forget(before_wall=clock.now + 5000) == 0
    assert await store.resolve("old") == "new"
    assert await store.forget(before_wall=clock.now + 20_000) == 2


async def test_forget_drops_any_number(store, clock):
    for number in range(130):
        await store.put("kind", f"key{number}", {})
        await store.delete("kind", f"key{number}")
    assert await store.forget(before_wall=clock.now + 1) == 130


# Opening and closing


async def test_what_was_stored_outlives_a_close(stores):
    async with stores.opened() as store:
        await store.put("kind", "key", {"n": 1})
        await store.append("stream", [Entry(value={"n": 1})], now_wall=NOW)
        lease = await store.acquire("key", "one", TTL, now_wall=NOW)
        await store.alias("old", "key")

    async with stores.opened() as store:
        assert (await store.get("kind", "old")).value == {"n": 1}
        assert [stored.value for stored in await store.entries("stream")] == [{"n": 1}]
        assert await store.holder("key", now_wall=NOW) == lease


async def test_open_and_close_are_safe_to_repeat(stores):
    store = stores.make()
    await store.close()
    await store.open()
    await store.open()
    await store.put("kind", "key", {})
    await store.close()
    await store.close()
    await store.open()
    assert await store.get("kind", "key") is not None
    await store.close()
