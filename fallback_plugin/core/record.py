"""The record of one session: everything that the session machine knows, in one value.

One record per session, so that deletion is one pop (X13). All ids are the host's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from fallback_plugin.core.actions import Action, RouteFailure, SetTimer
from fallback_plugin.core.events import UserMessage
from fallback_plugin.core.failure import Failure
from fallback_plugin.core.state import FallbackPlan, FallbackState


class Phase(StrEnum):
    """Where a session stands. The theory is in `core.session`."""

    IDLE = "idle"
    RUNNING = "running"
    SETTLING = "settling"
    INSPECTING = "inspecting"
    ENDING = "ending"
    DISPATCHING = "dispatching"
    FOLLOWING = "following"
    WAITING = "waiting"
    EXHAUSTED = "exhausted"
    STOPPED = "stopped"


class Ending(StrEnum):
    """How the run that failed comes to its end; no prompt is heard before it has."""

    ABORT = "abort"
    """The host keeps it alive (retry, hang, stall, loop): we end it."""
    MESSAGE = "message"
    """It dies by itself, and its message will show the error."""
    IDLE = "idle"
    """It ended well by its own lights: the session goes idle."""
    ENDED = "ended"
    """It is over."""


HOP_PHASES = frozenset({Phase.ENDING, Phase.DISPATCHING, Phase.WAITING})
"""The phases in which the session's advance is claimed: its retry is in flight."""

RESTING_PHASES = frozenset({Phase.IDLE, Phase.EXHAUSTED, Phase.STOPPED})
"""The phases in which nothing is under way."""

RETIRED_KEPT = 64
"""Message ids remembered as stale per turn; a late echo is seconds old, not dozens of messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """What an unfinished assistant message holds.

    Attributes:
        message_id: the assistant message.
        has_text: whether it holds text or reasoning.
        has_finished_tool: whether a tool's result in it must be kept.
        tail_parts: text and reasoning parts behind the last finished tool.
        discarded: whether the message must go whole, whatever it holds.
    """

    message_id: str
    has_text: bool = False
    has_finished_tool: bool = False
    tail_parts: tuple[str, ...] = ()
    discarded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One dispatch of the turn to a route, as far as it has come.

    Attributes:
        route: "provider/model".
        is_hop: whether a fallback runs, rather than the model that the turn began on.
        last_activity_at: when the host last showed a sign of this attempt.
        assistant_id: the message that is being written.
        first_token: whether that message has had a token.
        running_tools: parts of tools at work; while there are any, silence is no stall.
        truncated: answers in a row that ended without a finish reason.
        partials: unfinished messages of this attempt, oldest first.
        host_retrying: the host waits to ask the same model again, and we let it.
        has_gap: tokens of the running answer may have been missed.
        rewrite_due: a step has finished, after which the host writes the user message once more.
    """

    route: str | None
    last_activity_at: float
    is_hop: bool = False
    assistant_id: str | None = None
    first_token: bool = False
    running_tools: frozenset[str] = frozenset()
    truncated: int = 0
    partials: tuple[Partial, ...] = ()
    host_retrying: bool = False
    has_gap: bool = False
    rewrite_due: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One user message and what became of it so far.

    Attributes:
        user: the message.
        known: whether `user` came from the host's own event, so that nothing it carries is lost.
        answered: whether it has had its answer; what its message says after that is no failure.
        failures: which routes failed, in order.
        retired: assistant messages that this turn is done with; their signals are stale.
    """

    user: UserMessage
    known: bool = True
    answered: bool = False
    failures: tuple[RouteFailure, ...] = ()
    retired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A claimed advance.

    Attributes:
        plan: the move, already committed to the state.
        failure: why.
        ending: how the failed run ends; ENDED once it verifiably has.
        abort_returned: whether our abort call came back well.
        idled: whether the host has shown the session idle since.
        dispatch_tries: dispatch calls made.
        not_before: earliest time of the dispatch.
        replay: the host refuses to resume in place.
        unavailable: nobody answered the last dispatch, and it is to be made again.
        user_message_id: the message that the failed run answers.
        dropped_parts: part types that a replay had to leave out.
        resumes: the turn goes on with its own model, after waiting for its subagents.
        parent_awaited: the session's parent has not yet said that it no longer holds this one.
        parked: the failed run is over, and only the parent is awaited.
        closed: the message of the run that is being halted shows its end.
        aborts_out: abort calls of a halt that have not come back; what they end is ended by us.
        settled_at: when that run was over, and the parent's.
    """

    plan: FallbackPlan
    failure: Failure
    ending: Ending
    abort_returned: bool = False
    idled: bool = False
    dispatch_tries: int = 0
    not_before: float = 0.0
    replay: bool = False
    unavailable: bool = False
    user_message_id: str = ""
    dropped_parts: tuple[str, ...] = ()
    resumes: bool = False
    parent_awaited: bool = False
    parked: bool = False
    closed: bool = False
    aborts_out: int = 0
    settled_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subagent:
    """A session that a tool of this one has started and waits for. The theory is in `core.subagents`.

    Attributes:
        child_id: the subagent's session.
        part_id: the tool part; None where only the child has told of itself.
        failed: the child is carried on, so that the host ends the tool with a wrong result.
        released: the child was told that this session no longer holds it.
        ended: the child is at rest.
        reason: why it has no answer.
        asks: how often its answer was to be put into the history.
        spliced: its answer is there.
    """

    child_id: str
    part_id: str | None = None
    failed: bool = False
    released: bool = False
    ended: bool = False
    reason: str = ""
    asks: int = 0
    spliced: bool = False

    @property
    def pending(self) -> bool:
        """Whether its tool call has a wrong result."""
        return self.failed and not self.spliced


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A failure that waits for the history before it can be acted upon."""

    failure: Failure
    ending: Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session.

    Attributes:
        queued: the newest user message that the host has not begun to answer.
        held: the failure that an inspection was asked for.
        inspections: inspections in a row that told nothing.
        timer: number of the newest timer; older ones are void.
        abort_tries: abort calls in a row.
        aborted_at: when our last abort was sent (taken before the call).
        hopped_at: when the last hop was dispatched.
        past_turns: user messages answered before; a late signal of theirs opens no turn.
        compacting: what is under way is the host's summary of the session (`core.compaction`).
        parent_id: the session whose subagent this one is.
        lineage: the agents of its ancestors, nearest first.
        subagents: the sessions that tools of the turn have started.
    """

    session_id: str
    phase: Phase = Phase.IDLE
    state: FallbackState | None = None
    turn: Turn | None = None
    attempt: Attempt | None = None
    hop: Hop | None = None
    queued: UserMessage | None = None
    held: Held | None = None
    inspections: int = 0
    timer: int = 0
    abort_tries: int = 0
    aborted_at: float | None = None
    hopped_at: float | None = None
    parent_id: str | None = None
    past_turns: tuple[str, ...] = ()
    compacting: bool = False
    lineage: tuple[str, ...] = ()
    subagents: tuple[Subagent, ...] = ()

    @property
    def generation(self) -> int:
        """The number of the attempt that may speak for this session."""
        return self.state.generation if self.state else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What an event led to: the new record (None: forget it) and what to do."""

    session: Session | None
    actions: tuple[Action, ...] = field(default=())


def retire(turn: Turn, attempt: Attempt | None) -> Turn:
    """The turn after it is done with every message of `attempt`."""
    if attempt is None:
        return turn

    ids = [partial.message_id for partial in attempt.partials]
    if attempt.assistant_id is not None:
        ids.append(attempt.assistant_id)

    fresh = tuple(i for i in dict.fromkeys(ids) if i not in turn.retired)
    return replace(turn, retired=(*turn.retired, *fresh)[-RETIRED_KEPT:])


def stay(session: Session) -> Step:
    """Nothing to do; the record may have changed."""
    return Step(session=session)


def arm(session: Session, at: float) -> tuple[Session, SetTimer]:
    """Replace the session's timer by one that fires at `at`."""
    armed = replace(session, timer=session.timer + 1)
    return armed, SetTimer(session_id=session.session_id, timer=armed.timer, at=at)


def arm_step(session: Session, at: float, *before: Action) -> Step:
    """A step that does `before` and sets the session's timer."""
    armed, timer = arm(session, at)
    return Step(session=armed, actions=(*before, timer))
