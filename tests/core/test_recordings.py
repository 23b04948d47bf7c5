"""The 25 recorded runs of the real OpenCode server, replayed through the adapter and the session machine.

The recorded host did not know of us. So each run counts up to our first decision; what it says after that is the
late echo of a run that has failed already, and must not move the chain again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from fallback_plugin.core.actions import (
    AbortRun,
    Announce,
    DispatchTurn,
    InspectSession,
    NoticeType,
    ReportAnswer,
    SetTimer,
    Tell,
)
from fallback_plugin.core.events import (
    AbortReturned,
    AssistantMessage,
    DispatchReturned,
    MessageUpdated,
    SessionIdled,
    SessionStatusChanged,
    TimerElapsed,
)
from fallback_plugin.core.failure import Kind, Scope
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase, Session
from fallback_plugin.core.session import step
from fallback_plugin.hosts.opencode.events import parse_event

FOLDER = Path(__file__).parents[1] / "data" / "recordings"
RECORDINGS = sorted(path.stem for path in FOLDER.glob("*.json"))
CHAIN = ("fake/b", "fake/c")
FIRST_WALL = 1_795_247_200.0
NO_ANSWER = [
    "session.created",
    "session.updated",
    "session.deleted",
    "session.status",
    "session.idle",
    "session.error",
    "session.compacted",
    "message.updated",
    "message.removed",
    "message.part.updated",
    "message.part.delta",
    "message.part.removed",
]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to be decided first, and at which event of the recording.

    `retry`: the host's first retry. `error`: the first session.error. `finished N`: the Nth answer that the host
    closes with a finish reason.
    """

    at: str
    actions: tuple[type, ...]
    phase: Phase
    kind: Kind | None = None
    scope: Scope | None = None
    session: int = 0


def aborts(kind, scope=None, session=0):
    return Decision(
        at="retry", actions=(Announce, AbortRun), phase=Phase.ENDING, kind=kind, scope=scope, session=session
    )


def hops(kind, scope=None):
    return Decision(at="error", actions=(Announce,), phase=Phase.ENDING, kind=kind, scope=scope)


def left(kind):
    return Decision(at="error", actions=(Announce,), phase=Phase.IDLE, kind=kind)


DECISIONS: dict[str, Decision | None] = {
    "compaction-retry": aborts(Kind.RATE_LIMIT),
    "connection-cut": aborts(Kind.NETWORK),
    "content-policy-400": left(Kind.CONTENT_POLICY),
    "context-overflow-400": left(Kind.CONTEXT_OVERFLOW),
    "empty-answer": Decision(at="finished 1", actions=(Announce,), phase=Phase.ENDING, kind=Kind.EMPTY),
    "error-inside-stream": aborts(Kind.RATE_LIMIT),
    "hang-then-abort": Decision(at="error", actions=(Announce,), phase=Phase.STOPPED),
    "html-body-502": aborts(Kind.SERVER_ERROR),
    "insufficient-balance-402": hops(Kind.QUOTA_EXHAUSTED, Scope.PROVIDER),
    "invalid-key-401": hops(Kind.AUTH),
    "model-not-found-404": hops(Kind.MODEL_NOT_FOUND, Scope.MODEL),
    "ok": None,
    "overloaded-529": aborts(Kind.OVERLOADED),
    "prompt-after-error-update-runs": hops(Kind.QUOTA_EXHAUSTED, Scope.PROVIDER),
    "prompt-too-early-is-lost": hops(Kind.QUOTA_EXHAUSTED, Scope.PROVIDER),
    "prompt-while-retrying-is-ignored": aborts(Kind.RATE_LIMIT),
    "rate-limit-429": aborts(Kind.RATE_LIMIT),
    "resume-in-place-after-429": aborts(Kind.RATE_LIMIT),
    "resume-in-place-after-tool": aborts(Kind.RATE_LIMIT),
    "server-error-500": aborts(Kind.SERVER_ERROR),
    "subagent-abort-loses-answer": aborts(Kind.RATE_LIMIT, session=1),
    "subagent-splice": aborts(Kind.RATE_LIMIT, session=1),
    "truncated-stream-loop": Decision(
        at="finished 3", actions=(Announce, AbortRun), phase=Phase.ENDING, kind=Kind.TRUNCATED
    ),
    "unavailable-503-retry-after-1h": aborts(Kind.OVERLOADED),
    "weekly-limit-429-retry-after-1d": aborts(Kind.QUOTA_EXHAUSTED),
}
ADVANCES = [name for name, decision in DECISIONS.items() if decision and decision.phase is Phase.ENDING]
ALONE = [name for name in ADVANCES if name != "compaction-retry"]
"""Recordings in which nobody else goes on: the script of the other one takes the turn back and begins a new one."""


def load(name):
    recording = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return recording["events"]


def wall_of(raw, events):
    """Recordings carry seconds since their start; the host's own clock is in the first session.created."""
    created = next(event for event in events if event["type"] == "session.created")
    start = created["properties"]["info"]["time"]["created"] / 1000 - created["t"]
    return start + raw["t"]


class Replay:
    """Every session of a recording, with what was decided at which event."""

    def __init__(self, name, **policy):
        self.raw = load(name)
        self.rules = Rules(default=Policy(chain=CHAIN, **policy))
        self.sessions: dict[str, Session] = {}
        self.timers: dict[str, SetTimer] = {}
        self.decisions: list[tuple[int, str, tuple]] = []

    def feed(self, number):
        raw = self.raw[number]
        self.fire_timers(number, raw["t"])
        event = parse_event(raw, wall_of(raw, self.raw))
        if event is not None:
            self.apply(number, event, raw["t"])

    def fire_timers(self, number, now):
        for session_id, timer in list(self.timers.items()):
            if timer.at <= now:
                del self.timers[session_id]
                self.apply(number, TimerElapsed(session_id=session_id, timer=timer.timer), timer.at)

    def apply(self, number, event, now):
        before = self.sessions.get(event.session_id) or Session(session_id=event.session_id)
        done = step(before, event, now, self.rules)
        assert done.session is not None
        self.sessions[event.session_id] = done.session
        for action in done.actions:
            if isinstance(action, SetTimer):
                self.timers[action.session_id] = action

        told = tuple(action for action in done.actions if not isinstance(action, SetTimer | ReportAnswer | Tell))
        if told:
            self.decisions.append((number, event.session_id, told))

        for action in done.actions:
            if isinstance(action, Tell):
                self.apply(number, action.event, now)

    def until_decided(self):
        for number in range(len(self.raw)):
            self.feed(number)
            if self.decisions:
                return number

        return len(self.raw)

    def session_ids(self):
        return [event["properties"]["sessionID"] for event in self.raw if event["type"] == "session.created"]


def place_of(at, events, session_id):
    """The index of the recorded event at which the decision is due."""
    own = [(i, event) for i, event in enumerate(events) if event["properties"].get("sessionID") == session_id]
    if at == "retry":
        return next(
            i
            for i, event in own
            if event["type"] == "session.status" and event["properties"]["status"]["type"] == "retry"
        )
    if at == "error":
        return next(i for i, event in own if event["type"] == "session.error")

    nth = int(at.removeprefix("finished "))
    closed = [
        i
        for i, event in own
        if event["type"] == "message.updated"
        and event["properties"]["info"].get("finish")
        and event["properties"]["info"]["time"].get("completed")
    ]
    return closed[nth - 1]


def message_ids(events):
    return {event["properties"]["info"]["id"] for event in events if event["type"] == "message.updated"}


def test_every_recording_is_judged():
    assert set(DECISIONS) == set(RECORDINGS)
    assert len(RECORDINGS) == 25


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_tells_nothing_of_the_machine_it_was_made_on(name):
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")

    assert re.findall(r'(?<![\w<])/(?:home|root|tmp|work|Users|var|opt|mnt)/[^"\s]*', text) == []
    assert re.findall(r"(?i)\bsk-[\w-]{16,}|bearer\s+\w+|authorization", text) == []
    assert set(re.findall(r'"(?:directory|cwd|root|worktree)": ?"([^"]*)"', text)) <= {"/project", "/"}


@pytest.mark.parametrize("name", RECORDINGS)
def test_no_event_of_the_real_host_is_malformed(name):
    events = load(name)
    understood = [event["type"] for event in events if parse_event(event, FIRST_WALL + event["t"]) is not None]

    assert understood
    unheard = {event["type"] for event in events} - set(understood)
    assert unheard.isdisjoint(set(NO_ANSWER) - {"session.updated", "message.part.removed"})


@pytest.mark.parametrize("name", [name for name, decision in DECISIONS.items() if decision])
def test_the_first_decision_is_the_right_one_at_the_right_event(name):
    expected = DECISIONS[name]
    assert expected is not None
    replay = Replay(name)

    replay.until_decided()

    (number, session_id, actions), *more = replay.decisions
    # The parent of a failing child is halted in the same moment.
    assert [[type(action) for action in halted] for _, _, halted in more] == [[AbortRun]] * expected.session
    assert session_id == replay.session_ids()[expected.session]
    assert number == place_of(expected.at, replay.raw, session_id)
    assert tuple(type(action) for action in actions) == expected.actions
    assert replay.sessions[session_id].phase is expected.phase
    notice = actions[0]
    if expected.kind is None:
        assert notice.notice is NoticeType.STOPPED
        return

    assert notice.notice is NoticeType.FAILURE
    assert notice.route == "fake/primary"
    assert notice.failure.kind is expected.kind
    assert expected.scope in (None, notice.failure.scope)
    assert notice.next_route == ("fake/b" if expected.phase is Phase.ENDING else None)


def test_a_turn_that_goes_well_asks_nothing_of_the_host():
    replay = Replay("ok")

    assert replay.until_decided() == len(replay.raw)
    assert replay.sessions[replay.session_ids()[0]].phase is Phase.IDLE


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("unavailable-503-retry-after-1h", 3600), ("weekly-limit-429-retry-after-1d", 86400)],
)
def test_the_hosts_next_try_is_the_providers_retry_after(name, seconds):
    replay = Replay(name)
    number = replay.until_decided()

    failure = replay.decisions[0][2][0].failure

    assert failure.retry_at - replay.raw[number]["t"] == pytest.approx(seconds, abs=5)


def test_a_hosts_own_backoff_says_nothing_of_the_provider():
    replay = Replay("rate-limit-429")
    replay.until_decided()

    assert replay.decisions[0][2][0].failure.retry_at is None


@pytest.mark.parametrize("name", ALONE)
def test_the_rest_of_the_failed_run_is_no_second_failure(name):
    replay = Replay(name)
    decided = replay.until_decided()
    session_id = replay.decisions[0][1]
    generation = replay.sessions[session_id].generation
    replay.timers.clear()

    for number in range(decided + 1, len(replay.raw)):
        raw = replay.raw[number]
        event = parse_event(raw, wall_of(raw, replay.raw))
        if event is not None and event.session_id == session_id:
            replay.apply(number, event, raw["t"])

    session = replay.sessions[session_id]
    failures = [a for _, _, told in replay.decisions for a in told if getattr(a, "notice", None) is NoticeType.FAILURE]
    assert session.generation == generation
    assert session.state is not None
    assert session.state.attempt_count == 1
    assert session.state.current_model == "fake/b"
    assert len(failures) == 1
    own = [told for _, decided_for, told in replay.decisions if decided_for == session_id]
    assert sum(isinstance(a, AbortRun) for told in own for a in told) <= 1
    assert sum(isinstance(a, DispatchTurn) for _, _, told in replay.decisions for a in told) <= 1


def test_a_summary_that_somebody_else_redoes_is_followed_to_its_end():
    replay = Replay("compaction-retry")
    replay.until_decided()
    session_id = replay.decisions[0][1]

    for number, raw in enumerate(replay.raw):
        event = parse_event(raw, wall_of(raw, replay.raw))
        if event is not None and event.session_id == session_id and number > replay.decisions[0][0]:
            replay.apply(number, event, raw["t"])

    taken_back = [i for i, raw in enumerate(replay.raw) if raw["type"] == "message.removed"][-1]
    later = [action for number, _, actions in replay.decisions for action in actions if number > taken_back]
    assert replay.sessions[session_id].phase is Phase.IDLE
    assert not replay.sessions[session_id].compacting
    assert not any(isinstance(action, AbortRun | DispatchTurn) for action in later)


def _hop_over(replay, session_id, now):
    """Answer our own calls until the fallback's first message is there."""
    for _ in count():
        session = replay.sessions[session_id]
        if session.phase is Phase.RUNNING:
            return

        pending = replay.decisions[-1][2][-1]
        if isinstance(pending, AbortRun):
            answer = AbortReturned(session_id=session_id, generation=session.generation, succeeded=True)
        elif isinstance(pending, DispatchTurn):
            answer = DispatchReturned(session_id=session_id, generation=session.generation, outcome="accepted")
        else:
            answer = TimerElapsed(session_id=session_id, timer=session.timer)

        replay.apply(-1, answer, now)
        session = replay.sessions[session_id]
        if session.phase is Phase.ENDING:
            replay.apply(-1, TimerElapsed(session_id=session_id, timer=session.timer), now + 2)
        elif isinstance(pending, DispatchTurn) and session.phase is Phase.DISPATCHING:
            message = AssistantMessage(
                message_id="msg_of_the_fallback", parent_id=session.turn.user.message_id, route="fake/b"
            )
            replay.apply(-1, MessageUpdated(session_id=session_id, message=message), now)


@pytest.mark.parametrize("name", ALONE)
def test_what_an_ended_run_says_later_does_not_touch_the_fallback(name):
    replay = Replay(name)
    decided = replay.until_decided()
    session_id = replay.decisions[0][1]
    known = message_ids(replay.raw[: decided + 1])
    _hop_over(replay, session_id, replay.raw[decided]["t"])
    confirmed = replay.sessions[session_id]
    assert confirmed.attempt.assistant_id == "msg_of_the_fallback"
    told = len(replay.decisions)

    for number in range(decided + 1, len(replay.raw)):
        raw = replay.raw[number]
        event = parse_event(raw, wall_of(raw, replay.raw))
        if event is None or event.session_id != session_id:
            continue

        a_new_run = isinstance(event, MessageUpdated) and event.message.message_id not in known
        if a_new_run or (isinstance(event, SessionStatusChanged) and event.status == "retry"):
            break  # an ended run asks for nothing more: from here on the recorded host goes a way of its own

        replay.apply(number, event, raw["t"] + 2)

    session = replay.sessions[session_id]
    late = [action for _, _, actions in replay.decisions[told:] for action in actions]
    assert [action for action in late if not isinstance(action, InspectSession)] == []
    assert session.phase in (Phase.RUNNING, Phase.SETTLING)
    assert session.generation == confirmed.generation
    assert session.attempt.assistant_id == "msg_of_the_fallback"


def test_the_answer_that_a_loop_begins_while_we_abort_it_goes_with_the_others():
    replay = Replay("truncated-stream-loop")
    decided = replay.until_decided()
    (session_id,) = replay.session_ids()
    generation = replay.sessions[session_id].generation
    known = message_ids(replay.raw[: decided + 1])
    started = next(i for i in range(decided, len(replay.raw)) if message_ids(replay.raw[decided : i + 1]) - known)
    last = next(iter(message_ids(replay.raw[decided : started + 1]) - known))

    for number in range(decided + 1, started + 1):
        replay.feed(number)
    now = replay.raw[started]["t"]
    replay.apply(started, SessionIdled(session_id=session_id), now + 0.05)
    replay.apply(started, AbortReturned(session_id=session_id, generation=generation, succeeded=True), now + 0.06)
    for _ in range(2):
        timer = replay.timers.pop(session_id)
        replay.apply(started, TimerElapsed(session_id=session_id, timer=timer.timer), timer.at)
        dispatches = [a for _, _, told in replay.decisions for a in told if isinstance(a, DispatchTurn)]
        if dispatches:
            break

    (turn,) = dispatches
    answers = [m for m in message_ids(replay.raw[: started + 1]) if m != turn.user_message_id]
    assert {removal.message_id for removal in turn.removals} >= set(answers) - {last}
    assert last in replay.sessions[session_id].turn.retired


@pytest.mark.parametrize("name", [name for name in ADVANCES if DECISIONS[name] and DECISIONS[name].at == "error"])
def test_a_run_that_dies_by_itself_is_over_with_its_message_not_with_its_idle(name):
    """A prompt sent at the first idle is lost without a word (prompt-too-early-is-lost)."""
    replay = Replay(name)

    for number in range(len(replay.raw)):
        replay.feed(number)

    number = next(number for number, _, told in replay.decisions if any(isinstance(a, DispatchTurn) for a in told))
    assert replay.raw[number]["type"] == "message.updated"
    assert replay.raw[number]["properties"]["info"]["error"]["name"] == "APIError"


def test_a_hang_is_ended_by_us_and_the_recorded_abort_is_then_its_echo():
    replay = Replay("hang-then-abort", timeout_seconds=9.9)

    decided = replay.until_decided()

    (_, session_id, actions), *_ = replay.decisions
    assert tuple(type(action) for action in actions) == (Announce, AbortRun)
    assert actions[0].failure.kind is Kind.TIMEOUT
    started = next(event["t"] for event in replay.raw if event["properties"].get("info", {}).get("role") == "assistant")
    assert replay.sessions[session_id].aborted_at == pytest.approx(started + 9.9)

    generation = replay.sessions[session_id].generation
    replay.apply(decided, AbortReturned(session_id=session_id, generation=generation, succeeded=True), 10.06)
    for number in range(decided, len(replay.raw)):
        replay.feed(number)

    dispatches = [a for _, _, told in replay.decisions for a in told if isinstance(a, DispatchTurn)]
    assert [(turn.route, turn.generation) for turn in dispatches] == [("fake/b", generation)]
    assert replay.sessions[session_id].phase is Phase.DISPATCHING


def test_the_recorded_host_answers_a_dispatch_that_waits_for_the_errors_message():
    """prompt-after-error-update-runs: the recorded dispatch came where ours would, and its answer is ours."""
    replay = Replay("prompt-after-error-update-runs")

    for number in range(len(replay.raw)):
        replay.feed(number)

    notices = [action.notice for _, _, told in replay.decisions for action in told if isinstance(action, Announce)]
    dispatches = [
        action.route for _, _, told in replay.decisions for action in told if isinstance(action, DispatchTurn)
    ]
    assert notices == [NoticeType.FAILURE, NoticeType.HOP, NoticeType.RECOVERED]
    assert dispatches == ["fake/b"]
    assert replay.sessions[replay.session_ids()[0]].phase is Phase.IDLE


def test_a_parent_whose_child_fails_is_halted():
    replay = Replay("subagent-splice")

    replay.until_decided()

    parent, child = replay.session_ids()
    assert replay.sessions[parent].phase is Phase.WAITING
    assert [known.child_id for known in replay.sessions[parent].subagents] == [child]
    assert replay.sessions[child].phase is Phase.ENDING
    assert replay.sessions[child].parent_id == parent
    assert replay.sessions[child].hop.parent_awaited
