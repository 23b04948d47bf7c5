"""The phase WAITING: a turn that is halted until its subagents have an answer. The theory is in `core.subagents`.

First its run is ended, as before a hop; then its own parent is awaited, if it has one; then its children. A session in
this phase has `hop.ending` ABORT for the first, ENDED after it, and `hop.parent_awaited` for the second.
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core.actions import Action, Tell
from fallback_plugin.core.events import AssistantMessage
from fallback_plugin.core.family_events import ParentKnown
from fallback_plugin.core.hop import ABORT_PAUSE, ABORT_TRIES, IDLE_PATIENCE, PARENT_PATIENCE
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import Ending, Partial, Session, Step, Subagent, arm_step, retire, stay
from fallback_plugin.core.subagents import halt, lineage_of, pending, put, splice
from fallback_plugin.core.verdict import stop

WAIT_PERIOD = 2.0
"""Seconds between two questions to the children of a halted parent: nothing for the host, unless one is unknown."""
SPLICE_TRIES = 4
NEXT_STEP = "tool-calls"
"""Finish reason of a step after which the host asks again by itself."""
STOP_GRACE = 0.05
"""Seconds after the end of our own abort in which an idle may still be its echo: the call returns after its events."""


def on_message_while_waiting(session: Session, message: AssistantMessage, now: float, rules: Rules) -> Step:
    """A run that was being ended, or one that must not be there: of a newer prompt, which has to wait too."""
    hop, turn, attempt = session.hop, session.turn, session.attempt
    if hop is None or turn is None or attempt is None or message.compaction:
        return stay(session)

    # A step with tool calls ends well while the abort is under way; the run goes on.
    shows_end = message.completed and (message.error is not None or message.finish != NEXT_STEP)
    if shows_end and hop.ending is Ending.ABORT:
        hop = replace(hop, closed=True)
        session = replace(session, hop=hop)

    if message.message_id in turn.retired:
        return stay(session)

    # What it says, it says on a wrong result.
    begun = Partial(message_id=message.message_id, has_text=True)
    noted = replace(attempt, assistant_id=message.message_id, partials=(*attempt.partials, begun))
    session = replace(session, turn=retire(turn, noted), attempt=noted)
    is_old = message.parent_id == turn.user.message_id and hop.ending is Ending.ABORT
    if message.completed or (is_old and session.abort_tries >= ABORT_TRIES):
        return stay(session)

    if is_old:
        # The host ends a dying child before its parent, which takes seconds when it is busy; a second call overtakes.
        return halt(session, now)

    again = replace(hop, ending=Ending.ABORT, abort_returned=False, idled=False, closed=False)
    return halt(replace(session, hop=again, abort_tries=0), now)


def on_abort_returned_while_waiting(session: Session, succeeded: bool, now: float) -> Step:  # noqa: FBT001
    """Our abort came back: the run is over once the session is idle too."""
    hop = session.hop
    if hop is None:
        return stay(session)

    hop = replace(hop, aborts_out=max(0, hop.aborts_out - 1))
    if hop.ending is Ending.ENDED:
        # One that was called twice; its idle may come just behind it.
        settled_at = now if hop.settled_at is not None else None
        return stay(replace(session, hop=replace(hop, settled_at=settled_at)))

    if not succeeded:
        return arm_step(replace(session, hop=hop), now + ABORT_PAUSE)

    returned = replace(session, hop=replace(hop, abort_returned=True))
    if hop.idled:
        return _settle(returned, now)

    # The first of two calls ends the run, and may be the last to come back.
    return stay(returned) if hop.aborts_out else arm_step(returned, now + IDLE_PATIENCE)


def on_idled_while_waiting(session: Session, now: float) -> Step:
    """The end of our abort, or, after it, of somebody else's: the user's stop.

    An abort makes the session idle up to twice, the last time after the message of its run was closed.
    """
    hop = session.hop
    if hop is None or (hop.ending is Ending.ABORT and not hop.closed):
        return stay(session)

    if hop.ending is Ending.ABORT:
        idled = replace(session, hop=replace(hop, idled=True))
        return _settle(idled, now) if hop.abort_returned else stay(idled)

    # The abort of its own parent reaches this session too.
    under_way = hop.parent_awaited or hop.aborts_out > 0
    is_echo = under_way or hop.settled_at is None or now - hop.settled_at <= STOP_GRACE
    return stay(session) if is_echo else stop(session)


def _settle(session: Session, now: float) -> Step:
    """The session's own run is over."""
    hop = session.hop
    if hop is None:
        return stay(session)

    over = replace(session, hop=replace(hop, ending=Ending.ENDED, settled_at=now), abort_tries=0)
    return arm_step(over, now + (PARENT_PATIENCE if hop.parent_awaited else WAIT_PERIOD))


def on_parent_settled_while_waiting(session: Session, now: float) -> Step:
    """This session's own parent no longer holds it."""
    hop = session.hop
    if hop is None or not hop.parent_awaited:
        return stay(session)

    free = replace(session, hop=replace(hop, parent_awaited=False, settled_at=now))
    return arm_step(free, now + WAIT_PERIOD) if hop.ending is Ending.ENDED else stay(free)


def on_waiting_timer(session: Session, now: float) -> Step:
    """Abort again, go on without the parent, ask the children, try an answer again: whatever is awaited."""
    hop = session.hop
    if hop is None:
        return stay(session)

    if hop.ending is Ending.ABORT:
        unended = not hop.abort_returned and session.abort_tries < ABORT_TRIES
        return halt(session, now) if unended else _settle(session, now)

    if hop.parent_awaited:
        return on_parent_settled_while_waiting(session, now)

    actions: list[Action] = []
    for known in pending(session):
        if not known.ended:
            actions.append(Tell(event=_question(session, known)))
        elif known.asks < SPLICE_TRIES:
            session = put(session, replace(known, asks=known.asks + 1))
            actions.append(splice(session, known))
        else:
            # Better the host's own words than a turn that never goes on.
            session = put(session, replace(known, spliced=True))

    return arm_step(session, now + WAIT_PERIOD, *actions)


def _question(session: Session, known: Subagent) -> ParentKnown:
    return ParentKnown(
        session_id=known.child_id,
        parent_id=session.session_id,
        lineage=lineage_of(session),
        asks=True,
    )
