"""Conversations in a real file, several stores open on it as several processes would have."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import anyio
import pytest

from fallback_plugin.errors import StoreError
from fallback_plugin.runtime import conversation_turn
from fallback_plugin.runtime.conversation import Conversation, Message, Refused, find_pending
from fallback_plugin.runtime.history import Marker
from fallback_plugin.stores.sqlite import SqliteStore

SES = "ses_1"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state" / "store.db"


@asynccontextmanager
async def process(file, owner="ada", **fields):
    """A conversation as a process of its own sees it."""
    store = SqliteStore(file, patience=30)
    await store.open()
    try:
        yield Conversation(store, SES, owner=owner, **fields)
    finally:
        await store.close()


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **fields):
    return {"role": "assistant", "content": text, **fields}


async def die(conversation):
    """The process is gone: its file is closed under it, so nothing of the turn's end arrives."""
    async with conversation.turn(user("lost")) as turn:
        await turn.append(assistant("said"))
        await conversation._store.close()


async def texts(conversation):
    return [message.marker or message.body["content"] for message in (await conversation.load()).messages]


async def test_a04_after_a_restart_the_same_history_comes_from_the_file(file):
    given = [user("q"), assistant("", tool_calls=[{"id": "1"}, {"id": "2"}]), {"role": "tool", "content": "é\x00"}]
    async with process(file) as conversation:
        await conversation.create()
        saved = await conversation.append(*(Message(body=body) for body in given))

    async with process(file) as conversation:
        loaded = (await conversation.load()).messages
        assert [message.body for message in loaded] == given
        assert [message.sequence for message in loaded] == [message.sequence for message in saved]


async def test_a15_w12_two_processes_save_at_once(file):
    async with process(file) as one, process(file) as two:
        await one.create()

        async def save(conversation, name):
            await conversation.save([Message(body=user(f"{name}{number}")) for number in range(3)])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(save, one, "a")
            tasks.start_soon(save, two, "b")

        for conversation in (one, two):
            loaded = (await conversation.load()).messages
            assert [message.sequence for message in loaded] == list(range(6))
            assert sorted(message.body["content"] for message in loaded) == ["a0", "a1", "a2", "b0", "b1", "b2"]


async def test_a22_two_processes_begin_a_turn_at_once(file):
    async with process(file) as one, process(file) as two:
        await one.create()
        outcomes = []

        async def take(conversation, name):
            async with conversation.turn(user(name)) as turn:
                outcomes.append(turn is Refused.ACTIVE)
                if turn is not Refused.ACTIVE:
                    turn.progress(assistant(name.upper()))
                    await anyio.sleep(0.3)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take, one, "a")
            tasks.start_soon(take, two, "b")

        assert sorted(outcomes) == [False, True]
        assert await texts(one) in (["a", "A"], ["b", "B"])


async def test_w10_w20_cancelled_and_recovered_over_a_restart(file):
    late = time.time() + conversation_turn.LEASE_TTL + 60
    async with process(file) as one, process(file) as two:
        await one.create()
        async with one.turn(user("q")) as turn:
            turn.progress(assistant("half"))
            assert await one.cancel()
            await anyio.sleep_forever()

        assert await texts(two) == ["q", "half", Marker.CANCELLED]
        with pytest.raises(StoreError):
            await die(two)

    async with process(file) as after:
        assert await find_pending(after._store, "ada") == (SES,)
        assert await after.recover() is Refused.FRESH

    async with process(file, wall_clock=lambda: late) as after:
        assert await after.recover() is None
        assert await texts(after) == ["q", "half", Marker.CANCELLED, "lost", "said", Marker.RECOVERED]
        assert await find_pending(after._store, "ada") == ()


async def test_w24_rotated_in_one_process_and_used_by_the_old_name_in_another(file):
    async with process(file) as one, process(file) as two:
        await one.create()
        async with one.turn(user("q")) as turn:
            assert await one.rotate("ses_2")
            async with two.turn(user("x")) as refused:
                assert refused is Refused.ACTIVE

            turn.progress(assistant("a"))

        assert await texts(two) == ["q", "a"]
        undone = await two.undo()
        assert undone.body == user("q")
        assert await texts(one) == []


async def test_a03_another_user_of_the_same_file_gets_nothing(file):
    async with process(file) as mine, process(file, owner="bob") as theirs:
        await mine.create()
        async with mine.turn(user("secret")) as turn:
            turn.progress(assistant("also"))

        assert await theirs.load() is None
        assert await theirs.undo() is Refused.UNKNOWN
        assert not await theirs.create()
        assert await texts(mine) == ["secret", "also"]
