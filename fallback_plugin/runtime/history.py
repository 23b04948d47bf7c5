"""The history of a conversation: what its stream of entries means.

An entry is never rewritten. A change of a message that is stored already is an entry of its own that amends it, and
what is undone stays in the stream, hidden by the conversation's head. So an append can't lose anything, and a save
can't shrink a history (K-W1). Reading folds the stream:

    entry                                                      is
    ---------------------------------------------------------  --------------------------------------------
    of another thread than the head's                          not there: a deleted conversation's of this id
    of an older generation than an entry before it             not there: a stale writer's (K-W5)
    in a hidden range                                          not there: undone or rolled back
    amending a message                                         that message's new body (K-A3)
    else                                                       a message
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, cast

from fallback_plugin.stores.base import Entry, Json, Stored

Range = tuple[int, int]
"""Sequences from the first up to, without, the second."""


class Marker(StrEnum):
    """How a turn ended that did not end well. Markers are shown to people and never sent to a model (W32)."""

    CANCELLED = "cancelled"
    FAILED = "failed"
    RECOVERED = "recovered"
    EMPTY = "empty"
    """The run ended well and said nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation.

    Attributes:
        body: the host's own message, a JSON object with a `role`.
        message_id: the host's id; a message whose id is stored already is not stored again.
        attachments: what came with it, as JSON objects.
        sequence: its place, unique and growing; None while it is not stored (K-A2).
        at_wall: when it was stored, epoch seconds; known once it was read back.
        sent_wall: when the user sent it, epoch seconds; set on messages that began a turn.
        generation: the attempt that wrote it; None for messages of no turn.
        marker: set when it only says how a turn ended.
        recovered: whether it was found in the record of a run that had died.
        amended: whether `body` differs from what is stored.
    """

    body: Json
    message_id: str | None = None
    attachments: tuple[Json, ...] = ()
    sequence: int | None = None
    at_wall: float | None = None
    sent_wall: float | None = None
    generation: int | None = None
    marker: Marker | None = None
    recovered: bool = False
    amended: bool = False

    def amend(self, body: Json) -> Message:
        """This message with another body, for `Conversation.save`.

        Raises:
            ValueError: the new body says nothing where the old one said something (K-W11).
        """
        if is_empty(body) and not is_empty(self.body):
            raise ValueError("an empty message can't replace one with content")

        return replace(self, body=body, amended=self.sequence is not None)


def is_empty(body: Json) -> bool:
    """Whether a message has neither content nor tool calls."""
    return not (body.get("content") or body.get("tool_calls") or body.get("parts"))


def opens_turn(message: Message) -> bool:
    """Whether a user speaks. Anthropic's tool results come under the user's role and don't count."""
    if message.marker is not None or message.body.get("role") != "user":
        return False

    content = message.body.get("content")
    if not isinstance(content, (list, tuple)) or not content:
        return True

    blocks = cast("Sequence[Any]", content)
    return not all(isinstance(block, Mapping) and _type_of(block) == "tool_result" for block in blocks)


def _type_of(block: Any) -> object:
    return block.get("type")


def last_turn(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The last user message and what follows it; empty if there is none."""
    for index in range(len(messages) - 1, -1, -1):
        if opens_turn(messages[index]):
            return tuple(messages[index:])

    return ()


def for_model(messages: Iterable[Message]) -> tuple[Json, ...]:
    """The bodies that a model may see: all but markers (W32)."""
    return tuple(message.body for message in messages if message.marker is None)


def entry_for(message: Message, thread: str, entry_id: str | None = None) -> Entry:
    """The entry that stores a message, or that amends it.

    Args:
        message: what to store.
        thread: the conversation's, without which nothing counts as its own.
        entry_id: guards against storing it twice; made from the message's id if None.
    """
    value: dict[str, Any] = {"thread": thread, "body": dict(message.body)}
    if message.sequence is not None:
        return Entry(value={**value, "amends": message.sequence})

    if message.attachments:
        value["attachments"] = [dict(attachment) for attachment in message.attachments]
    if message.generation is not None:
        value["generation"] = message.generation
    if message.marker is not None:
        value["marker"] = message.marker.value
    if message.recovered:
        value["recovered"] = True
    if message.sent_wall is not None:
        value["sent_wall"] = message.sent_wall
    if message.message_id is not None:
        value["message_id"] = message.message_id
        entry_id = entry_id or message_entry(thread, message.message_id)

    return Entry(value=value, entry_id=entry_id)


def message_entry(thread: str, message_id: str) -> str:
    """The entry id of a message that its host named."""
    return f"{thread}:message:{message_id}"


def answer_entry(thread: str, message_id: str, generation: int, place: object) -> str:
    """The entry id of what answers a message: the same place of the same attempt is stored once."""
    return f"{thread}:answer:{generation}:{place}:{message_id}"


def fold(entries: Iterable[Stored], thread: str, hidden: Sequence[Range] = ()) -> tuple[Message, ...]:
    """The messages of a stream, by the module's table.

    Args:
        entries: the stream from its start, in order.
        thread: the conversation's.
        hidden: disjoint ranges in order.
    """
    messages: dict[int, Message] = {}
    newest = 0
    for stored in entries:
        value = stored.value
        if value.get("thread") != thread:
            continue

        generation = value.get("generation")
        if generation is not None and generation < newest:
            continue

        newest = newest if generation is None else generation
        if is_hidden(stored.sequence, hidden):
            continue

        amends = value.get("amends")
        if amends is None:
            messages[stored.sequence] = _message(stored)
        elif amends in messages:
            messages[amends] = replace(messages[amends], body=value["body"])

    return tuple(messages.values())


def _message(stored: Stored) -> Message:
    value = stored.value
    marker = value.get("marker")
    return Message(
        body=value["body"],
        message_id=value.get("message_id"),
        attachments=tuple(value.get("attachments", ())),
        sequence=stored.sequence,
        at_wall=stored.at_wall,
        sent_wall=value.get("sent_wall"),
        generation=value.get("generation"),
        marker=None if marker is None else Marker(marker),
        recovered=value.get("recovered", False),
    )


def is_hidden(sequence: int, hidden: Sequence[Range]) -> bool:
    """Whether a sequence lies in one of the ranges."""
    index = bisect_right(hidden, sequence, key=lambda pair: pair[0]) - 1
    return index >= 0 and sequence < hidden[index][1]


def hide(hidden: Sequence[Range], *more: Range) -> tuple[Range, ...]:
    """The ranges with others added: disjoint, in order, neighbours joined, so that many undos stay one range."""
    joined: list[Range] = []
    for start, stop in sorted([*hidden, *(pair for pair in more if pair[0] < pair[1])]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))

    return tuple(joined)
