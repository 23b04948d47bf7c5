"""What the sessions of one family tell each other; the theory is in `core.subagents`.

    the parent's tool starts        → child   ParentKnown: whose chain it inherits
    the child claims a hop          → parent  ChildFailed; a halted parent counts as such a child
    the parent no longer holds it   → child   ParentSettled
    the child comes to rest         → parent  ChildEnded
    the user stops the parent       → child   ParentStopped
    the parent has waited for long  → child   ParentKnown, with a question

Nothing here is awaited by a handler: what is told is derived from the records before and after a step, so that no way
to fail, to answer or to stop can forget it.
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core.actions import Action, Tell
from fallback_plugin.core.events import Event, PartUpdated, SessionInspected
from fallback_plugin.core.family_events import ChildEnded, ChildFailed, ParentKnown
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import RESTING_PHASES, Phase, Session, Step, Subagent, stay
from fallback_plugin.core.subagents import attend, find, lineage_of, put
from fallback_plugin.core.verdict import inspect, stop

CANCELLED = "Task cancelled"
"""What the host itself says of a subagent that was stopped."""
SUBAGENTS_KEPT = 64


def on_parent_known(session: Session, event: ParentKnown, now: float, rules: Rules) -> Step:
    """The parent says who it is, and may ask how this session stands."""
    known = session
    if (session.parent_id, session.lineage) != (event.parent_id, event.lineage):
        known = replace(session, parent_id=event.parent_id, lineage=event.lineage)

    if not event.asks or session.phase not in RESTING_PHASES:
        return stay(known)

    if session.phase is Phase.IDLE and session.turn is None:
        return inspect(known, now)

    return Step(session=known, actions=(Tell(event=_ended(known, event.parent_id)),))


def on_parent_stopped(session: Session, now: float) -> Step:
    """The user's stop of the parent: nothing of this session goes on after it."""
    if session.phase in (Phase.STOPPED, Phase.IDLE, Phase.EXHAUSTED):
        return stay(session)

    return stop(session, aborts=True, now=now)


def recall(session: Session, event: Event) -> Session:
    """The session with what an event says of its parent, which the event's handler must know already."""
    if not isinstance(event, SessionInspected) or event.parent_id is None or session.parent_id is not None:
        return session

    return replace(session, parent_id=event.parent_id)


def review(before: Session, event: Event, step: Step, now: float) -> Step:
    """What a step means for the session's subagents and for its parent.

    Args:
        before: the record before the step.
        event: what led to the step.
        step: what it led to by itself.
        now: monotonic seconds.
    """
    step = attend(before, _learn(step, event), now)
    told = _tell_parent(before, step.session)
    return Step(session=step.session, actions=(*step.actions, *told)) if told else step


def _learn(step: Step, event: Event) -> Step:
    session = step.session
    if session is None:
        return step

    if isinstance(event, PartUpdated):
        at_work = event.child_id is not None and event.tool_status in ("pending", "running")
        calls = ((event.child_id, event.part_id),) if at_work and event.child_id else ()
    elif isinstance(event, SessionInspected) and session.phase is Phase.RUNNING:
        calls = tuple(call for message in event.assistants for call in message.children)
        session = _forget_strangers(session, {child_id for child_id, _ in calls})
    else:
        return step

    actions = step.actions
    for child_id, part_id in calls:
        known = find(session, child_id)
        if known is not None and known.part_id == part_id:
            continue

        first = known is not None and known.part_id is None
        session = put(session, replace(known, part_id=part_id) if known and first else _call(child_id, part_id))
        session = replace(session, subagents=session.subagents[-SUBAGENTS_KEPT:])
        actions = (*actions, Tell(event=_introduction(session, child_id)))

    return step if session is step.session else Step(session=session, actions=actions)


def _call(child_id: str, part_id: str) -> Subagent:
    return Subagent(child_id=child_id, part_id=part_id)


def _forget_strangers(session: Session, called: set[str]) -> Session:
    """Drop those that told of themselves before the history did, and for which no tool waits."""
    kept = tuple(known for known in session.subagents if known.part_id is not None or known.child_id in called)
    return session if len(kept) == len(session.subagents) else replace(session, subagents=kept)


def _introduction(session: Session, child_id: str) -> ParentKnown:
    return ParentKnown(session_id=child_id, parent_id=session.session_id, lineage=lineage_of(session))


def _tell_parent(before: Session, after: Session | None) -> tuple[Action, ...]:
    parent_id = (after or before).parent_id
    if parent_id is None:
        return ()

    if after is None:
        deleted = ChildEnded(session_id=parent_id, child_id=before.session_id, outcome="stopped", reason=CANCELLED)
        return (Tell(event=deleted),)

    hop = after.hop
    if hop is not None and hop.parent_awaited and (before.hop is None or before.hop.plan != hop.plan):
        return (Tell(event=ChildFailed(session_id=parent_id, child_id=after.session_id)),)

    if after.phase in RESTING_PHASES and before.phase not in RESTING_PHASES:
        return (Tell(event=_ended(after, parent_id)),)

    return ()


def _ended(session: Session, parent_id: str) -> ChildEnded:
    if session.phase is Phase.EXHAUSTED:
        failures = session.turn.failures if session.turn else ()
        tried = "; ".join(f"{failed.route}: {failed.failure.kind.value.replace('_', ' ')}" for failed in failures)
        return ChildEnded(
            session_id=parent_id,
            child_id=session.session_id,
            outcome="exhausted",
            reason=f"Subagent failed (task_id: {session.session_id}): every model has failed: {tried}",
        )

    stopped = session.phase is Phase.STOPPED
    return ChildEnded(
        session_id=parent_id,
        child_id=session.session_id,
        outcome="stopped" if stopped else "answered",
        reason=CANCELLED if stopped else "",
    )
