"""The weaknesses K01-K33 of seed 003, as far as the core could have them: each is shown not to be there.

Elsewhere: K23 (parts of a replay) with the OpenCode host, K24 and the texts of K25 with the classifier, K27-K29
(age and number of records, the log) with the runtime, K30 and K32 (subagents) with the host, and of K31 the sharing
between processes with the stores, files and their errors with the configuration.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import pytest

from fallback_plugin.core.actions import AbortRun, Announce, DispatchTurn, InspectSession, NoticeType, SetTimer
from fallback_plugin.core.events import (
    AbortReturned,
    AssistantMessage,
    DispatchReturned,
    InspectedMessage,
    MessageUpdated,
    PartDeltaReceived,
    PartType,
    PartUpdated,
    SessionCompacted,
    SessionCreated,
    SessionErrored,
    SessionIdled,
    SessionInspected,
    SessionStatusChanged,
    TimerElapsed,
    TurnStopped,
    UserMessage,
)
from fallback_plugin.core.failure import Facts, Kind
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import HOP_PHASES, Phase, Session
from fallback_plugin.core.session import step

SES = "ses_1"
PRIMARY, A, B, C = "one/primary", "two/a", "three/b", "four/c"
QUOTA = Facts(status=402, name="APIError", message="Insufficient balance")
ABORTED = Facts(name="MessageAbortedError", message="Aborted")
THROTTLED = Facts(message="Rate limit reached")
IDLED = SessionIdled(session_id=SES)
START = 1000.0


def rules(*chain, agents=None, **policy):
    limits = {"min_hop_interval_seconds": 0.0, **policy}
    own = {name: Policy(chain=routes, **limits) for name, routes in (agents or {}).items()}
    return Rules(default=Policy(chain=chain, **limits), agents=own)


def user(message_id="u1", at=1.0, route=PRIMARY, agent="build", **fields):
    message = UserMessage(message_id=message_id, created_wall=at, agent=agent, route=route, **fields)
    return MessageUpdated(session_id=SES, message=message)


def answer(message_id="m1", route=PRIMARY, parent="u1", **fields):
    message = AssistantMessage(message_id=message_id, parent_id=parent, route=route, agent="build", **fields)
    return MessageUpdated(session_id=SES, message=message)


def died(message_id="m1", route=PRIMARY, parent="u1", facts=QUOTA):
    return answer(message_id, route, parent, completed=True, error=facts)


def answered(message_id="m1", route=PRIMARY, parent="u1"):
    return answer(message_id, route, parent, completed=True, finish="stop")


def errored(facts=QUOTA):
    return SessionErrored(session_id=SES, facts=facts)


def status(name, attempt=1):
    facts = THROTTLED if name == "retry" else None
    return SessionStatusChanged(session_id=SES, status=name, attempt=attempt if facts else 0, facts=facts)


def token(message_id="m1", part_id="p1"):
    return PartDeltaReceived(session_id=SES, message_id=message_id, part_id=part_id)


def text(message_id, *, has_content=True):
    return PartUpdated(
        session_id=SES, message_id=message_id, part_id="p1", part_type=PartType.TEXT, has_content=has_content
    )


def tool(state, message_id="m1"):
    return PartUpdated(session_id=SES, message_id=message_id, part_id="t1", part_type=PartType.TOOL, tool_status=state)


class Play:
    """One session, its clock, and all that the machine has asked for."""

    def __init__(self, policies=None):
        self.rules = policies or rules(A, B, C)
        self.session = Session(session_id=SES)
        self.now = START
        self.asked = []

    def feed(self, *events, after=0.0):
        self.now += after
        for event in events:
            done = step(self.session, event, self.now, self.rules)
            assert done.session is not None
            self.session = done.session
            self.asked += done.actions

        return self

    def start(self):
        return self.feed(user(), answer())

    def elapse(self):
        """Let the newest timer fire at its time."""
        timer = self.of(SetTimer)[-1]
        self.now = max(self.now, timer.at)
        return self.feed(TimerElapsed(session_id=SES, timer=timer.timer))

    def abort_returns(self, *, succeeded=True):
        return self.feed(AbortReturned(session_id=SES, generation=self.session.generation, succeeded=succeeded))

    def dispatch_returns(self, outcome):
        returned = DispatchReturned(
            session_id=SES, generation=self.session.generation, outcome=outcome, reason="the host said no"
        )
        return self.feed(returned)

    def of(self, kind):
        return [action for action in self.asked if isinstance(action, kind)]

    @property
    def routes(self):
        return [turn.route for turn in self.of(DispatchTurn)]

    @property
    def advances(self):
        return [n for n in self.of(Announce) if n.notice is NoticeType.FAILURE and n.next_route is not None]


# ── Correctness ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error_first", [True, False])
@pytest.mark.parametrize("known", ["nothing", "the prompt", "the prompt and its answer"])
def test_k01_a_first_failure_is_carried_on_whatever_is_known(known, error_first):
    play = Play()
    if known != "nothing":
        play.feed(user())
    if known == "the prompt and its answer":
        play.feed(answer())

    play.feed(*((errored(), IDLED, died()) if error_first else (died(), errored(), IDLED)))
    if play.of(InspectSession):
        inspected = SessionInspected(
            session_id=SES,
            status=status("idle"),
            user=user().message,
            assistants=(InspectedMessage(message=died().message),),
        )
        play.feed(inspected)
    if play.session.phase is Phase.ENDING:
        play.elapse()

    assert len(play.advances) == 1
    assert play.routes == [A]


@pytest.mark.parametrize("idles", [1, 2, 3])
def test_k02_the_failed_runs_own_idles_are_no_silent_failure(idles):
    play = Play().start().feed(errored(), died())
    assert play.routes == [A]

    play.feed(*[status("idle"), IDLED] * idles)
    play.feed(answer("m2", A), token("m2"))
    play.feed(answered("m2", A), *[IDLED] * idles)

    assert play.routes == [A]
    assert play.session.phase is Phase.IDLE


@pytest.mark.parametrize("idle_before_return", [True, False, None], ids=["idle first", "idle last", "no idle"])
def test_k03_a_chain_of_hung_models_is_walked_whenever_the_idle_comes(idle_before_return):
    play = Play().start()
    for message_id, route in (("m2", A), ("m3", B), ("m4", C)):
        play.elapse()
        assert play.session.phase is Phase.ENDING
        if idle_before_return:
            play.feed(IDLED)
        play.abort_returns()
        if idle_before_return is False:
            play.feed(IDLED)
        if idle_before_return is None:
            play.elapse()
        play.feed(answer(message_id, route))

    assert play.routes == [A, B, C]
    assert [notice.failure.kind for notice in play.advances] == [Kind.TIMEOUT] * 3


def compaction(message_id="m2", **fields):
    return answer(message_id, parent="u2", compaction=True, **fields)


def test_k04_nothing_happens_after_a_compaction_that_went_well():
    play = Play().start().feed(token(), answered())
    play.feed(user("u2", at=2.0), compaction(), status("busy"), token("m2"))

    play.feed(compaction(completed=True, finish="stop"), SessionCompacted(session_id=SES), IDLED)
    for _ in range(4):
        play.elapse()

    assert play.of(AbortRun) == []
    assert play.routes == []


@pytest.mark.parametrize("chain", [(), (A, B)])
def test_k05_a_compaction_that_failed_leaves_no_deaf_session(chain):
    play = Play(rules(*chain, agents={"build": (A, B)})).start().feed(token(), answered())
    play.feed(user("u2", at=2.0, agent="compaction"), compaction())
    play.feed(errored(), compaction(completed=True, error=QUOTA), IDLED)

    play.feed(user("u3", at=3.0), answer("m3", parent="u3"), errored(), died("m3", parent="u3"))

    assert play.routes[-1:] == [A]


def test_k06_a_duplicate_error_does_not_hide_the_next_models_silence():
    play = Play().start().feed(errored(), died())
    play.feed(errored(), died())
    play.feed(answer("m2", A), answered("m2", A), IDLED).elapse()

    assert play.routes == [A, B]
    assert [notice.failure.kind for notice in play.advances] == [Kind.QUOTA_EXHAUSTED, Kind.EMPTY]


@pytest.mark.parametrize("timer_first", [True, False])
def test_k07_a_timeout_and_an_error_at_once_have_one_holder(timer_first):
    play = Play().start()
    timer = play.of(SetTimer)[-1]
    elapsed = TimerElapsed(session_id=SES, timer=timer.timer)
    play.now = timer.at

    play.feed(*((elapsed, status("retry")) if timer_first else (status("retry"), elapsed)))

    assert len(play.advances) == 1
    assert len(play.of(AbortRun)) == 1
    assert play.session.phase in HOP_PHASES


@pytest.mark.parametrize(
    "thief",
    [
        IDLED,
        status("idle"),
        status("busy"),
        status("retry", 2),
        SessionCompacted(session_id=SES),
        SessionCreated(session_id=SES, parent_id="ses_0"),
        token(),
        user(),
    ],
    ids=lambda event: type(event).__name__,
)
@pytest.mark.parametrize("dispatched", [False, True], ids=["ending", "dispatching"])
def test_k08_nobody_takes_the_claim_from_its_holder(thief, dispatched):
    play = Play().start().feed(status("retry"))
    if dispatched:
        play.abort_returns().feed(IDLED)
    claim = play.session.hop.plan

    play.feed(thief, thief)

    assert play.session.phase in HOP_PHASES
    assert play.session.hop.plan == claim
    assert len(play.advances) == 1


LATE = (IDLED, died(), errored(), status("idle"), status("retry", 3), token())


@pytest.mark.parametrize("point", ["claimed", "abort returned", "idled", "dispatched", "running"])
def test_k09_nothing_is_dispatched_after_a_stop(point):
    play = Play().start().feed(status("retry"))
    if point in ("abort returned", "dispatched", "running"):
        play.abort_returns()
    if point in ("idled", "dispatched", "running"):
        play.feed(IDLED)
    if point == "running":
        play.feed(answer("m2", A))
    before = len(play.routes)

    play.feed(TurnStopped(session_id=SES))
    play.abort_returns().dispatch_returns("accepted").feed(*LATE, died("m2", A))
    for timer in play.of(SetTimer):
        play.feed(TimerElapsed(session_id=SES, timer=timer.timer), after=10)

    assert play.session.phase is Phase.STOPPED
    assert len(play.routes) == before


@pytest.mark.parametrize("error_first", [True, False])
def test_k10_the_echo_of_a_stop_is_no_failure(error_first):
    play = Play().start().feed(errored(), died(), answer("m2", A))
    play.feed(TurnStopped(session_id=SES))

    echo = errored(ABORTED), died("m2", A, facts=ABORTED)
    play.feed(*(echo if error_first else reversed(echo)), IDLED)

    assert play.session.phase is Phase.STOPPED
    assert play.routes == [A]


def test_k11_a_refused_dispatch_goes_on_to_the_next_model():
    play = Play().start().feed(died())
    while play.session.phase is Phase.DISPATCHING:
        play.dispatch_returns("refused")

    assert [route for route, following in pairwise([*play.routes, ""]) if route != following] == [A, B, C]
    assert len(play.routes) <= 6
    assert play.session.phase is Phase.EXHAUSTED


def test_k11_a_host_that_does_not_answer_is_asked_a_bounded_number_of_times():
    play = Play().start().feed(died())
    for _ in range(40):
        if play.session.phase is not Phase.DISPATCHING:
            break
        play.dispatch_returns("unavailable")
        if play.session.phase is Phase.DISPATCHING and play.session.hop.unavailable:
            play.elapse()

    assert play.session.phase is Phase.EXHAUSTED
    assert list(dict.fromkeys(play.routes)) == [A, B, C]
    assert max(play.routes.count(route) for route in (A, B, C)) == 3


def test_k12_an_entry_that_is_no_route_does_not_block_the_chain():
    play = Play(rules("nonsense", A)).start().feed(died())
    assert play.routes == ["nonsense"]

    play.dispatch_returns("refused").dispatch_returns("refused")

    assert play.routes[-1] == A


def test_k13_the_hosts_retries_do_not_walk_the_chain():
    play = Play().start()

    for attempt in (1, 2, 3, 4):
        play.feed(status("retry", attempt), status("busy"), after=0.5)

    assert len(play.advances) == 1
    assert len(play.of(AbortRun)) == 1
    assert play.session.state.current_model == A


@pytest.mark.parametrize("let_pass", [1, 2])
def test_k13_the_host_may_be_let_retry_first(let_pass):
    play = Play(rules(A, host_retries_before_fallback=let_pass)).start()
    for attempt in range(1, let_pass + 1):
        play.feed(status("retry", attempt), status("busy"))
    assert play.advances == []

    play.feed(status("retry", let_pass + 1))

    assert len(play.advances) == 1


def test_k13_two_hops_keep_their_distance():
    play = Play(rules(A, B, min_hop_interval_seconds=5.0)).start().feed(died(), answer("m2", A))
    play.feed(died("m2", A), after=1.0)
    assert play.routes == [A]

    play.elapse()

    assert play.routes == [A, B]
    assert play.now == START + 5.0


def test_k14_a_later_turn_that_hangs_is_seen_as_well():
    play = Play().start().feed(token(), answered())
    play.feed(user("u2", at=2.0), answer("m2", parent="u2"), after=100)
    play.elapse()

    assert [notice.failure.kind for notice in play.advances] == [Kind.TIMEOUT]
    assert play.now == START + 100 + 30


@pytest.mark.parametrize(
    "sign", [text("u1"), text("m1", has_content=False), token("u1")], ids=["prompt", "empty", "u1"]
)
def test_k14_a_part_that_is_no_token_does_not_hide_a_hang(sign):
    play = Play().start().feed(sign)
    play.elapse()

    assert [notice.failure.kind for notice in play.advances] == [Kind.TIMEOUT]
    assert play.now == START + 30


def test_k14_a_stall_between_tokens_is_seen():
    play = Play().start().feed(token(), after=10)
    while not play.advances and play.now < START + 1000:
        play.elapse()

    assert play.now == pytest.approx(START + 10 + 120)
    assert play.advances[0].failure.kind is Kind.TIMEOUT


def test_k14_a_tool_at_work_is_no_stall():
    play = Play().start().feed(tool("running"), after=1)
    while play.now < START + 3600:
        play.elapse()
    assert play.advances == []

    play.feed(tool("completed"))
    ended = play.now
    while not play.advances and play.now < ended + 1000:
        play.elapse()

    assert 120 <= play.now - ended <= 240


def test_k15_a_token_of_the_model_before_is_no_sign_of_the_next_one():
    play = Play().start().feed(token(), errored(), died(), answer("m2", A), after=1)
    dispatched = play.now
    play.feed(token("m1"), text("m1"), tool("running", "m1"), after=29)

    play.elapse()

    assert play.now == dispatched + 30
    assert play.advances[-1].failure.kind is Kind.TIMEOUT
    assert play.advances[-1].route == A


@pytest.mark.parametrize("failure", [status("retry"), errored(), died()], ids=["retry", "error", "message"])
def test_k16_without_a_chain_nothing_is_aborted(failure):
    play = Play(rules()).start().feed(failure)

    assert play.of(AbortRun) == []
    assert play.routes == []


def test_k16_without_a_chain_a_hang_is_left_to_the_host():
    play = Play(rules()).start()
    play.elapse()

    assert play.of(AbortRun) == []


def test_k16_the_agents_own_chain_is_kept_through_a_timeout():
    play = Play(rules(A, agents={"build": (C,)})).start().feed(token(), after=5)
    while not play.advances:
        play.elapse()

    assert play.advances[0].next_route == C


def exhausted(play):
    for message_id, route in (("m1", PRIMARY), ("m2", A), ("m3", B), ("m4", C)):
        play.feed(answer(message_id, route), died(message_id, route))
    assert play.session.phase is Phase.EXHAUSTED
    return play


def test_k17_an_exhausted_chain_starts_again_with_the_next_prompt():
    play = exhausted(Play().feed(user()))
    play.feed(user("u2", at=2.0), answer("m9", parent="u2"), died("m9", parent="u2"), after=3600)

    assert play.routes[-1] == A
    assert play.session.state.attempt_count == 1


def test_k17_attempts_are_counted_per_turn():
    play = Play(rules(A, max_fallback_attempts=1, cooldown_seconds=0.0))
    for number in range(1, 5):
        parent, first, second = f"u{number}", f"m{number}", f"n{number}"
        play.feed(user(parent, at=float(number)), answer(first, parent=parent), died(first, parent=parent), after=100)
        play.feed(answer(second, A, parent), token(second), answered(second, A, parent))

    assert play.routes == [A] * 4


def test_k17_a_prompt_that_names_no_model_is_a_new_turn_too():
    play = Play(rules(A, B, cooldown_seconds=60.0)).feed(user(route=None), answer(), died())
    play.feed(answer("m2", A), died("m2", A), answer("m3", B), token("m3"), answered("m3", B))
    assert play.routes == [A, B]

    play.feed(user("u2", at=2.0, route=None), answer("m4", parent="u2"), died("m4", parent="u2"), after=3600)

    assert play.routes == [A, B, A]
    assert play.session.state.attempt_count == 1


def test_k18_a_route_named_twice_does_not_lead_backwards():
    play = Play(rules(A, B, A, C, cooldown_seconds=0.0)).start().feed(died())
    indexes = [play.session.state.fallback_index]
    for message_id, route in (("m2", A), ("m3", B)):
        play.feed(answer(message_id, route), died(message_id, route))
        indexes.append(play.session.state.fallback_index)

    assert play.routes == [A, B, C]
    assert indexes == sorted(indexes)


def test_k19_another_agents_chain_is_walked_from_its_start():
    play = Play(rules(agents={"build": (A, B, C), "plan": (C, A)}, cooldown_seconds=0.0)).start().feed(died())
    play.feed(answer("m2", A), died("m2", A), answer("m3", B), token("m3"), answered("m3", B))
    play.feed(user("u2", at=2.0, agent="plan"), answer("m4", parent="u2"), died("m4", parent="u2"))

    assert play.routes == [A, B, C]


def test_k20_a_host_that_goes_on_with_the_fallback_does_not_make_it_the_original():
    play = Play().start().feed(died(), answer("m2", A), token("m2"), answered("m2", A))
    play.feed(user("u2", at=2.0, route=A), answer("m3", A, "u2"))

    assert play.session.state.current_model == A
    assert play.session.state.original_model == PRIMARY


def test_k20_a_host_that_returns_to_the_dead_model_forgets_nothing():
    play = Play().start().feed(died(), answer("m2", A), died("m2", A), answer("m3", B), token("m3"), answered("m3", B))
    play.feed(user("u2", at=2.0), answer("m4", parent="u2"), died("m4", parent="u2"), after=5)

    assert play.routes == [A, B, B]
    assert set(play.session.state.failed_models) >= {PRIMARY, A}


def test_k21_only_the_dead_models_own_words_of_this_turn_are_removed():
    play = Play().start().feed(token(), answered(), user("u2", at=2.0), answer("m2", parent="u2"), token("m2", "p2"))
    play.feed(status("retry")).abort_returns().feed(IDLED)

    (turn,) = play.of(DispatchTurn)
    assert [(removal.message_id, removal.part_id) for removal in turn.removals] == [("m2", None)]


def test_k22_the_turn_is_resumed_in_place_with_all_that_it_carried():
    carried = {"system": "be brief", "tools": {"bash": False}}
    play = Play().feed(user(carried=carried), answer(), tool("running"), tool("completed"), token("m1", "p9"))

    play.feed(status("retry")).abort_returns().feed(IDLED)

    (turn,) = play.of(DispatchTurn)
    assert (turn.user_message_id, turn.agent, turn.carried, turn.replay) == ("u1", "build", carried, False)
    assert [(removal.message_id, removal.part_id) for removal in turn.removals] == [("m1", "p9")]


def test_k25_the_machine_is_never_given_an_answers_words():
    told = {
        field.name
        for event in (AssistantMessage, PartUpdated, PartDeltaReceived, UserMessage)
        for field in fields(event)
    }

    assert told.isdisjoint({"text", "content", "delta", "parts", "summary"})


@pytest.mark.parametrize("chain", [(), (A, B)])
def test_k26_a_turn_that_goes_well_asks_the_host_for_nothing(chain):
    play = Play(rules(*chain)).start().feed(status("busy"), token())
    for number in range(100):
        play.feed(answer(), token(), text("m1"), tool("completed"), status("busy"), user(), after=0.1)
        assert play.session.attempt.assistant_id == "m1", number
    play.feed(answered(), status("idle"), IDLED)

    assert play.session.phase is Phase.IDLE
    assert [a for a in play.asked if isinstance(a, AbortRun | DispatchTurn | InspectSession)] == []


def test_k26_a_hop_asks_the_host_for_an_abort_and_a_dispatch_alone():
    play = Play().start().feed(token(), status("retry")).abort_returns().feed(IDLED)
    play.dispatch_returns("accepted").feed(answer("m2", A), token("m2"), answered("m2", A))

    calls = [type(a) for a in play.asked if isinstance(a, AbortRun | DispatchTurn | InspectSession)]
    assert calls == [AbortRun, DispatchTurn]


@pytest.mark.parametrize("agent", ["Build", "build", "BUILD"])
def test_k31_an_agents_name_is_found_in_any_case(agent):
    policies = rules(A, agents={"build": (B,)})

    assert policies.policy(agent).chain == (B,)


def test_k31_a_configured_name_with_capitals_is_found_as_written():
    assert rules(A, agents={"Reviewer": (B,)}).policy("Reviewer").chain == (B,)


def test_k31_an_agent_is_never_guessed():
    assert rules(A, agents={"fancy": (B,)}).policy("my-fancy-session").chain == (A,)
    assert rules(A, agents={"fancy": (B,)}).policy(None).chain == (A,)


def test_k33_the_claimed_model_is_pending_until_it_is_seen_to_run():
    play = Play().start()
    assert play.session.state.pending_fallback_model is None
    play.feed(status("retry"))
    assert play.session.state.pending_fallback_model == A
    play.abort_returns().feed(IDLED)
    assert play.session.state.pending_fallback_model == A
    play.feed(answer("m2", A))
    assert play.session.state.pending_fallback_model is None
