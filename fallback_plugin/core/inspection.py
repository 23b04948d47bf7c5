"""Finding a session again: what its history and status tell after a gap.

An inspection is asked for when the plugin attaches to a session that is already at work, when the event stream
was interrupted, when a failure came without its turn, when a run ended without a word, and when a dispatch
stays unconfirmed. Its answer is a picture of one moment, so it is used only by a session that still waits.
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core import compaction
from fallback_plugin.core.actions import Action, InspectSession
from fallback_plugin.core.activity import watch
from fallback_plugin.core.classify import classify
from fallback_plugin.core.events import InspectedMessage, SessionInspected, SessionStatusChanged, UserMessage
from fallback_plugin.core.failure import Facts, Kind
from fallback_plugin.core.hop import DISPATCH_TRIES, confirm, dispatch
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import Attempt, Ending, Held, Partial, Phase, Session, Step, Turn, arm_step, stay
from fallback_plugin.core.refusal import Again, abort_again, on_refused, refusal
from fallback_plugin.core.run import EMPTY_ANSWER, begin, complete, is_newer, on_unattributed_abort, queue, settle
from fallback_plugin.core.signals import retry_failure
from fallback_plugin.core.state import adopt_model, begin_turn
from fallback_plugin.core.verdict import (
    INSPECT_PATIENCE,
    fail,
    inspect,
    policy_of,
    stop,
)

INSPECTIONS = 3
"""Inspections in a row that may tell nothing before the session is left alone."""


def on_inspection_timer(session: Session, now: float) -> Step:
    """No answer came: ask again, then leave the session to its host."""
    if session.inspections < INSPECTIONS:
        return inspect(session, now)

    return stay(replace(session, phase=Phase.IDLE, held=None, attempt=None, inspections=0))


def on_inspected(session: Session, event: SessionInspected, now: float, rules: Rules) -> Step:
    """The answer came: take up the turn where the host has it."""
    if not event.found:
        return Step(session=None)

    if event.user is None:
        return stay(replace(session, phase=Phase.IDLE, held=None, inspections=0))

    if _is_outdated(session, event.user):
        return stay(session)

    held = session.held
    status = event.status.status if event.status else "idle"
    if _is_only_queued(session, event, status):
        session, last = queue(session, event.user), None
        found = replace(session, phase=Phase.RUNNING, held=None, inspections=0)
    else:
        session = _enter(session, event.user)
        last = _last_message(session, event)
        found = _take_up(session, event, last, now, rules)

    if status == "retry":
        return _fail_retrying(found, held, event.status, now, rules)

    if status == "busy" and held is None and _shows_end(last):
        # The status is read before the history: the run ended between the two, and no event may tell of it again.
        return settle(found, now)

    if status == "busy":
        return _go_on(found, held, now, rules)

    return _resolve_idle(found, held, last, now, rules)


def _shows_end(last: InspectedMessage | None) -> bool:
    """Whether the host asks no model again after the last message by itself."""
    message = last.message if last else None
    if message is None or not message.completed:
        return False

    return message.error is not None or message.finish not in ("tool-calls", "unknown")


def _go_on(session: Session, held: Held | None, now: float, rules: Rules) -> Step:
    if held is not None and held.ending is Ending.ABORT:
        return fail(session, held.failure, now, rules, ending=Ending.ABORT)

    return watch(session, now, rules)


def _is_outdated(session: Session, user: UserMessage) -> bool:
    """Whether the picture is of a time before the turn that the session is in."""
    turn = session.turn
    return turn is not None and user.message_id != turn.user.message_id and not is_newer(session, user)


def _is_only_queued(session: Session, event: SessionInspected, status: str) -> bool:
    """Whether the newest prompt still waits for the answer that is being written to the one before."""
    turn, attempt = session.turn, session.attempt
    if turn is None or event.user is None or event.user.message_id == turn.user.message_id:
        return False

    answering = attempt is not None and attempt.assistant_id is not None
    return answering and not event.assistants and status != "idle"


def on_inspected_at_rest(session: Session, event: SessionInspected, now: float, rules: Rules) -> Step:
    """A stop and an exhaustion hold for their turn; a newer prompt is another one."""
    if not event.found:
        return Step(session=None)

    if event.user is None or not is_newer(session, event.user):
        return stay(session)

    # The turn that was stopped before it was known.
    if session.turn is None:
        return stay(replace(session, turn=Turn(user=event.user)))

    return on_inspected(session, event, now, rules)


def _enter(session: Session, user: UserMessage) -> Session:
    turn = session.turn
    if turn is None or turn.user.message_id != user.message_id:
        return begin(session, user)

    return replace(session, turn=replace(turn, user=user, known=True))


def _last_message(session: Session, event: SessionInspected) -> InspectedMessage | None:
    retired = session.turn.retired if session.turn else ()
    fresh = [message for message in event.assistants if message.message.message_id not in retired]
    return fresh[-1] if fresh else None


def _take_up(
    session: Session, event: SessionInspected, last: InspectedMessage | None, now: float, rules: Rules
) -> Session:
    turn, state = session.turn, session.state
    route = last.message.route if last else (event.user.route if event.user else None)
    if state is None and route is not None:
        state = begin_turn(None, route)
    elif state is not None and route is not None and state.current_model != route:
        state = adopt_model(state, route, policy_of(session, rules).chain)

    attempt = Attempt(
        route=route,
        last_activity_at=now,
        is_hop=bool(turn and turn.failures),
        assistant_id=last.message.message_id if last else None,
        first_token=bool(last and (last.has_text or last.has_finished_tool)),
        running_tools=last.running_tools if last else frozenset(),
        partials=_partials(event),
        has_gap=True,
    )
    found = replace(session, phase=Phase.RUNNING, state=state, attempt=attempt, held=None, inspections=0)
    return compaction.on_message(found, last.message) if last else found


def _partials(event: SessionInspected) -> tuple[Partial, ...]:
    """What this turn's dead models have left in the history, those of earlier attempts included."""
    return tuple(
        Partial(
            message_id=found.message.message_id,
            has_text=found.has_text,
            has_finished_tool=found.has_finished_tool,
            tail_parts=found.tail_parts,
            discarded=found.message.compaction,
        )
        for found in event.assistants
        if found.message.finish in (None, "unknown", "error")
    )


def _fail_retrying(
    session: Session, held: Held | None, status: SessionStatusChanged | None, now: float, rules: Rules
) -> Step:
    if held is not None and held.ending is Ending.ABORT:
        return fail(session, held.failure, now, rules, ending=Ending.ABORT)

    facts = status.facts if status and status.facts else Facts()
    failure = retry_failure(facts, now, policy_of(session, rules))
    return fail(session, failure, now, rules, ending=Ending.ABORT)


def _resolve_idle(session: Session, held: Held | None, last: InspectedMessage | None, now: float, rules: Rules) -> Step:
    message = last.message if last else None
    if message is not None and message.error is not None:
        failure = classify(message.error, now=now, rules=policy_of(session, rules).classifier)
        if failure.kind is Kind.ABORTED:
            return on_unattributed_abort(session, now, rules, ending=Ending.ENDED)

        return fail(session, failure, now, rules, ending=Ending.ENDED)

    if last is not None and message is not None and message.completed and message.finish is not None:
        return _resolve_answer(session, last, now, rules)

    if held is not None and held.ending is not Ending.ABORT:
        return fail(session, held.failure, now, rules, ending=held.ending)

    if held is not None or message is None:
        return stay(replace(session, phase=Phase.IDLE, attempt=None))

    if session.attempt is not None and session.attempt.is_hop:
        return on_unattributed_abort(session, now, rules, ending=Ending.ENDED)

    return stop(session)


def _resolve_answer(session: Session, last: InspectedMessage, now: float, rules: Rules) -> Step:
    """The history shows a finished answer: the only place that can tell an empty one after a gap."""
    turn, attempt = session.turn, session.attempt
    is_empty = not last.has_text and not last.has_finished_tool and turn is not None and not turn.answered
    if not is_empty or attempt is None:
        return complete(session)

    # A finished answer ends the turn for the host, so that it must go.
    empty = Partial(message_id=last.message.message_id)
    known = replace(session, attempt=replace(attempt, partials=(*attempt.partials, empty)))
    return fail(known, EMPTY_ANSWER, now, rules, ending=Ending.ENDED)


def on_dispatch_timer(session: Session, now: float, rules: Rules) -> Step:
    """Nothing was seen of the dispatch: ask what became of it, and where nobody tells, make it again."""
    hop = session.hop
    if hop is None:
        return stay(session)

    if hop.unavailable:
        return dispatch(session, now)

    if session.inspections == 0:
        asking = replace(session, inspections=1)
        return arm_step(asking, now + INSPECT_PATIENCE, InspectSession(session_id=session.session_id))

    # A history may stay unreadable for ever (OBSERVATIONS.md, point 4).
    unread = replace(session, inspections=0)
    if hop.dispatch_tries < DISPATCH_TRIES:
        return dispatch(unread, now)

    failure = refusal("nothing was seen of the dispatch, and the host does not tell")
    return on_refused(unread, failure, now, rules, again=Again.NEVER, ending=Ending.ABORT)


def on_dispatch_inspected(session: Session, event: SessionInspected, now: float, rules: Rules) -> Step:
    """A dispatch that showed nothing: has the host begun, is it still busy, or was the prompt lost?"""
    if not event.found:
        return Step(session=None)

    hop = session.hop
    # A picture that nobody asked for since the dispatch is from before it.
    if hop is None or event.user is None or session.inspections == 0:
        return stay(session)

    session = replace(session, inspections=0)

    turn = session.turn
    if turn is not None and event.user.message_id != turn.user.message_id:
        session = replace(session, queued=event.user)

    last = _last_message(session, event)
    if last is not None:
        return _take_up_dispatched(session, event, last, now, rules)

    status = event.status.status if event.status else "idle"
    if hop.dispatch_tries >= DISPATCH_TRIES:
        failure = refusal("the host accepts the turn and does not run it")
        ending = Ending.ENDED if status == "idle" else Ending.ABORT
        return on_refused(session, failure, now, rules, again=Again.NEVER, ending=ending)

    # Only the run that failed is there, alive: no prompt is heard before it has ended.
    if status == "retry" or (status == "busy" and hop.dispatch_tries == 0):
        return abort_again(session, now)

    return dispatch(session, now)


def _take_up_dispatched(
    session: Session, event: SessionInspected, last: InspectedMessage, now: float, rules: Rules
) -> Step:
    """A new run is there: ours, or one that the host or another process began."""
    hop = session.hop
    taken = _take_up(session, event, last, now, rules)
    actions: tuple[Action, ...] = ()
    if hop is not None and taken.attempt is not None and last.message.route == hop.plan.new_model:
        taken, actions = confirm(taken, taken.attempt)

    step = on_inspected(replace(taken, hop=None), event, now, rules)
    return replace(step, actions=(*actions, *step.actions))
