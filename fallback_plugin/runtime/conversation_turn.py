"""A turn under way: what its host reports of the answer, kept safe while it streams in.

Two workers run beside the host's own code: one writes checkpoints, one keeps the lease. Either learns that the turn is
somebody else's now (cancelled, taken over) by being refused; then the host's code is cancelled, and nothing that it
does later is written (K-W5, K-A7).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from fallback_plugin.errors import StoreError
from fallback_plugin.runtime.checkpoint import FORCED, INTERVAL, Checkpointer
from fallback_plugin.runtime.conversation_head import Closing, Head, HeadRecord, Pending
from fallback_plugin.runtime.history import Message, answer_entry, entry_for, hide
from fallback_plugin.runtime.settlement import close, settle
from fallback_plugin.stores.base import Json, Lease

logger = logging.getLogger("fallback_plugin")

LEASE_TTL = 120.0
"""Seconds until the turn of a process that died can be taken over (A23)."""
SAVE_PATIENCE = 15.0
"""Seconds that a write at the end of a turn may take although its task was cancelled (W31)."""


class Turn:
    """A turn of a conversation; `Conversation.turn`, `retry` and `resume` give one.

    Attributes:
        message: the user's message.
        message_id: names the turn.
        attachments: what came with the message.
        earlier: what an earlier run of this turn had written of its answer when it died.
        generation: the attempt that may write.
        lease: the session's lease, which this turn holds.
        superseded: whether the turn is somebody else's now.
    """

    def __init__(self, record: HeadRecord, pending: Pending, lease: Lease) -> None:
        self.message = pending.body
        self.message_id = pending.message_id
        self.attachments = pending.attachments
        self.earlier = pending.partial
        self.generation = pending.generation
        self.lease = lease
        self.superseded = False
        self._record = record
        self._place = pending.place
        self._partial: tuple[Json, ...] = ()
        self._sequences: list[int] = []
        self._writing = anyio.Lock()
        self._scope = anyio.CancelScope()
        self._checkpointer = Checkpointer(
            self._content, self._write_checkpoint, refused=self.supersede, interval=INTERVAL, forced=FORCED
        )

    def progress(self, *messages: Json) -> None:
        """Report the unfinished answer as it stands: all messages since the last `append`.

        It is written as a checkpoint some seconds later, and as the answer when the turn ends. Cheap; call it as often
        as you like.
        """
        self._partial = messages
        self._checkpointer.touch()

    def touch(self) -> None:
        """Report activity that shows in no message, such as a tool at work."""
        self._checkpointer.touch()

    async def append(self, *messages: Json) -> bool:
        """Store finished messages of the answer.

        Returns:
            False, with nothing stored, if the turn is somebody else's now.

        Raises:
            StoreError: the store can't be used; `progress` still holds what it held.
        """
        with anyio.move_on_after(SAVE_PATIENCE, shield=True):
            async with self._writing:
                return await self._append(messages)

        raise StoreError("the store did not take an answer in time")

    async def rollback(self) -> bool:
        """Take back what this attempt has stored, because the next one begins the answer anew (K-A6).

        Returns:
            False if the turn is somebody else's now.
        """
        async with self._writing:
            hidden = [(sequence, sequence + 1) for sequence in self._sequences]

            def take_back(head: Head) -> Head | None:
                if head.pending is None or not head.is_open(self.generation):
                    return None

                generation = head.generation + 1
                pending = replace(head.pending, generation=generation, place=0, partial=(), stored=True)
                return replace(head, generation=generation, pending=pending, hidden=hide(head.hidden, *hidden))

            head = await self._record.change(take_back)
            if head is None or head.pending is None:
                self.supersede()
                return False

            self.generation, self._place, self._partial, self._sequences = head.pending.generation, 0, (), []
            return True

    def supersede(self) -> None:
        """The turn is somebody else's now: end the host's code and write no more."""
        self.superseded = True
        self._checkpointer.stop()
        self._scope.cancel()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the workers around the host's code, and settle the turn however that ends (A24, X17)."""
        closing = Closing.CANCELLED
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as workers:
                workers.start_soon(self._checkpointer.run)
                keeper = anyio.CancelScope()
                workers.start_soon(self._keep_lease, keeper)
                try:
                    with self._scope:
                        yield

                    closing = Closing.FINISHED
                except Exception as error:  # noqa: BLE001 - raised again below, outside of the group that would wrap it
                    closing, failure = Closing.FAILED, error
                finally:
                    # Workers are joined before the last write (W13).
                    self._checkpointer.stop()
                    keeper.cancel()
        finally:
            await self._end(closing)

        if failure is not None:
            raise failure

    async def _end(self, closing: Closing) -> None:
        if self.superseded:
            return

        with anyio.move_on_after(SAVE_PATIENCE, shield=True) as patience:
            try:
                await self.end(closing)
            except StoreError as error:
                if closing is Closing.FINISHED:
                    raise

                logger.warning("the end of a turn is not stored: %s", type(error).__name__)

        if patience.cancelled_caught and closing is Closing.FINISHED:
            raise StoreError("the store did not take the end of a turn in time")

    async def end(self, closing: Closing) -> bool:
        """Settle the turn with what it holds; False if it is somebody else's, or was ended."""
        async with self._writing:
            head = await self._record.change(
                lambda head: (
                    close(head, closing, place=self._place, partial=self._partial)
                    if head.is_open(self.generation)
                    else None
                )
            )
            if head is None:
                self.superseded = True
                return False

            return await settle(self._record, head)

    async def _append(self, messages: tuple[Json, ...]) -> bool:
        head = await self._record.read()
        if head is None or not head.is_open(self.generation):
            self.supersede()
            return False

        entries = [
            entry_for(
                Message(body=body, generation=self.generation),
                head.thread,
                answer_entry(head.thread, self.message_id, self.generation, place),
            )
            for place, body in enumerate(messages, self._place)
        ]
        now_wall = self._record.wall_clock()
        appended = await self._record.store.append(self._record.session_id, entries, now_wall=now_wall)
        self._sequences += appended.sequences
        self._place += len(messages)
        self._partial = ()
        return True

    def _content(self) -> list[Json]:
        return list(self._partial)

    async def _write_checkpoint(self, _: list[Json]) -> bool:
        # What is written is what holds under the lock: an append may have come in between.
        async with self._writing:

            def checkpoint(head: Head) -> Head | None:
                if head.pending is None or not head.is_open(self.generation):
                    return None

                return replace(head, pending=head.pending.advanced(self._place, self._partial))

            return await self._record.change(checkpoint) is not None

    async def _keep_lease(self, scope: anyio.CancelScope) -> None:
        with scope:
            while not self.superseded:
                await anyio.sleep(LEASE_TTL / 10)
                try:
                    kept = await self._refresh()
                except StoreError:
                    # While it is away nobody can take the lease over either.
                    continue

                if kept is None:
                    self.supersede()
                else:
                    self.lease = kept

    async def _refresh(self) -> Lease | None:
        store, now_wall = self._record.store, self._record.wall_clock()
        kept = await store.refresh(self.lease, LEASE_TTL, now_wall=now_wall)
        if kept is not None:
            return kept

        # A machine that slept finds its lease expired, and maybe nobody in its place.
        kept = await store.acquire(self._record.session_id, self.lease.owner, LEASE_TTL, now_wall=now_wall)
        if kept is None:
            return None

        head = await self._record.read()
        if head is not None and head.is_open(self.generation):
            return kept

        await store.release(kept)
        return None
