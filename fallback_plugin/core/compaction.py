"""Compaction: the host writes a summary of the session, and the model that writes it may fail like any other.

Theory of operation
===================

A compaction is a turn (tests/e2e/OBSERVATIONS.md, Compaction). The host stores its request as a user message with one
part of type `compaction`, and the summary is the assistant message that answers it. Errors, retries, hangs and idles
look as in any turn, and the request can be resumed in place on another model: it keeps its id and its part, and with
the part all that the host does after an automatic compaction. So the machine of `core.session` carries a summary on
as it carries any turn on, and the host goes on with the user's turn by itself. What is different:

    what                                     here                  why
    ---------------------------------------  --------------------  ------------------------------------------------
    the chain may be the compaction agent's  `agent_of`            it is an agent of the host that can be configured
    a dead model's summary goes whole,       `on_message`          two summaries would stay in the history
    also an empty one
    one truncated summary is a failure       TRUNCATED_SUMMARIES   the host takes half a summary for a whole one
    a context overflow goes to the next      `needs_another`       the host has no other cure for it here
    model
    a model set for the compaction agent     `no_plan`             the host asks that one whatever a dispatch says;
    ends the chain                                                 each hop would only ask it again
    a prompt that waits gets the next        `give_way`            a summary written anew is newer than the prompt,
    model instead of the summary                                   which the host then takes for answered
    an exhausted request is deleted          `clear_away`          the host would write the summary in place of its
                                                                   answer to the next prompt
    and its summary once more at its end     `on_late_message`     a run that ends writes its message again, also one
                                                                   that is deleted by then

Two facts are kept apart. `Session.compacting` says that a summary is being written; the assistant message tells it.
`UserMessage.compaction` says that the message asks for one and holds no words of the user's; its part tells it, and
only such a message is ever deleted. A summary that swallows a prompt of the user's has the first without the second.
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core.actions import Action, DiscardMessages, Removal
from fallback_plugin.core.events import AssistantMessage, PartUpdated
from fallback_plugin.core.failure import Failure, Kind
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import Partial, Session, Step, stay
from fallback_plugin.core.state import NoPlan

AGENT = "compaction"
"""The host's agent for summaries."""
TRUNCATED_SUMMARIES = 1
DISPATCH_TRIES = 2
"""Dispatches of a summary after which a host that asks the failed model again is believed to do so by configuration;
one such dispatch may have lost its model to a stale write (OBSERVATIONS.md, point 1)."""
OVERRULED = NoPlan(error="the host's compaction agent has a model of its own")


def agent_of(session: Session, rules: Rules) -> str | None:
    """The agent whose policy holds: the compaction agent's for a summary if it has one, else the turn's own."""
    own = rules.agents.get(AGENT)
    if session.compacting and own is not None and (own.chain or not own.enabled):
        return AGENT

    return session.turn.user.agent if session.turn else None


def on_message(session: Session, message: AssistantMessage) -> Session:
    """An assistant message was seen: is what it answers a compaction?"""
    turn = session.turn
    if not message.compaction or turn is None or message.parent_id != turn.user.message_id:
        return session

    return replace(session, compacting=True)


def on_request(session: Session, event: PartUpdated) -> Step:
    """The part that makes a user message a request for a summary."""
    turn, queued = session.turn, session.queued
    if turn is not None and turn.user.message_id == event.message_id:
        return stay(replace(session, turn=replace(turn, user=replace(turn.user, compaction=True))))

    if queued is not None and queued.message_id == event.message_id:
        return stay(replace(session, queued=replace(queued, compaction=True)))

    return stay(session)


def needs_another(session: Session, failure: Failure) -> bool:
    """Whether a failure that is the host's to cure in a turn is ours in a summary."""
    return session.compacting and failure.kind is Kind.CONTEXT_OVERFLOW


def no_plan(session: Session) -> NoPlan | None:
    """Why no other model can write this summary, if none can."""
    turn, attempt = session.turn, session.attempt
    if not session.compacting or turn is None or attempt is None or attempt.is_hop:
        return None

    return OVERRULED if turn.user.route not in (None, attempt.route) else None


def give_way(session: Session) -> Session:
    """The session about to be dispatched: a prompt that waits takes the place of a summary that failed."""
    turn, attempt = session.turn, session.attempt
    if session.queued is None or attempt is None or turn is None or not turn.user.compaction:
        return session

    request = Partial(message_id=turn.user.message_id, discarded=True)
    left = replace(attempt, partials=(*attempt.partials, request))
    return replace(session, attempt=left, compacting=False)


def clear_away(session: Session) -> tuple[Action, ...]:
    """What must go when every model has failed to write the summary."""
    turn, attempt = session.turn, session.attempt
    if turn is None or not turn.user.compaction:
        return ()

    failed = [partial.message_id for partial in attempt.partials] if attempt else []
    removals = tuple(Removal(message_id=message_id) for message_id in [*failed, turn.user.message_id])
    return (DiscardMessages(session_id=session.session_id, removals=removals),)


def on_late_message(session: Session, message: AssistantMessage) -> Step:
    """The last summary's run has ended after its message was cleared away."""
    turn = session.turn
    if turn is None or not turn.user.compaction or message.parent_id != turn.user.message_id:
        return stay(session)

    if not message.completed and message.error is None:
        return stay(session)

    removal = Removal(message_id=message.message_id)
    return Step(session=session, actions=(DiscardMessages(session_id=session.session_id, removals=(removal,)),))
