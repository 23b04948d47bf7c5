"""Conversations under drawn interleavings: every store operation takes a drawn time before and after its effect."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, repeat

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback_plugin.errors import StoreError
from fallback_plugin.runtime import conversation_turn
from fallback_plugin.runtime.conversation import Conversation, Message, Refused
from fallback_plugin.runtime.conversation_head import KIND
from fallback_plugin.runtime.history import Marker
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.testing.virtual_time import VIRTUAL_BACKENDS, virtual_backend

SES = "ses_1"
TICK = 0.1
GROUP = {"message_id", "body", "attachments", "started_wall", "generation"}

delays = st.lists(st.integers(min_value=0, max_value=6), min_size=20, max_size=120)
backends = st.sampled_from(VIRTUAL_BACKENDS)


def wall_clock():
    return 1_700_000_000.0 + anyio.current_time()


class Interleaved:
    """A store whose operations wait before they take effect and before they return; notes each head it was given."""

    def __init__(self, store, delays):
        self._store = store
        self._delays = chain(delays, repeat(1))
        self.heads = []

    def __getattr__(self, name):
        method = getattr(self._store, name)

        async def reach(*arguments, **fields):
            await anyio.sleep(next(self._delays) * TICK)
            result = await method(*arguments, **fields)
            if name == "put" and result is not None:
                self.heads.append(result.value)

            await anyio.sleep(next(self._delays) * TICK)
            return result

        return reach


def run(backend, main, *arguments):
    name, options = virtual_backend(backend)
    return anyio.run(main, *arguments, backend=name, backend_options=options)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def open_by(store):
    return Conversation(store, SES, owner="ada", wall_clock=wall_clock)


async def texts(store):
    return [message.marker or message.body["content"] for message in (await open_by(store).load()).messages]


@settings(max_examples=60, deadline=None)
@given(backend=backends, waits=delays, batches=st.lists(st.integers(1, 4), min_size=2, max_size=20))
def test_a15_savers_at_once_lose_nothing_and_leave_no_gap(backend, waits, batches):
    async def main():
        store = MemoryStore(wall=wall_clock)
        shared = Interleaved(store, waits)
        await open_by(store).create()

        async def save(saver, size):
            given = [Message(body=user(f"{saver}.{number}"), message_id=f"{saver}.{number}") for number in range(size)]
            saved = await open_by(shared).save(given)
            again = await open_by(shared).append(*given)
            assert [message.sequence for message in again] == [message.sequence for message in saved]

        async with anyio.create_task_group() as tasks:
            for saver, size in enumerate(batches):
                tasks.start_soon(save, saver, size)

        loaded = (await open_by(store).load()).messages
        assert [message.sequence for message in loaded] == list(range(sum(batches)))
        expected = {f"{saver}.{number}" for saver, size in enumerate(batches) for number in range(size)}
        assert {message.body["content"] for message in loaded} == expected

    run(backend, main)


@settings(max_examples=60, deadline=None)
@given(
    backend=backends, waits=delays, at=st.tuples(st.sampled_from([0, 15, 30]), st.integers(0, 60)), local=st.booleans()
)
def test_w23_cancel_against_checkpoints_leaves_one_whole_group_or_none(backend, waits, at, local):
    async def main():
        store = MemoryStore(wall=wall_clock)
        await open_by(store).create()
        shared = Interleaved(store, waits)
        conversation = open_by(shared)
        cancelled, refused = [], []

        async def work():
            async with conversation.turn(user("q"), message_id="m1", attachments=[{"name": "a"}]) as turn:
                # A cancellation at the same moment holds the lease.
                if isinstance(turn, Refused):
                    refused.append(turn)
                    return

                for number in range(40):
                    turn.progress(assistant("x" * number))
                    await anyio.sleep(3)

        async def cancel():
            await anyio.sleep(at[0] + at[1] * TICK)
            cancelled.append(await (conversation if local else open_by(shared)).cancel())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            tasks.start_soon(cancel)

        for head in shared.heads:
            pending = head["pending"]
            assert pending is None or pending.keys() >= GROUP
            assert pending is None or (pending["body"], pending["attachments"]) == (user("q"), [{"name": "a"}])

        loaded = await open_by(store).load()
        assert loaded.pending is None
        assert await store.holder(SES, now_wall=wall_clock()) is None
        kept = await texts(store)
        if refused:
            assert kept in ([], ["q", Marker.CANCELLED])
            return

        assert kept[0] == "q"
        assert (kept[-1] is Marker.CANCELLED) is cancelled[0]
        assert len(kept) <= 3

    run(backend, main)


@settings(max_examples=60, deadline=None)
@given(backend=backends, waits=delays, at=st.integers(0, 60), retry=st.booleans())
def test_w22_a_reader_sees_only_states_that_were(backend, waits, at, retry):
    before, undone = ["one", "1", "two", "2"], ["one", "1"]
    asked, answered = [*undone, "two"], [*undone, "two", "new"]
    # Each with whether a turn is under way.
    real = [(before, False), (undone, False), (asked, True), (answered, True), (answered, False)]

    async def main():
        store = MemoryStore(wall=wall_clock)
        await open_by(store).create()
        await open_by(store).append(*(Message(body=body) for body in (user("one"), assistant("1"))))
        await open_by(store).append(*(Message(body=body) for body in (user("two"), assistant("2"))))
        shared = Interleaved(store, waits)
        seen = []

        async def change():
            await anyio.sleep(at * TICK)
            if not retry:
                assert not isinstance(await open_by(shared).undo(), Refused)
                return

            async with open_by(shared).retry() as turn:
                for _ in range(12):
                    turn.progress(assistant("new"))
                    await anyio.sleep(0.2)

        async def read():
            while len(seen) < 12:
                loaded = await open_by(shared).load()
                seen.append(([message.body["content"] for message in loaded.messages], loaded.pending is not None))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(change)
            tasks.start_soon(read)

        assert all(state in real for state in seen), seen
        assert await texts(store) == (answered if retry else undone)

    run(backend, main)


@settings(max_examples=50, deadline=None)
@given(backend=backends, waits=delays, names=st.lists(st.sampled_from(["person", "model"]), min_size=2, max_size=12))
def test_w19_a_persons_title_is_never_overwritten_by_an_older_offer(backend, waits, names):
    async def main():
        store = MemoryStore(wall=wall_clock)
        await open_by(store).create()
        shared = Interleaved(store, waits)
        written = []

        async def write(number, who):
            conversation = open_by(shared)
            if who == "person":
                await conversation.rename(f"person {number}")
            else:
                seen = await conversation.title()
                await anyio.sleep(0.5)
                if await conversation.offer_title(f"model {number}", seen=seen):
                    written.append((seen.number, number))

        async with anyio.create_task_group() as tasks:
            for number, who in enumerate(names):
                tasks.start_soon(write, number, who)

        numbers = [head["title_number"] for head in shared.heads]
        assert numbers == list(range(1, len(numbers) + 1))
        by_number = {head["title_number"]: head["title"] for head in shared.heads}
        assert all(by_number[seen + 1] == f"model {number}" for seen, number in written)
        assert len(shared.heads) == names.count("person") + len(written)

    run(backend, main)


@settings(max_examples=50, deadline=None)
@given(backend=backends, waits=delays, starts=st.lists(st.integers(0, 40), min_size=2, max_size=6))
def test_a22_of_turns_begun_at_once_each_is_whole_or_refused(backend, waits, starts):
    async def main():
        store = MemoryStore(wall=wall_clock)
        await open_by(store).create()
        shared = Interleaved(store, waits)
        entered = []

        async def take(number, start):
            await anyio.sleep(start * TICK)
            async with open_by(shared).turn(user(f"q{number}")) as turn:
                if isinstance(turn, Refused):
                    assert turn is Refused.ACTIVE
                    return

                entered.append(f"q{number}")
                await turn.append(assistant(f"{number}.1"))
                turn.progress(assistant(f"{number}.2"))

        async with anyio.create_task_group() as tasks:
            for number, start in enumerate(starts):
                tasks.start_soon(take, number, start)

        kept = await texts(store)
        turns = [kept[index : index + 3] for index in range(0, len(kept), 3)]
        assert sorted(turn[0] for turn in turns) == sorted(entered)
        assert all(turn[1:] == [f"{turn[0][1:]}.1", f"{turn[0][1:]}.2"] for turn in turns)
        assert await store.holder(SES, now_wall=wall_clock()) is None

    run(backend, main)


@settings(max_examples=60, deadline=None)
@given(backend=backends, waits=delays, dies_at=st.integers(0, 90), carry_on=st.booleans())
def test_w10_whenever_a_process_dies_the_message_is_kept_once_and_the_answer_not_doubled(
    backend, waits, dies_at, carry_on
):
    async def main():
        store = MemoryStore(wall=wall_clock)
        await open_by(store).create()
        entered = []

        async def live_until_death():
            # What a dead process would have raised nobody hears.
            with suppress(StoreError), anyio.move_on_after(dies_at + 0.05):
                async with open_by(Mortal(Interleaved(store, waits), dies_at)).turn(user("q"), message_id="m1") as turn:
                    entered.append(turn)
                    for number in range(3):
                        turn.progress(assistant(f"a{number}"))
                        await anyio.sleep(20.3)
                        await turn.append(assistant(f"a{number}"))

        await live_until_death()
        pending = (await open_by(store).load()).pending
        await anyio.sleep(conversation_turn.LEASE_TTL + 30)
        survivor = open_by(store)
        if carry_on:
            async with survivor.resume() as turn:
                assert isinstance(turn, Refused) is (pending is None or pending.closing is not None)
        else:
            await survivor.recover()

        kept = [text for text in await texts(store) if not isinstance(text, Marker)]
        assert kept.count("q") == (1 if entered or pending else len(kept[:1]))
        assert kept[1:] == [f"a{number}" for number in range(len(kept) - 1)]
        assert (await store.get(KIND, SES)).value["pending"] is None

    run(backend, main)


class Mortal:
    """A store that its process can't reach any more from a time on: calls wait for ever, as those of the dead do."""

    def __init__(self, store, dies_at):
        self._store = store
        self._dies_at = dies_at

    def __getattr__(self, name):
        method = getattr(self._store, name)

        async def reach(*arguments, **fields):
            if anyio.current_time() >= self._dies_at:
                await anyio.sleep_forever()

            return await method(*arguments, **fields)

        return reach


@pytest.mark.parametrize("backend", VIRTUAL_BACKENDS)
def test_e12_twenty_savers_of_one_conversation(backend):
    async def main():
        store = MemoryStore(wall=wall_clock)
        await open_by(store).create()
        shared = Interleaved(store, [3, 1, 4, 1, 5])

        async def save(number):
            await open_by(shared).save([Message(body=user(f"{number}"))])

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(save, number)

        loaded = (await open_by(store).load()).messages
        assert [message.sequence for message in loaded] == list(range(20))
        assert len({message.body["content"] for message in loaded}) == 20

    run(backend, main)
