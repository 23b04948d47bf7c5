"""A compaction is a turn, and in what it is not like one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fallback_plugin.core.actions import (
    AbortRun,
    Announce,
    DiscardMessages,
    DispatchTurn,
    NoticeType,
    Removal,
    SetTimer,
)
from fallback_plugin.core.compaction import OVERRULED
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
    SessionErrored,
    SessionIdled,
    SessionInspected,
    SessionStatusChanged,
    TimerElapsed,
    UserMessage,
)
from fallback_plugin.core.failure import Facts, Kind
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase, Session
from fallback_plugin.core.session import attach, step
from fallback_plugin.core.snapshot import restore_session, snapshot_session

SES = "ses_1"
PRIMARY, A, B = "one/primary", "two/a", "three/b"
QUOTA = Facts(status=402, name="APIError", message="Insufficient balance")
OVERFLOW = Facts(name="ContextOverflowError", message="This model's maximum context length is 8192 tokens.")
ABORTED = Facts(name="MessageAbortedError", message="Aborted")
IDLED = SessionIdled(session_id=SES)
RETRY = SessionStatusChanged(
    session_id=SES, status="retry", attempt=1, facts=Facts(message="Rate limit reached", observed_at_wall=1.0)
)
POLICY = Policy(chain=(A, B), min_hop_interval_seconds=0.0)
RULES = Rules(default=POLICY)
START = 1000.0


def user(message_id="u1", at=1.0, route=PRIMARY):
    message = UserMessage(message_id=message_id, created_wall=at, agent="build", route=route)
    return MessageUpdated(session_id=SES, message=message)


def request(message_id="uc"):
    """The part that makes a user message a request for a summary."""
    return PartUpdated(session_id=SES, message_id=message_id, part_id="pc", part_type=PartType.COMPACTION)


def answer(message_id="m1", route=PRIMARY, parent="u1", **fields):
    message = AssistantMessage(message_id=message_id, parent_id=parent, route=route, agent="build", **fields)
    return MessageUpdated(session_id=SES, message=message)


def summary(message_id="mc", route=PRIMARY, parent="uc", **fields):
    return answer(message_id, route, parent, compaction=True, **fields)


def token(message_id):
    return PartDeltaReceived(session_id=SES, message_id=message_id, part_id="p1")


class Play:
    """A session with one answered turn in which a compaction has begun."""

    def __init__(self, rules=RULES, *, asked=PRIMARY, writes=PRIMARY):
        self.rules = rules
        self.session = Session(session_id=SES)
        self.now = START
        self.asked = []
        self.feed(user(), answer(), token("m1"), answer(finish="stop", completed=True))
        self.asked.clear()
        self.feed(user("uc", 2.0, asked), request(), summary(route=writes))

    def feed(self, *events, after=0.0):
        self.now += after
        for event in events:
            self.take(step(self.session, event, self.now, self.rules))
        return self

    def take(self, done):
        assert done.session is not None
        self.session = done.session
        self.asked += done.actions

    def elapse(self):
        timer = self.of(SetTimer)[-1]
        self.now = max(self.now, timer.at)
        return self.feed(TimerElapsed(session_id=SES, timer=timer.timer))

    def hop(self, *said):
        """The failed run is aborted and over."""
        self.feed(*said)
        returned = AbortReturned(session_id=SES, generation=self.session.generation, succeeded=True)
        return self.feed(IDLED, returned)

    def accepted(self):
        return self.feed(
            DispatchReturned(session_id=SES, generation=self.session.generation, outcome="accepted"),
        )

    def of(self, kind):
        return [action for action in self.asked if isinstance(action, kind)]

    @property
    def dispatches(self):
        return self.of(DispatchTurn)

    @property
    def notices(self):
        return [notice.notice for notice in self.of(Announce)]


def died(message_id="mc", route=PRIMARY, facts=QUOTA, **fields):
    return summary(message_id, route, completed=True, error=facts, **fields)


def test_a_summary_that_goes_well_asks_nothing_of_the_host_and_leaves_no_timer_alive():
    play = Play().feed(token("mc"), summary(finish="stop", completed=True), SessionCompacted(session_id=SES), IDLED)

    assert play.session.phase is Phase.IDLE
    assert not play.session.compacting
    play.elapse()
    assert play.of(AbortRun) == []
    assert play.dispatches == []


FAILURES = {
    "retry": (RETRY,),
    "error": (SessionErrored(session_id=SES, facts=QUOTA), IDLED, died()),
    "error without an event of its own": (died(),),
    "overflow": (SessionErrored(session_id=SES, facts=OVERFLOW), died(facts=OVERFLOW, finish="error"), IDLED),
    "truncated": (token("mc"), summary(finish="unknown", completed=True), SessionCompacted(session_id=SES)),
}


@pytest.mark.parametrize("said", FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_summary_is_resumed_in_place_and_its_message_goes(said):
    play = Play().hop(*said)
    if play.session.phase is Phase.ENDING:
        play.elapse()

    [sent] = play.dispatches
    assert (sent.user_message_id, sent.route, sent.agent) == ("uc", A, "build")
    assert sent.removals == (Removal(message_id="mc"),)

    play.accepted().feed(summary("mc2", A), token("mc2"), summary("mc2", A, finish="stop", completed=True), IDLED)
    assert play.session.phase is Phase.IDLE
    assert play.notices == [NoticeType.FAILURE, NoticeType.HOP, NoticeType.RECOVERED]


def test_silence_is_a_failure_as_in_any_turn():
    play = Play().elapse()

    assert [notice.failure.kind for notice in play.of(Announce)] == [Kind.TIMEOUT]
    assert play.session.phase is Phase.ENDING


def test_what_the_host_says_while_it_loops_behind_half_a_summary_goes_too():
    play = Play().feed(token("mc"), summary(finish="unknown", completed=True), answer("m3", parent="uc"))
    play.hop(answer("m3", parent="uc", completed=True, error=ABORTED)).elapse()

    [sent] = play.dispatches
    assert sent.removals == (Removal(message_id="mc"), Removal(message_id="m3"))


def test_an_overflow_of_a_users_turn_stays_with_the_host():
    play = Play().feed(user("u3", 3.0), answer("m3", parent="u3"))
    play.feed(SessionErrored(session_id=SES, facts=OVERFLOW))

    assert play.session.phase is Phase.IDLE
    assert play.dispatches == []


def test_the_host_goes_on_with_the_users_turn_by_itself():
    play = Play().hop(RETRY).accepted().feed(summary("mc2", A), token("mc2"))
    play.feed(summary("mc2", A, finish="stop", completed=True), user("u4", 4.0), SessionCompacted(session_id=SES))
    play.feed(answer("m4", parent="u4"), user("uc", 2.5, A), token("m4"))

    assert play.session.turn.user.message_id == "u4"
    assert not play.session.compacting
    assert len(play.dispatches) == 1
    assert len(play.of(AbortRun)) == 1


@pytest.mark.parametrize(
    ("own", "routes"),
    [(None, [A]), (Policy(chain=(B,)), [B]), (Policy(chain=()), [A]), (Policy(enabled=False), [])],
    ids=["none", "a chain of its own", "no chain", "switched off"],
)
def test_the_chain_is_the_compaction_agents_if_it_has_one(own, routes):
    rules = replace(RULES, agents={"compaction": own} if own else {})
    play = Play(rules).hop(died())

    assert [sent.route for sent in play.dispatches] == routes


def exhausted(ending=RETRY):
    play = Play().hop(RETRY).accepted().feed(summary("mc2", A))
    play.feed(died("mc2", A)).accepted().feed(summary("mc3", B))
    return play.feed(ending if ending is RETRY else died("mc3", B))


@pytest.mark.parametrize("ending", [RETRY, None], ids=["retried", "terminal"])
def test_an_exhausted_chain_is_said_once_and_the_request_cleared_away(ending):
    play = exhausted(ending)

    assert play.session.phase is Phase.EXHAUSTED
    assert play.notices.count(NoticeType.EXHAUSTED) == 1
    [discarded] = play.of(DiscardMessages)
    assert discarded.removals == (Removal(message_id="mc3"), Removal(message_id="uc"))
    assert len(play.of(AbortRun)) == (2 if ending is RETRY else 1)

    play.feed(MessageRemoved(session_id=SES, message_id="mc3"), MessageRemoved(session_id=SES, message_id="uc"), IDLED)
    assert play.session.phase is Phase.EXHAUSTED
    assert NoticeType.STOPPED not in play.notices

    play.feed(user("u5", 5.0), answer("m5", parent="u5"))
    assert play.session.phase is Phase.RUNNING
    assert not play.session.compacting


@pytest.mark.parametrize(
    ("late", "removals"),
    [
        (summary("mc3", B), []),
        (summary("mc3", B, completed=True), [Removal(message_id="mc3")]),
        (summary("mc3", B, error=ABORTED), [Removal(message_id="mc3")]),
        (answer("m1", completed=True), []),
    ],
    ids=["not at its end", "ended", "aborted", "of another turn"],
)
def test_a_summary_whose_run_ends_after_it_was_cleared_away_is_cleared_away_again(late, removals):
    play = exhausted()
    before = len(play.of(DiscardMessages))
    play.feed(MessageRemoved(session_id=SES, message_id="mc3"), late)

    assert [removal for action in play.of(DiscardMessages)[before:] for removal in action.removals] == removals
    assert play.session.phase is Phase.EXHAUSTED


def test_the_last_words_of_an_exhausted_turn_are_left_alone():
    play = Play().feed(user("u3", 3.0, route=B), summary("m3", B, parent="u3"))
    play.rules = Rules(default=replace(POLICY, chain=(B,)))
    play.feed(died("m3", B, parent="u3"), died("m3", B, parent="u3"))

    assert play.session.phase is Phase.EXHAUSTED
    assert play.of(DiscardMessages) == []


def test_a_prompt_that_a_summary_has_swallowed_is_never_cleared_away():
    play = Play().feed(user("u3", 3.0, route=B), summary("m3", B, parent="u3"))
    play.rules = Rules(default=replace(POLICY, chain=(B,)))
    play.feed(summary("m3", B, parent="u3", completed=True, error=QUOTA))

    assert play.session.turn.user.message_id == "u3"
    assert play.session.phase is Phase.EXHAUSTED
    assert play.of(DiscardMessages) == []


def test_a_model_set_for_the_compaction_agent_ends_the_chain_at_once():
    play = Play(writes=B).feed(died(route=B))

    assert play.session.phase is Phase.EXHAUSTED
    [notice] = play.of(Announce)
    assert (notice.detail, notice.route) == (OVERRULED.error, B)
    assert play.dispatches == []
    assert len(play.of(DiscardMessages)) == 1


def test_a_host_that_asks_the_failed_model_twice_in_spite_of_a_dispatch_is_believed():
    play = Play().hop(died()).accepted().feed(summary("mc2", PRIMARY))
    play.hop().accepted().feed(summary("mc3", PRIMARY))

    assert len(play.dispatches) == 2
    assert play.session.phase is Phase.EXHAUSTED
    assert play.of(Announce)[-1].detail == OVERRULED.error
    assert [failed.route for failed in play.of(Announce)[-1].failures] == [PRIMARY]
    assert [removal.message_id for removal in play.of(DiscardMessages)[0].removals][-1] == "uc"


def test_a_prompt_that_waits_takes_the_place_of_a_failed_summary():
    play = Play().feed(RETRY, user("u3", 3.0)).hop()

    [sent] = play.dispatches
    assert (sent.user_message_id, sent.route) == ("u3", A)
    assert sent.removals == (Removal(message_id="mc"), Removal(message_id="uc"))
    play.feed(MessageRemoved(session_id=SES, message_id="uc")).accepted()
    play.feed(answer("m3", A, "u3"), token("m3"), answer("m3", A, "u3", finish="stop", completed=True))
    assert play.session.phase is Phase.IDLE
    assert play.notices[-1] is NoticeType.RECOVERED


def test_a_dispatch_that_is_made_again_removes_the_request_again():
    play = Play().feed(RETRY, user("u3", 3.0)).hop()
    play.feed(DispatchReturned(session_id=SES, generation=play.session.generation, outcome="unavailable")).elapse()

    first, second = play.dispatches
    assert first.removals == second.removals == (Removal(message_id="mc"), Removal(message_id="uc"))


def test_a_process_that_follows_does_not_take_the_others_removal_for_a_stop():
    play = Play().feed(RETRY)
    play.feed(AdvanceLost(session_id=SES, generation=play.session.generation), user("u3", 3.0))
    play.feed(MessageRemoved(session_id=SES, message_id="uc"), answer("m3", A, "u3"))

    assert play.session.phase is Phase.RUNNING
    assert play.session.turn.user.message_id == "u3"
    assert len(play.of(AbortRun)) == 1


def test_the_users_abort_of_a_summary_is_final():
    play = Play().feed(token("mc"), SessionErrored(session_id=SES, facts=ABORTED), died(facts=ABORTED), IDLED)

    assert play.session.phase is Phase.STOPPED
    assert play.of(DiscardMessages) == []
    play.elapse()
    assert play.dispatches == []


def test_a_summary_under_way_is_found_again():
    found = SessionInspected(
        session_id=SES,
        status=RETRY,
        user=replace(user("uc", 2.0).message, compaction=True),
        assistants=(InspectedMessage(message=summary().message),),
    )
    play = Play()
    play.session = Session(session_id=SES)
    play.take(attach(play.session, play.now))
    play.hop(found)

    assert play.session.turn.user.compaction
    [sent] = play.dispatches
    assert (sent.user_message_id, sent.removals) == ("uc", (Removal(message_id="mc"),))


def test_the_intent_of_a_summary_outlives_the_process():
    play = Play().hop(RETRY)
    restored = restore_session(snapshot_session(play.session))

    assert restored.compacting
    assert restored.turn.user.compaction
    assert [partial.discarded for partial in restored.attempt.partials] == [True]


def test_an_intent_of_an_older_version_is_still_read():
    value = snapshot_session(Play().hop(RETRY).session)
    del value["compacting"], value["user"]["compaction"]
    for partial in value["partials"]:
        del partial["discarded"]

    assert not restore_session(value).compacting
