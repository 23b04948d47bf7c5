"""What the machine asks the runtime to do, and what it has to say to people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from fallback_plugin.core.events import Event
from fallback_plugin.core.failure import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortRun:
    """End the host's run; comes back as `AbortReturned`."""

    session_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A dead model's output that the next model must not see.

    Attributes:
        message_id: the assistant message.
        part_id: the part of it, None for the whole message.
    """

    message_id: str
    part_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchTurn:
    """Resume the turn on `route`, in place; comes back as `DispatchReturned`.

    Attributes:
        generation: the attempt that this dispatch starts.
        user_message_id: the user message to resume.
        route: "provider/model".
        agent: the agent of the turn.
        carried: what the message had and the dispatch must repeat.
        removals: what to delete first.
        replay: send the turn as a new message, because the host refuses to resume in place (S13).
    """

    session_id: str
    generation: int
    user_message_id: str
    route: str
    agent: str | None = None
    carried: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    removals: tuple[Removal, ...] = ()
    replay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardMessages:
    """Delete messages that would spoil the session's next turn, once its run is over; nothing comes back.

    Attributes:
        removals: the messages.
    """

    session_id: str
    removals: tuple[Removal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectSession:
    """Ask the host for status and history; comes back as `SessionInspected`."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimer:
    """Wake the session at `at`; comes back as `TimerElapsed` with the same number."""

    session_id: str
    timer: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAnswer:
    """A route has answered a turn to its end: what was known against it is over."""

    session_id: str
    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpliceResult:
    """Put a subagent's answer in the place of its tool call's result; comes back as `ResultSpliced`.

    Attributes:
        session_id: the session that called the tool.
        child_id: the subagent's session.
        part_id: the tool part, where it is known.
        reason: what the tool's error says instead, where there is no answer to be had.
    """

    session_id: str
    child_id: str
    part_id: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Hand an event to another session of the same family."""

    event: Event

    @property
    def session_id(self) -> str:
        """Whom it is for."""
        return self.event.session_id


class NoticeType(StrEnum):
    """What people are told."""

    FAILURE = "failure"
    HOP = "hop"
    EXHAUSTED = "exhausted"
    RECOVERED = "recovered"
    REFUSED = "refused"
    SKIPPED = "skipped"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFailure:
    """One route's failure within a turn."""

    route: str
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Tell the user and the log.

    Attributes:
        notice: what happened.
        route: the route it is about: the one that failed, or that answers now.
        next_route: where the turn goes on.
        failure: why.
        failures: every route's failure of the turn, on exhaustion.
        returns_at: monotonic seconds at which the earliest route may be asked again.
        toast: whether it is worth the user's screen.
        detail: a fact that the other fields don't hold.
    """

    session_id: str
    notice: NoticeType
    route: str | None = None
    next_route: str | None = None
    failure: Failure | None = None
    failures: tuple[RouteFailure, ...] = ()
    returns_at: float | None = None
    toast: bool = False
    detail: str = ""


Action = (
    AbortRun
    | DispatchTurn
    | DiscardMessages
    | InspectSession
    | SpliceResult
    | SetTimer
    | ReportAnswer
    | Announce
    | Tell
)
