"""The head of a conversation: the one small record beside its stream of messages, changed by compare-and-set alone.

What belongs to a turn under way is one object in it, `Pending`. Message, attachments, start and generation come and
go together because there is no way to clear one of them (W23).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any
from uuid import uuid4

from fallback_plugin.errors import StoreError
from fallback_plugin.runtime.history import Range
from fallback_plugin.stores.base import Json, Record, Store

KIND = "conversation"
TRIES = 64
"""Tries of a change. A refusal means that somebody else's change went through, so only as many writers at once as
this exhaust them."""
BEGUN_KEPT = 32
"""Messages remembered as begun; one that is delivered again comes soon."""


class Closing(StrEnum):
    """How a turn ends. Once set, the turn is claimed for its ending and nobody else may write to it."""

    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A turn under way, enough to carry it on after a crash (W10, X05).

    Attributes:
        message_id: names the turn.
        body: the user's message.
        attachments: what came with it.
        started_wall: epoch seconds; None is taken for long ago (K-W4).
        generation: the attempt that may write.
        stored: whether the user's message is known to be in the stream.
        place: how many messages of the answer were in the stream when this was written.
        partial: the messages of the answer from `place` on, as far as they have come.
        closing: set while the turn is being ended.
    """

    message_id: str
    body: Json
    attachments: tuple[Json, ...] = ()
    started_wall: float | None = None
    generation: int
    stored: bool = False
    place: int = 0
    partial: tuple[Json, ...] = ()
    closing: Closing | None = None

    def advanced(self, place: int, partial: tuple[Json, ...]) -> Pending:
        """This turn with more of its answer. What is empty replaces nothing (K-W11)."""
        return replace(self, place=place, partial=partial or self.partial[max(0, place - self.place) :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Everything about a conversation but its messages.

    Attributes:
        owner: who may see it.
        thread: tells its messages from those of a deleted conversation of the same id.
        title: its title.
        title_number: grows with each change of the title, so that a late one is known as such (W19).
        generation: the number of the newest attempt; older ones are stale.
        hidden: what was undone or rolled back, as ranges of sequences.
        pending: the turn under way.
        begun: messages whose turns began last; each begins once (K-H9).
        updated_wall: epoch seconds of the last change of the head.
        ended: whether the host is done with it for good (K-H4).
    """

    owner: str
    thread: str
    title: str = ""
    title_number: int = 0
    generation: int = 0
    hidden: tuple[Range, ...] = ()
    pending: Pending | None = None
    begun: tuple[str, ...] = ()
    updated_wall: float = 0.0
    ended: bool = False

    def is_open(self, generation: int) -> bool:
        """Whether an attempt may still write: the turn is its own, and not being ended (K-W5)."""
        pending = self.pending
        return pending is not None and pending.generation == generation and pending.closing is None


def head_to_json(head: Head) -> dict[str, Any]:
    """The head as it is stored."""
    value: dict[str, Any] = {
        "owner": head.owner,
        "thread": head.thread,
        "title": head.title,
        "title_number": head.title_number,
        "generation": head.generation,
        "hidden": [list(pair) for pair in head.hidden],
        "updated_wall": head.updated_wall,
        "ended": head.ended,
        "begun": list(head.begun),
        "pending": None,
    }
    if head.pending is not None:
        value["pending"] = {
            "message_id": head.pending.message_id,
            "body": dict(head.pending.body),
            "attachments": [dict(attachment) for attachment in head.pending.attachments],
            "started_wall": head.pending.started_wall,
            "generation": head.pending.generation,
            "stored": head.pending.stored,
            "place": head.pending.place,
            "partial": [dict(message) for message in head.pending.partial],
            "closing": head.pending.closing,
        }

    return value


def head_from_json(value: Json) -> Head:
    """The head that `head_to_json` stored."""
    pending = value.get("pending")
    return Head(
        owner=value["owner"],
        thread=value["thread"],
        title=value.get("title", ""),
        title_number=value.get("title_number", 0),
        generation=value.get("generation", 0),
        hidden=tuple((start, stop) for start, stop in value.get("hidden", ())),
        updated_wall=value.get("updated_wall", 0.0),
        ended=value.get("ended", False),
        begun=tuple(value.get("begun", ())),
        pending=None if pending is None else _pending_from_json(pending),
    )


def _pending_from_json(value: Json) -> Pending:
    closing = value.get("closing")
    return Pending(
        message_id=value["message_id"],
        body=value["body"],
        attachments=tuple(value.get("attachments", ())),
        started_wall=value.get("started_wall"),
        generation=value["generation"],
        stored=value.get("stored", False),
        place=value.get("place", 0),
        partial=tuple(value.get("partial", ())),
        closing=None if closing is None else Closing(closing),
    )


class HeadRecord:
    """Reads and changes the head of one conversation on behalf of one owner.

    Somebody else's conversation looks exactly like one that does not exist (A03).

    Args:
        store: where it is.
        session_id: whose head.
        owner: on whose behalf.
        wall_clock: gives epoch seconds.
    """

    def __init__(self, store: Store, session_id: str, owner: str, wall_clock: Callable[[], float]) -> None:
        self.store = store
        self.session_id = session_id
        self.owner = owner
        self.wall_clock = wall_clock

    async def read(self) -> Head | None:
        """The head; None if there is none of this owner."""
        return self._ours(await self.store.get(KIND, self.session_id))

    async def create(self, title: str) -> bool:
        """Store a new head unless there is one; whether there is one of this owner now."""
        head = Head(owner=self.owner, thread=uuid4().hex, title=title, updated_wall=self.wall_clock())
        if await self.store.put(KIND, self.session_id, head_to_json(head), expected=0) is not None:
            return True

        return await self.read() is not None

    async def delete(self) -> bool:
        """Delete the head; False if there is none of this owner."""
        for _ in range(TRIES):
            record = await self.store.get(KIND, self.session_id)
            if record is None or self._ours(record) is None:
                return False

            if await self.store.delete(KIND, self.session_id, expected=record.revision):
                return True

        raise StoreError("a conversation kept changing while it was to be deleted")

    async def change(self, edit: Callable[[Head], Head | None]) -> Head | None:
        """Read, edit and write, again from the start whenever somebody else wrote meanwhile.

        Args:
            edit: gives the new head from the present one; None to leave it. May be called several times.

        Returns:
            The head as written; None if there is none of this owner, or `edit` left it.

        Raises:
            StoreError: the store can't be used, or the head changed under each of `TRIES` tries.
        """
        for _ in range(TRIES):
            record = await self.store.get(KIND, self.session_id)
            head = self._ours(record)
            edited = None if head is None else edit(head)
            if record is None or edited is None:
                return None

            edited = replace(edited, updated_wall=self.wall_clock())
            value = head_to_json(edited)
            if await self.store.put(KIND, self.session_id, value, expected=record.revision) is not None:
                return edited

        raise StoreError("a conversation kept changing while it was to be written")

    def _ours(self, record: Record | None) -> Head | None:
        if record is None or record.value is None or record.value.get("owner") != self.owner:
            return None

        return head_from_json(record.value)
