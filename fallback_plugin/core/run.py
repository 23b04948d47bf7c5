"""Following a run: which turn is under way, which message answers it, and how that ends."""

from __future__ import annotations

from dataclasses import replace

from fallback_plugin.core import compaction
from fallback_plugin.core.actions import Announce, NoticeType, ReportAnswer
from fallback_plugin.core.activity import watch
from fallback_plugin.core.classify import classify
from fallback_plugin.core.events import AssistantMessage, UserMessage
from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.hop import on_user_rewritten
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Attempt, Ending, Partial, Phase, Session, Step, Turn, arm_step, retire, stay
from fallback_plugin.core.state import adopt_model, begin_turn
from fallback_plugin.core.verdict import fail, inspect, policy_of, stop

TRUNCATED_ANSWERS = 3
"""Answers in a row without a finish reason that make a loop (issue A)."""
SETTLE_PATIENCE = 1.0
"""Seconds between an idle and the message that tells how the run ended; 50-200 ms were seen."""
PARTIALS_KEPT = 8
EMPTY_ANSWER = Failure(kind=Kind.EMPTY, scope=Scope.MODEL, should_fallback=True, reason="the answer was empty")
PAST_TURNS_KEPT = 4

_NEXT_STEP = "tool-calls"
_NO_REASON = "unknown"


def on_user_message(session: Session, user: UserMessage, now: float, rules: Rules) -> Step:
    """A user message was created or changed, with no advance in flight."""
    turn, attempt = session.turn, session.attempt
    if turn is not None and user.message_id == turn.user.message_id:
        user = replace(user, compaction=turn.user.compaction)
        written = replace(attempt, rewrite_due=False) if attempt else None
        return stay(replace(session, turn=replace(turn, user=user, known=True), attempt=written))

    if not is_newer(session, user):
        return stay(session)

    answering = attempt is not None and attempt.assistant_id is not None
    if session.phase in (Phase.RUNNING, Phase.SETTLING, Phase.INSPECTING) and answering:
        return stay(queue(session, user))

    begun = begin(session, user)
    if begun.attempt is not None:
        begun = replace(begun, attempt=replace(begun.attempt, last_activity_at=now))

    return watch(begun, now, rules)


def on_user_message_in_hop(session: Session, user: UserMessage, now: float) -> Step:
    """A prompt while an advance is in flight waits for it; it is what will be resumed."""
    turn, hop = session.turn, session.hop
    if turn is not None and user.message_id == turn.user.message_id:
        return on_user_rewritten(session, now)

    if turn is not None and hop is not None and hop.replay and user.route == hop.plan.new_model:
        return stay(replace(session, turn=replace(turn, user=user)))

    return stay(queue(session, user)) if is_newer(session, user) else stay(session)


def is_newer(session: Session, user: UserMessage) -> bool:
    """Whether `user` is a new prompt rather than a late change of an old one."""
    if user.message_id in session.past_turns:
        return False

    return session.turn is None or user.created_wall > session.turn.user.created_wall


def begin(session: Session, user: UserMessage, *, known: bool = True) -> Session:
    """A new turn: nothing of it has failed yet."""
    past = session.past_turns
    if session.turn is not None:
        past = (*past, session.turn.user.message_id)[-PAST_TURNS_KEPT:]

    state = session.state
    route = user.route or (state.current_model if state else None)
    if route is not None:
        state = begin_turn(state, route)

    return replace(
        session,
        phase=Phase.RUNNING,
        state=state,
        turn=Turn(user=user, known=known),
        attempt=Attempt(route=user.route, last_activity_at=0.0),
        hop=None,
        held=None,
        queued=None,
        past_turns=past,
        inspections=0,
        abort_tries=0,
        compacting=False,
    )


def on_assistant_message(session: Session, message: AssistantMessage, now: float, rules: Rules) -> Step:
    """An assistant message was created or changed while its turn runs, or while nothing does."""
    session = compaction.on_message(_enter_turn(session, message), message)
    turn = session.turn
    if turn is None or message.parent_id != turn.user.message_id or message.message_id in turn.retired:
        return stay(session)

    attempt = session.attempt or Attempt(route=message.route, last_activity_at=now, is_hop=bool(turn.failures))
    if attempt.assistant_id != message.message_id:
        session = _follow(session, attempt, message, now, rules)
        attempt = session.attempt or attempt

    if message.error is not None:
        return _on_error(session, message, now, rules)

    if message.finish is not None:
        attempt = replace(attempt, rewrite_due=True)
        session = replace(session, attempt=attempt)

    if message.completed:
        return _on_completed(session, attempt, message, now, rules)

    return watch(session, now, rules)


def _enter_turn(session: Session, message: AssistantMessage) -> Session:
    """The session in the turn that `message` answers, if that is a turn we may enter."""
    parent = message.parent_id
    turn = session.turn
    if parent is None or (turn is not None and parent == turn.user.message_id):
        return session

    if session.queued is not None and parent == session.queued.message_id:
        return begin(session, session.queued)

    if parent in session.past_turns or (turn is not None and message.message_id in turn.retired):
        return session

    lost = UserMessage(message_id=parent, created_wall=0.0, agent=message.agent, route=message.route)
    return begin(session, lost, known=False)


def _follow(session: Session, attempt: Attempt, message: AssistantMessage, now: float, rules: Rules) -> Session:
    """A new answer, or a new step of it, has begun."""
    state = session.state
    if state is None and message.route is not None:
        state = begin_turn(None, message.route)
    elif state is not None and message.route is not None and message.route != state.current_model:
        state = adopt_model(state, message.route, policy_of(session, rules).chain)

    fresh = Partial(message_id=message.message_id, discarded=session.compacting)
    followed = replace(
        attempt,
        route=message.route or attempt.route,
        last_activity_at=now,
        assistant_id=message.message_id,
        first_token=False,
        running_tools=frozenset(),
        partials=(*attempt.partials, fresh)[-PARTIALS_KEPT:],
        host_retrying=False,
        has_gap=attempt.has_gap or message.finish is not None,
    )
    # A failure of this model waits for the history; one more answer of the model doesn't undo it.
    held = session.held if message.route == attempt.route else None
    phase = Phase.RUNNING if held is None else Phase.INSPECTING
    return replace(session, phase=phase, state=state, attempt=followed, held=held)


def _on_error(session: Session, message: AssistantMessage, now: float, rules: Rules) -> Step:
    facts = message.error
    if facts is None:
        return stay(session)

    failure = classify(facts, now=now, rules=policy_of(session, rules).classifier)
    if failure.kind is Kind.ABORTED:
        return on_unattributed_abort(session, now, rules, ending=Ending.ENDED)

    return fail(session, failure, now, rules, ending=Ending.ENDED)


def on_unattributed_abort(session: Session, now: float, rules: Rules, *, ending: Ending) -> Step:
    """An abort that is not ours: the user's, unless a fallback's first token was awaited (design.md, rule 4)."""
    attempt = session.attempt
    policy = policy_of(session, rules)
    awaited = attempt is not None and attempt.is_hop and not attempt.first_token
    advances = policy.on_unattributed_abort == "advance" or _is_late_abort_of_ours(session, now, policy)
    if not awaited or not advances:
        return stop(session)

    failure = Failure(
        kind=Kind.ABORTED,
        scope=Scope.MODEL,
        should_fallback=True,
        reason="aborted before the first token, by nobody known",
    )
    return fail(session, failure, now, rules, ending=ending)


def _is_late_abort_of_ours(session: Session, now: float, policy: Policy) -> bool:
    """Whether an abort that we sent twice may have hit the next model's run the second time."""
    sent = session.aborted_at
    return session.abort_tries > 1 and sent is not None and now - sent < policy.self_abort_window_seconds


def _on_completed(session: Session, attempt: Attempt, message: AssistantMessage, now: float, rules: Rules) -> Step:
    partial = attempt.partials[-1] if attempt.partials else Partial(message_id=message.message_id)
    if message.finish is None:
        return settle(session, now)

    if message.finish == _NO_REASON and not partial.has_finished_tool:
        return _on_truncated(session, attempt, now, rules)

    if message.finish in (_NEXT_STEP, _NO_REASON):
        return stay(_end_step(session, attempt, now))

    if not partial.has_text and not partial.has_finished_tool and not _is_visible(session):
        if attempt.has_gap:
            return inspect(session, now)

        return fail(session, EMPTY_ANSWER, now, rules, ending=Ending.IDLE)

    return complete(session)


def _is_visible(session: Session) -> bool:
    return session.turn is not None and session.turn.visible


def _on_truncated(session: Session, attempt: Attempt, now: float, rules: Rules) -> Step:
    count = attempt.truncated + 1
    looping = replace(
        session,
        turn=retire(session.turn, attempt) if session.turn else None,
        attempt=replace(attempt, truncated=count, assistant_id=None, last_activity_at=now),
    )
    if count < (compaction.TRUNCATED_SUMMARIES if session.compacting else TRUNCATED_ANSWERS):
        return stay(looping)

    failure = Failure(
        kind=Kind.TRUNCATED,
        scope=Scope.MODEL,
        should_fallback=True,
        reason=f"{count} answers in a row ended without a finish reason",
    )
    return fail(looping, failure, now, rules, ending=Ending.ABORT)


def _end_step(session: Session, attempt: Attempt, now: float) -> Session:
    """A step with tool calls is over; the host asks for the next one by itself."""
    turn = session.turn
    ended = replace(attempt, assistant_id=None, truncated=0, partials=(), last_activity_at=now)
    return replace(
        session,
        turn=replace(retire(turn, attempt), visible=True) if turn else None,
        attempt=ended,
    )


def complete(session: Session) -> Step:
    """The turn was answered."""
    turn, state, attempt = session.turn, session.state, session.attempt
    if turn is None or state is None:
        return stay(replace(session, phase=Phase.IDLE, attempt=None))

    route = attempt.route if attempt and attempt.route else state.current_model
    came_back = route in state.failed_models
    failed = {model: at for model, at in state.failed_models.items() if model != route}
    done = replace(
        session,
        phase=Phase.IDLE,
        turn=replace(retire(turn, attempt), failures=(), visible=True),
        state=replace(state, failed_models=failed, pending_fallback_model=None),
        attempt=None,
        hop=None,
        held=None,
        compacting=False,
    )
    answer = ReportAnswer(session_id=session.session_id, route=route)
    if not turn.failures and not came_back:
        return Step(session=done, actions=(answer,))

    notice = Announce(
        session_id=session.session_id,
        notice=NoticeType.RECOVERED,
        route=route,
        toast=not turn.failures,
        detail="answered" if turn.failures else "is back",
    )
    return Step(session=done, actions=(answer, notice))


def settle(session: Session, now: float) -> Step:
    """The host looks idle and has not said how the run ended: give it a moment."""
    return arm_step(replace(session, phase=Phase.SETTLING), now + SETTLE_PATIENCE)


def queue(session: Session, user: UserMessage) -> Session:
    """Remember the newest prompt that the host has not begun to answer."""
    newest = session.queued
    if newest is not None and newest.created_wall > user.created_wall:
        return session

    return replace(session, queued=user)
