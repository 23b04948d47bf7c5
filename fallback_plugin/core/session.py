"""The session machine: host events in, actions out.

Theory of operation
===================

One `Session` record per host session holds all that is known of it. `step(session, event, now, rules)` returns
the next record and what to do. It is pure: no I/O, no clock, no chance; the runtime carries the actions out,
and their results come back as events. A record is in one of ten phases:

    IDLE         no turn is under way, as far as the host has said
    RUNNING      the host works on a turn; one attempt is at work, or about to be
    SETTLING     the host looks idle and has not said how the run ended; a moment's patience
    INSPECTING   the host's history was asked for, to find a turn again or to learn how it ended
    ENDING       a hop is claimed; the failed run is being ended, or dies by itself
    DISPATCHING  the turn was sent to its next model, which has not been seen to answer
    FOLLOWING    another process on this host carries the turn on; it is only watched
    WAITING      the turn is halted until its subagents have an answer (`core.subagents`)
    EXHAUSTED    every model has failed; said once; the host is kept from asking on
    STOPPED      the user stopped the turn

        IDLE ──user message──► RUNNING ──failure──► ENDING ──run over──► DISPATCHING ──first sign──► RUNNING
          ▲                     │  │ ▲                 │                     │ refused: ENDING again
          └──────answered───────┘  │ └─sign of life    └─no model left─► EXHAUSTED ──user message──► RUNNING
                                   └─idle─► SETTLING ─patience over─► INSPECTING ─► any of them

Four rules keep it right:

1. *Only a running attempt can fail*, and an attempt runs only after its own assistant message was seen. One
   failure is told by up to six events (session.error, session.status, message.updated, three idles), in any
   order, late, twice or never. The first that proves it moves the session out of RUNNING in the same step, with
   the plan made and committed; the others find ENDING or DISPATCHING, where they can at most say that the old
   run is over. Messages that the turn is done with are `retired`: what they say later is stale.
2. *An idle ends nothing by itself.* The host goes idle between an error and its message, and when a side job
   ends. It counts only as the end of a run that was aborted, or that has shown its finish.
3. *A stop is final.* STOPPED and EXHAUSTED are left only by a new user message.
4. *Every wait has an end.* A session has one timer; setting it voids the one before. Whatever event is lost, the
   timer leads on, by asking the host where it would have to guess.

The host's own summary of a session is a turn like any other, with the exceptions of `core.compaction`.

`TRANSITIONS` is the machine: for each kind of event, what each phase does. A cell that is missing ignores the
event and leaves the record as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fallback_plugin.core import (
    activity,
    compaction,
    family,
    following,
    handover,
    hop,
    inspection,
    routing,
    run,
    signals,
    subagents,
    verdict,
    waiting,
)
from fallback_plugin.core.actions import InspectSession
from fallback_plugin.core.events import (
    AbortReturned,
    AdvanceLost,
    AssistantMessage,
    DispatchReturned,
    Event,
    MessageRemoved,
    MessageUpdated,
    PartDeltaReceived,
    PartType,
    PartUpdated,
    PromptRouted,
    SessionCompacted,
    SessionCreated,
    SessionDeleted,
    SessionErrored,
    SessionIdled,
    SessionInspected,
    SessionStatusChanged,
    TimerElapsed,
    ToolExecuted,
    TurnStopped,
    UserMessage,
)
from fallback_plugin.core.family_events import (
    ChildEnded,
    ChildFailed,
    ParentKnown,
    ParentSettled,
    ParentStopped,
    ResultSpliced,
)
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import HOP_PHASES, Phase, Session, Step, arm_step, stay

Handler = Callable[[Session, Any, float, Rules], Step]

_IDLE, _RUNNING, _SETTLING, _INSPECTING = Phase.IDLE, Phase.RUNNING, Phase.SETTLING, Phase.INSPECTING
_ENDING, _DISPATCHING, _FOLLOWING = Phase.ENDING, Phase.DISPATCHING, Phase.FOLLOWING
_WAITING, _EXHAUSTED, _STOPPED = Phase.WAITING, Phase.EXHAUSTED, Phase.STOPPED


def _with_message(handle: Handler) -> Handler:
    """A handler of message.updated that takes the message; `kind_of` has sorted the roles."""
    return lambda session, event, now, rules: handle(session, event.message, now, rules)


def _user_in_hop(session: Session, event: Any, now: float, rules: Rules) -> Step:
    return run.on_user_message_in_hop(session, event.message, now)


def _idle_status_in_ending(session: Session, event: SessionStatusChanged, now: float, rules: Rules) -> Step:
    return hop.on_idled_in_hop(session, now) if event.status == "idle" else stay(session)


def _created(session: Session, event: SessionCreated, now: float, rules: Rules) -> Step:
    return stay(replace(session, parent_id=event.parent_id or session.parent_id))


def _deleted(session: Session, event: SessionDeleted, now: float, rules: Rules) -> Step:
    return Step(session=None)


def _part(session: Session, event: PartUpdated, now: float, rules: Rules) -> Step:
    if event.part_type is PartType.COMPACTION:
        return compaction.on_request(session, event)

    return activity.on_part(session, event, now) if session.phase in (*_AT_WORK, _ENDING, _WAITING) else stay(session)


_EVERY_PHASE = tuple(Phase)
_OPEN = (_IDLE, _RUNNING, _SETTLING, _INSPECTING)
_AT_WORK = (_RUNNING, _SETTLING, _INSPECTING)


def _row(*cells: tuple[tuple[Phase, ...], Handler]) -> Mapping[Phase, Handler]:
    return {phase: handler for phases, handler in cells for phase in phases}


TRANSITIONS: Mapping[type, Mapping[Phase, Handler]] = {
    UserMessage: _row(
        ((*_OPEN, _EXHAUSTED, _STOPPED), _with_message(run.on_user_message)),
        (
            (_ENDING, _DISPATCHING, _FOLLOWING, _WAITING),
            _user_in_hop,
        ),
    ),
    AssistantMessage: _row(
        (_OPEN, _with_message(run.on_assistant_message)),
        ((_ENDING,), _with_message(handover.on_message_in_ending)),
        ((_DISPATCHING,), _with_message(handover.on_message_in_dispatch)),
        ((_FOLLOWING,), _with_message(following.on_message_while_following)),
        ((_WAITING,), _with_message(waiting.on_message_while_waiting)),
        ((_EXHAUSTED,), lambda session, event, now, rules: compaction.on_late_message(session, event.message)),
    ),
    PartUpdated: _row((_EVERY_PHASE, _part)),
    PartDeltaReceived: _row(
        ((*_AT_WORK, _ENDING), lambda session, event, now, rules: activity.on_delta(session, event, now)),
    ),
    ToolExecuted: _row(
        (_AT_WORK, lambda session, event, now, rules: activity.on_tool_executed(session, now)),
    ),
    PromptRouted: _row(
        (_EVERY_PHASE, lambda session, event, now, rules: routing.on_prompt_routed(session, event, now)),
    ),
    SessionErrored: _row(
        (_AT_WORK, signals.on_session_error),
        ((_IDLE,), signals.on_session_error_unknown),
        ((_DISPATCHING,), signals.on_session_error_in_dispatch),
    ),
    SessionStatusChanged: _row(
        (_AT_WORK, signals.on_session_status),
        ((_IDLE,), signals.on_status_unknown),
        ((_ENDING,), _idle_status_in_ending),
        ((_EXHAUSTED,), lambda session, event, now, rules: signals.on_exhausted_status(session, event, now)),
    ),
    SessionIdled: _row(
        ((_RUNNING,), lambda session, event, now, rules: signals.on_session_idle(session, now)),
        ((_ENDING,), lambda session, event, now, rules: hop.on_idled_in_hop(session, now)),
        ((_WAITING,), lambda session, event, now, rules: waiting.on_idled_while_waiting(session, now)),
    ),
    MessageRemoved: _row(
        (_EVERY_PHASE, lambda session, event, now, rules: signals.on_message_removed(session, event, now)),
    ),
    SessionCreated: _row((_EVERY_PHASE, _created)),
    SessionDeleted: _row((_EVERY_PHASE, _deleted)),
    # The summary's own message says more, and says it first.
    SessionCompacted: _row(),
    TurnStopped: _row(
        (_EVERY_PHASE, lambda session, event, now, rules: signals.on_turn_stopped(session, now)),
    ),
    AbortReturned: _row(
        (
            (_ENDING, _EXHAUSTED),
            lambda session, event, now, rules: hop.on_abort_returned(session, event.succeeded, now),
        ),
        (
            (_WAITING,),
            lambda session, event, now, rules: waiting.on_abort_returned_while_waiting(session, event.succeeded, now),
        ),
    ),
    AdvanceLost: _row(
        (
            (_ENDING, _DISPATCHING, _WAITING),
            lambda session, event, now, rules: following.on_advance_lost(session, now),
        ),
    ),
    DispatchReturned: _row(((_DISPATCHING,), handover.on_dispatch_returned)),
    TimerElapsed: _row(
        ((_RUNNING,), lambda session, event, now, rules: activity.on_watch_timer(session, now, rules)),
        ((_SETTLING,), lambda session, event, now, rules: verdict.inspect(session, now)),
        ((_INSPECTING,), lambda session, event, now, rules: inspection.on_inspection_timer(session, now)),
        ((_ENDING,), lambda session, event, now, rules: hop.on_ending_timer(session, now)),
        ((_DISPATCHING,), lambda session, event, now, rules: inspection.on_dispatch_timer(session, now, rules)),
        ((_FOLLOWING,), lambda session, event, now, rules: following.on_following_timer(session, now)),
        ((_WAITING,), lambda session, event, now, rules: waiting.on_waiting_timer(session, now)),
        ((_EXHAUSTED,), lambda session, event, now, rules: verdict.on_exhausted_retry(session, now)),
    ),
    SessionInspected: _row(
        ((_IDLE, _INSPECTING), inspection.on_inspected),
        ((_DISPATCHING,), inspection.on_dispatch_inspected),
        ((_FOLLOWING,), following.on_inspected_while_following),
        ((_EXHAUSTED, _STOPPED), inspection.on_inspected_at_rest),
    ),
    ParentKnown: _row((_EVERY_PHASE, family.on_parent_known)),
    ParentSettled: _row(
        ((_ENDING,), lambda session, event, now, rules: hop.on_parent_settled(session, now)),
        ((_WAITING,), lambda session, event, now, rules: waiting.on_parent_settled_while_waiting(session, now)),
    ),
    ParentStopped: _row((_EVERY_PHASE, lambda session, event, now, rules: family.on_parent_stopped(session, now))),
    ChildFailed: _row((_EVERY_PHASE, subagents.on_child_failed)),
    ChildEnded: _row((_EVERY_PHASE, subagents.on_child_ended)),
    ResultSpliced: _row((_EVERY_PHASE, subagents.on_result_spliced)),
}


def kind_of(event: Event) -> type:
    """The row of `TRANSITIONS` for an event; message.updated has one per role."""
    return type(event.message) if isinstance(event, MessageUpdated) else type(event)


def step(session: Session, event: Event, now: float, rules: Rules) -> Step:
    """Move one session by one event.

    Args:
        session: the record; for a session never heard of, a new one.
        event: what happened.
        now: monotonic seconds.
        rules: the policies in force.

    Returns:
        The next record, None if the session is to be forgotten, and the actions to carry out, in order.
    """
    if isinstance(event, TimerElapsed) and event.timer != session.timer:
        return stay(session)

    if isinstance(event, AbortReturned | AdvanceLost) and event.generation != session.generation:
        return stay(session)

    handler = TRANSITIONS[kind_of(event)].get(session.phase)
    if handler is None:
        return stay(session)

    if isinstance(event, PartDeltaReceived):
        return handler(session, event, now, rules)

    return family.review(session, event, handler(family.recall(session, event), event, now, rules), now)


def attach(session: Session, now: float) -> Step:
    """Take up a session again: one that was at work before we came, or whose events were missed.

    A stop and an exhaustion hold until the answer shows a turn that they do not know.
    """
    if session.phase in _OPEN:
        attempt = replace(session.attempt, has_gap=True) if session.attempt else None
        return verdict.inspect(replace(session, attempt=attempt, inspections=0), now)

    if session.phase in HOP_PHASES or session.phase is _FOLLOWING:
        return arm_step(replace(session, inspections=0), now)

    return Step(session=session, actions=(InspectSession(session_id=session.session_id),))
