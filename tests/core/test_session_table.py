"""Every phase × every kind of event: where the session goes and what it asks for.

`ROWS` spells the whole product out, one row per event and one cell per phase; "." is a cell that ignores its event
and leaves the record as it is. Each phase is reached by the events that lead to it on a real host.
"""

from __future__ import annotations

from typing import get_args

import pytest

from fallback_plugin.core.actions import Announce
from fallback_plugin.core.events import (
    AbortReturned,
    AdvanceLost,
    AssistantMessage,
    DispatchReturned,
    Event,
    InspectedMessage,
    MessageRemoved,
    MessageUpdated,
    PartDeltaReceived,
    PartType,
    PartUpdated,
    PromptRouted,
    SessionCompacted,
    SessionCreated,
    SessionDeleted,
    SessionErrored,
    SessionIdled,
    SessionInspected,
    SessionStatusChanged,
    TimerElapsed,
    ToolExecuted,
    TurnStopped,
    UserMessage,
)
from fallback_plugin.core.failure import Facts, Kind
from fallback_plugin.core.family_events import (
    ChildEnded,
    ChildFailed,
    ParentKnown,
    ParentSettled,
    ParentStopped,
    ResultSpliced,
)
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase, Session
from fallback_plugin.core.session import TRANSITIONS, kind_of, step

SES, KID = "ses_1", "ses_2"
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


TASK = PartUpdated(
    session_id=SES, message_id="m1", part_id="t1", part_type=PartType.TOOL, tool_status="running", child_id=KID
)
FAILED = ChildFailed(session_id=SES, child_id=KID)
RUN = (prompt(), answer(), TOKEN)
PHASES = {
    Phase.IDLE: (*RUN, answer(finish="stop", completed=True)),
    Phase.RUNNING: RUN,
    Phase.SETTLING: (*RUN, IDLED),
    Phase.INSPECTING: (*RUN, IDLED, timer_elapsed),
    Phase.ENDING: (*RUN, status("retry")),
    Phase.DISPATCHING: (*RUN, status("retry"), abort_returned, IDLED),
    Phase.FOLLOWING: (*RUN, status("retry"), advance_lost),
    Phase.WAITING: (*RUN, TASK, FAILED),
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
    "tool executed": ToolExecuted(session_id=SES),
    "prompt routed": PromptRouted(session_id=SES, wanted=PRIMARY, route=A, kind=Kind.QUOTA_EXHAUSTED),
    "turn stopped": TurnStopped(session_id=SES),
    "abort returned": abort_returned,
    "advance lost": advance_lost,
    "dispatch returned": dispatch_returned,
    "timer": timer_elapsed,
    "inspected": INSPECTED,
    "parent known": ParentKnown(session_id=SES, parent_id="ses_0", lineage=("plan",)),
    "parent asks": ParentKnown(session_id=SES, parent_id="ses_0", asks=True),
    "parent settled": ParentSettled(session_id=SES),
    "parent stopped": ParentStopped(session_id=SES),
    "child failed": FAILED,
    "child ended": ChildEnded(session_id=SES, child_id=KID),
    "result spliced": ResultSpliced(session_id=SES, child_id=KID, outcome="done"),
}

# The phase an event leads to, then what is asked for, in order; an announcement by its notice.
ROWS = {
    "new prompt": {
        "idle": "running SetTimer",
        "running": "running",
        "settling": "settling",
        "inspecting": "inspecting",
        "ending": "ending",
        "dispatching": "dispatching",
        "following": "following",
        "waiting": "waiting",
        "exhausted": "running SetTimer",
        "stopped": "running SetTimer",
    },
    "next answer": {
        "idle": "running SetTimer",
        "running": "running SetTimer",
        "settling": "running SetTimer",
        "inspecting": "running SetTimer",
        "ending": "running hop SetTimer",
        "dispatching": "running hop SetTimer",
        "following": "running SetTimer",
        "waiting": "waiting AbortRun SetTimer",
        "exhausted": ".",
        "stopped": ".",
    },
    "tool part": {
        "idle": ".",
        "running": "running",
        "settling": "running",
        "inspecting": "inspecting",
        "ending": "ending",
        "dispatching": ".",
        "following": ".",
        "waiting": "waiting",
        "exhausted": ".",
        "stopped": ".",
    },
    "token": {
        "idle": ".",
        "running": "running",
        "settling": "running",
        "inspecting": "inspecting",
        "ending": "ending",
        "dispatching": ".",
        "following": ".",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "session error": {
        "idle": ".",
        "running": "ending failure SetTimer",
        "settling": "ending failure SetTimer",
        "inspecting": "ending failure SetTimer",
        "ending": ".",
        "dispatching": "dispatching refused failure DispatchTurn SetTimer",
        "following": ".",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "status retry": {
        "idle": "inspecting InspectSession SetTimer",
        "running": "ending failure AbortRun SetTimer",
        "settling": "ending failure AbortRun SetTimer",
        "inspecting": "ending failure AbortRun SetTimer",
        "ending": ".",
        "dispatching": ".",
        "following": ".",
        "waiting": ".",
        "exhausted": "exhausted AbortRun SetTimer",
        "stopped": ".",
    },
    "status busy": {
        "idle": ".",
        "running": ".",
        "settling": "running",
        "inspecting": ".",
        "ending": ".",
        "dispatching": ".",
        "following": ".",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "status idle": {
        "idle": ".",
        "running": "settling SetTimer",
        "settling": ".",
        "inspecting": ".",
        "ending": "ending",
        "dispatching": ".",
        "following": ".",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "session idle": {
        "idle": ".",
        "running": "settling SetTimer",
        "settling": ".",
        "inspecting": ".",
        "ending": "ending",
        "dispatching": ".",
        "following": ".",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "prompt removed": {
        "idle": "stopped stopped",
        "running": "stopped stopped",
        "settling": "stopped stopped",
        "inspecting": "stopped stopped",
        "ending": "stopped stopped AbortRun SetTimer",
        "dispatching": "stopped stopped AbortRun SetTimer",
        "following": "stopped stopped AbortRun SetTimer",
        "waiting": "stopped stopped AbortRun SetTimer Tell",
        "exhausted": "stopped stopped",
        "stopped": ".",
    },
    "session created": {
        "idle": "idle",
        "running": "running",
        "settling": "settling",
        "inspecting": "inspecting",
        "ending": "ending",
        "dispatching": "dispatching",
        "following": "following",
        "waiting": "waiting",
        "exhausted": "exhausted",
        "stopped": "stopped",
    },
    "session deleted": {
        "idle": "gone",
        "running": "gone",
        "settling": "gone",
        "inspecting": "gone",
        "ending": "gone",
        "dispatching": "gone",
        "following": "gone",
        "waiting": "gone",
        "exhausted": "gone",
        "stopped": "gone",
    },
    "session compacted": {
        "idle": ".",
        "running": ".",
        "settling": ".",
        "inspecting": ".",
        "ending": ".",
        "dispatching": ".",
        "following": ".",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "tool executed": {
        "idle": ".",
        "running": "running",
        "settling": "running",
        "inspecting": "inspecting",
        "ending": ".",
        "dispatching": ".",
        "following": ".",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "prompt routed": {
        "idle": "idle skipped",
        "running": "running skipped",
        "settling": "settling skipped",
        "inspecting": "inspecting skipped",
        "ending": "ending skipped",
        "dispatching": "dispatching skipped",
        "following": "following skipped",
        "waiting": "waiting skipped",
        "exhausted": "exhausted skipped",
        "stopped": "stopped skipped",
    },
    "turn stopped": {
        "idle": "stopped stopped",
        "running": "stopped stopped",
        "settling": "stopped stopped",
        "inspecting": "stopped stopped",
        "ending": "stopped stopped AbortRun SetTimer",
        "dispatching": "stopped stopped AbortRun SetTimer",
        "following": "stopped stopped AbortRun SetTimer",
        "waiting": "stopped stopped AbortRun SetTimer Tell",
        "exhausted": "stopped stopped",
        "stopped": ".",
    },
    "abort returned": {
        "idle": ".",
        "running": ".",
        "settling": ".",
        "inspecting": ".",
        "ending": "ending SetTimer",
        "dispatching": ".",
        "following": ".",
        "waiting": "waiting SetTimer",
        "exhausted": "exhausted",
        "stopped": ".",
    },
    "advance lost": {
        "idle": ".",
        "running": ".",
        "settling": ".",
        "inspecting": ".",
        "ending": "following SetTimer",
        "dispatching": "following SetTimer",
        "following": ".",
        "waiting": "following SetTimer",
        "exhausted": ".",
        "stopped": ".",
    },
    "dispatch returned": {
        "idle": ".",
        "running": ".",
        "settling": ".",
        "inspecting": ".",
        "ending": ".",
        "dispatching": "dispatching",
        "following": ".",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "timer": {
        "idle": ".",
        "running": "running SetTimer",
        "settling": "inspecting InspectSession SetTimer",
        "inspecting": "inspecting InspectSession SetTimer",
        "ending": "ending AbortRun SetTimer",
        "dispatching": "dispatching InspectSession SetTimer",
        "following": "following InspectSession SetTimer",
        "waiting": "waiting AbortRun SetTimer",
        "exhausted": "exhausted AbortRun SetTimer",
        "stopped": ".",
    },
    "inspected": {
        "idle": "idle",
        "running": ".",
        "settling": ".",
        "inspecting": "idle ReportAnswer",
        "ending": ".",
        "dispatching": ".",
        "following": "dispatching DispatchTurn SetTimer",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "parent known": {
        "idle": "idle",
        "running": "running",
        "settling": "settling",
        "inspecting": "inspecting",
        "ending": "ending",
        "dispatching": "dispatching",
        "following": "following",
        "waiting": "waiting",
        "exhausted": "exhausted",
        "stopped": "stopped",
    },
    "parent asks": {
        "idle": "idle Tell",
        "running": "running",
        "settling": "settling",
        "inspecting": "inspecting",
        "ending": "ending",
        "dispatching": "dispatching",
        "following": "following",
        "waiting": "waiting",
        "exhausted": "exhausted Tell",
        "stopped": "stopped Tell",
    },
    "parent settled": {
        "idle": ".",
        "running": ".",
        "settling": ".",
        "inspecting": ".",
        "ending": ".",
        "dispatching": ".",
        "following": ".",
        "waiting": ".",
        "exhausted": ".",
        "stopped": ".",
    },
    "parent stopped": {
        "idle": ".",
        "running": "stopped stopped AbortRun SetTimer",
        "settling": "stopped stopped AbortRun SetTimer",
        "inspecting": "stopped stopped AbortRun SetTimer",
        "ending": "stopped stopped AbortRun SetTimer",
        "dispatching": "stopped stopped AbortRun SetTimer",
        "following": "stopped stopped AbortRun SetTimer",
        "waiting": "stopped stopped AbortRun SetTimer Tell",
        "exhausted": ".",
        "stopped": ".",
    },
    "child failed": {
        "idle": "idle Tell",
        "running": "running Tell",
        "settling": "settling Tell",
        "inspecting": "inspecting",
        "ending": "ending Tell",
        "dispatching": "dispatching Tell",
        "following": "following Tell",
        "waiting": "waiting",
        "exhausted": "exhausted Tell",
        "stopped": "stopped Tell",
    },
    "child ended": {
        "idle": ".",
        "running": ".",
        "settling": ".",
        "inspecting": ".",
        "ending": ".",
        "dispatching": ".",
        "following": ".",
        "waiting": "waiting",
        "exhausted": ".",
        "stopped": ".",
    },
    "result spliced": {
        "idle": ".",
        "running": ".",
        "settling": ".",
        "inspecting": ".",
        "ending": ".",
        "dispatching": ".",
        "following": ".",
        "waiting": "waiting",
        "exhausted": ".",
        "stopped": ".",
    },
}

KINDS = {name: kind_of(event(walked(*RUN)) if callable(event) else event) for name, event in EVENTS.items()}
CELLS = [(name, phase) for name in ROWS for phase in Phase]


def spelled(done):
    phase = "gone" if done.session is None else done.session.phase.value
    asked = [action.notice.value if isinstance(action, Announce) else type(action).__name__ for action in done.actions]
    return " ".join([phase, *asked])


def taken(name, phase):
    session = walked(*PHASES[phase])
    event = EVENTS[name]
    event = event(session) if callable(event) else event
    return session, event, step(session, event, NOW + 0.5, RULES)


def test_the_table_covers_every_kind_of_event_and_every_phase():
    events = set(get_args(Event)) - {MessageUpdated} | {UserMessage, AssistantMessage}

    assert set(TRANSITIONS) == events
    assert set(KINDS.values()) == events
    assert set(KINDS) == set(ROWS)
    assert set(PHASES) == set(Phase)
    assert all(set(row) == {phase.value for phase in Phase} for row in ROWS.values())


@pytest.mark.parametrize("phase", Phase)
def test_each_phase_is_reached_by_real_events(phase):
    session = walked(*PHASES[phase])

    assert session.phase is phase
    assert session.turn is not None
    assert session.state is not None


@pytest.mark.parametrize(("name", "phase"), CELLS)
def test_a_cell(name, phase):
    session, _, done = taken(name, phase)
    expected = ROWS[name][phase.value]
    if expected == ".":
        assert done.session is session
        assert done.actions == ()
        return

    assert spelled(done) == expected


@pytest.mark.parametrize(("name", "phase"), CELLS)
def test_a_cell_without_a_handler_ignores_its_event(name, phase):
    _, event, _ = taken(name, phase)

    assert phase in TRANSITIONS[kind_of(event)] or ROWS[name][phase.value] == "."


@pytest.mark.parametrize("late", [1, 7])
@pytest.mark.parametrize("phase", Phase)
def test_a_timer_that_was_replaced_is_void_in_every_phase(phase, late):
    session = walked(*PHASES[phase])

    done = step(session, TimerElapsed(session_id=SES, timer=session.timer - late), NOW + 500, RULES)

    assert done.session is session
    assert done.actions == ()


@pytest.mark.parametrize(
    "result",
    [
        lambda old: AbortReturned(session_id=SES, generation=old, succeeded=True),
        lambda old: AbortReturned(session_id=SES, generation=old, succeeded=False),
        lambda old: AdvanceLost(session_id=SES, generation=old),
        lambda old: DispatchReturned(session_id=SES, generation=old, outcome="accepted"),
        lambda old: DispatchReturned(session_id=SES, generation=old, outcome="refused"),
    ],
    ids=["abort returned", "abort failed", "advance lost", "dispatch accepted", "dispatch refused"],
)
@pytest.mark.parametrize("phase", Phase)
def test_a_result_of_an_older_generation_is_void_in_every_phase(phase, result):
    session = walked(*PHASES[phase])

    done = step(session, result(session.generation - 1), NOW + 0.5, RULES)

    assert done.session is session
    assert done.actions == ()


@pytest.mark.parametrize("phase", [Phase.STOPPED, Phase.EXHAUSTED])
@pytest.mark.parametrize("name", [name for name in EVENTS if name not in ("new prompt", "session deleted")])
def test_a_stop_and_an_exhaustion_are_left_by_a_new_prompt_alone(phase, name):
    _, _, done = taken(name, phase)

    assert done.session is not None
    assert done.session.phase in (phase, Phase.STOPPED)
    assert "DispatchTurn" not in spelled(done)


# ── A session of which nothing is known yet ──────────────────────────────────────────────────────────────────

FRESH_EVENTS = {
    **{name: EVENTS[name] for name in ("new prompt", "session error", "status retry", "status busy", "status idle")},
    **{name: EVENTS[name] for name in ("session idle", "prompt removed", "turn stopped", "token", "tool part")},
    "answer": answer(),
    "failed answer": died("m1", PRIMARY),
    "aborted": SessionErrored(session_id=SES, facts=Facts(name="MessageAbortedError", message="Aborted")),
    "bad request": SessionErrored(session_id=SES, facts=Facts(status=400, name="APIError", message="no such thing")),
}
FRESH = {
    "new prompt": "running SetTimer",
    "answer": "running SetTimer",
    "failed answer": "inspecting InspectSession SetTimer",
    "session error": "inspecting InspectSession SetTimer",
    "status retry": "inspecting InspectSession SetTimer",
}


@pytest.mark.parametrize("name", FRESH_EVENTS)
def test_a_session_never_heard_of(name):
    session = Session(session_id=SES)

    done = step(session, FRESH_EVENTS[name], NOW, RULES)

    if name in FRESH:
        assert spelled(done) == FRESH[name]
    else:
        assert done.session is session
        assert done.actions == ()
