"""What can happen to a session: host events as core values, and the results of our own actions.

Host adapters build these at the border. Every event names its session. Late signals are sorted out by ids
and by generation, never by a clock alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

from fallback_plugin.core.failure import Facts, Kind
from fallback_plugin.core.family_events import (
    ChildEnded,
    ChildFailed,
    ParentKnown,
    ParentSettled,
    ParentStopped,
    ResultSpliced,
)

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class PartType(StrEnum):
    """The parts of an assistant's message that matter here."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL = "tool"
    COMPACTION = "compaction"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMessage:
    """A user's message as the host stores it; its text stays with the host.

    Attributes:
        message_id: the host's id; a turn is (session, message_id).
        created_wall: the host's time of creation, for order only.
        agent: the agent that the prompt names.
        route: "provider/model" that the prompt names.
        carried: what a dispatch in place must repeat: system, tools, format, as the host spells them.
        compaction: whether it is the host's own request for a summary; no words of the user are in it.
    """

    message_id: str
    created_wall: float
    agent: str | None = None
    route: str | None = None
    carried: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    compaction: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantMessage:
    """An assistant's message without its text.

    Attributes:
        message_id: the host's id.
        parent_id: the user message it answers.
        route: "provider/model" that writes it.
        agent: the agent that runs.
        finish: the provider's finish reason as the host gives it; "unknown" where the stream had none.
        completed: whether the host has closed the message.
        error: the error that ended it.
        compaction: whether it is a summary that the host writes for itself.
    """

    message_id: str
    parent_id: str | None
    route: str | None
    agent: str | None = None
    finish: str | None = None
    completed: bool = False
    error: Facts | None = None
    compaction: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageUpdated:
    """message.updated."""

    session_id: str
    message: UserMessage | AssistantMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class PartUpdated:
    """message.part.updated.

    Attributes:
        has_content: whether a text or reasoning part holds anything yet.
        tool_status: pending, running, completed or error, for a tool.
        child_id: the session that a task tool has started for its subagent.
    """

    session_id: str
    message_id: str
    part_id: str
    part_type: PartType
    has_content: bool = False
    tool_status: Literal["pending", "running", "completed", "error"] | None = None
    child_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDeltaReceived:
    """message.part.delta: one token or a few."""

    session_id: str
    message_id: str
    part_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRemoved:
    """message.removed: the user took a message back, or we removed a dead model's."""

    session_id: str
    message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionErrored:
    """session.error: names neither model nor message."""

    session_id: str
    facts: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatusChanged:
    """session.status.

    Attributes:
        status: busy, idle, or retry while the host waits to ask the same model again.
        attempt: the host's count of failed tries, from 1.
        facts: what the host says of the failure behind a retry.
    """

    session_id: str
    status: Literal["busy", "idle", "retry"]
    attempt: int = 0
    facts: Facts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionIdled:
    """session.idle: a hint that a run ended; not which, and not how."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCreated:
    """session.created."""

    session_id: str
    parent_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDeleted:
    """session.deleted."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCompacted:
    """session.compacted."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolExecuted:
    """The host has run a tool: a sign of life, whatever else is told of it."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRouted:
    """A prompt goes to another model than the one it wanted, which is out (`core.routing`).

    Attributes:
        wanted: the route that is out.
        route: where the prompt goes.
        kind: why `wanted` is out.
        returns_at: monotonic seconds at which it may be asked again.
    """

    session_id: str
    wanted: str
    route: str
    kind: Kind
    returns_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStopped:
    """The user's stop, where a host can tell it from other aborts (S3)."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortReturned:
    """Our abort call has come back."""

    session_id: str
    generation: int
    succeeded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceLost:
    """Another process has claimed the advance that this one was about to carry out."""

    session_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchReturned:
    """Our dispatch call has come back.

    Attributes:
        outcome: accepted; refused (the host said no); unavailable (nobody answered).
        reason: the host's words on a refusal, free of prompt text.
        replayed: whether the turn was sent again as a new message, which becomes its user message (S13).
        dropped_parts: the part types that a replay had to leave out.
    """

    session_id: str
    generation: int
    outcome: Literal["accepted", "refused", "unavailable"]
    reason: str = ""
    replayed: bool = False
    dropped_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerElapsed:
    """A timer that `SetTimer` asked for."""

    session_id: str
    timer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedMessage:
    """An assistant's message of the turn with a summary of its parts.

    Attributes:
        children: subagents at work: their sessions, with the tool parts that wait for them.
    """

    message: AssistantMessage
    has_text: bool = False
    has_finished_tool: bool = False
    running_tools: frozenset[str] = frozenset()
    tail_parts: tuple[str, ...] = ()
    children: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInspected:
    """What the host's history and status say: how a session is found again after a gap.

    Attributes:
        found: False when the host knows no such session.
        status: the host's status now.
        user: the newest user message.
        assistants: the assistant messages that answer it, oldest first.
        parent_id: the session whose subagent it is.
    """

    session_id: str
    found: bool = True
    status: SessionStatusChanged | None = None
    user: UserMessage | None = None
    assistants: tuple[InspectedMessage, ...] = ()
    parent_id: str | None = None


Event = (
    MessageUpdated
    | PartUpdated
    | PartDeltaReceived
    | MessageRemoved
    | SessionErrored
    | SessionStatusChanged
    | SessionIdled
    | SessionCreated
    | SessionDeleted
    | SessionCompacted
    | ToolExecuted
    | PromptRouted
    | TurnStopped
    | AbortReturned
    | AdvanceLost
    | DispatchReturned
    | TimerElapsed
    | SessionInspected
    | ParentKnown
    | ChildFailed
    | ChildEnded
    | ParentSettled
    | ParentStopped
    | ResultSpliced
)
