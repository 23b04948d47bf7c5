"""Following: another process on the same host makes this advance.

The process that lost the claim does nothing for the turn but watch: the winner's new model shows itself by its own
assistant message. If nothing shows until the winner's lease would have run out, the host is asked, and the claim is
made again: a dead winner's turn is taken over (X03).
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core.actions import InspectSession
from fallback_plugin.core.events import AssistantMessage, SessionInspected
from fallback_plugin.core.hop import proceed
from fallback_plugin.core.inspection import on_dispatch_inspected
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import Attempt, Ending, Phase, Session, Step, arm_step, stay
from fallback_plugin.core.refusal import abort_again
from fallback_plugin.core.run import begin, on_assistant_message

FOLLOW_PATIENCE = 6.0
"""Seconds until a lost claim is made again; longer than the lease of a process that may have died with it."""


def on_advance_lost(session: Session, now: float) -> Step:
    """Somebody else holds the claim."""
    if session.hop is None:
        return stay(session)

    return arm_step(replace(session, phase=Phase.FOLLOWING), now + FOLLOW_PATIENCE)


def on_message_while_following(session: Session, message: AssistantMessage, now: float, rules: Rules) -> Step:
    """The winner's model, or a newer prompt's, has begun."""
    turn, hop = session.turn, session.hop
    if turn is None or hop is None or message.message_id in turn.retired:
        return stay(session)

    if session.queued is not None and message.parent_id == session.queued.message_id:
        return on_assistant_message(begin(session, session.queued), message, now, rules)

    if message.parent_id != turn.user.message_id or message.route == hop.plan.failed_model:
        return stay(session)

    attempt = Attempt(route=message.route, last_activity_at=now, is_hop=True)
    followed = replace(session, phase=Phase.RUNNING, hop=None, attempt=attempt)
    return on_assistant_message(followed, message, now, rules)


def on_following_timer(session: Session, now: float) -> Step:
    """Nothing was seen of the winner: ask the host. A halted turn shows nothing: its claim is made again."""
    if session.hop is not None and session.hop.resumes:
        return arm_step(replace(session, phase=Phase.WAITING), now + FOLLOW_PATIENCE)

    return arm_step(session, now + FOLLOW_PATIENCE, InspectSession(session_id=session.session_id))


def on_inspected_while_following(session: Session, event: SessionInspected, now: float, rules: Rules) -> Step:
    """What the host has is the winner's work, or the turn is still to be carried on: then by us."""
    if not event.found:
        return Step(session=None)

    turn, hop = session.turn, session.hop
    if turn is None or hop is None:
        return stay(session)

    fresh = [found for found in event.assistants if found.message.message_id not in turn.retired]
    if fresh:
        return on_dispatch_inspected(session, event, now, rules)

    if event.status is not None and event.status.status != "idle":
        return abort_again(session, now)

    claiming = replace(session, phase=Phase.ENDING, hop=replace(hop, ending=Ending.ENDED))
    return proceed(claiming, now)
