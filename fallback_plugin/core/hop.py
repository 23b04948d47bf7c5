"""The hop: from a claimed advance to the next model at work.

The order of things is the host's (opencode-host.md, Timing; tests/e2e/OBSERVATIONS.md):

1. ENDING. The failed run must be over. A run that the host keeps alive (retry, hang, stall, loop) is aborted; it
   is over when the abort call has returned and the session was seen idle. A run that died by itself is over when
   its message shows the error; a prompt sent before that is silently lost. After a finished step the host writes
   the user message once more, with the old model; a dispatch must come after that write.
2. DISPATCHING. The user's message is resumed in place on the new model. The dispatch is confirmed by an assistant
   message for that user message on that model. Without one, the host is asked what it did, and the dispatch,
   which is idempotent, is made again; after DISPATCH_TRIES the model counts as failed.

Whatever is lost on the way, the session's one timer leads on from each of the two.
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core import compaction
from fallback_plugin.core.actions import AbortRun, Action, Announce, DispatchTurn, NoticeType, Removal
from fallback_plugin.core.failure import Failure, Kind
from fallback_plugin.core.record import Attempt, Ending, Phase, Session, Step, arm, arm_step, stay

ABORT_TRIES = 3
DISPATCH_TRIES = 3
ABORT_PATIENCE = 2.5
"""Seconds for an abort to return; the host takes 60-115 ms (opencode-host.md)."""
PARENT_PATIENCE = 4.0
"""Seconds for the parent of a subagent to settle: three aborts that get no answer are longer, one is not."""
ABORT_PAUSE = 0.3
"""Seconds before a failed abort is tried again."""
IDLE_PATIENCE = 0.3
"""Seconds between a returned abort and the idle that goes with it."""
RUN_END_PATIENCE = 1.5
"""Seconds between session.error and the message that carries it; 50-200 ms were seen."""
CONFIRM_PATIENCE = 2.0
"""Seconds for a dispatch to show its assistant message; doubled for each further try."""
DISPATCH_PAUSE = 0.5
REWRITE_PATIENCE = 0.3
"""Seconds for the host to write the user message after a finished step; 45-85 ms were seen."""


def abort(session: Session, now: float, *before: Action) -> Step:
    """End the host's run; what comes back is `AbortReturned`, or the timer."""
    aborting = replace(session, abort_tries=session.abort_tries + 1, aborted_at=now)
    abort = AbortRun(session_id=session.session_id, generation=session.generation)
    return arm_step(aborting, now + ABORT_PATIENCE, *before, abort)


def on_abort_returned(session: Session, succeeded: bool, now: float) -> Step:  # noqa: FBT001
    """Our abort came back: the run is over once the session is idle too."""
    hop = session.hop
    if not succeeded:
        # An abort that was not carried out has no echo (O16, S22).
        return arm_step(replace(session, aborted_at=None), now + ABORT_PAUSE)

    if hop is None:
        return stay(replace(session, timer=session.timer + 1))

    returned = replace(session, hop=replace(hop, abort_returned=True))
    if hop.idled:
        return proceed(returned, now)

    return arm_step(returned, now + IDLE_PATIENCE)


def on_run_ended(session: Session, now: float) -> Step:
    """The failed run's own message shows its end."""
    hop = session.hop
    if hop is None or hop.ending is Ending.ENDED:
        return stay(session)

    if hop.ending is Ending.ABORT:
        return on_idled_in_hop(session, now)

    return proceed(session, now)


def on_idled_in_hop(session: Session, now: float) -> Step:
    """The session went idle. After session.error that says nothing: the run is not over yet (recordings)."""
    hop = session.hop
    if hop is None or hop.ending in (Ending.ENDED, Ending.MESSAGE):
        return stay(session)

    if hop.ending is Ending.IDLE:
        return proceed(session, now)

    idled = replace(session, hop=replace(hop, idled=True))
    return proceed(idled, now) if hop.abort_returned else stay(idled)


def on_ending_timer(session: Session, now: float) -> Step:
    """Nothing more was heard of the failed run: abort again, or go on."""
    hop = session.hop
    if hop is None:
        return stay(session)

    unended = hop.ending is Ending.ABORT and not hop.abort_returned
    if unended and session.abort_tries < ABORT_TRIES:
        return abort(session, now)

    return on_parent_settled(session, now) if hop.parked else proceed(session, now)


def on_parent_settled(session: Session, now: float) -> Step:
    """The parent no longer holds this subagent's session, or does not answer."""
    hop = session.hop
    if hop is None or not hop.parent_awaited:
        return stay(session)

    free = replace(session, hop=replace(hop, parent_awaited=False, parked=False))
    return proceed(free, now) if hop.parked else stay(free)


def proceed(session: Session, now: float, *before: Action) -> Step:
    """The failed run is over: dispatch, or wait for the least interval between two hops."""
    hop = session.hop
    if hop is None:
        return stay(session)

    if hop.parent_awaited:
        parked = replace(session, hop=replace(hop, parked=True))
        return Step(session=session, actions=before) if hop.parked else arm_step(parked, now + PARENT_PATIENCE, *before)

    ended = replace(session, hop=replace(hop, ending=Ending.ENDED))
    if now < hop.not_before:
        return arm_step(ended, hop.not_before, *before)

    attempt = session.attempt
    if attempt is not None and attempt.rewrite_due and hop.ending is not Ending.ENDED:
        return arm_step(ended, now + REWRITE_PATIENCE, *before)

    return dispatch(session, now, *before)


def on_user_rewritten(session: Session, now: float) -> Step:
    """The host has written the user message after the last finished step."""
    hop, attempt = session.hop, session.attempt
    if hop is None or attempt is None or not attempt.rewrite_due:
        return stay(session)

    written = replace(session, attempt=replace(attempt, rewrite_due=False))
    ready = session.phase is Phase.ENDING and hop.ending is Ending.ENDED
    return proceed(written, now) if ready else stay(written)


def dispatch(session: Session, now: float, *before: Action) -> Step:
    """Resume the newest user message on the claimed model.

    The host answers only the newest message of a session, with all earlier ones in view; a prompt that the
    user sent meanwhile is therefore what is resumed.
    """
    session = compaction.give_way(session)
    hop, turn = session.hop, session.turn
    if hop is None or turn is None:
        return stay(session)

    user = session.queued or turn.user
    sent = replace(
        session,
        phase=Phase.DISPATCHING,
        turn=replace(turn, user=user),
        queued=None,
        hop=replace(hop, dispatch_tries=hop.dispatch_tries + 1, unavailable=False),
        hopped_at=now,
    )
    action = DispatchTurn(
        session_id=session.session_id,
        generation=session.generation,
        user_message_id=user.message_id,
        route=hop.plan.new_model,
        agent=user.agent,
        carried=user.carried,
        removals=_removals(session.attempt, hop.failure),
        replay=hop.replay,
    )
    armed, timer = arm(sent, now + CONFIRM_PATIENCE * 2**hop.dispatch_tries)
    return Step(session=armed, actions=(*before, action, timer))


def _removals(attempt: Attempt | None, failure: Failure) -> tuple[Removal, ...]:
    """What the next model must not see: text of the dead one, and finished answers that would end the turn."""
    if attempt is None:
        return ()

    removals: list[Removal] = []
    for partial in attempt.partials:
        if partial.has_finished_tool:
            removals += [Removal(message_id=partial.message_id, part_id=part) for part in partial.tail_parts]
        elif partial.discarded or partial.has_text or failure.kind is Kind.EMPTY:
            removals.append(Removal(message_id=partial.message_id))

    return tuple(removals)


def confirm(session: Session, attempt: Attempt) -> tuple[Session, tuple[Action, ...]]:
    """The claimed model is at work."""
    hop, state = session.hop, session.state
    running = replace(
        session,
        phase=Phase.RUNNING,
        hop=None,
        attempt=attempt,
        state=replace(state, pending_fallback_model=None) if state else None,
    )
    if hop is None or hop.resumes:
        return running, ()

    notice = Announce(
        session_id=session.session_id,
        notice=NoticeType.HOP,
        route=hop.plan.failed_model,
        next_route=attempt.route,
        failure=hop.failure,
        toast=True,
        detail=f"sent without its parts of type {', '.join(hop.dropped_parts)}" if hop.dropped_parts else "",
    )
    return running, (notice,)
