"""Openings: how a turn of a conversation begins, for whoever holds the session's lease."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import anyio

from fallback_plugin.errors import StoreError
from fallback_plugin.runtime.conversation_edits import (
    Refused,
    Seen,
    begin,
    begin_again,
    carry_on,
    forget_turn,
    is_unmoved,
    why_not_abandoned,
)
from fallback_plugin.runtime.conversation_head import TRIES, Head, HeadRecord
from fallback_plugin.runtime.conversation_turn import LEASE_TTL, SAVE_PATIENCE, logger
from fallback_plugin.runtime.history import is_hidden, last_turn
from fallback_plugin.runtime.settlement import settle_leftover, user_entry
from fallback_plugin.stores.base import Json, Lease


@asynccontextmanager
async def hold_lease(record: HeadRecord) -> AsyncGenerator[Lease | None]:
    """Hold the session's lease, under an owner of its own; None if somebody else does (A22)."""
    owner = uuid4().hex
    try:
        yield await record.store.acquire(record.session_id, owner, LEASE_TTL, now_wall=record.wall_clock())
    finally:
        with anyio.move_on_after(SAVE_PATIENCE, shield=True):
            await _give_back(record, owner)


async def _give_back(record: HeadRecord, owner: str) -> None:
    # Asked of the store: a cancelled acquire may have taken effect.
    try:
        held = await record.store.holder(record.session_id, now_wall=record.wall_clock())
        if held is not None and held.owner == owner:
            await record.store.release(held)
    except StoreError as error:
        logger.warning("a session's lease is left to expire: %s", type(error).__name__)


async def look(record: HeadRecord) -> Seen | None:
    """Head and stream of one moment: the stream as read between two heads that agree (W22).

    Raises:
        StoreError: the store can't be used, or the head changed at each of `TRIES` looks.
    """
    head = await record.read()
    for _ in range(TRIES):
        if head is None:
            return None

        stream = await record.store.entries(record.session_id)
        after = await record.read()
        if after is not None and is_unmoved(after, head):
            return Seen(head=after, stream=stream)

        head = after

    raise StoreError("a conversation kept changing while it was read")


async def open_turn(record: HeadRecord, message_id: str, body: Json, attachments: tuple[Json, ...]) -> Head | Refused:
    """Begin a turn on a new message, once what a dead process left was settled (K-W3)."""
    await settle_leftover(record)
    now_wall = record.wall_clock()
    begun = await record.change(lambda head: begin(head, message_id, body, attachments, now_wall))
    if begun is None:
        head = await record.read()
        return Refused.UNKNOWN if head is None or head.ended else Refused.DUPLICATE

    if await _is_last(record, begun):
        return begun

    # Either it had its turn long ago, or it was cancelled in this very moment.
    forgotten = await record.change(lambda head: forget_turn(head, begun.generation))
    return Refused.NOTHING if forgotten is None else Refused.DUPLICATE


async def open_again(record: HeadRecord) -> Head | Refused:
    """Begin a turn on the last user message."""
    await settle_leftover(record)
    seen = await look(record)
    if seen is None or seen.head.ended:
        return Refused.UNKNOWN

    asked = last_turn(seen.messages)
    if not asked:
        return Refused.NOTHING

    now_wall = record.wall_clock()
    begun = await record.change(lambda head: begin_again(head, seen, asked[0], now_wall))
    return Refused.ACTIVE if begun is None else begun


async def open_abandoned(record: HeadRecord) -> Head | Refused:
    """Carry on the turn that a dead process left."""
    seen = await look(record)
    refused = why_not_abandoned(None if seen is None else seen.head, record.wall_clock())
    if seen is None or refused is not None:
        return refused or Refused.UNKNOWN

    begun = await record.change(lambda head: carry_on(head, seen))
    if begun is None:
        await settle_leftover(record)
        return Refused.NOTHING

    await _is_last(record, begun)
    return begun


async def _is_last(record: HeadRecord, head: Head) -> bool:
    """Store the turn's message; whether it is now the last of the stream, and to be seen."""
    if head.pending is None or head.pending.stored:
        return True

    entry = user_entry(head.thread, head.pending)
    stored = await record.store.append(record.session_id, [entry], now_wall=record.wall_clock())
    sequence = stored.sequences[0]
    return sequence == stored.next_sequence - 1 and not is_hidden(sequence, head.hidden)
