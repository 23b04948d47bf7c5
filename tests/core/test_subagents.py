"""A family of sessions: what is told, in which order it is halted, carried on and resumed.

`Family` runs the pure machine for several sessions and hands on what they tell each other, as the runtime does.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fallback_plugin.core.actions import AbortRun, Announce, DispatchTurn, InspectSession, SetTimer, SpliceResult, Tell
from fallback_plugin.core.events import (
    AbortReturned,
    AdvanceLost,
    AssistantMessage,
    DispatchReturned,
    InspectedMessage,
    MessageUpdated,
    PartType,
    PartUpdated,
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
from fallback_plugin.core.family_events import ParentKnown, ResultSpliced
from fallback_plugin.core.hop import ABORT_TRIES
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase, Session
from fallback_plugin.core.session import attach, step
from fallback_plugin.core.snapshot import restore_session, snapshot_session
from fallback_plugin.core.subagents import FAILED_MODEL
from fallback_plugin.core.waiting import SPLICE_TRIES

BOSS, KID, TWIN, GRANDKID = "ses_boss", "ses_kid", "ses_twin", "ses_grandkid"
OWN, WORKER, A, B = "one/own", "one/worker", "two/a", "three/b"
CHAIN = Policy(chain=(A, B), min_hop_interval_seconds=0.0)
THROTTLED = Facts(message="Rate limit reached")
QUOTA = Facts(status=402, name="APIError", message="Insufficient balance")
ABORTED = Facts(name="MessageAbortedError", message="Aborted")


class Family:
    """Sessions of one family, and every action that was asked for, in order."""

    def __init__(self, rules=None):
        self.rules = rules or Rules(default=CHAIN)
        self.sessions = {}
        self.asked = []
        self.now = 100.0

    def feed(self, *events):
        for event in events:
            session = self.sessions.get(event.session_id) or Session(session_id=event.session_id)
            self.take(event.session_id, step(session, event, self.now, self.rules))

    def take(self, session_id, done):
        if done.session is None:
            self.sessions.pop(session_id, None)
        else:
            self.sessions[session_id] = done.session

        for action in done.actions:
            if isinstance(action, Tell):
                self.feed(action.event)
            else:
                self.asked.append(action)

    def phase(self, session_id):
        return self.sessions[session_id].phase

    def took(self, kind):
        """The sessions that were asked for an action of a kind since the last look, in order."""
        took = [action.session_id for action in self.asked if isinstance(action, kind)]
        self.asked = [action for action in self.asked if not isinstance(action, kind)]
        return took

    def tick(self, session_id, seconds=0.0):
        """Let a session's timer elapse."""
        self.now += seconds
        self.feed(TimerElapsed(session_id=session_id, timer=self.sessions[session_id].timer))

    # ── what the host does ───────────────────────────────────────────────────────────────────────────────────

    def starts(self, session_id, *, parent=None, route=OWN, agent="build"):
        """A prompt, and the slot of its answer."""
        user = UserMessage(message_id=f"u_{session_id}", created_wall=1.0, agent=agent, route=route)
        if parent is not None:
            self.feed(SessionCreated(session_id=session_id, parent_id=parent))
        self.feed(MessageUpdated(session_id=session_id, message=user))
        self.says(session_id, f"m_{session_id}", route)

    def says(self, session_id, message_id, route, *, to=None, **fields):
        message = AssistantMessage(
            message_id=message_id, parent_id=to or f"u_{session_id}", route=route, agent="build", **fields
        )
        self.feed(MessageUpdated(session_id=session_id, message=message))

    def tool(self, session_id, part_id, status="running", child=None, message=None):
        part = PartUpdated(
            session_id=session_id,
            message_id=message or f"m_{session_id}",
            part_id=part_id,
            part_type=PartType.TOOL,
            tool_status=status,
            child_id=child,
        )
        self.feed(part)

    def delegates(self, parent, child, part_id=None):
        self.tool(parent, part_id or f"t_{child}", child=child)
        self.starts(child, parent=parent, route=WORKER, agent="worker")

    def retries(self, session_id):
        self.feed(SessionStatusChanged(session_id=session_id, status="retry", attempt=1, facts=THROTTLED))

    def aborted(self, session_id):
        """Our abort does its work: the message is closed, the session idle, the call comes back."""
        message = self.sessions[session_id].attempt.assistant_id
        route = self.sessions[session_id].attempt.route
        self.says(session_id, message, route, completed=True)
        self.feed(SessionIdled(session_id=session_id))
        generation = self.sessions[session_id].generation
        self.feed(AbortReturned(session_id=session_id, generation=generation, succeeded=True))

    def answers(self, session_id, message_id="m_new", route=None, *, to=None):
        route = route or self.sessions[session_id].state.current_model
        self.says(session_id, message_id, route, to=to)
        text = {"message_id": message_id, "part_id": f"p_{message_id}", "part_type": PartType.TEXT}
        self.feed(PartUpdated(session_id=session_id, has_content=True, **text))
        self.says(session_id, message_id, route, to=to, finish="stop", completed=True)

    def spliced(self, parent, child, outcome="done"):
        self.feed(ResultSpliced(session_id=parent, child_id=child, outcome=outcome))


@pytest.fixture
def family():
    """A parent whose only tool is a child at work."""
    family = Family()
    family.starts(BOSS)
    family.delegates(BOSS, KID)
    return family


def halted(family):
    """The child has failed, the parent is halted, and the child is on its next model."""
    family.retries(KID)
    family.aborted(BOSS)
    family.aborted(KID)
    family.says(KID, "m2", A)
    family.asked.clear()
    return family


def test_a_failing_child_halts_a_parent_that_does_nothing_else(family):
    family.retries(KID)

    assert family.took(AbortRun) == [KID, BOSS]
    assert family.phase(BOSS) is Phase.WAITING
    assert family.phase(KID) is Phase.ENDING


def test_the_child_waits_for_the_parent_to_settle(family):
    family.retries(KID)
    family.aborted(KID)
    assert family.took(DispatchTurn) == []

    family.aborted(BOSS)
    assert family.took(DispatchTurn) == [KID]


def test_the_child_waits_no_longer_than_it_must(family):
    family.retries(KID)
    family.aborted(KID)
    family.tick(KID, 4.0)

    assert family.took(DispatchTurn) == [KID]


def test_a_parent_that_asks_on_while_its_abort_is_under_way_is_aborted_again(family):
    family.retries(KID)
    family.aborted(KID)
    family.says(BOSS, f"m_{BOSS}", OWN, finish="tool-calls", completed=True)
    family.says(BOSS, "m_slot", OWN)
    family.says(BOSS, "m_slot", OWN)
    assert family.took(AbortRun) == [KID, BOSS, BOSS]

    family.says(BOSS, "m_more", OWN)
    family.says(BOSS, "m_yet_more", OWN)
    assert family.took(AbortRun) == [BOSS] * (ABORT_TRIES - 2)


def test_the_last_events_of_an_abort_that_was_called_twice_are_not_the_users(family):
    """A busy host needs seconds: the parent's tools end, it asks once more, and the second call overtakes the first."""
    family.retries(KID)
    family.aborted(KID)
    family.says(BOSS, f"m_{BOSS}", OWN, finish="tool-calls", completed=True)
    family.says(BOSS, "m_slot", OWN)
    assert family.took(AbortRun) == [KID, BOSS, BOSS]

    boss = family.sessions[BOSS]
    returned = AbortReturned(session_id=BOSS, generation=boss.generation, succeeded=True)
    family.feed(SessionIdled(session_id=BOSS), returned)
    assert family.took(DispatchTurn) == []

    family.now += 0.6
    family.says(BOSS, "m_slot", OWN, completed=True, error=ABORTED)
    family.feed(SessionIdled(session_id=BOSS))
    assert family.took(DispatchTurn) == [KID]

    family.now += 0.5
    family.feed(SessionIdled(session_id=BOSS), returned, SessionIdled(session_id=BOSS))
    assert family.phase(BOSS) is Phase.WAITING

    family.now += 0.5
    family.feed(SessionIdled(session_id=BOSS))
    assert family.phase(BOSS) is Phase.STOPPED


def test_the_order_of_the_two_aborts_does_not_matter(family):
    family.retries(KID)
    family.aborted(BOSS)
    assert family.took(DispatchTurn) == []

    family.aborted(KID)
    assert family.took(DispatchTurn) == [KID]


def test_the_answer_is_spliced_and_the_parent_resumed_on_its_own_model(family):
    halted(family)
    family.answers(KID, "m2")
    [splice] = [action for action in family.asked if isinstance(action, SpliceResult)]
    assert (splice.session_id, splice.child_id, splice.part_id, splice.reason) == (BOSS, KID, f"t_{KID}", "")
    assert family.took(DispatchTurn) == []

    family.spliced(BOSS, KID)
    [resumed] = [action for action in family.asked if isinstance(action, DispatchTurn)]
    assert (resumed.session_id, resumed.route, resumed.user_message_id) == (BOSS, OWN, f"u_{BOSS}")


def test_the_resumed_parent_has_not_failed(family):
    halted(family)
    family.answers(KID, "m2")
    family.spliced(BOSS, KID)
    family.feed(DispatchReturned(session_id=BOSS, generation=family.sessions[BOSS].generation, outcome="accepted"))
    family.answers(BOSS, "m3", OWN)

    boss = family.sessions[BOSS]
    assert boss.phase is Phase.IDLE
    assert (boss.state.failed_models, boss.state.attempt_count, boss.state.tried) == ({}, 0, frozenset())
    assert boss.subagents == ()
    assert [action for action in family.asked if isinstance(action, Announce) and action.session_id == BOSS] == []


def test_what_the_parent_began_to_say_on_a_wrong_result_is_removed(family):
    family.retries(KID)
    family.says(BOSS, "m_slot", OWN)
    family.aborted(BOSS)
    family.aborted(KID)
    family.answers(KID, "m2", A)
    family.spliced(BOSS, KID)

    [_, resumed] = [action for action in family.asked if isinstance(action, DispatchTurn)]
    assert [(removal.message_id, removal.part_id) for removal in resumed.removals] == [("m_slot", None)]


def test_other_tools_are_not_disturbed_and_an_answer_in_time_needs_no_halt(family):
    family.tool(BOSS, "t_bash")
    family.retries(KID)
    assert family.took(AbortRun) == [KID]

    family.tool(BOSS, f"t_{KID}", "error", child=KID)
    family.aborted(KID)
    assert family.took(DispatchTurn) == [KID]

    family.answers(KID, "m2", A)
    assert family.took(SpliceResult) == [BOSS]
    family.spliced(BOSS, KID)
    family.tool(BOSS, "t_bash", "completed")
    assert family.phase(BOSS) is Phase.RUNNING
    assert family.took(AbortRun) == []


def test_the_child_waits_for_its_own_tool_to_be_over_beside_others(family):
    family.tool(BOSS, "t_bash")
    family.retries(KID)
    family.aborted(KID)
    assert family.took(DispatchTurn) == []

    family.tool(BOSS, f"t_{KID}", "error", child=KID)
    assert family.took(DispatchTurn) == [KID]


def test_others_that_finish_first_halt_the_parent(family):
    family.tool(BOSS, "t_bash")
    family.retries(KID)
    family.tool(BOSS, f"t_{KID}", "error", child=KID)
    family.aborted(KID)
    family.says(KID, "m2", A)
    family.took(AbortRun)

    family.tool(BOSS, "t_bash", "completed")
    assert family.took(AbortRun) == [BOSS]
    assert family.phase(BOSS) is Phase.WAITING


def test_two_children_that_fail_are_both_awaited(family):
    family.delegates(BOSS, TWIN)
    family.retries(KID)
    family.retries(TWIN)
    assert family.took(AbortRun) == [KID, TWIN, BOSS]
    for session_id in (BOSS, KID, TWIN):
        family.aborted(session_id)
    assert sorted(family.took(DispatchTurn)) == [KID, TWIN]

    family.answers(KID, "m2", A)
    family.spliced(BOSS, KID)
    assert family.took(DispatchTurn) == []

    family.answers(TWIN, "m3", A)
    family.spliced(BOSS, TWIN)
    assert family.took(DispatchTurn) == [BOSS]


def test_a_family_settles_from_the_top_down(family):
    family.delegates(KID, GRANDKID)
    family.retries(GRANDKID)
    assert family.took(AbortRun) == [GRANDKID, KID, BOSS]

    family.aborted(GRANDKID)
    family.aborted(KID)
    assert family.took(DispatchTurn) == []

    family.aborted(BOSS)
    assert family.took(DispatchTurn) == [GRANDKID]


def test_a_family_is_answered_from_the_bottom_up(family):
    family.delegates(KID, GRANDKID)
    family.retries(GRANDKID)
    for session_id in (BOSS, KID, GRANDKID):
        family.aborted(session_id)
    family.answers(GRANDKID, "m2", A)
    assert family.took(SpliceResult) == [KID]

    family.spliced(KID, GRANDKID)
    family.answers(KID, "m3", WORKER)
    assert family.took(SpliceResult) == [BOSS]

    family.spliced(BOSS, KID)
    assert family.took(DispatchTurn) == [GRANDKID, KID, BOSS]


def test_an_exhausted_chain_is_told_in_one_sentence(family):
    halted(family)
    family.feed(SessionErrored(session_id=KID, facts=QUOTA))
    family.says(KID, "m2", A, completed=True, error=QUOTA)
    family.says(KID, "m3", B)
    family.says(KID, "m3", B, completed=True, error=QUOTA)

    [splice] = [action for action in family.asked if isinstance(action, SpliceResult)]
    assert splice.reason.endswith(
        f"every model has failed: {WORKER}: rate limit; {A}: quota exhausted; {B}: quota exhausted"
    )


def test_a_chain_without_a_next_model_halts_the_parent_too():
    family = Family(Rules(default=Policy(chain=(A,), max_fallback_attempts=0)))
    family.starts(BOSS)
    family.delegates(BOSS, KID)
    family.retries(KID)
    assert family.phase(KID) is Phase.EXHAUSTED
    assert family.phase(BOSS) is Phase.WAITING

    family.aborted(BOSS)
    assert family.took(SpliceResult) == [BOSS]


def test_a_child_that_answers_without_a_failure_changes_nothing(family):
    family.answers(KID, f"m_{KID}", WORKER)
    family.tool(BOSS, f"t_{KID}", "completed", child=KID)

    assert family.phase(BOSS) is Phase.RUNNING
    assert family.took(AbortRun) == family.took(SpliceResult) == []


def test_a_prompt_to_a_child_that_has_answered_is_its_own_affair(family):
    family.answers(KID, f"m_{KID}", WORKER)
    family.tool(BOSS, f"t_{KID}", "completed", child=KID)
    later = UserMessage(message_id="u2", created_wall=2.0, agent="worker", route=WORKER)
    family.feed(MessageUpdated(session_id=KID, message=later))
    family.says(KID, "m5", WORKER, to="u2")
    family.retries(KID)
    family.aborted(KID)

    assert family.phase(BOSS) is Phase.RUNNING
    assert family.took(DispatchTurn) == [KID]


# ── the user ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_idle_of_a_waiting_parent_is_the_users_stop(family):
    halted(family)
    family.now += 1.0
    family.feed(SessionIdled(session_id=BOSS))

    assert family.phase(BOSS) is family.phase(KID) is Phase.STOPPED
    assert family.took(AbortRun) == [KID]
    assert family.took(DispatchTurn) == []


def test_an_echo_of_our_own_abort_is_no_stop(family):
    halted(family)
    family.feed(SessionIdled(session_id=BOSS))

    assert family.phase(BOSS) is Phase.WAITING


def test_a_stop_while_others_run_ends_the_child_that_no_tool_holds(family):
    family.tool(BOSS, "t_bash")
    family.retries(KID)
    family.tool(BOSS, f"t_{KID}", "error", child=KID)
    family.aborted(KID)
    family.says(KID, "m2", A)
    family.asked.clear()
    family.says(BOSS, f"m_{BOSS}", OWN, completed=True, error=ABORTED)

    assert family.phase(BOSS) is family.phase(KID) is Phase.STOPPED
    assert family.took(AbortRun) == [KID]


def test_a_stop_at_the_top_reaches_everybody(family):
    family.delegates(KID, GRANDKID)
    family.retries(GRANDKID)
    for session_id in (BOSS, KID, GRANDKID):
        family.aborted(session_id)
    family.says(GRANDKID, "m2", A)
    family.asked.clear()
    family.feed(TurnStopped(session_id=BOSS))

    assert {family.phase(session_id) for session_id in (BOSS, KID, GRANDKID)} == {Phase.STOPPED}
    assert GRANDKID in family.took(AbortRun)


def test_a_child_that_fails_after_the_stop_of_its_parent_is_stopped(family):
    family.says(BOSS, f"m_{BOSS}", OWN, completed=True, error=ABORTED)
    family.retries(KID)

    assert family.phase(KID) is Phase.STOPPED
    assert family.took(DispatchTurn) == []


def test_a_child_that_the_user_stops_lets_its_parent_go_on(family):
    halted(family)
    family.feed(TurnStopped(session_id=KID))

    [splice] = [action for action in family.asked if isinstance(action, SpliceResult)]
    assert splice.reason == "Task cancelled"


def test_a_child_that_is_deleted_lets_its_parent_go_on(family):
    halted(family)
    family.feed(SessionDeleted(session_id=KID))

    assert family.took(SpliceResult) == [BOSS]


def test_a_prompt_to_a_waiting_parent_waits_with_it(family):
    halted(family)
    newer = UserMessage(message_id="u2", created_wall=2.0, agent="build", route=OWN)
    family.feed(MessageUpdated(session_id=BOSS, message=newer))
    family.says(BOSS, "m_u2", OWN, to="u2")
    assert family.took(AbortRun) == [BOSS]

    family.aborted(BOSS)
    family.answers(KID, "m2")
    family.spliced(BOSS, KID)
    [resumed] = [action for action in family.asked if isinstance(action, DispatchTurn)]
    assert resumed.user_message_id == "u2"
    assert [removal.message_id for removal in resumed.removals] == ["m_u2"]


# ── chains ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("top", ["build", "plan"])
def test_a_child_without_a_chain_inherits_the_nearest_one(top):
    policies = {"build": Policy(chain=(A,), timeout_seconds=7.0), "worker": Policy(timeout_seconds=3.0)}
    rules = Rules(default=Policy(chain=(B,)), agents=policies)

    inherited = rules.policy("worker", ("nobody", top))
    assert inherited.chain == ((A,) if top == "build" else ())
    assert inherited.timeout_seconds == 3.0
    assert rules.policy("build", ("plan",)).chain == (A,)
    assert rules.policy("nobody", ("build",)).chain == (A,)
    assert rules.policy("nobody", ("nobody else",)).chain == (B,)


def test_an_inherited_chain_ends_with_the_model_that_it_stands_in_for():
    rules = Rules(agents={"build": Policy(primary=OWN, chain=(OWN, A, B)), "worker": Policy(primary=WORKER)})

    assert rules.policy("worker", ("build",)).chain == (A, B, OWN)
    assert rules.policy("worker", ("build",)).primary == WORKER
    assert rules.policy("build").chain == (OWN, A, B)


def test_the_lineage_reaches_a_grandchild(family):
    family.delegates(KID, GRANDKID)

    assert family.sessions[KID].lineage == ("build",)
    assert family.sessions[GRANDKID].lineage == ("worker", "build")


# ── every wait has an end ────────────────────────────────────────────────────────────────────────────────────────


def test_a_waiting_parent_asks_a_child_that_nothing_is_known_of(family):
    halted(family)
    del family.sessions[KID]
    family.tick(BOSS, 60.0)

    assert family.took(InspectSession) == [KID]
    last = AssistantMessage(message_id="m2", parent_id="u", route=A, finish="stop", completed=True)
    picture = SessionInspected(
        session_id=KID,
        status=SessionStatusChanged(session_id=KID, status="idle"),
        user=UserMessage(message_id="u", created_wall=1.0, agent="worker", route=A),
        assistants=(InspectedMessage(message=last, has_text=True),),
    )
    family.feed(picture)
    assert family.took(SpliceResult) == [BOSS]


def test_a_picture_that_was_taken_while_the_child_ended_is_taken_again(family):
    halted(family)
    del family.sessions[KID]
    family.tick(BOSS, 60.0)
    last = AssistantMessage(message_id="m2", parent_id="u", route=A, finish="stop", completed=True)
    user = UserMessage(message_id="u", created_wall=1.0, agent="worker", route=A)
    for status, asked in (("busy", [KID, KID]), ("idle", [])):
        picture = SessionInspected(
            session_id=KID,
            status=SessionStatusChanged(session_id=KID, status=status),
            user=user,
            assistants=(InspectedMessage(message=last, has_text=True),),
        )
        family.feed(picture)
        family.tick(KID, 1.0)
        assert family.took(InspectSession) == asked

    assert family.took(SpliceResult) == [BOSS]


def test_a_waiting_parent_leaves_a_child_at_work_alone(family):
    halted(family)
    family.tick(BOSS, 60.0)

    assert family.took(InspectSession) == family.took(SpliceResult) == []
    assert family.phase(BOSS) is Phase.WAITING


def test_an_answer_that_was_not_heard_of_is_asked_for(family):
    halted(family)
    family.answers(KID, "m2")
    family.sessions[BOSS] = restore_session(json.loads(json.dumps(snapshot_session(family.sessions[BOSS]))))
    family.take(BOSS, attach(family.sessions[BOSS], family.now))
    family.asked.clear()
    family.tick(BOSS)
    assert family.took(AbortRun) == [BOSS]

    family.aborted(BOSS)
    family.tick(BOSS, 60.0)
    assert family.took(SpliceResult) == [BOSS]


@pytest.mark.parametrize("outcome", ["unfinished", "unavailable"])
def test_an_answer_that_can_not_be_spliced_does_not_hold_the_parent_for_ever(family, outcome):
    halted(family)
    family.answers(KID, "m2")
    for _ in range(SPLICE_TRIES):
        family.spliced(BOSS, KID, outcome)
        family.tick(BOSS, 20.0)

    assert family.took(SpliceResult) == [BOSS] * SPLICE_TRIES
    assert family.took(DispatchTurn) == [BOSS]


def test_a_parent_whose_aborts_fail_is_settled_all_the_same(family):
    family.retries(KID)
    for _ in range(4):
        generation = family.sessions[BOSS].generation
        family.feed(AbortReturned(session_id=BOSS, generation=generation, succeeded=False))
        family.tick(BOSS, 3.0)

    assert family.took(AbortRun) == [KID, BOSS, BOSS, BOSS]
    assert not family.sessions[KID].hop.parent_awaited


# ── the claim of a halt ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_halt_is_claimed_under_a_name_of_its_own(family):
    family.retries(KID)
    plan = family.sessions[BOSS].hop.plan

    assert plan.failed_model == f"{FAILED_MODEL} t_{KID}"
    assert plan.new_model == OWN


def test_a_waiting_parent_outlives_its_process(family):
    halted(family)
    boss = family.sessions[BOSS]
    restored = restore_session(json.loads(json.dumps(snapshot_session(boss))))

    assert restored.phase is Phase.WAITING
    assert [(known.child_id, known.failed) for known in restored.subagents] == [(KID, True)]
    assert (restored.hop.plan, restored.hop.resumes) == (boss.hop.plan, True)


def test_a_halt_that_another_process_has_claimed_is_only_watched(family):
    halted(family)
    generation = family.sessions[BOSS].generation
    family.feed(AdvanceLost(session_id=BOSS, generation=generation))
    assert family.phase(BOSS) is Phase.FOLLOWING

    family.tick(BOSS, 10.0)
    assert family.phase(BOSS) is Phase.WAITING
    assert family.took(DispatchTurn) == []


# ── late ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_family_that_was_at_work_before_us_is_known_from_its_history():
    family = Family()
    call = AssistantMessage(message_id="m1", parent_id="u1", route=OWN, agent="build")
    family.take(BOSS, attach(Session(session_id=BOSS), family.now))
    family.take(KID, attach(Session(session_id=KID), family.now))
    asleep = AssistantMessage(message_id="m2", parent_id="u2", route=WORKER, agent="worker")
    retrying = SessionStatusChanged(session_id=KID, status="retry", attempt=2, facts=THROTTLED)
    child = SessionInspected(
        session_id=KID,
        status=retrying,
        user=UserMessage(message_id="u2", created_wall=1.0, agent="worker", route=WORKER),
        assistants=(InspectedMessage(message=asleep),),
        parent_id=BOSS,
    )
    parent = SessionInspected(
        session_id=BOSS,
        status=SessionStatusChanged(session_id=BOSS, status="busy"),
        user=UserMessage(message_id="u1", created_wall=1.0, agent="build", route=OWN),
        assistants=(InspectedMessage(message=call, running_tools=frozenset({"t1"}), children=((KID, "t1"),)),),
    )
    family.feed(child, parent)

    assert family.took(AbortRun) == [KID, BOSS]
    assert family.phase(BOSS) is Phase.WAITING


def test_a_stranger_that_names_this_session_its_parent_is_let_go():
    family = Family()
    family.starts(BOSS)
    family.starts(KID, parent=BOSS, route=WORKER)
    family.retries(KID)
    family.aborted(KID)

    assert family.took(AbortRun) == [KID]
    assert family.took(DispatchTurn) == [KID]


# ── any order ────────────────────────────────────────────────────────────────────────────────────────────────────


def host_events(family):
    """What the host and our own calls may say at any moment, true or not."""
    sessions = st.sampled_from([BOSS, KID, GRANDKID])
    flags = st.booleans()

    def generation(session_id):
        return family.sessions[session_id].generation if session_id in family.sessions else 0

    return st.one_of(
        sessions.map(lambda s: SessionIdled(session_id=s)),
        sessions.map(lambda s: SessionStatusChanged(session_id=s, status="retry", attempt=1, facts=THROTTLED)),
        sessions.map(lambda s: SessionErrored(session_id=s, facts=QUOTA)),
        sessions.map(lambda s: SessionErrored(session_id=s, facts=ABORTED)),
        st.tuples(sessions, flags).map(
            lambda it: AbortReturned(session_id=it[0], generation=generation(it[0]), succeeded=it[1])
        ),
        st.tuples(sessions, st.sampled_from(["accepted", "refused", "unavailable"])).map(
            lambda it: DispatchReturned(session_id=it[0], generation=generation(it[0]), outcome=it[1])
        ),
        sessions.map(
            lambda s: TimerElapsed(session_id=s, timer=family.sessions[s].timer if s in family.sessions else 0)
        ),
        sessions.map(lambda s: AdvanceLost(session_id=s, generation=generation(s))),
        st.tuples(st.sampled_from([(BOSS, KID), (KID, GRANDKID)]), st.sampled_from(["done", "unavailable"])).map(
            lambda it: ResultSpliced(session_id=it[0][0], child_id=it[0][1], outcome=it[1])
        ),
        st.tuples(sessions, st.sampled_from([OWN, WORKER, A, B]), st.integers(1, 9), flags, flags).map(
            lambda it: MessageUpdated(
                session_id=it[0],
                message=AssistantMessage(
                    message_id=f"n{it[2]}",
                    parent_id=f"u_{it[0]}",
                    route=it[1],
                    completed=it[3],
                    finish="stop" if it[3] and it[4] else None,
                ),
            )
        ),
        sessions.map(
            lambda s: ParentKnown(session_id=s, parent_id=BOSS, asks=True) if s != BOSS else SessionIdled(session_id=s)
        ),
    )


# A family is a long story to draw; a busy machine must not count that as slow.
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_happens_a_stop_is_final_and_a_waiting_session_has_a_timer(data):
    family = Family()
    family.starts(BOSS)
    family.delegates(BOSS, KID)
    family.delegates(KID, GRANDKID)
    for _ in range(data.draw(st.integers(0, 25))):
        family.feed(data.draw(host_events(family)))
        for session in family.sessions.values():
            if session.phase is Phase.WAITING:
                assert session.hop is not None
                assert session.hop.resumes
                armed = [a for a in family.asked if isinstance(a, SetTimer) and a.session_id == session.session_id]
                assert armed[-1].timer == session.timer

    family.feed(TurnStopped(session_id=BOSS))
    family.asked.clear()
    for _ in range(data.draw(st.integers(0, 15))):
        event = data.draw(host_events(family))
        family.feed(event)

    assert BOSS not in family.took(DispatchTurn)
    assert family.phase(BOSS) is Phase.STOPPED
