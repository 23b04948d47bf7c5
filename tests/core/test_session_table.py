"""Every phase × every kind of event: where the session goes and what it asks for.

`ROWS` spells the whole product out, one row per event and one cell per phase; "." is a cell that ignores its event
and leaves the record as it is. Each phase is reached by the events that lead to it on a real host.
"""

from __future__ import annotations

from fallback_plugin.core.events import (
    AbortReturned,
    AdvanceLost,
    AssistantMessage,
    DispatchReturned,
    InspectedMessage,
    MessageRemoved,
    MessageUpdated,
    PartDeltaReceived,
    PartType,
    PartUpdated,
    SessionCompacted,
    SessionCreated,
    SessionDeleted,
    SessionErrored,
    SessionIdled,
    SessionInspected,
    SessionStatusChanged,
    TimerElapsed,
    TurnStopped,
    UserMessage,
)
from fallback_plugin.core.failure import Facts
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase, Session
from fallback_plugin.core.session import step

SES = "ses_1"
PRIMARY, A, B = "one/primary", "two/a", "three/b"
RULES = Rules(default=Policy(chain=(A, B), min_hop_interval_seconds=0.0))
NOW = 100.0
QUOTA = Facts(status=402, name="APIError", message="Insufficient balance")
THROTTLED = Facts(message="Rate limit reached")


def prompt(message_id="u1", at=1.0):
    message = UserMessage(message_id=message_id, created_wall=at, agent="build", route=PRIMARY)
    return MessageUpdated(session_id=SES, message=message)


def answer(message_id="m1", route=PRIMARY, **fields):
    message = AssistantMessage(message_id=message_id, parent_id="u1", route=route, agent="build", **fields)
    return MessageUpdated(session_id=SES, message=message)


def status(name):
    facts = THROTTLED if name == "retry" else None
    return SessionStatusChanged(session_id=SES, status=name, attempt=1 if facts else 0, facts=facts)


TOKEN = PartDeltaReceived(session_id=SES, message_id="m1", part_id="p1")
IDLED = SessionIdled(session_id=SES)


def walked(*events):
    """The record after some events; functions among them are given the record as it is by then."""
    session = Session(session_id=SES)
    for event in events:
        done = step(session, event(session) if callable(event) else event, NOW, RULES)
        assert done.session is not None
        session = done.session

    return session


def abort_returned(session):
    return AbortReturned(session_id=SES, generation=session.generation, succeeded=True)


def dispatch_returned(session):
    return DispatchReturned(session_id=SES, generation=session.generation, outcome="accepted")


def advance_lost(session):
    return AdvanceLost(session_id=SES, generation=session.generation)


def timer_elapsed(session):
    return TimerElapsed(session_id=SES, timer=session.timer)


def next_answer(session):
    """A message on the model that the turn is on by now."""
    return answer("m9", session.state.current_model)


def died(message_id, route):
    return answer(message_id, route, completed=True, error=QUOTA)


RUN = (prompt(), answer(), TOKEN)
PHASES = {
    Phase.IDLE: (*RUN, answer(finish="stop", completed=True)),
    Phase.RUNNING: RUN,
    Phase.SETTLING: (*RUN, IDLED),
    Phase.INSPECTING: (*RUN, IDLED, timer_elapsed),
    Phase.ENDING: (*RUN, status("retry")),
    Phase.DISPATCHING: (*RUN, status("retry"), abort_returned, IDLED),
    Phase.FOLLOWING: (*RUN, status("retry"), advance_lost),
    Phase.EXHAUSTED: (
        *RUN,
        died("m1", PRIMARY),
        answer("m2", A),
        died("m2", A),
        answer("m3", B),
        died("m3", B),
    ),
    Phase.STOPPED: (*RUN, TurnStopped(session_id=SES)),
}

INSPECTED = SessionInspected(
    session_id=SES,
    status=status("idle"),
    user=prompt().message,
    assistants=(InspectedMessage(message=answer(finish="stop", completed=True).message, has_text=True),),
)

EVENTS = {
    "new prompt": prompt("u2", at=2.0),
    "next answer": next_answer,
    "tool part": PartUpdated(
        session_id=SES, message_id="m1", part_id="t1", part_type=PartType.TOOL, tool_status="running"
    ),
    "token": TOKEN,
    "session error": SessionErrored(session_id=SES, facts=QUOTA),
    "status retry": status("retry"),
    "status busy": status("busy"),
    "status idle": status("idle"),
    "session idle": IDLED,
    "prompt removed": MessageRemoved(session_id=SES, message_id="u1"),
    "session created": SessionCreated(session_id=SES, parent_id="ses_0"),
    "session deleted": SessionDeleted(session_id=SES),
    "session compacted": SessionCompacted(session_id=SES),
    "turn stopped": TurnStopped(session_id=SES),
    "abort returned": abort_returned,
    "advance lost": advance_lost,
    "dispatch returned": dispatch_returned,
    "timer": timer_elapsed,
    "inspected": INSPECTED,
}
