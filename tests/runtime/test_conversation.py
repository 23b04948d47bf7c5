"""Conversations over a store in memory, in virtual time on both event loops, under the row ids of the seeds."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from dataclasses import replace

import anyio
import pytest

from fallback_plugin.errors import StoreError
from fallback_plugin.runtime.checkpoint import INTERVAL
from fallback_plugin.runtime.conversation import Conversation, Message, Refused, find_pending
from fallback_plugin.runtime.conversation_edits import GRACE
from fallback_plugin.runtime.conversation_head import KIND, Closing, Head, Pending, head_from_json, head_to_json
from fallback_plugin.runtime.conversation_turn import LEASE_TTL, SAVE_PATIENCE
from fallback_plugin.runtime.history import Marker, fold, for_model, hide, is_hidden, last_turn, opens_turn
from fallback_plugin.stores.memory import MemoryStore

EPOCH = 1_700_000_000.0
SES = "ses_1"


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


def wall_clock():
    return EPOCH + anyio.current_time()


@pytest.fixture
def store():
    return MemoryStore(wall=wall_clock)


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **fields):
    return {"role": "assistant", "content": text, **fields}


def tool(text, call_id):
    return {"role": "tool", "content": text, "tool_call_id": call_id}


def call(call_id):
    return {"id": call_id, "type": "function", "function": {"name": "look", "arguments": "{}"}}


def told(*bodies):
    return tuple(Message(body=body) for body in bodies)


async def opened(store, session_id=SES, owner="ada"):
    conversation = Conversation(store, session_id, owner=owner, wall_clock=wall_clock)
    assert await conversation.create()
    return conversation


async def bodies(conversation):
    return [message.body for message in (await conversation.load()).messages]


async def texts(conversation):
    return [message.marker or message.body["content"] for message in (await conversation.load()).messages]


async def answer(conversation, question, reply, **fields):
    async with conversation.turn(user(question), **fields) as turn:
        turn.progress(assistant(reply))

    return turn


async def die_in_turn(store, question="hello", partial=None, after=INTERVAL + 1, owner="ada", **fields):
    """A process that begins a turn and is gone without a word: nothing of it runs any more, its lease stands."""
    writer = DeadlyStore(store)
    conversation = Conversation(writer, SES, owner=owner, wall_clock=wall_clock)
    async with conversation.turn(user(question), **fields) as turn:
        if partial is not None:
            turn.progress(*partial)

        await anyio.sleep(after)
        writer.dead = True

    assert turn.superseded or writer.refused


async def fail_in_turn(conversation, error, *partial):
    async with conversation.turn(user("q")) as turn:
        if partial:
            turn.progress(*partial)
        raise error


class DeadlyStore:
    """A store that a dead process can't reach: from its death on nothing it does arrives."""

    def __init__(self, store):
        self._store = store
        self.dead = False
        self.refused = 0

    def __getattr__(self, name):
        method = getattr(self._store, name)

        async def reach(*arguments, **fields):
            if self.dead:
                self.refused += 1
                return None

            return await method(*arguments, **fields)

        return reach


class BrokenStore:
    """A store whose named operations fail while it is broken, or take their time."""

    def __init__(self, store, *names):
        self._store = store
        self.names = names
        self.broken = False
        self.delay = 0.0
        self.calls = []

    def __getattr__(self, name):
        method = getattr(self._store, name)

        async def reach(*arguments, **fields):
            self.calls.append(name)
            if name in self.names:
                await anyio.sleep(self.delay)
                if self.broken:
                    raise StoreError("away")

            return await method(*arguments, **fields)

        return reach


# --- A: messages -------------------------------------------------------------------------------------------------


def test_a01_a_head_round_trips_through_json():
    pending = Pending(
        message_id="m1",
        body=user("hi"),
        attachments=({"name": "a.png"},),
        started_wall=12.5,
        generation=7,
        stored=True,
        place=2,
        partial=(assistant("so", tool_calls=[call("c1")]),),
        closing=Closing.FAILED,
    )
    head = Head(
        owner="ada",
        thread="t",
        title="Tea",
        title_number=3,
        generation=8,
        hidden=((1, 4), (6, 7)),
        pending=pending,
        begun=("m0", "m1"),
        updated_wall=99.0,
        ended=True,
    )

    assert head_from_json(json.loads(json.dumps(head_to_json(head)))) == head
    assert head_from_json(head_to_json(replace(head, pending=None))).pending is None


async def test_a01_messages_tool_calls_and_usage_come_back_equal(store):
    conversation = await opened(store)
    given = [user("é\ud83d"), assistant("", tool_calls=[call("c1")], usage={"input": 3}), tool("ok", "c1")]

    await conversation.append(*told(*given))

    assert await bodies(conversation) == given


async def test_a02_what_was_saved_is_what_is_loaded(store):
    conversation = await opened(store)
    saved = await conversation.save(told(user("a"), assistant("b")))
    loaded = (await conversation.load()).messages

    assert [message.sequence for message in saved] == [0, 1]
    assert [replace(message, at_wall=None) for message in loaded] == list(saved)
    assert await conversation.save(loaded) == loaded
    assert await bodies(conversation) == [user("a"), assistant("b")]


async def test_a03_a_foreign_user_gets_nothing_and_no_error(store):
    mine = await opened(store)
    await answer(mine, "secret", "also secret")
    before = await mine.load()
    theirs = Conversation(store, SES, owner="bob", wall_clock=wall_clock)
    missing = Conversation(store, "ses_none", owner="bob", wall_clock=wall_clock)

    for stranger in (theirs, missing):
        assert await stranger.load() is None
        assert await stranger.append(*told(user("x"))) is None
        assert await stranger.save(told(user("x"))) is None
        assert await stranger.undo() is Refused.UNKNOWN
        assert await stranger.recover() is Refused.UNKNOWN
        assert await stranger.title() is None
        assert not await stranger.rename("mine now")
        assert not await stranger.cancel()
        assert not await stranger.rotate("ses_2")
        assert not await stranger.end()
        assert not await stranger.delete()
        for opening in (stranger.turn(user("x")), stranger.retry(), stranger.resume()):
            async with opening as turn:
                assert turn is Refused.UNKNOWN

    assert not await theirs.create()
    assert await find_pending(store, "bob") == ()
    assert await mine.load() == before


async def test_a03_a_foreign_user_can_neither_hold_nor_end_a_turn(store):
    mine = await opened(store)
    theirs = Conversation(store, SES, owner="bob", wall_clock=wall_clock)
    async with theirs.turn(user("x")) as refused:
        assert refused is Refused.UNKNOWN
        async with mine.turn(user("a")) as turn:
            assert not await theirs.cancel()
            assert not await theirs.delete()
            turn.progress(assistant("b"))

    assert await texts(mine) == ["a", "b"]


async def test_a04_another_reader_sees_the_same_history(store):
    conversation = await opened(store)
    given = [
        user("q"),
        assistant("", tool_calls=[call("1"), call("2")]),
        tool("x", "1"),
        tool("y", "2"),
        assistant("z"),
    ]
    await conversation.append(*told(*given))

    other = await opened(store)

    assert await bodies(other) == given
    assert [len(body.get("tool_calls", ())) for body in await bodies(other)] == [0, 2, 0, 0, 0]


async def test_a15_two_savers_store_six_messages_with_contiguous_sequences(store):
    slow = BrokenStore(store, "get", "append")
    slow.delay = 0.2
    one, two = await opened(slow), await opened(slow)
    saved = {}

    async def save(name, conversation):
        saved[name] = await conversation.save(told(*(user(f"{name}{number}") for number in range(3))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(save, "a", one)
        tasks.start_soon(save, "b", two)

    loaded = (await one.load()).messages
    assert [message.sequence for message in loaded] == list(range(6))
    assert sorted(message.body["content"] for message in loaded) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    places = {message.body["content"]: message.sequence for message in loaded}
    assert {m.body["content"]: m.sequence for group in saved.values() for m in group} == places


async def test_a16_what_the_store_gives_up_on_goes_up(store):
    broken = BrokenStore(store, "append")
    conversation = await opened(broken)
    broken.broken = True

    with pytest.raises(StoreError):
        await conversation.append(*told(user("a")))

    assert broken.calls.count("append") == 1
    broken.broken = False
    assert await bodies(conversation) == []


async def test_a18_a_batch_has_one_timestamp_and_it_is_the_sessions_too(store):
    conversation = await opened(store)
    await anyio.sleep(5)
    await conversation.append(*told(user("a"), assistant("b"), user("c")))

    loaded = await conversation.load()
    assert {message.at_wall for message in loaded.messages} == {loaded.updated_wall}
    assert loaded.updated_wall == pytest.approx(EPOCH + 5, abs=0.1)


async def test_a21_sequences_are_those_really_given(store):
    conversation, callback = await opened(store), await opened(store)
    copy = (await conversation.load()).messages
    await callback.append(*told(user("first")))

    (mine,) = await conversation.save([*copy, *told(user("second"))])

    assert mine.sequence == 1


async def test_a22_the_loser_of_a_turn_is_told_and_does_nothing(store):
    conversation, other = await opened(store), await opened(store)
    async with conversation.turn(user("one")) as turn:
        before = await store.get(KIND, SES)
        for opening in (other.turn(user("two")), other.retry(), other.resume()):
            async with opening as refused:
                assert refused is Refused.ACTIVE

        assert await other.undo() is Refused.ACTIVE
        assert await store.get(KIND, SES) == before
        turn.progress(assistant("done"))

    assert await texts(conversation) == ["one", "done"]
    assert await store.holder(SES, now_wall=wall_clock()) is None


async def test_a23_the_lease_is_refreshed_without_any_traffic_at_most_every_tenth_of_its_time(store):
    counted = BrokenStore(store)
    conversation, other = await opened(counted), await opened(store)
    async with conversation.turn(user("long")):
        await anyio.sleep(LEASE_TTL * 10)
        async with other.turn(user("two")) as refused:
            assert refused is Refused.ACTIVE

    assert counted.calls.count("refresh") in (99, 100)


async def test_a24_a_turn_that_raises_keeps_its_answer_and_ends_with_a_marker(store):
    conversation = await opened(store)
    error = ValueError("the host's own")

    with pytest.raises(ValueError, match="the host's own") as caught:
        await fail_in_turn(conversation, error, assistant("half"))

    assert caught.value is error
    assert await texts(conversation) == ["q", "half", Marker.FAILED]
    assert (await conversation.load()).pending is None
    assert await store.holder(SES, now_wall=wall_clock()) is None


@pytest.mark.parametrize("slow", ["get", "put", "append", "release", "holder"])
async def test_a24_a_cancelled_turn_is_saved_and_its_lease_released_all_the_same(store, slow):
    waiting = BrokenStore(store, slow)
    conversation = await opened(waiting)
    with anyio.move_on_after(10) as scope:
        async with conversation.turn(user("q")) as turn:
            turn.progress(assistant("half"))
            waiting.delay = 1.0
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    waiting.delay = 0.0
    assert await texts(conversation) == ["q", "half", Marker.CANCELLED]
    assert await store.holder(SES, now_wall=wall_clock()) is None


async def test_x17_a_store_that_hangs_does_not_keep_a_cancelled_turn_for_ever(store):
    hanging = BrokenStore(store, "put", "append")
    conversation = await opened(hanging)
    began = anyio.current_time()
    with anyio.move_on_after(10):
        async with conversation.turn(user("q")) as turn:
            turn.progress(assistant("half"))
            hanging.delay = 1e6
            await anyio.sleep_forever()

    assert anyio.current_time() - began <= 10 + 2 * SAVE_PATIENCE + 1
    hanging.delay = 0.0
    await anyio.sleep(LEASE_TTL)
    assert await conversation.recover() is None
    assert (await texts(conversation))[0] == "q"


async def test_x17_nothing_but_the_lease_is_held_while_a_model_is_asked(store):
    conversation, other = await opened(store), await opened(store)
    async with conversation.turn(user("q")) as turn:
        assert await other.rename("meanwhile")
        assert await other.append(*told(assistant("from a callback"))) is not None
        turn.progress(assistant("a"))

    assert await texts(conversation) == ["q", "from a callback", "a"]
    assert (await conversation.title()).text == "meanwhile"


async def test_a25_a_title_written_elsewhere_wins_over_a_stale_copy(store):
    conversation, other = await opened(store), await opened(store)
    copy = (await conversation.load()).messages
    await other.rename("Tea")
    await conversation.save([*copy, *told(user("a"))])

    assert (await conversation.title()).text == "Tea"


async def test_a25_an_end_that_can_not_be_stored_is_raised(store):
    broken = BrokenStore(store, "append")
    conversation = await opened(broken)

    async def answer_in_vain():
        async with conversation.turn(user("q")) as turn:
            turn.progress(assistant("kept in the head"))
            broken.broken = True

    with pytest.raises(StoreError):
        await answer_in_vain()

    broken.broken = False
    await anyio.sleep(GRACE)
    assert await conversation.recover() is None
    assert await texts(conversation) == ["q", "kept in the head"]


async def test_a26_an_empty_batch_is_no_write(store):
    conversation = await opened(store)
    await conversation.append(*told(user("a")))
    before = store.change

    assert await conversation.append() == ()
    assert await conversation.save([]) == ()
    assert store.change == before
    assert await bodies(conversation) == [user("a")]


async def test_a26_deletion_takes_everything_head_first(store):
    counted = BrokenStore(store)
    conversation = await opened(counted)
    await answer(conversation, "a", "b")
    counted.calls.clear()

    assert await conversation.delete()

    writes = [name for name in counted.calls if name in ("delete", "truncate", "force_release")]
    assert writes == ["delete", "truncate", "force_release"]
    assert await conversation.load() is None
    assert await store.entries(SES) == ()
    assert await store.scan(KIND) == ()
    assert not await conversation.delete()


async def test_a26_what_a_deleted_conversation_left_does_not_haunt_the_next_of_its_name(store):
    broken = BrokenStore(store, "truncate")
    conversation = await opened(broken)
    for number in range(3):
        await answer(conversation, f"q{number}", "old", message_id=f"m{number}")

    broken.broken = True
    with pytest.raises(StoreError):
        await conversation.delete()

    successor = await opened(store, owner="bob")
    await answer(successor, "q0", "new", message_id="m0")
    assert await texts(successor) == ["q0", "new"]


async def test_k_a2_unsaved_is_what_has_no_sequence_however_little_was_loaded(store):
    conversation = await opened(store)
    await conversation.append(*told(*(user(f"{number}") for number in range(5))))
    tail = (await conversation.load()).messages[-2:]

    await conversation.save([*tail, *told(user("new"))])

    assert await texts(conversation) == ["0", "1", "2", "3", "4", "new"]


async def test_k_a3_a_tool_call_added_after_its_message_was_stored_is_stored_too(store):
    conversation = await opened(store)
    stored = await conversation.save(told(user("q"), assistant("let me look")))
    await conversation.append(*told(tool("later", "c1")))

    amended = stored[1].amend(assistant("let me look", tool_calls=[call("c1")]))
    saved = await conversation.save([stored[0], amended])

    assert saved[1].sequence == 1
    assert not saved[1].amended
    assert await bodies(conversation) == [
        user("q"),
        assistant("let me look", tool_calls=[call("c1")]),
        tool("later", "c1"),
    ]


async def test_k_a4_a_message_id_is_stored_once_and_the_same_text_twice_is_legal(store):
    conversation = await opened(store)
    yes = Message(body=user("yes"), message_id="m1")
    first = await conversation.append(yes)
    again = await conversation.append(yes, Message(body=user("yes"), message_id="m2"))

    assert [message.sequence for message in (*first, *again)] == [0, 0, 1]
    assert await texts(conversation) == ["yes", "yes"]


async def test_k_a4_a_turn_that_says_nothing_still_ends_with_an_assistants_row(store):
    conversation = await opened(store)
    async with conversation.turn(user("yes")):
        pass

    await answer(conversation, "yes", "ok")
    loaded = (await conversation.load()).messages
    assert [message.marker for message in loaded] == [None, Marker.EMPTY, None, None]
    assert for_model(loaded) == (user("yes"), user("yes"), assistant("ok"))


async def test_k_a5_after_a_cancel_the_next_turn_begins_at_once_and_keeps_its_lease(store):
    conversation, other = await opened(store), await opened(store)
    ended = anyio.Event()

    async def stubborn():
        async with conversation.turn(user("one")) as turn:
            turn.progress(assistant("half"))
            with anyio.CancelScope(shield=True):
                await anyio.sleep(500)

        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stubborn)
        await anyio.sleep(INTERVAL + 1)
        assert await other.cancel()
        async with other.turn(user("two")) as turn:
            await ended.wait()
            assert (await store.holder(SES, now_wall=wall_clock())).owner == turn.lease.owner
            turn.progress(assistant("whole"))

    assert await texts(conversation) == ["one", "half", Marker.CANCELLED, "two", "whole"]


async def test_k_a5_a_slow_cancel_does_not_take_the_next_turns_lease(store):
    slow = BrokenStore(store, "release", "force_release")
    slow.delay = 10.0
    conversation, canceller, successor = await opened(store), await opened(slow), await opened(store)

    async def work():
        async with conversation.turn(user("one")) as turn:
            await anyio.sleep(1)
            turn.progress(assistant("refused at its next checkpoint"))
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await anyio.sleep(INTERVAL - 0.5)
        tasks.start_soon(canceller.cancel)
        await anyio.sleep(2)
        async with successor.turn(user("two")) as turn:
            await anyio.sleep(LEASE_TTL / 10 - 1)
            assert turn.lease.expires_wall == pytest.approx(wall_clock() + LEASE_TTL * 0.9 + 1, abs=0.1)
            assert (await store.holder(SES, now_wall=wall_clock())) == turn.lease
            turn.progress(assistant("2"))

    assert await texts(conversation) == ["one", Marker.CANCELLED, "two", "2"]


async def test_k_a6_a_rolled_back_attempt_leaves_no_orphans(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")) as turn:
        await turn.append(assistant("", tool_calls=[call("c1")]), tool("x", "c1"))
        turn.progress(assistant("cut he"))
        first = turn.generation
        assert await turn.rollback()
        assert turn.generation > first
        await turn.append(assistant("second attempt"))

    assert await texts(conversation) == ["q", "second attempt"]


async def test_k_a7_an_owner_that_lost_its_lease_is_stopped_and_writes_nothing(store):
    conversation = await opened(store)
    reached = []
    async with conversation.turn(user("q")) as turn:
        await store.force_release(SES)
        assert await store.acquire(SES, "somebody else", 1e6, now_wall=wall_clock()) is not None
        turn.progress(assistant("too late"))
        await anyio.sleep(LEASE_TTL)
        reached.append("end")

    assert turn.superseded
    assert reached == []


async def test_a23_a_machine_that_slept_through_its_lease_goes_on_if_nobody_took_it(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")) as turn:
        await store.force_release(SES)
        await anyio.sleep(LEASE_TTL / 5)
        assert (await store.holder(SES, now_wall=wall_clock())).owner == turn.lease.owner
        turn.progress(assistant("still here"))

    assert await texts(conversation) == ["q", "still here"]


async def test_k_a8_a_turn_left_running_is_settled_in_the_end(store):
    conversation = await opened(store)
    await die_in_turn(store)
    assert await find_pending(store, "ada") == (SES,)

    await anyio.sleep(LEASE_TTL)
    assert await conversation.recover() is None
    assert await find_pending(store, "ada") == ()
    assert await texts(conversation) == ["hello", Marker.RECOVERED]


# --- W: turns -----------------------------------------------------------------------------------------------------


async def test_w01_what_was_appended_is_in_the_store_at_once(store):
    conversation = await opened(store)
    await conversation.append(*told(user("a")))

    (entry,) = await store.entries(SES)
    assert entry.value["body"] == user("a")


async def test_w10_the_pending_message_is_durable_before_the_turn_is_entered(store):
    conversation = await opened(store)
    await answer(conversation, "earlier", "kept")
    async with conversation.turn(user("now"), message_id="m2", attachments=[{"name": "a.png"}]) as turn:
        pending = (await (await opened(store)).load()).pending
        assert (pending.message_id, pending.body, pending.attachments) == ("m2", user("now"), ({"name": "a.png"},))
        assert pending.generation == turn.generation
        turn.progress(assistant("b"))

    assert await texts(conversation) == ["earlier", "kept", "now", "b"]


async def test_w10_a_dead_processes_turn_is_carried_on_with_message_and_partial_answer(store):
    conversation = await opened(store)
    await answer(conversation, "earlier", "kept")
    await die_in_turn(store, "now", [assistant("half an ans")], message_id="m2", attachments=[{"name": "a.png"}])

    async with conversation.resume() as refused:
        assert refused is Refused.ACTIVE, "its lease stands"

    await anyio.sleep(LEASE_TTL)
    async with conversation.resume() as turn:
        assert (turn.message_id, turn.message, turn.attachments) == ("m2", user("now"), ({"name": "a.png"},))
        assert turn.earlier == (assistant("half an ans"),)
        turn.progress(assistant("half an answer and the rest"))

    assert await texts(conversation) == ["earlier", "kept", "now", "half an answer and the rest"]
    async with conversation.resume() as refused:
        assert refused is Refused.NOTHING


async def test_w10_messages_stored_after_the_last_checkpoint_are_neither_lost_nor_doubled(store):
    await opened(store)
    writer = DeadlyStore(store)
    dying = Conversation(writer, SES, owner="ada", wall_clock=wall_clock)
    async with dying.turn(user("q")) as turn:
        turn.progress(assistant("one"), assistant("tw"))
        await anyio.sleep(INTERVAL + 1)
        await turn.append(assistant("one"))
        await turn.append(assistant("two"))
        writer.dead = True

    await anyio.sleep(LEASE_TTL)
    conversation = await opened(store)
    async with conversation.resume() as turn:
        assert turn.earlier == ()
        await turn.append(assistant("three"))

    assert await texts(conversation) == ["q", "one", "two", "three"]


async def test_w11_a_checkpoint_moves_the_time_of_the_last_change(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")) as turn:
        before = (await conversation.load()).updated_wall
        turn.progress(assistant("a"))
        await anyio.sleep(INTERVAL + 1)
        assert (await conversation.load()).updated_wall == pytest.approx(before + INTERVAL, abs=0.1)


async def test_w07_a_checkpoint_has_the_message_and_the_answer_so_far(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")) as turn:
        turn.progress(assistant("so far"))
        await anyio.sleep(INTERVAL + 1)
        pending = (await conversation.load()).pending
        assert (pending.body, pending.partial) == (user("q"), (assistant("so far"),))


async def test_w08_a_quiet_turn_writes_no_checkpoint(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")) as turn:
        before = await store.get(KIND, SES)
        await anyio.sleep(3600)
        assert await store.get(KIND, SES) == before
        turn.touch()
        turn.progress(assistant("a"))


async def test_k_w9_the_same_answer_is_checkpointed_once(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")) as turn:
        before = (await store.get(KIND, SES)).revision
        for _ in range(100):
            turn.progress(assistant("same"))
            await anyio.sleep(2)

        assert (await store.get(KIND, SES)).revision == before + 1


async def test_w13_no_checkpoint_comes_after_the_final_write(store):
    slow = BrokenStore(store, "put")
    conversation = await opened(slow)
    async with conversation.turn(user("q")) as turn:
        slow.delay = 2.0
        turn.progress(assistant("a checkpoint under way"))
        await anyio.sleep(INTERVAL + 1)
        turn.progress(assistant("final"))

    revision = (await store.get(KIND, SES)).revision
    await anyio.sleep(3600)
    assert (await store.get(KIND, SES)).revision == revision
    assert await texts(conversation) == ["q", "final"]


@pytest.mark.parametrize("reply", [None, "half"])
async def test_w14_w16_a_turn_that_fails_at_once_is_settled_without_waiting_for_itself(store, reply):
    conversation = await opened(store)
    began = anyio.current_time()
    with pytest.raises(RuntimeError):
        await fail_in_turn(conversation, RuntimeError(), *([assistant(reply)] if reply else []))

    assert anyio.current_time() - began < 1
    assert await texts(conversation) == ["q", *([reply] if reply else []), Marker.FAILED]


@pytest.mark.parametrize("operation", ["get", "acquire", "put", "append", "holder"])
async def test_w15_w17_a_turn_that_could_not_begin_ends_cleanly(store, operation):
    broken = BrokenStore(store, operation)
    conversation = await opened(broken)
    broken.broken = True
    entered = []

    async def begin():
        async with conversation.turn(user("q"), message_id="m1") as turn:
            entered.append(turn)
            if operation == "holder":
                raise StoreError("the host's own: a lease that can't be given back hides nothing")

    with pytest.raises(StoreError):
        await begin()

    assert len(entered) == (operation == "holder")
    broken.broken = False
    await anyio.sleep(LEASE_TTL + GRACE)
    await answer(conversation, "next", "ok")
    assert (await texts(conversation))[-2:] == ["next", "ok"]


async def test_w19_a_background_title_does_not_overwrite_a_rename_made_meanwhile(store):
    conversation = await opened(store, SES)
    seen = await conversation.title()
    assert await (await opened(store)).rename("mine")

    assert not await conversation.offer_title("generated", seen=seen)
    assert (await conversation.title()).text == "mine"

    assert await conversation.offer_title("generated", seen=await conversation.title())
    assert (await conversation.title()).text == "generated"


async def test_w19_a_rename_to_the_same_words_is_a_rename(store):
    conversation = await opened(store)
    seen = await conversation.title()
    await conversation.rename(seen.text)

    assert not await conversation.offer_title("generated", seen=seen)


async def test_w20_w23_cancel_clears_the_group_at_once_and_keeps_what_was_said(store):
    conversation, other = await opened(store), await opened(store)
    async with conversation.turn(user("q"), attachments=[{"name": "a"}]) as turn:
        turn.progress(assistant("half"))
        assert await conversation.cancel()
        assert (await other.load()).pending is None
        await anyio.sleep(60)
        pytest.fail("a cancelled turn's code is ended")

    assert turn.superseded
    loaded = (await other.load()).messages
    assert [message.marker or message.body["content"] for message in loaded] == ["q", "half", Marker.CANCELLED]
    assert loaded[0].attachments == ({"name": "a"},)
    assert not await conversation.cancel()


async def test_w20_a_turn_is_cancelled_from_another_process(store):
    conversation, other = await opened(store), await opened(store)
    began = anyio.current_time()
    async with conversation.turn(user("q")) as turn:
        turn.progress(assistant("half"))
        await anyio.sleep(INTERVAL + 1)
        assert await other.cancel()
        turn.progress(assistant("half and a late rest"))
        await anyio.sleep_forever()

    assert turn.superseded
    assert anyio.current_time() - began < INTERVAL + 1 + LEASE_TTL / 10 + 1
    assert await texts(conversation) == ["q", "half", Marker.CANCELLED]


async def test_w21_undo_takes_the_last_turn_back_and_gives_its_message(store):
    conversation = await opened(store)
    await answer(conversation, "one", "1")
    async with conversation.turn(user("two"), message_id="m2", attachments=[{"name": "a"}]) as turn:
        await turn.append(assistant("", tool_calls=[call("c1")]), tool("x", "c1"))
        turn.progress(assistant("2"))

    undone = await conversation.undo()

    assert (undone.body, undone.message_id, undone.attachments) == (user("two"), "m2", ({"name": "a"},))
    assert await texts(conversation) == ["one", "1"]
    assert (await conversation.undo()).body == user("one")
    assert await texts(conversation) == []
    assert await conversation.undo() is Refused.NOTHING


async def test_w21_retry_answers_the_last_message_again(store):
    conversation = await opened(store)
    await answer(conversation, "one", "1")
    await answer(conversation, "two", "wrong", message_id="m2")
    for reply in ("better", "best"):
        async with conversation.retry() as turn:
            assert (turn.message, turn.message_id) == (user("two"), "m2")
            assert await texts(conversation) == ["one", "1", "two"]
            turn.progress(assistant(reply))

    assert await texts(conversation) == ["one", "1", "two", "best"]
    head = (await store.get(KIND, SES)).value
    assert len(head["hidden"]) == 1


async def test_w21_retry_of_a_message_that_its_host_never_named_stores_it_once(store):
    conversation = await opened(store)
    await conversation.append(*told(user("q"), assistant("wrong")))
    async with conversation.retry() as turn:
        turn.progress(assistant("right"))

    assert await texts(conversation) == ["q", "right"]


async def test_w21_retry_and_undo_of_nothing(store):
    conversation = await opened(store)
    await conversation.append(*told(assistant("welcome")))
    async with conversation.retry() as refused:
        assert refused is Refused.NOTHING

    assert await conversation.undo() is Refused.NOTHING
    assert await texts(conversation) == ["welcome"]


async def test_w22_a_turn_that_begins_and_ends_during_a_read_is_seen_whole_or_not_at_all(store):
    conversation = await opened(store)

    class SlowReader(BrokenStore):
        async def entries(self, stream):
            read = await store.entries(stream)
            await anyio.sleep(5)
            return read

    reader, loaded = await opened(SlowReader(store)), []

    async def load():
        loaded.append(await reader.load())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load)
        await anyio.sleep(1)
        async with conversation.turn(user("q")) as turn:
            turn.progress(assistant("a"))

    assert [message.body["content"] for message in loaded[0].messages] == ["q", "a"]
    assert loaded[0].pending is None


async def test_w24_w25_a_rotated_conversation_goes_by_both_names(store):
    conversation = await opened(store)
    await answer(conversation, "one", "1")
    await conversation.rename("Tea")
    old = await opened(store)
    async with conversation.turn(user("two")) as turn:
        assert await conversation.rotate("ses_2")
        late, new = await opened(store), await opened(store, "ses_2")
        for other in (old, late, new):
            async with other.turn(user("three")) as refused:
                assert refused is Refused.ACTIVE

        await anyio.sleep(LEASE_TTL * 2)
        turn.progress(assistant("2"))

    assert not turn.superseded
    assert conversation.session_id == "ses_2"
    for name in (SES, "ses_2"):
        assert await texts(await opened(store, name)) == ["one", "1", "two", "2"]
    assert (await new.title()).text == "Tea"


async def test_k_w6_after_a_rotation_nothing_is_left_running_under_the_old_name(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")) as turn:
        await conversation.rotate("ses_2")
        turn.progress(assistant("a"))

    assert [record.key for record in await store.scan(KIND)] == ["ses_2"]
    assert await find_pending(store, "ada") == ()


async def test_w25_a_rotation_onto_another_conversation_is_refused(store):
    conversation = await opened(store)
    await conversation.append(*told(user("a")))
    other = await opened(store, "ses_2", owner="bob")
    await other.append(*told(user("b")))

    assert not await conversation.rotate("ses_2")
    assert await texts(conversation) == ["a"]
    assert await texts(other) == ["b"]
    assert await conversation.rotate(SES)


async def test_w28_a_deleted_conversation_leaves_no_lease(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")) as turn:
        assert await conversation.delete()
        await anyio.sleep(60)

    assert turn.superseded
    assert await conversation.load() is None
    assert await store.holder(SES, now_wall=wall_clock()) is None
    assert await store.entries(SES) == ()


async def test_w30_work_done_without_the_lock_finds_out_that_the_history_changed(store):
    conversation, other = await opened(store), await opened(store)
    async with conversation.turn(user("compress")) as turn:
        generation = turn.generation
        turn.progress(assistant("a"))

    await answer(other, "next", "b")
    assert await conversation.append(*told(assistant("a summary of what was")), generation=generation) is None
    assert await texts(conversation) == ["compress", "a", "next", "b"]


async def test_w32_markers_are_never_sent_to_a_model_and_partial_text_is(store):
    conversation = await opened(store)
    with pytest.raises(RuntimeError):
        await fail_in_turn(conversation, RuntimeError(), assistant("half"))

    assert for_model((await conversation.load()).messages) == (user("q"), assistant("half"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a\x00b", "*", "é", "x" * 4000, "CON", " "])
async def test_w34_any_name_is_a_key_and_nothing_else(store, name):
    conversation = await opened(store, name)
    await answer(conversation, "q", "a")

    assert await texts(await opened(store, name)) == ["q", "a"]
    assert await (await opened(store)).load() is not None
    assert await texts(await opened(store)) == []


@pytest.mark.parametrize(("session_id", "owner"), [("", "ada"), ("ses", "")])
def test_w34_an_empty_name_is_refused(store, session_id, owner):
    with pytest.raises(ValueError, match="a conversation needs"):
        Conversation(store, session_id, owner=owner)


async def test_k_w1_a_stub_saved_over_a_long_history_takes_nothing_away(store):
    conversation = await opened(store)
    await conversation.append(*told(*(user(f"{number}") for number in range(1000))))
    loaded = (await conversation.load()).messages

    await conversation.save([])
    await conversation.save(loaded[:1])
    await conversation.rename("only the head was read")

    assert (await conversation.load()).messages == loaded


async def test_k_w2_a_leftover_that_somebody_settled_meanwhile_is_left_alone(store):
    conversation, other = await opened(store), await opened(store)
    await die_in_turn(store)
    await anyio.sleep(LEASE_TTL)
    slow = BrokenStore(store, "acquire")
    slow.delay = 1.0
    late = await opened(slow)
    results = []

    async with anyio.create_task_group() as tasks:

        async def recover():
            results.append(await late.recover())

        tasks.start_soon(recover)
        await anyio.sleep(0.5)
        assert await other.recover() is None
        await answer(conversation, "fresh", "ok")

    assert results == [Refused.NOTHING]
    assert await texts(conversation) == ["hello", Marker.RECOVERED, "fresh", "ok"]


async def test_k_w3_a_recovered_turn_keeps_message_time_attachments_and_partial_answer(store):
    conversation = await opened(store)
    sent = wall_clock()
    await die_in_turn(store, "precious", [assistant("half")], attachments=[{"name": "a"}])
    await anyio.sleep(LEASE_TTL)

    assert await conversation.recover() is None

    asked, partial, marker = (await conversation.load()).messages
    assert (asked.body, asked.attachments) == (user("precious"), ({"name": "a"},))
    assert asked.sent_wall == pytest.approx(sent, abs=0.1)
    assert (partial.body, partial.recovered) == (assistant("half"), True)
    assert marker.marker is Marker.RECOVERED


@pytest.mark.parametrize("operation", ["put", "append"])
@pytest.mark.parametrize("survived", range(4))
async def test_k_w3_whatever_write_a_process_dies_at_the_message_is_kept_once(store, operation, survived):
    await opened(store)

    class Dying(DeadlyStore):
        left = survived

        def __getattr__(self, name):
            reach = super().__getattr__(name)

            async def count(*arguments, **fields):
                if name == operation:
                    self.left -= 1
                    self.dead = self.dead or self.left < 0
                if self.dead:
                    raise StoreError("dead")

                return await reach(*arguments, **fields)

            return count

    dying = Conversation(Dying(store), SES, owner="ada", wall_clock=wall_clock)
    began = False
    try:
        async with dying.turn(user("precious"), message_id="m1") as turn:
            began = True
            turn.progress(assistant("answer"))
    except StoreError:
        pass

    recorded = (await (await opened(store)).load()).pending is not None
    await anyio.sleep(LEASE_TTL + GRACE)
    conversation = await opened(store)
    assert await conversation.recover() is (None if recorded else Refused.NOTHING)
    kept = await texts(conversation)
    assert kept.count("precious") == (1 if began or recorded else 0)
    assert kept.count("answer") <= 1
    assert (await conversation.load()).pending is None


async def test_k_w3_a_new_message_settles_what_a_dead_process_left(store):
    conversation = await opened(store)
    await die_in_turn(store, "old", [assistant("half")])
    await anyio.sleep(LEASE_TTL)

    await answer(conversation, "new", "ok")

    assert await texts(conversation) == ["old", "half", Marker.RECOVERED, "new", "ok"]


async def test_k_w4_a_turn_that_has_just_begun_is_left_alone_for_30_seconds(store):
    conversation = await opened(store)
    await die_in_turn(store, after=0)
    await store.force_release(SES)

    for wait in (0, GRACE - 1):
        await anyio.sleep(wait)
        assert await conversation.recover() is Refused.FRESH
        async with conversation.resume() as refused:
            assert refused is Refused.FRESH

    await anyio.sleep(1)
    assert await conversation.recover() is None


async def test_k_w4_a_missing_start_counts_as_long_ago(store):
    conversation = await opened(store)
    await die_in_turn(store, after=0)
    record = await store.get(KIND, SES)
    value = {**record.value, "pending": {**record.value["pending"], "started_wall": None}}
    await store.put(KIND, SES, value)
    await store.force_release(SES)

    assert await conversation.recover() is None


async def test_k_w5_a_cancelled_worker_does_not_write_into_the_next_turn(store):
    conversation, other = await opened(store), await opened(store)
    late = []

    async def zombie():
        async with conversation.turn(user("one")) as turn:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(50)
                turn.progress(assistant("late"))
                late.append(await turn.append(assistant("late")))
                late.append(await turn.rollback())
                late.append(await conversation.append(*told(assistant("late")), generation=turn.generation))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(zombie)
        await anyio.sleep(1)
        await other.cancel()
        async with other.turn(user("two")) as turn:
            await anyio.sleep(100)
            turn.progress(assistant("2"))

    assert late == [False, False, None]
    assert await texts(conversation) == ["one", Marker.CANCELLED, "two", "2"]


async def test_k_w5_a_write_checked_before_and_landing_after_a_cancel_does_not_count(store):
    slow = BrokenStore(store, "append")
    conversation, other = await opened(slow), await opened(store)
    async with conversation.turn(user("one")) as turn:
        slow.delay = 5.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(turn.append, assistant("late"))
            await anyio.sleep(1)
            await other.cancel()

    assert len(await store.entries(SES)) == 3
    assert await texts(other) == ["one", Marker.CANCELLED]


async def test_k_w7_a_late_caller_by_the_old_name_meets_the_same_lease(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")) as turn:
        await conversation.rotate("ses_2")
        late = Conversation(store, SES, owner="ada", wall_clock=wall_clock)
        async with late.turn(user("x")) as refused:
            assert refused is Refused.ACTIVE

        assert (await store.holder(SES, now_wall=wall_clock())).owner == turn.lease.owner
        turn.progress(assistant("a"))


async def test_k_w8_a_taken_lease_is_refused_at_once_and_not_waited_for(store):
    conversation = await opened(store)
    async with conversation.turn(user("q")):
        began = anyio.current_time()
        assert await (await opened(store)).undo() is Refused.ACTIVE
        assert anyio.current_time() - began < 1


async def test_k_w11_an_empty_snapshot_replaces_nothing(store):
    conversation = await opened(store)
    await die_in_turn(store, "q", [assistant("half")])
    await anyio.sleep(LEASE_TTL)
    with anyio.move_on_after(INTERVAL + 5):
        async with conversation.resume() as turn:
            turn.touch()
            turn.progress()
            await anyio.sleep_forever()

    assert await texts(conversation) == ["q", "half", Marker.CANCELLED]


async def test_k_w11_an_empty_body_can_not_replace_one_with_content(store):
    conversation = await opened(store)
    (stored,) = await conversation.save(told(assistant("long answer")))

    with pytest.raises(ValueError, match="an empty message"):
        stored.amend(assistant(""))


async def test_k_h9_a_message_delivered_again_begins_no_second_turn(store):
    conversation = await opened(store)
    await answer(conversation, "q", "a", message_id="m1")
    before = store.change, await conversation.load()
    async with conversation.turn(user("q"), message_id="m1") as refused:
        assert refused is Refused.DUPLICATE

    assert (store.change, await conversation.load()) == before


async def test_k_h9_a_message_delivered_again_long_after_begins_no_second_turn_either(store):
    conversation = await opened(store)
    await answer(conversation, "q", "a", message_id="m1")
    for number in range(40):
        await answer(conversation, f"{number}", "a")

    before = (await conversation.load()).messages
    async with conversation.turn(user("q"), message_id="m1") as refused:
        assert refused is Refused.DUPLICATE

    after = await conversation.load()
    assert (after.messages, after.pending) == (before, None)
    assert await store.holder(SES, now_wall=wall_clock()) is None


async def test_k_h7_a_new_id_is_known_to_callers_that_know_only_the_old_one_at_once(store):
    conversation = await opened(store)
    await conversation.rotate("ses_2")
    stateless = Conversation(store, SES, owner="ada", wall_clock=wall_clock)
    await stateless.append(*told(user("by the old name")))

    assert await texts(await opened(store, "ses_2")) == ["by the old name"]


async def test_k_h4_an_ended_conversation_takes_no_more_messages(store):
    conversation = await opened(store)
    await answer(conversation, "q", "a")
    await conversation.end()

    assert await conversation.append(*told(user("x"))) is None
    async with conversation.turn(user("x")) as refused:
        assert refused is Refused.UNKNOWN
    async with conversation.retry() as refused:
        assert refused is Refused.UNKNOWN

    assert await texts(conversation) == ["q", "a"]


async def test_x05_the_message_is_in_the_store_before_the_host_is_let_in(store):
    counted = BrokenStore(store)
    conversation = await opened(counted)
    counted.calls.clear()
    async with conversation.turn(user("q")) as turn:
        before = [name for name in counted.calls if name not in ("get", "entries")]
        turn.progress(assistant("a"))

    assert before == ["acquire", "put", "append"]


async def test_a_stored_message_is_not_appended_again(store):
    conversation = await opened(store)
    stored = await conversation.save(told(user("a")))

    with pytest.raises(ValueError, match="saved, not appended"):
        await conversation.append(*stored)


async def test_turns_of_many_conversations_run_side_by_side(store):
    async with AsyncExitStack() as stack:
        turns = [
            await stack.enter_async_context((await opened(store, f"s{number}")).turn(user(f"{number}")))
            for number in range(5)
        ]
        for number, turn in enumerate(turns):
            turn.progress(assistant(f"{number}!"))

    for number in range(5):
        assert await texts(await opened(store, f"s{number}")) == [f"{number}", f"{number}!"]


# --- the pure parts ----------------------------------------------------------------------------------------------


def test_ranges_are_joined():
    assert hide((), (3, 5), (5, 7), (1, 2)) == ((1, 2), (3, 7))
    assert hide(((1, 2), (3, 7)), (2, 3)) == ((1, 7),)
    assert hide(((1, 7),), (4, 4)) == ((1, 7),)
    assert [sequence for sequence in range(9) if is_hidden(sequence, ((1, 2), (4, 6)))] == [1, 4, 5]


@pytest.mark.parametrize(
    ("body", "opens"),
    [
        (user("q"), True),
        (user(""), True),
        (assistant("a"), False),
        (tool("x", "c"), False),
        ({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]}, False),
        ({"role": "user", "content": [{"type": "tool_result"}, {"type": "text", "text": "and"}]}, True),
        ({"role": "user", "content": []}, True),
        ({"role": "user", "parts": [{"text": "gemini"}]}, True),
        ({}, False),
    ],
)
def test_what_opens_a_turn(body, opens):
    assert opens_turn(Message(body=body)) is opens


def test_the_last_turn_of_nothing():
    assert last_turn([]) == ()
    assert fold((), "t") == ()
