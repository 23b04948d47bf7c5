"""Subagents: a session that waits for the session which a tool of it has started.

Theory of operation
===================

An agent's tool (`task` on OpenCode) runs a subagent in a session of its own, the *child*, and gives its answer to the
session that called it, the *parent*. The child's model fails like any other, and its session is carried on like any
other. But the host takes the end of the child's failed run for the end of the tool: the parent gets "Task cancelled"
or the provider's error, and asks its model again without the answer. Whoever carries a child on must keep the parent
from that, and give it the answer later. What the host does in each case stands in tests/e2e/OBSERVATIONS.md.

1. A child that claims a hop tells its parent (`ChildFailed`), and does not dispatch until the parent *releases* it
   (`ParentSettled`), or has been silent for PARENT_PATIENCE: as long as the tool runs, an abort of the parent ends the
   child's run too, and would end the new one.
2. As long as other tools of the parent run, it is left alone: their work is kept, and the host waits for them. The
   child is released as soon as its own tool is over, whatever its result.
3. Once nothing but failed children keeps the parent at work, it is *halted*: aborted before it can ask its model with a
   wrong result. It is then WAITING. A halted parent that is itself a child does as in 1, so that a family settles from
   the top down and is answered from the bottom up.
4. When the child is at rest (`ChildEnded`), its answer, or one sentence that says why there is none, is put in the
   place of the wrong result (`SpliceResult`). The host reads its history again before each step, so that a parent that
   is still kept busy by other tools needs no halt at all.
5. A halted parent of which all results are right is resumed in place on its own model. Nothing of it has failed: no
   attempt is counted, no cooldown, no toast. What it began to say on the wrong result is removed first.

While it waits, the parent is idle for the host. A newer prompt of the user makes it run: that run is aborted, and the
prompt is what is resumed, with the child's answer in view, as the host itself does with a prompt that comes while a
tool runs. An idle that comes while nothing runs can only be somebody's abort: the user's stop. A stop of the parent
ends its children for good, those that are no longer held by the tool included.

Every wait has an end: while WAITING the timer asks the children how they stand (`ParentKnown.asks`), which also finds
them again after a crash. A child that nothing is known of is inspected, and comes to rest by the rules of its own.

This module decides for the parent; `core.waiting` is its phase WAITING, and `core.family` what it and its children hear
of each other.
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core.actions import Action, SpliceResult, Tell
from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.family_events import ChildEnded, ChildFailed, ParentSettled, ParentStopped, ResultSpliced
from fallback_plugin.core.hop import abort, dispatch
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import Ending, Hop, Phase, Session, Step, Subagent, arm_step, retire, stay
from fallback_plugin.core.state import FallbackPlan

SPLICE_PAUSE = 1.0
"""Seconds before an answer that could not be put into the history is tried again."""
FAILED_MODEL = "subagents"
"""Stands for a failed model in the name of a halt's claim; holds no slash, so that no route is meant."""

_HALTED = Failure(kind=Kind.ABORTED, scope=Scope.MODEL, should_fallback=True, reason="halted for its subagents")


def lineage_of(session: Session) -> tuple[str, ...]:
    """The agents that a child of this session inherits from, nearest first."""
    agent = session.turn.user.agent if session.turn else None
    return session.lineage if agent is None else (agent, *session.lineage)


def find(session: Session, child_id: str) -> Subagent | None:
    """The subagent of a session."""
    return next((known for known in session.subagents if known.child_id == child_id), None)


def put(session: Session, subagent: Subagent) -> Session:
    """The session with a subagent's news."""
    others = tuple(known for known in session.subagents if known.child_id != subagent.child_id)
    return replace(session, subagents=(*others, subagent))


def is_settled(session: Session) -> bool:
    """Whether a waiting session's own run is over, and its parent's."""
    hop = session.hop
    return hop is not None and hop.ending is Ending.ENDED and not hop.parent_awaited


def on_child_failed(session: Session, event: ChildFailed, now: float, rules: Rules) -> Step:
    """A child is to be carried on. What that means for this session is decided by `attend`."""
    known = find(session, event.child_id)
    unseen = known is None and session.phase is Phase.INSPECTING
    if session.phase is Phase.STOPPED and known is not None and not known.ended:
        return Step(session=session, actions=(Tell(event=ParentStopped(session_id=event.child_id)),))

    # A session that no tool waits for, or no longer: another prompt of the user, to the child itself.
    if not unseen and (known is None or known.spliced or (known.ended and not known.failed)):
        return Step(session=session, actions=(Tell(event=ParentSettled(session_id=event.child_id)),))

    part_id = known.part_id if known else None
    return stay(put(session, Subagent(child_id=event.child_id, part_id=part_id, failed=True)))


def on_child_ended(session: Session, event: ChildEnded, now: float, rules: Rules) -> Step:
    """A child is at rest."""
    known = find(session, event.child_id)
    if known is None or known.ended:
        return stay(session)

    # A chain without a next model: the child was never carried on, and the host has the wrong words for it.
    failed = known.failed or event.outcome == "exhausted"
    return stay(put(session, replace(known, failed=failed, ended=True, reason=event.reason)))


def on_result_spliced(session: Session, event: ResultSpliced, now: float, rules: Rules) -> Step:
    """The host has the answer, or not yet."""
    known = find(session, event.child_id)
    if known is None or known.spliced:
        return stay(session)

    if event.outcome == "done":
        return stay(put(session, replace(known, spliced=True)))

    return arm_step(session, now + SPLICE_PAUSE) if session.phase is Phase.WAITING else stay(session)


def attend(before: Session, step: Step, now: float) -> Step:
    """What a step means for the session's subagents: hold them, let them go, fetch their answers, go on.

    Args:
        before: the record before the step.
        step: what the event led to by itself.
        now: monotonic seconds.
    """
    session = step.session
    if session is None or not session.subagents:
        return step

    if session.phase is Phase.STOPPED:
        return _with(step, _stop_children(session)) if before.phase is not Phase.STOPPED else step

    if session.phase is Phase.IDLE:
        return _with(step, _let_go(session)) if before.phase is not Phase.IDLE else step

    if session.phase is Phase.RUNNING and _is_due(session):
        step = _halt(session, now, *step.actions)

    step = _fetch(_release(step))
    waiting = step.session
    if waiting is not None and waiting.phase is Phase.WAITING and is_settled(waiting) and not pending(waiting):
        return dispatch(waiting, now, *step.actions)

    return step


def _with(step: Step, added: tuple[Session, tuple[Action, ...]]) -> Step:
    session, actions = added
    return Step(session=session, actions=(*step.actions, *actions))


def pending(session: Session) -> tuple[Subagent, ...]:
    """The subagents whose tool calls have a wrong result."""
    return tuple(known for known in session.subagents if known.pending)


def _stop_children(session: Session) -> tuple[Session, tuple[Action, ...]]:
    return session, tuple(Tell(event=ParentStopped(session_id=known.child_id)) for known in pending(session))


def _let_go(session: Session) -> tuple[Session, tuple[Action, ...]]:
    """The turn is over without them."""
    held = (known for known in pending(session) if not known.released)
    released = tuple(Tell(event=ParentSettled(session_id=known.child_id)) for known in held)
    return replace(session, subagents=()), released


def _is_due(session: Session) -> bool:
    """Whether nothing but failed children keeps the session at work."""
    attempt, failed = session.attempt, pending(session)
    if attempt is None or session.state is None or session.turn is None or not failed:
        return False

    return not attempt.running_tools - {known.part_id for known in failed}


def _halt(session: Session, now: float, *before: Action) -> Step:
    """Abort the session before it goes on with a wrong result; the turn is claimed as for a hop."""
    state, turn, attempt = session.state, session.turn, session.attempt
    if state is None or turn is None or attempt is None:
        return Step(session=session, actions=before)

    calls = sorted(known.part_id or known.child_id for known in pending(session))
    plan = FallbackPlan(
        failed_model=" ".join((FAILED_MODEL, *calls)),
        new_model=attempt.route or state.current_model,
        new_index=state.fallback_index,
        generation=state.generation,
    )
    hop = Hop(
        plan=plan,
        failure=_HALTED,
        ending=Ending.ABORT,
        user_message_id=turn.user.message_id,
        resumes=True,
        parent_awaited=session.parent_id is not None,
    )
    halted = replace(
        session,
        phase=Phase.WAITING,
        state=replace(state, generation=state.generation + 1, pending_fallback_model=plan.new_model),
        turn=retire(turn, attempt),
        hop=hop,
        inspections=0,
        abort_tries=0,
        subagents=tuple(known if known.spliced else replace(known, asks=0) for known in session.subagents),
    )
    return halt(halted, now, *before)


def halt(session: Session, now: float, *before: Action) -> Step:
    """Abort a waiting session's run, keeping count of the calls."""
    hop = session.hop
    counted = replace(session, hop=replace(hop, aborts_out=hop.aborts_out + 1)) if hop else session
    return abort(counted, now, *before)


def _is_over(session: Session, known: Subagent) -> bool:
    """Whether the host has written the last word of the child's tool call."""
    if session.phase is Phase.WAITING:
        return is_settled(session)

    attempt = session.attempt
    return session.phase is not Phase.INSPECTING and (attempt is None or known.part_id not in attempt.running_tools)


def _release(step: Step) -> Step:
    session = step.session
    if session is None:
        return step

    free = [known for known in pending(session) if not known.released and _is_over(session, known)]
    for known in free:
        session = put(session, replace(known, released=True))

    released = (Tell(event=ParentSettled(session_id=known.child_id)) for known in free)
    return Step(session=session, actions=(*step.actions, *released))


def _fetch(step: Step) -> Step:
    session = step.session
    if session is None or session.phase is Phase.EXHAUSTED:
        return step

    ready = [known for known in pending(session) if known.ended and known.asks == 0 and _is_over(session, known)]
    for known in ready:
        session = put(session, replace(known, asks=1))

    return Step(session=session, actions=(*step.actions, *(splice(session, known) for known in ready)))


def splice(session: Session, known: Subagent) -> SpliceResult:
    """Put a subagent's answer into the history."""
    return SpliceResult(
        session_id=session.session_id,
        child_id=known.child_id,
        part_id=known.part_id,
        reason=known.reason,
    )
