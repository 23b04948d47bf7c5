"""Conversation: the messages of a session, for hosts that have no store of their own.

    conversation = Conversation(store, "session-1", owner="ada")
    await conversation.create()

    async with conversation.turn({"role": "user", "content": "Why?"}) as turn:
        if isinstance(turn, Refused):
            return turn

        async for text in model.stream(...):
            answer += text
            turn.progress({"role": "assistant", "content": answer})

Theory of operation
===================

A conversation is a stream of messages, a small head (`conversation_head`) and the session's lease, all under the
session's id, so that one alias moves all of it (X07).

- **Messages** are only ever appended. Savers at the same time lose nothing and need no lock (A15-A21).
- **The head** is changed by compare-and-set: title, what is undone, the turn under way. Nothing else decides.
- **The lease** is held by a turn from before its message is recorded until its end is stored, and refreshed meanwhile;
  nothing else is held while a model is asked (X17). It keeps a second turn out; that no write of a former holder
  counts is what generations are for (K-W5).

    IDLE ──turn, retry──► PENDING ──answered, failed, cancelled, recovered──► claimed ──append, clear──► IDLE
                            │  ▲
                    (crash) └──┘ resume: after the grace, if nobody holds the lease

Somebody else's conversation looks like none at all: no data, and no error either (A03). What the store raises goes up
as `StoreError`; nothing is half done then, or the next `recover` finishes it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import anyio

from fallback_plugin.errors import StoreError
from fallback_plugin.runtime.conversation_edits import Loaded, Refused, Title, retitle, take_back, why_not_abandoned
from fallback_plugin.runtime.conversation_head import KIND, Closing, Head, HeadRecord
from fallback_plugin.runtime.conversation_openings import hold_lease, look, open_abandoned, open_again, open_turn
from fallback_plugin.runtime.conversation_turn import SAVE_PATIENCE, Turn
from fallback_plugin.runtime.history import Message, entry_for, last_turn
from fallback_plugin.runtime.settlement import close, settle, settle_leftover
from fallback_plugin.stores.base import Json, Store

__all__ = ["Conversation", "Loaded", "Message", "Refused", "Title", "Turn", "find_pending"]


class Conversation:
    """One conversation, as one user sees it. Cheap to make; any number may look at the same one.

    Args:
        store: where it is kept.
        session_id: its id, the host's.
        owner: the user; others' conversations don't exist for it.
        wall_clock: epoch seconds.
    """

    def __init__(
        self, store: Store, session_id: str, *, owner: str, wall_clock: Callable[[], float] = time.time
    ) -> None:
        if not session_id or not owner:
            raise ValueError("a conversation needs a session id and an owner")

        self._record = HeadRecord(store, session_id, owner, wall_clock)
        self._store = store
        self._turns: set[Turn] = set()

    @property
    def session_id(self) -> str:
        """The session's id; the newest after a rotation."""
        return self._record.session_id

    async def create(self, title: str = "") -> bool:
        """Begin the conversation unless it exists; False if the id is somebody else's."""
        return await self._record.create(title)

    async def load(self) -> Loaded | None:
        """All of it as of one moment; None for a foreign user (A03)."""
        seen = await look(self._record)
        if seen is None:
            return None

        head = seen.head
        newest = max([head.updated_wall, *(stored.at_wall for stored in seen.stream[-1:])])
        title = Title(text=head.title, number=head.title_number)
        return Loaded(messages=seen.messages, title=title, pending=head.pending, updated_wall=newest)

    async def append(self, *messages: Message, generation: int | None = None) -> tuple[Message, ...] | None:
        """Store messages at the end, with one timestamp; those whose ids are known already stay as they are.

        Args:
            messages: new ones, without a sequence.
            generation: the attempt on whose behalf; refused once it may write no more (K-W5). None for any time.

        Returns:
            The messages with the sequences that they have; None if nothing was stored.

        Raises:
            ValueError: one is stored already.
        """
        if any(message.sequence is not None for message in messages):
            raise ValueError("a message that is stored already is saved, not appended")

        head = await self._record.read()
        if head is None or head.ended or (generation is not None and not head.is_open(generation)):
            return None

        return await self._write(head, [replace(message, generation=generation) for message in messages])

    async def save(self, messages: Sequence[Message]) -> tuple[Message, ...] | None:
        """Store what is new or amended in a host's copy of the history.

        What the copy lacks stays stored: a copy that was loaded in part, or is empty, takes nothing away (K-W1, K-W11).

        Returns:
            The copy with all sequences filled in; None if nothing was stored.
        """
        head = await self._record.read()
        if head is None or head.ended:
            return None

        unsaved = [message for message in messages if message.sequence is None or message.amended]
        written = iter(await self._write(head, unsaved))
        return tuple(next(written) if message.sequence is None or message.amended else message for message in messages)

    def turn(
        self, message: Json, *, message_id: str | None = None, attachments: Sequence[Json] = ()
    ) -> AbstractAsyncContextManager[Turn | Refused]:
        """Begin a turn: the message is durable before this is entered (X05), its end when it is left (A24).

        If the block raises, the turn is marked as failed, if it is cancelled as cancelled; what there is of the answer
        is kept. If the turn becomes somebody else's, the block is cancelled, and `Turn.superseded` tells.

        Args:
            message: the user's message.
            message_id: the host's id of it; a message begins one turn only (K-H9).
            attachments: what comes with it.
        """
        named = message_id or uuid4().hex
        return self._run(lambda: open_turn(self._record, named, message, tuple(attachments)))

    def retry(self) -> AbstractAsyncContextManager[Turn | Refused]:
        """Answer the last user message again: what came after it is undone, in one step."""
        return self._run(lambda: open_again(self._record))

    def resume(self) -> AbstractAsyncContextManager[Turn | Refused]:
        """Carry on the turn of a process that died; `Turn.earlier` has what it had written.

        Refused while somebody holds the lease, and as fresh within 30 s of the turn's start (K-W4).
        """
        return self._run(lambda: open_abandoned(self._record))

    async def recover(self) -> Refused | None:
        """Settle the turn of a process that died: its message and partial answer are kept, as recovered (K-W3).

        Returns:
            None when it is done; otherwise why it was not, as in `resume`.
        """
        refused = why_not_abandoned(await self._record.read(), self._record.wall_clock())
        if refused is not None:
            return refused

        async with hold_lease(self._record) as lease:
            if lease is None:
                return Refused.ACTIVE

            return None if await settle_leftover(self._record) else Refused.NOTHING

    async def cancel(self) -> bool:
        """End the turn under way, wherever it runs; False if there is none.

        Message and partial answer are kept, then the record of the turn goes at once (W23). A turn of this object is
        ended with all that it has reported; one that runs elsewhere with what its last checkpoint holds.
        """
        with anyio.move_on_after(SAVE_PATIENCE, shield=True):
            lease = await self._store.holder(self.session_id, now_wall=self._record.wall_clock())
            ended = await self._cancel()
            if ended and lease is not None:
                # By its owner's name: the next turn's lease is not ours to take (K-A5).
                await self._store.release(lease)

            return ended

        raise StoreError("the store did not take a cancellation in time")

    async def undo(self) -> Message | Refused:
        """Take the last turn back, in one step; gives its user message."""
        if await self._record.read() is None:
            return Refused.UNKNOWN

        async with hold_lease(self._record) as lease:
            if lease is None:
                return Refused.ACTIVE

            await settle_leftover(self._record)
            seen = await look(self._record)
            asked = last_turn(seen.messages) if seen else ()
            if seen is None or not asked:
                return Refused.NOTHING

            undone = await self._record.change(lambda head: take_back(head, seen, asked[0]))
            return Refused.ACTIVE if undone is None else asked[0]

    async def title(self) -> Title | None:
        """The title now; its number is what `offer_title` wants."""
        head = await self._record.read()
        return None if head is None else Title(text=head.title, number=head.title_number)

    async def rename(self, title: str) -> bool:
        """Set the title, as a person does."""
        return await self._record.change(lambda head: retitle(head, title)) is not None

    async def offer_title(self, title: str, *, seen: Title) -> bool:
        """Set a title that was made in the background, unless there was another meanwhile (W19).

        Args:
            title: the new one.
            seen: the title as it was when the work on the new one began.
        """
        return await self._record.change(lambda head: retitle(head, title, number=seen.number)) is not None

    async def rotate(self, session_id: str) -> bool:
        """Go on under a new id; both lead to the same conversation, lease and turn from now on (X07, K-W7).

        Returns:
            False if there is no conversation of this owner, or another one under the new id.
        """
        if await self._record.read() is None:
            return False

        if await self._store.resolve(self.session_id) != await self._store.resolve(session_id):
            if await self._store.get(KIND, session_id) is not None:
                return False

            await self._store.alias(self.session_id, session_id)

        self._record.session_id = session_id
        return True

    async def end(self) -> bool:
        """Mark the session as ended for good: nothing new is written to it, and caches drop it (K-H4)."""
        return await self._record.change(lambda head: replace(head, ended=True)) is not None

    async def delete(self) -> bool:
        """Delete the conversation: the head first, so that nobody finds the rest (A26)."""
        if not await self._record.delete():
            return False

        for turn in list(self._turns):
            turn.supersede()

        await self._store.truncate(self.session_id, 0)
        await self._store.force_release(self.session_id)
        return True

    async def _cancel(self) -> bool:
        for turn in list(self._turns):
            ended = await turn.end(Closing.CANCELLED)
            turn.supersede()
            if ended:
                return True

        claimed = await self._record.change(lambda head: close(head, Closing.CANCELLED))
        return claimed is not None and await settle(self._record, claimed)

    async def _write(self, head: Head, messages: Sequence[Message]) -> tuple[Message, ...]:
        entries = [entry_for(message, head.thread) for message in messages]
        stored = await self._store.append(self.session_id, entries, now_wall=self._record.wall_clock())
        return tuple(
            replace(message, amended=False, sequence=sequence if message.sequence is None else message.sequence)
            for message, sequence in zip(messages, stored.sequences, strict=True)
        )

    @asynccontextmanager
    async def _run(self, begin: Callable[[], Awaitable[Head | Refused]]) -> AsyncGenerator[Turn | Refused]:
        # Nobody may take the lease of a conversation that isn't theirs.
        if await self._record.read() is None:
            yield Refused.UNKNOWN
            return

        async with hold_lease(self._record) as lease:
            begun = Refused.ACTIVE if lease is None else await begin()
            if lease is None or isinstance(begun, Refused) or begun.pending is None:
                yield begun if isinstance(begun, Refused) else Refused.NOTHING
                return

            turn = Turn(self._record, begun.pending, lease)
            self._turns.add(turn)
            try:
                async with turn.running():
                    yield turn
            finally:
                self._turns.discard(turn)


async def find_pending(store: Store, owner: str) -> tuple[str, ...]:
    """Ids of an owner's conversations whose turns have not ended, for `resume` or `recover` at the start (W10)."""
    records = await store.scan(KIND)
    return tuple(
        record.key
        for record in records
        if record.value is not None and record.value.get("owner") == owner and record.value.get("pending") is not None
    )
