"""Messages that arrive during a hop: the old run's last words, the new run's first, or somebody else's."""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core.events import AssistantMessage, DispatchReturned
from fallback_plugin.core.hop import confirm, on_run_ended
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import Attempt, Partial, Phase, Session, Step, retire, stay
from fallback_plugin.core.refusal import Again, on_refused, on_wrong_model, refusal
from fallback_plugin.core.run import begin, on_assistant_message


def on_message_in_ending(session: Session, message: AssistantMessage, now: float, rules: Rules) -> Step:
    """The failed run is being ended."""
    if not _is_of_failed_run(session, message):
        return on_message_in_dispatch(session, message, now, rules)

    noted = _note_old_message(session, message)
    if message.completed or message.error is not None:
        return on_run_ended(noted, now)

    return stay(noted)


def on_message_in_dispatch(session: Session, message: AssistantMessage, now: float, rules: Rules) -> Step:
    """The turn was sent to its next model: is this its answer?"""
    hop, turn = session.hop, session.turn
    if hop is None or turn is None:
        return stay(session)

    if session.queued is not None and message.parent_id == session.queued.message_id:
        return on_assistant_message(begin(session, session.queued), message, now, rules)

    if message.message_id in turn.retired:
        return stay(session)

    if _is_of_failed_run(session, message):
        noted = _note_old_message(session, message)
        return on_wrong_model(noted, now, rules) if session.phase is Phase.DISPATCHING else stay(noted)

    if message.parent_id != turn.user.message_id:
        return stay(session)

    attempt = Attempt(route=message.route, last_activity_at=now, is_hop=not hop.resumes)
    if message.route != hop.plan.new_model:
        other = replace(session, phase=Phase.RUNNING, hop=None, attempt=attempt)
        return on_assistant_message(other, message, now, rules)

    running, actions = confirm(session, attempt)
    step = on_assistant_message(running, message, now, rules)
    return replace(step, actions=(*actions, *step.actions))


def _is_of_failed_run(session: Session, message: AssistantMessage) -> bool:
    hop, turn = session.hop, session.turn
    if hop is None or turn is None:
        return False

    if message.message_id in turn.retired:
        return True

    return message.parent_id == hop.user_message_id and message.route == hop.plan.failed_model


def _note_old_message(session: Session, message: AssistantMessage) -> Session:
    """A message that the old run began after it had failed goes the way of its others."""
    turn, attempt = session.turn, session.attempt
    if turn is None or attempt is None or message.message_id in turn.retired:
        return session

    noted = replace(
        attempt,
        assistant_id=message.message_id,
        partials=(*attempt.partials, Partial(message_id=message.message_id, discarded=session.compacting)),
    )
    return replace(session, turn=retire(turn, noted), attempt=noted)


def on_dispatch_returned(session: Session, event: DispatchReturned, now: float, rules: Rules) -> Step:
    """The host took the dispatch, refused it, or did not answer."""
    hop, attempt = session.hop, session.attempt
    if hop is None or event.generation != session.generation:
        return stay(session)

    if event.outcome != "accepted":
        again = Again.AS_NEW_MESSAGE if event.outcome == "refused" else Again.LATER
        return on_refused(session, refusal(event.reason), now, rules, again=again)

    # What had to be removed is gone; a second dispatch need not ask for it again.
    accepted = replace(hop, dropped_parts=event.dropped_parts)
    return stay(replace(session, hop=accepted, attempt=replace(attempt, partials=()) if attempt else None))
