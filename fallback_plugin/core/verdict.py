"""From a failure to a verdict: carried on, left to the host, held, or the end of the chain.

A failure is judged, and the advance planned, committed and claimed, in one step without awaiting (X02). So of all
the events that report one failure only the first moves the chain; `core.hop` carries the claim through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fallback_plugin.core import compaction
from fallback_plugin.core.actions import Announce, InspectSession, NoticeType, RouteFailure
from fallback_plugin.core.failure import Failure, Kind
from fallback_plugin.core.hop import (
    ABORT_TRIES,
    RUN_END_PATIENCE,
    abort,
    proceed,
)
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import (
    Ending,
    Held,
    Hop,
    Phase,
    Session,
    Step,
    Turn,
    arm_step,
    retire,
    stay,
)
from fallback_plugin.core.state import (
    FallbackPlan,
    FallbackState,
    NoPlan,
    commit_fallback,
    create_state,
    earliest_return,
    plan_fallback,
    record_failure,
)

INSPECT_PATIENCE = 5.0
"""Seconds for the host to tell a session's history."""


def policy_of(session: Session, rules: Rules) -> Policy:
    """The policy of the agent that runs the session's turn."""
    return rules.policy(compaction.agent_of(session, rules), session.lineage)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A failure that was judged, with all that the verdict needs."""

    session: Session
    turn: Turn
    state: FallbackState
    failure: Failure
    ending: Ending
    now: float
    policy: Policy
    rules: Rules


def fail(
    session: Session,
    failure: Failure,
    now: float,
    rules: Rules,
    *,
    ending: Ending,
    no_plan: NoPlan | None = None,
) -> Step:
    """Act on a failure of the current attempt.

    Args:
        session: a session whose attempt failed.
        failure: what happened.
        now: monotonic seconds.
        rules: the policies in force.
        ending: how the failed run comes to its end.
        no_plan: why there is no way on, where that is known already.
    """
    turn = session.turn
    if turn is None or not turn.known:
        return hold(session, Held(failure=failure, ending=ending), now)

    policy = policy_of(session, rules)
    if not policy.enabled:
        return stay(session)

    if not (compaction.needs_another(session, failure) or _may_fall_back(failure, policy)):
        return _leave_to_host(session, failure, ending=ending, detail="not carried on")

    state = session.state or create_state(_route_of(session) or "")
    if state.current_model != (_route_of(session) or state.current_model):
        state = replace(state, current_model=_route_of(session) or state.current_model)

    case = _Case(
        session=session,
        turn=turn,
        state=state,
        failure=failure,
        ending=ending,
        now=now,
        policy=policy,
        rules=rules,
    )
    plan = no_plan or compaction.no_plan(session) or _plan(case)
    if isinstance(plan, FallbackPlan):
        return _claim(case, plan)

    if not policy.chain:
        return _leave_to_host(session, failure, ending=ending, detail="no fallback models configured")

    return _exhaust(case, plan)


def _may_fall_back(failure: Failure, policy: Policy) -> bool:
    if failure.kind is Kind.CONTEXT_OVERFLOW and policy.overflow_route is not None:
        return True

    return failure.should_fallback


def _route_of(session: Session) -> str | None:
    if session.hop is not None:
        return session.hop.plan.new_model

    return session.attempt.route if session.attempt else None


def _plan(case: _Case) -> FallbackPlan | NoPlan:
    state, policy = case.state, case.policy
    chain = policy.chain
    if case.failure.kind is Kind.CONTEXT_OVERFLOW and policy.overflow_route is not None:
        chain, state = (policy.overflow_route,), replace(state, fallback_index=-1)

    judged = record_failure(state, state.current_model, case.now, case.failure)
    limit, outages = policy.max_fallback_attempts, case.rules.outages
    known = replace(judged, cooling=_latest(outages, judged.cooling))
    plan = plan_fallback(known, chain, case.now, cooldown_seconds=policy.cooldown_seconds, max_attempts=limit)
    if isinstance(plan, FallbackPlan):
        return plan

    # Nothing is left but what failed a moment ago: a guess of ours must not end a turn.
    certain = {key: until for key, until in outages.items() if key not in case.rules.guesses}
    known = replace(judged, cooling=_latest(certain, judged.cooling))
    return plan_fallback(known, chain, case.now, cooldown_seconds=0.0, max_attempts=limit)


def _latest(*known: Mapping[str, float]) -> Mapping[str, float]:
    """Of several words about a scope key the latest time."""
    latest: dict[str, float] = {}
    for words in known:
        for key, until in words.items():
            latest[key] = max(until, latest.get(key, until))

    return latest


def hold(session: Session, held: Held, now: float) -> Step:
    """Keep a failure until the history has told which turn and model it belongs to."""
    if session.phase is Phase.INSPECTING:
        return stay(replace(session, held=session.held or held))

    waiting = replace(session, phase=Phase.INSPECTING, held=held, inspections=session.inspections + 1)
    return arm_step(waiting, now + INSPECT_PATIENCE, InspectSession(session_id=session.session_id))


def inspect(session: Session, now: float) -> Step:
    """Ask the host what became of the session."""
    asking = replace(session, phase=Phase.INSPECTING, inspections=session.inspections + 1)
    return arm_step(asking, now + INSPECT_PATIENCE, InspectSession(session_id=session.session_id))


def _leave_to_host(session: Session, failure: Failure, *, ending: Ending, detail: str) -> Step:
    route = _route_of(session)
    attempt = session.attempt
    if ending is Ending.ABORT and attempt is not None:
        if attempt.host_retrying:
            return stay(session)

        left = replace(session, phase=Phase.RUNNING, attempt=replace(attempt, host_retrying=True))
    else:
        turn = retire(session.turn, attempt) if session.turn else None
        left = replace(session, phase=Phase.IDLE, turn=turn, attempt=None, hop=None, held=None)

    notice = Announce(
        session_id=session.session_id,
        notice=NoticeType.FAILURE,
        route=route,
        failure=failure,
        detail=detail,
    )
    return Step(session=left, actions=(notice,))


def _claim(case: _Case, plan: FallbackPlan) -> Step:
    session, now = case.session, case.now
    moved, _ = commit_fallback(case.state, plan, now, case.failure)
    interval = case.policy.min_hop_interval_seconds
    hop = Hop(
        plan=plan,
        failure=case.failure,
        ending=case.ending,
        not_before=now if session.hopped_at is None else session.hopped_at + interval,
        user_message_id=case.turn.user.message_id,
        parent_awaited=session.parent_id is not None,
    )
    claimed = replace(
        session,
        phase=Phase.ENDING,
        state=replace(moved, pending_fallback_model=plan.new_model),
        turn=_failed_turn(case, plan.failed_model),
        hop=hop,
        held=None,
        inspections=0,
        abort_tries=0,
    )
    notice = Announce(
        session_id=session.session_id,
        notice=NoticeType.FAILURE,
        route=plan.failed_model,
        next_route=plan.new_model,
        failure=case.failure,
    )
    if case.ending is Ending.ABORT:
        return abort(claimed, now, notice)

    if case.ending is Ending.ENDED:
        return proceed(claimed, now, notice)

    return arm_step(claimed, now + RUN_END_PATIENCE, notice)


def _failed_turn(case: _Case, route: str) -> Turn:
    turn = retire(case.turn, case.session.attempt)
    if turn.failures and turn.failures[-1].route == route:
        return turn

    return replace(turn, failures=(*turn.failures, RouteFailure(route=route, failure=case.failure)))


def _exhaust(case: _Case, reason: NoPlan) -> Step:
    session, state, now = case.session, case.state, case.now
    failed = record_failure(state, state.current_model, now, case.failure)
    turn = _failed_turn(case, state.current_model)
    exhausted = replace(
        session,
        phase=Phase.EXHAUSTED,
        state=replace(failed, pending_fallback_model=None),
        turn=turn,
        attempt=None,
        hop=None,
        held=None,
        queued=None,
        timer=session.timer + 1,
        abort_tries=0,
    )
    notice = Announce(
        session_id=session.session_id,
        notice=NoticeType.EXHAUSTED,
        route=state.current_model,
        failure=case.failure,
        failures=turn.failures,
        returns_at=earliest_return(
            replace(failed, cooling=_latest(case.rules.outages, failed.cooling)),
            case.policy.chain,
            now,
            case.policy.cooldown_seconds,
        ),
        toast=True,
        detail=reason.error,
    )
    told = (notice, *compaction.clear_away(session))
    return abort(exhausted, now, *told) if case.ending is Ending.ABORT else Step(session=exhausted, actions=told)


def on_exhausted_retry(session: Session, now: float) -> Step:
    """The host still asks an exhausted chain's model: stop it, a bounded number of times."""
    if session.abort_tries >= ABORT_TRIES:
        return stay(session)

    return abort(session, now)


def stop(session: Session, *, aborts: bool = False, now: float = 0.0) -> Step:
    """The user stopped the turn: nothing is dispatched for it after this."""
    turn = retire(session.turn, session.attempt) if session.turn else None
    state = replace(session.state, pending_fallback_model=None) if session.state else None
    stopped = replace(
        session,
        phase=Phase.STOPPED,
        turn=turn,
        state=state,
        attempt=None,
        hop=None,
        held=None,
        queued=None,
        timer=session.timer + 1,
    )
    notice = Announce(session_id=session.session_id, notice=NoticeType.STOPPED)
    return abort(stopped, now, notice) if aborts else Step(session=stopped, actions=(notice,))
