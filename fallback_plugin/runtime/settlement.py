"""Settlement: how a turn of a conversation ends, in one way for all endings.

    1. claim    the head takes in the final answer and how the turn ends; whoever comes later is refused
    2. append   user message, answer and marker go into the stream; their entry ids make it harmless to repeat
    3. clear    the head lets go of the turn: message, attachments, start and generation at once (W23)

The message is in the stream before the head lets go of it (K-W3). After a crash between any two of them, whoever finds
the claim does the rest. The marker carries a newer generation than the attempt: what a stale writer appends behind it
doesn't count (K-W5).
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.runtime.conversation_head import Closing, Head, HeadRecord, Pending
from fallback_plugin.runtime.history import Marker, Message, answer_entry, entry_for
from fallback_plugin.stores.base import Entry, Json

MARKERS = {
    Closing.CANCELLED: Marker.CANCELLED,
    Closing.FAILED: Marker.FAILED,
    Closing.RECOVERED: Marker.RECOVERED,
}


def close(head: Head, closing: Closing, *, place: int | None = None, partial: tuple[Json, ...] = ()) -> Head | None:
    """The head with its turn claimed for an ending; None if there is none to claim.

    Args:
        head: the head.
        closing: how the turn ends.
        place: how much of the answer is in the stream; as the head says if None.
        partial: the rest of it; as the head says if empty.
    """
    pending = head.pending
    if pending is None or pending.closing is not None:
        return None

    generation = head.generation if closing is Closing.FINISHED else head.generation + 1
    pending = pending.advanced(pending.place if place is None else place, partial)
    return replace(head, generation=generation, pending=replace(pending, closing=closing))


async def settle(record: HeadRecord, head: Head) -> bool:
    """Append and clear a claimed turn; False if it was settled by somebody else meanwhile.

    Args:
        record: where the head is.
        head: as claimed.

    Raises:
        StoreError: the store can't be used; the claim stays, for `recover`.
    """
    pending = head.pending
    if pending is None or pending.closing is None:
        return False

    entries = closing_entries(head, pending)
    await record.store.append(record.session_id, entries, now_wall=record.wall_clock())

    def clear(now: Head) -> Head | None:
        same = now.pending is not None and now.pending.generation == pending.generation and now.pending.closing
        return replace(now, pending=None) if same else None

    return await record.change(clear) is not None


def closing_entries(head: Head, pending: Pending) -> list[Entry]:
    """What the stream must hold of a turn that ends.

    Args:
        head: as claimed; its generation is the marker's.
        pending: its turn.
    """
    entries = [] if pending.stored else [user_entry(head.thread, pending)]
    for place, body in enumerate(pending.partial, pending.place):
        message = Message(body=body, generation=pending.generation, recovered=pending.closing is Closing.RECOVERED)
        entry_id = answer_entry(head.thread, pending.message_id, pending.generation, place)
        entries.append(entry_for(message, head.thread, entry_id))

    marker = _marker(pending)
    if marker is not None:
        message = Message(body={"role": "assistant", "content": ""}, generation=head.generation, marker=marker)
        entry_id = answer_entry(head.thread, pending.message_id, pending.generation, "marker")
        entries.append(entry_for(message, head.thread, entry_id))

    return entries


def user_entry(thread: str, pending: Pending) -> Entry:
    """The user's message of a turn, as the stream holds it."""
    message = Message(
        body=pending.body,
        message_id=pending.message_id,
        attachments=pending.attachments,
        generation=pending.generation,
        sent_wall=pending.started_wall,
        recovered=pending.closing is Closing.RECOVERED,
    )
    return entry_for(message, thread)


def _marker(pending: Pending) -> Marker | None:
    if pending.closing is not None and pending.closing in MARKERS:
        return MARKERS[pending.closing]

    # A turn always ends with an assistant's row (A24, K-A4).
    return None if pending.partial or pending.place else Marker.EMPTY


async def settle_leftover(record: HeadRecord) -> bool:
    """Settle a turn that nobody works on any more, as whoever holds the lease may say; False if there is none."""
    head = await record.read()
    if head is None or head.pending is None:
        return False

    claimed = await record.change(lambda head: close(head, Closing.RECOVERED)) or await record.read()
    return claimed is not None and await settle(record, claimed)
