"""What may become of a conversation's head: each edit gives the next head, or None where it may not be made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from fallback_plugin.runtime.conversation_head import BEGUN_KEPT, Head, Pending
from fallback_plugin.runtime.history import Message, answer_entry, fold, hide
from fallback_plugin.stores.base import Json, Stored

GRACE = 30.0
"""Seconds for which a turn that nobody holds may still be on its way in (K-W4)."""


class Refused(StrEnum):
    """Why something was not done."""

    UNKNOWN = "unknown"
    """There is no such conversation for this owner, or it was ended."""
    ACTIVE = "active"
    """Somebody works on a turn of it (A22)."""
    DUPLICATE = "duplicate"
    """This message has had its turn (K-H9)."""
    FRESH = "fresh"
    """The turn was begun so recently that its process may still be coming (K-W4)."""
    NOTHING = "nothing"
    """There is no turn to do it with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Title:
    """A title and its number, by which a later one is told from it."""

    text: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A conversation as it stood at one moment.

    Attributes:
        messages: in order; `history.for_model` takes out what no model may see.
        title: its title.
        pending: the turn under way, with what is known of its answer.
        updated_wall: epoch seconds of the last write.
    """

    messages: tuple[Message, ...]
    title: Title
    pending: Pending | None
    updated_wall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Head and stream of one moment."""

    head: Head
    stream: tuple[Stored, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the stream means under this head."""
        return fold(self.stream, self.head.thread, self.head.hidden)

    @property
    def end(self) -> int:
        """The next free sequence then."""
        return self.stream[-1].sequence + 1 if self.stream else 0


def is_unmoved(head: Head, seen: Head) -> bool:
    """Whether what was decided upon the messages of `seen` still holds."""
    return (head.generation, head.hidden, head.pending is None) == (
        seen.generation,
        seen.hidden,
        seen.pending is None,
    )


def begin(head: Head, message_id: str, body: Json, attachments: tuple[Json, ...], now_wall: float) -> Head | None:
    """A turn on a new message; None if one is under way, or the message has had its own (K-H9)."""
    if head.ended or head.pending is not None or message_id in head.begun:
        return None

    generation = head.generation + 1
    pending = Pending(
        message_id=message_id, body=body, attachments=attachments, started_wall=now_wall, generation=generation
    )
    return replace(head, generation=generation, pending=pending, begun=(*head.begun, message_id)[-BEGUN_KEPT:])


def begin_again(head: Head, seen: Seen, asked: Message, now_wall: float) -> Head | None:
    """A turn on the last user message, what came after it undone; None if something happened meanwhile."""
    if not is_unmoved(head, seen.head) or head.pending is not None or head.ended or asked.sequence is None:
        return None

    generation = head.generation + 1
    pending = Pending(
        message_id=asked.message_id or f"at {asked.sequence}",
        body=asked.body,
        attachments=asked.attachments,
        started_wall=now_wall,
        generation=generation,
        stored=True,
    )
    hidden = hide(head.hidden, (asked.sequence + 1, seen.end))
    return replace(head, generation=generation, pending=pending, hidden=hidden)


def carry_on(head: Head, seen: Seen) -> Head | None:
    """The turn under way in a new attempt; None if it is being ended, or something happened meanwhile."""
    pending = head.pending
    if pending is None or pending.closing is not None or not is_unmoved(head, seen.head):
        return None

    # The head may not know of the last messages that went into the stream before the crash.
    known = {stored.entry_id for stored in seen.stream}
    place = pending.place
    while answer_entry(head.thread, pending.message_id, pending.generation, place) in known:
        place += 1

    generation = head.generation + 1
    pending = replace(pending.advanced(place, ()), generation=generation, place=0)
    return replace(head, generation=generation, pending=pending)


def take_back(head: Head, seen: Seen, asked: Message) -> Head | None:
    """The last turn undone, its user message with it; None if something happened meanwhile."""
    if not is_unmoved(head, seen.head) or head.pending is not None or asked.sequence is None:
        return None

    hidden = hide(head.hidden, (asked.sequence, seen.end))
    return replace(head, hidden=hidden, generation=head.generation + 1)


def forget_turn(head: Head, generation: int) -> Head | None:
    """No turn, if the one under way is that attempt's."""
    return replace(head, pending=None) if head.is_open(generation) else None


def retitle(head: Head, title: str, *, number: int | None = None) -> Head | None:
    """Another title; None if the present one is not of that number any more (W19)."""
    if number is not None and number != head.title_number:
        return None

    return replace(head, title=title, title_number=head.title_number + 1)


def why_not_abandoned(head: Head | None, now_wall: float) -> Refused | None:
    """Why the turn under way may not be taken from a process that holds no lease; None if it may (K-W4)."""
    if head is None:
        return Refused.UNKNOWN

    if head.pending is None:
        return Refused.NOTHING

    started = head.pending.started_wall
    return Refused.FRESH if started is not None and abs(now_wall - started) < GRACE else None
