"""A dispatch that the host does not take: made again, made as a new message, or the next model's turn.

what is seen                                    what is done
------------------------------------------------------------------------------------------
the host can't be reached, or is in its way     again, later; after DISPATCH_TRIES the model counts as failed
the host has lost the user's message            once more, as a new message
the host runs the failed model all the same     that run is ended, and the dispatch made again, as often
none of these helps                             the claimed model has failed: `verdict.fail` decides as ever
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from fallback_plugin.core import compaction
from fallback_plugin.core.actions import Announce, NoticeType
from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.hop import DISPATCH_PAUSE, DISPATCH_TRIES, abort, dispatch
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import Ending, Phase, Session, Step, arm_step, stay
from fallback_plugin.core.verdict import fail


class Again(StrEnum):
    """What may help where a dispatch was not taken."""

    LATER = "later"
    AS_NEW_MESSAGE = "as a new message"
    NEVER = "never"


def on_refused(
    session: Session,
    failure: Failure,
    now: float,
    rules: Rules,
    *,
    again: Again,
    ending: Ending = Ending.ENDED,
) -> Step:
    """The host did not take the dispatch: again, as a new message, or on the next model.

    Args:
        session: a session in DISPATCHING.
        failure: why, with the host's words as its reason.
        now: monotonic seconds.
        rules: the policies in force.
        again: what may still help on the same model.
        ending: ABORT where the host is busy with something that must be ended first.
    """
    hop = session.hop
    if hop is None:
        return stay(session)

    if again is Again.AS_NEW_MESSAGE and not hop.replay:
        return dispatch(replace(session, hop=replace(hop, replay=True)), now)

    if again is Again.LATER and hop.dispatch_tries < DISPATCH_TRIES:
        waiting = replace(session, hop=replace(hop, unavailable=True))
        return arm_step(waiting, now + DISPATCH_PAUSE * 2**hop.dispatch_tries)

    notice = Announce(
        session_id=session.session_id,
        notice=NoticeType.REFUSED,
        route=hop.plan.new_model,
        failure=failure,
        detail=f"tries: {hop.dispatch_tries}",
    )
    step = fail(session, failure, now, rules, ending=ending)
    return replace(step, actions=(notice, *step.actions))


def on_wrong_model(session: Session, now: float, rules: Rules) -> Step:
    """The host runs the failed model again in spite of the dispatch: end that run and dispatch once more."""
    hop = session.hop
    if hop is None:
        return stay(session)

    if session.compacting and hop.dispatch_tries >= compaction.DISPATCH_TRIES:
        # The next model would be overruled as well.
        left = replace(session, hop=None)
        return fail(left, hop.failure, now, rules, ending=Ending.ABORT, no_plan=compaction.OVERRULED)

    if hop.dispatch_tries >= DISPATCH_TRIES:
        failure = refusal("the host goes on asking the model before it")
        return on_refused(session, failure, now, rules, again=Again.NEVER, ending=Ending.ABORT)

    return abort_again(session, now)


def abort_again(session: Session, now: float) -> Step:
    """A run that must not be there is there: end it, then dispatch."""
    hop = session.hop
    if hop is None:
        return stay(session)

    again = replace(
        session,
        phase=Phase.ENDING,
        hop=replace(hop, ending=Ending.ABORT, abort_returned=False, idled=False),
        abort_tries=0,
    )
    return abort(again, now)


def refusal(reason: str) -> Failure:
    """The failure of a model that the host did not start."""
    return Failure(kind=Kind.SERVER_ERROR, scope=Scope.MODEL, should_fallback=True, reason=reason)
