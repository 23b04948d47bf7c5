"""Session-wide signals: error, status, idle, compaction, stop. They name no message and no model.

What they belong to is decided by the phase: only a running attempt can fail, and an attempt runs only after its
own assistant message was seen. So an echo of the run that was left finds the session in a hop, where it is
ignored, and never in the new attempt.
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core.classify import classify
from fallback_plugin.core.events import MessageRemoved, SessionErrored, SessionStatusChanged
from fallback_plugin.core.failure import Facts, Failure, Kind
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Ending, Held, Phase, Session, Step, stay
from fallback_plugin.core.refusal import Again, on_refused
from fallback_plugin.core.run import begin, on_unattributed_abort, settle
from fallback_plugin.core.verdict import fail, hold, on_exhausted_retry, policy_of, stop

_KEPT_IN_RETRY = frozenset({Kind.ABORTED, Kind.CONTENT_POLICY, Kind.CONTEXT_OVERFLOW})
"""Kinds that stay what they are in the host's retry; of any other the host itself says that it may pass."""


def on_session_error(session: Session, event: SessionErrored, now: float, rules: Rules) -> Step:
    """The running attempt failed, or was aborted."""
    policy = policy_of(session, rules)
    failure = classify(event.facts, now=now, rules=policy.classifier)
    if failure.kind is Kind.ABORTED:
        if is_own_abort(session, now, policy):
            return stay(session)

        return on_unattributed_abort(session, now, rules, ending=_ending_of(session))

    return fail(session, failure, now, rules, ending=_ending_of(session))


def _ending_of(session: Session) -> Ending:
    """A run that has a message ends with it; one that the host could not even begin just goes idle."""
    attempt = session.attempt
    has_message = attempt is None or attempt.assistant_id is not None
    return Ending.MESSAGE if has_message else Ending.IDLE


def is_own_abort(session: Session, now: float, policy: Policy) -> bool:
    """Whether an abort that names no message is the echo of ours: the second line of defence (O17-O19)."""
    aborted_at = session.aborted_at
    return aborted_at is not None and now - aborted_at < policy.self_abort_window_seconds


def on_session_error_unknown(session: Session, event: SessionErrored, now: float, rules: Rules) -> Step:
    """An error in a session of which nothing is known: the history tells whose it is (K01)."""
    if session.turn is not None:
        return stay(session)

    failure = classify(event.facts, now=now, rules=rules.default.classifier)
    if failure.kind is Kind.ABORTED or not failure.should_fallback:
        return stay(session)

    return hold(session, Held(failure=failure, ending=Ending.MESSAGE), now)


def on_session_error_in_dispatch(session: Session, event: SessionErrored, now: float, rules: Rules) -> Step:
    """An error before the new model's message: an echo of the old run, or the host can't use the model.

    An echo says what the failure of this hop said, or that the run was aborted; it does not name the new model.
    """
    hop = session.hop
    if hop is None:
        return stay(session)

    failure = classify(event.facts, now=now, rules=policy_of(session, rules).classifier)
    names_model = hop.plan.new_model in (event.facts.message or "")
    if failure.kind in (Kind.ABORTED, hop.failure.kind) and not names_model:
        return stay(session)

    # Whatever the host could not do with this model, another one may be able to.
    return on_refused(session, replace(failure, should_fallback=True), now, rules, again=Again.NEVER)


def on_session_status(session: Session, event: SessionStatusChanged, now: float, rules: Rules) -> Step:
    """The host retries the running attempt by itself, works, or has gone idle."""
    if event.status == "idle":
        return on_session_idle(session, now)

    if event.status == "busy":
        return on_busy(session)

    policy = policy_of(session, rules)
    failure = retry_failure(event.facts or Facts(), now, policy)
    attempt = session.attempt
    if attempt is None or attempt.assistant_id is None:
        return hold(session, Held(failure=failure, ending=Ending.ABORT), now)

    if _lets_host_retry(event, failure, now, policy):
        return stay(replace(session, phase=Phase.RUNNING, attempt=replace(attempt, host_retrying=True)))

    return fail(session, failure, now, rules, ending=Ending.ABORT)


def retry_failure(facts: Facts, now: float, policy: Policy) -> Failure:
    """The failure behind a host's retry: the host has judged it passing, and would ask for ever."""
    failure = classify(facts, now=now, rules=policy.classifier)
    if failure.should_fallback or failure.kind in _KEPT_IN_RETRY:
        return failure

    kind = Kind.SERVER_ERROR if failure.kind is Kind.BAD_REQUEST else failure.kind
    return replace(failure, kind=kind, should_fallback=True, reason=f"the host retries: {failure.reason}")


def _lets_host_retry(event: SessionStatusChanged, failure: Failure, now: float, policy: Policy) -> bool:
    if event.attempt > policy.host_retries_before_fallback:
        return False

    patience = policy.timeout_seconds or policy.stall_timeout_seconds
    return failure.retry_at is None or failure.retry_at - now <= patience


def on_status_unknown(session: Session, event: SessionStatusChanged, now: float, rules: Rules) -> Step:
    """A retry in a session whose run was not seen to begin: the history tells whose it is."""
    if event.status != "retry":
        return stay(session)

    failure = retry_failure(event.facts or Facts(), now, policy_of(session, rules))
    return hold(session, Held(failure=failure, ending=Ending.ABORT), now)


def on_exhausted_status(session: Session, event: SessionStatusChanged, now: float) -> Step:
    """The host goes on asking although every model has failed."""
    return on_exhausted_retry(session, now) if event.status == "retry" else stay(session)


def on_busy(session: Session) -> Step:
    """The host works: an idle before it was not the end."""
    if session.phase is Phase.SETTLING:
        return stay(replace(session, phase=Phase.RUNNING))

    return stay(session)


def on_session_idle(session: Session, now: float) -> Step:
    """The host looks idle while an attempt runs: wait for the message that says how it ended."""
    attempt = session.attempt
    if session.phase is Phase.RUNNING and attempt is not None and attempt.assistant_id is not None:
        return settle(session, now)

    return stay(session)


def on_message_removed(session: Session, event: MessageRemoved, now: float) -> Step:
    """The user took the turn's message back: sending it again would bring an empty one to life."""
    turn = session.turn
    if turn is None or event.message_id != turn.user.message_id or session.phase is Phase.STOPPED:
        return stay(session)

    if turn.user.compaction and session.phase is Phase.EXHAUSTED:
        return stay(session)

    if turn.user.compaction and session.queued is not None and session.phase is Phase.FOLLOWING:
        # The process that carries the turn on has let the prompt go first.
        return stay(begin(session, session.queued))

    return stop(session, aborts=session.hop is not None, now=now)


def on_turn_stopped(session: Session, now: float) -> Step:
    """The user's stop, told by the host: nothing is dispatched after it, and a hop under way is ended (S3)."""
    unknown = session.turn is None and session.phase is Phase.IDLE
    if unknown or session.phase is Phase.STOPPED:
        return stay(session)

    return stop(session, aborts=session.hop is not None, now=now)
