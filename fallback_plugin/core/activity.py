"""Signs of life of the running answer, and the watch over its silence.

History is never fetched while a turn goes well; what a hop needs to know of the unfinished answer is kept as a few
flags per message (`Partial`). A token costs one comparison: activity is noted at most every ACTIVITY_GRAIN seconds.
"""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core.events import PartDeltaReceived, PartType, PartUpdated
from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Attempt, Ending, Partial, Phase, Session, Step, arm_step, stay
from fallback_plugin.core.verdict import fail, inspect, policy_of

ACTIVITY_GRAIN = 0.25
"""Seconds within which further tokens change nothing."""
TAIL_PARTS_KEPT = 32
START_PATIENCE = 30.0
"""Seconds for a prompt, or a step that is over, to be followed by an assistant message before the host is asked."""


def on_part(session: Session, event: PartUpdated, now: float) -> Step:
    """A part of the running answer changed."""
    attempt = session.attempt
    if attempt is None or event.message_id != attempt.assistant_id:
        return stay(session)

    if event.part_type is PartType.TOOL:
        return stay(_on_tool(session, attempt, event, now))

    if event.part_type not in (PartType.TEXT, PartType.REASONING):
        return stay(session)

    partials = _with_tail(attempt, event.part_id, has_text=event.has_content)
    active = replace(attempt, partials=partials)
    if event.has_content:
        active = replace(active, first_token=True, last_activity_at=now, host_retrying=False)

    return stay(_active(session, active))


def _on_tool(session: Session, attempt: Attempt, event: PartUpdated, now: float) -> Session:
    tools = attempt.running_tools
    running = event.tool_status in ("pending", "running")
    tools = tools | {event.part_id} if running else tools - {event.part_id}
    last = attempt.partials[-1] if attempt.partials else Partial(message_id=event.message_id)
    kept = replace(last, has_finished_tool=True, tail_parts=())
    active = replace(
        attempt,
        first_token=True,
        last_activity_at=now,
        running_tools=tools,
        partials=(*attempt.partials[:-1], kept),
        host_retrying=False,
    )
    return _active(session, active)


def _active(session: Session, attempt: Attempt) -> Session:
    """The session with a sign of life: an idle that came before it was not this run's end."""
    phase = Phase.RUNNING if session.phase is Phase.SETTLING else session.phase
    return replace(session, phase=phase, attempt=attempt)


def on_tool_executed(session: Session, now: float) -> Step:
    """The host has run a tool."""
    attempt = session.attempt
    if attempt is None or attempt.assistant_id is None:
        return stay(session)

    return stay(_active(session, replace(attempt, last_activity_at=now)))


def on_delta(session: Session, event: PartDeltaReceived, now: float) -> Step:
    """A token arrived."""
    attempt = session.attempt
    if attempt is None or event.message_id != attempt.assistant_id:
        return stay(session)

    if (
        attempt.first_token
        and now - attempt.last_activity_at < ACTIVITY_GRAIN
        and session.phase is not Phase.SETTLING
        and _is_known_tail(attempt, event.part_id)
    ):
        return stay(session)

    active = replace(
        attempt,
        first_token=True,
        last_activity_at=now,
        partials=_with_tail(attempt, event.part_id, has_text=True),
        host_retrying=False,
    )
    return stay(_active(session, active))


def _is_known_tail(attempt: Attempt, part_id: str) -> bool:
    last = attempt.partials[-1] if attempt.partials else None
    return last is not None and last.has_text and part_id in last.tail_parts


def _with_tail(attempt: Attempt, part_id: str, *, has_text: bool) -> tuple[Partial, ...]:
    if not attempt.partials:
        return ()

    last = attempt.partials[-1]
    tail = last.tail_parts
    if part_id not in tail:
        tail = (*tail, part_id)[-TAIL_PARTS_KEPT:]

    return (*attempt.partials[:-1], replace(last, has_text=last.has_text or has_text, tail_parts=tail))


def watch(session: Session, now: float, rules: Rules) -> Step:
    """Set the timer at which silence of the running answer becomes a failure."""
    attempt = session.attempt
    if attempt is None:
        return stay(session)

    period = _watch_period(attempt, policy_of(session, rules))
    return arm_step(session, attempt.last_activity_at + period) if period > 0 else stay(session)


def _silence_limit(attempt: Attempt | None, policy: Policy) -> float:
    """Seconds of silence that are a failure now; 0 where silence is no failure."""
    if attempt is None or attempt.assistant_id is None:
        return 0.0

    return policy.stall_timeout_seconds if attempt.first_token else policy.timeout_seconds


def _watch_period(attempt: Attempt, policy: Policy) -> float:
    """Seconds until the watch looks again; a switched-off first-token limit still leads to the stall's."""
    if attempt.assistant_id is None:
        return START_PATIENCE

    return _silence_limit(attempt, policy) or policy.stall_timeout_seconds


def on_watch_timer(session: Session, now: float, rules: Rules) -> Step:
    """The watch's time has come: is it silence, or only an old deadline?"""
    attempt = session.attempt
    if attempt is None:
        return stay(session)

    policy = policy_of(session, rules)
    limit, period = _silence_limit(attempt, policy), _watch_period(attempt, policy)
    if now < attempt.last_activity_at + period:
        return watch(session, now, rules)

    if attempt.assistant_id is None:
        return inspect(session, now)

    if limit <= 0 or attempt.running_tools or attempt.host_retrying:
        return arm_step(session, now + period)

    silence = "no more tokens" if attempt.first_token else "no token"
    failure = Failure(
        kind=Kind.TIMEOUT,
        scope=Scope.MODEL,
        should_fallback=True,
        reason=f"{silence} for {limit:g} s",
    )
    return fail(session, failure, now, rules, ending=Ending.ABORT)
