"""The 20 cases of seed 003, O01-O20, under their row ids.

The seed's lock is `FallbackPlugin.retry_in_flight`; its handlers are the plugin's own. Rows about the state alone use
`core.state`, rows about one handler the session machine, rows about the lock the running plugin with a host that
does what its script says, in virtual time.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import permutations

import anyio
import pytest
import trio.testing

from fallback_plugin.core.actions import AbortRun, Announce, DispatchTurn, NoticeType, SetTimer
from fallback_plugin.core.events import (
    AbortReturned,
    AssistantMessage,
    DispatchReturned,
    MessageUpdated,
    PartDeltaReceived,
    SessionDeleted,
    SessionErrored,
    SessionIdled,
    SessionInspected,
    SessionStatusChanged,
    TimerElapsed,
    TurnStopped,
    UserMessage,
)
from fallback_plugin.core.failure import Facts, Failure, Kind
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase, Session
from fallback_plugin.core.session import step
from fallback_plugin.core.state import (
    MAX_ATTEMPTS,
    NO_MODELS,
    FallbackPlan,
    NoPlan,
    create_state,
    plan_fallback,
    prepare_fallback,
)
from fallback_plugin.errors import HostError
from fallback_plugin.runtime.plugin import FallbackPlugin

SES = "ses_1"
PRIMARY, A, B, C = "one/primary", "two/a", "three/b", "four/c"
QUOTA = Facts(status=402, message="Insufficient balance", name="APIError")
THROTTLE = Facts(status=429, message="Rate limit reached", name="APIError")
ABORTED = Facts(name="MessageAbortedError", message="Aborted")
START = 100.0


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def rules(*chain, **policy):
    return Rules(default=Policy(chain=chain or (A, B), min_hop_interval_seconds=0.0, **policy))


def user(message_id="u1", at=1.0, route=PRIMARY, session_id=SES):
    message = UserMessage(message_id=message_id, created_wall=at, agent="build", route=route)
    return MessageUpdated(session_id=session_id, message=message)


def answer(message_id="m1", route=PRIMARY, parent="u1", session_id=SES, **fields):
    message = AssistantMessage(message_id=message_id, parent_id=parent, route=route, agent="build", **fields)
    return MessageUpdated(session_id=session_id, message=message)


def failed_answer(message_id="m1", route=PRIMARY, facts=QUOTA, **fields):
    return answer(message_id, route, completed=True, error=facts, **fields)


def errored(facts=QUOTA, session_id=SES):
    return SessionErrored(session_id=session_id, facts=facts)


def retry(attempt=1, session_id=SES):
    return SessionStatusChanged(
        session_id=session_id, status="retry", attempt=attempt, facts=Facts(message="Rate limit reached")
    )


IDLED = SessionIdled(session_id=SES)


class Play:
    """One session and the events fed to it."""

    def __init__(self, policies=None):
        self.rules = policies or rules()
        self.session = Session(session_id=SES)
        self.now = START
        self.actions = []

    def feed(self, *events, after=0.0):
        self.now += after
        self.actions = []
        for event in events:
            done = step(self.session, event, self.now, self.rules)
            assert done.session is not None
            self.session = done.session
            self.actions += done.actions

        return self

    def elapse(self):
        return self.feed(TimerElapsed(session_id=SES, timer=self.session.timer))

    def abort_returns(self, *, succeeded=True):
        return self.feed(AbortReturned(session_id=SES, generation=self.session.generation, succeeded=succeeded))

    def start(self):
        return self.feed(user(), answer())

    def fail_over(self, route, message_id):
        """The current attempt dies by itself; the claimed model takes over and has said nothing yet."""
        attempt = self.session.attempt
        self.feed(errored(), failed_answer(attempt.assistant_id, attempt.route))
        assert [a.route for a in self.actions if isinstance(a, DispatchTurn)] == [route]
        return self.feed(answer(message_id, route))

    @property
    def state(self):
        return self.session.state

    @property
    def place(self):
        return self.state.attempt_count, self.state.fallback_index, self.state.current_model

    def told(self, kind):
        return [action for action in self.actions if isinstance(action, kind)]


class ScriptedHost:
    """Answers each call as its script says: accept, raise, or wait at a gate."""

    def __init__(self):
        self.calls = []
        self.gate = None
        self.raises = False
        self.shown = []

    async def abort(self, session_id):
        self.calls.append(("abort", session_id))
        if self.raises:
            raise HostError("no answer")

    async def dispatch(self, turn):
        self.calls.append(("dispatch", turn.route))
        if self.gate is not None:
            await self.gate.wait()
        if self.raises:
            raise HostError("no answer")

        return DispatchReturned(session_id=turn.session_id, generation=turn.generation, outcome="accepted")

    async def inspect(self, session_id):
        self.calls.append(("inspect", session_id))
        return SessionInspected(
            session_id=session_id,
            status=SessionStatusChanged(session_id=session_id, status="idle"),
            user=user().message,
        )

    async def show(self, toast):
        self.shown.append(toast)

    def dispatched(self):
        return [route for what, route in self.calls if what == "dispatch"]


@asynccontextmanager
async def running(host, policies=None, observer=None):
    async with FallbackPlugin(host, policies or rules(), observer=observer) as plugin:
        plugin.handle(user())
        plugin.handle(answer())
        yield plugin


async def settle():
    await anyio.wait_all_tasks_blocked()


def test_o01_without_the_lock_two_advances_move_the_state_twice():
    state, first = prepare_fallback(create_state(PRIMARY), (A, B), START)
    state, second = prepare_fallback(state, (A, B), START)
    unmoved, third = prepare_fallback(state, (A, B), START)

    assert isinstance(first, FallbackPlan)
    assert isinstance(second, FallbackPlan)
    assert (state.attempt_count, state.current_model, state.fallback_index) == (2, B, 1)
    assert third == NoPlan(error=NO_MODELS)
    assert unmoved is state
    assert NO_MODELS == "No available fallback models"


@pytest.mark.parametrize("error_first", [True, False])
async def test_o02_with_the_lock_the_second_handler_skips(error_first):
    host = ScriptedHost()
    host.gate = anyio.Event()
    async with running(host) as plugin:
        if error_first:
            plugin.on_session_error(errored())
            plugin.on_message_updated(failed_answer())
        else:
            plugin.on_message_updated(failed_answer())
            plugin.on_session_error(errored())

        assert plugin.retry_in_flight == {SES}
        await settle()
        state = plugin.sessions[SES].state
        assert state is not None
        assert (state.attempt_count, state.current_model, state.fallback_index) == (1, A, 0)
        assert host.calls == [("dispatch", A)]


async def test_o03_the_lock_is_held_from_before_the_plan_until_the_replay_runs():
    held_at_notice = []
    host = ScriptedHost()
    host.gate = anyio.Event()
    async with FallbackPlugin(
        host,
        rules(),
        observer=lambda notice, now: held_at_notice.append((notice.notice, set(plugin.retry_in_flight))),
    ) as plugin:
        plugin.handle(user())
        plugin.handle(answer())
        assert plugin.retry_in_flight == set()

        plugin.on_session_error(errored())
        assert plugin.retry_in_flight == {SES}
        plugin.on_message_updated(failed_answer())
        await settle()
        assert host.dispatched() == [A]
        assert plugin.retry_in_flight == {SES}

        host.gate.set()
        await settle()
        assert plugin.retry_in_flight == {SES}, "accepted is not yet seen to run"

        plugin.handle(answer("m2", A))
        assert plugin.retry_in_flight == set()

    assert held_at_notice == [(NoticeType.FAILURE, {SES}), (NoticeType.HOP, set())]


@pytest.mark.parametrize("limit", [0, 10])
async def test_o04_a_failed_plan_holds_no_lock(limit):
    host = ScriptedHost()
    chain = (PRIMARY,) if limit else (A, B)
    async with running(host, rules(*chain, max_fallback_attempts=limit)) as plugin:
        plugin.on_session_error(errored())

        assert plugin.retry_in_flight == set()
        assert plugin.sessions[SES].phase is Phase.EXHAUSTED
        await anyio.sleep(60)
        assert host.dispatched() == []


async def test_o05_a_replay_that_raises_gives_the_lock_back():
    host = ScriptedHost()
    host.raises = True
    async with running(host, rules(A)) as plugin:
        plugin.on_message_updated(failed_answer())
        assert plugin.retry_in_flight == {SES}

        assert await plugin.drain(60)
        assert plugin.retry_in_flight == set()
        assert plugin.sessions[SES].phase is Phase.EXHAUSTED
        assert set(host.dispatched()) == {A}
        assert len(host.dispatched()) == 3


async def test_o06_after_the_release_the_fallbacks_own_failure_advances():
    host = ScriptedHost()
    async with running(host) as plugin:
        plugin.on_message_updated(failed_answer())
        await settle()
        plugin.on_message_updated(answer("m2", A))
        assert plugin.retry_in_flight == set()

        plugin.on_message_updated(failed_answer("m2", A))
        assert plugin.retry_in_flight == {SES}
        await settle()
        state = plugin.sessions[SES].state
        assert state is not None
        assert (state.attempt_count, state.current_model) == (2, B)
        assert host.dispatched() == [A, B]


def test_o07_the_chain_is_walked_in_order_and_every_abandoned_model_is_stamped():
    play = Play(rules(A, B, C)).start()
    times = {}
    places = []
    for route, message_id in ((A, "m2"), (B, "m3"), (C, "m4")):
        play.now += 5
        times[play.state.current_model] = play.now
        play.fail_over(route, message_id)
        places.append(play.place)

    assert places == [(1, 0, A), (2, 1, B), (3, 2, C)]
    assert dict(play.state.failed_models) == times
    assert set(times) == {PRIMARY, A, B}


def test_o08_sequential_failures_end_exhausted():
    play = Play().start().fail_over(A, "m2").fail_over(B, "m3")

    play.feed(errored(), failed_answer("m3", B), IDLED, after=1)

    assert play.session.phase is Phase.EXHAUSTED
    (notice,) = play.told(Announce)
    assert notice.notice is NoticeType.EXHAUSTED
    assert notice.detail == NO_MODELS
    assert [failed.route for failed in notice.failures] == [PRIMARY, A, B]
    assert play.told(DispatchTurn) == []


def test_o09_the_limit_stops_the_third_though_models_remain():
    play = Play(rules(A, B, C, max_fallback_attempts=2)).start().fail_over(A, "m2").fail_over(B, "m3")

    play.feed(errored(), failed_answer("m3", B))

    (notice,) = play.told(Announce)
    assert notice.detail == MAX_ATTEMPTS == "maxAttemptsReached"
    assert play.state.attempt_count == 2
    assert play.session.phase is Phase.EXHAUSTED
    assert isinstance(plan_fallback(play.state, (A, B, C), play.now, max_attempts=3), FallbackPlan)


@pytest.mark.parametrize("dispatched", [False, True], ids=["claimed", "dispatched"])
def test_o10_while_a_model_is_pending_another_models_error_is_skipped(dispatched):
    play = Play().start()
    play.feed(errored(QUOTA))
    if dispatched:
        play.feed(failed_answer())

    assert play.state.pending_fallback_model == A
    place = play.place

    play.feed(failed_answer(), failed_answer(facts=THROTTLE), errored(QUOTA))
    assert play.place == place
    assert play.state.pending_fallback_model == A
    assert play.told(AbortRun) == []


def test_o11_the_pending_models_own_error_is_processed():
    play = Play().start()
    play.feed(errored(), failed_answer())
    assert play.state.pending_fallback_model == A

    play.feed(failed_answer("m2", A))

    assert play.place == (2, 1, B)
    assert play.state.pending_fallback_model == B
    assert [turn.route for turn in play.told(DispatchTurn)] == [B]


def test_o12_with_nothing_pending_the_guard_does_not_skip():
    play = Play().start()
    assert play.state.pending_fallback_model is None

    play.feed(failed_answer())

    assert play.place == (1, 0, A)


O13_EVENTS = {
    "error": errored(),
    "message": failed_answer(),
    "status": SessionStatusChanged(session_id=SES, status="idle"),
    "idle": IDLED,
    "second idle": IDLED,
}


@pytest.mark.parametrize(
    "order",
    [pytest.param(order, id=", ".join(order)) for order in permutations(O13_EVENTS)],
)
def test_o13_one_failure_is_one_advance_whatever_the_order(order):
    play = Play().start()

    play.feed(*(O13_EVENTS[name] for name in order))

    assert play.place == (1, 0, A)
    assert len([a for a in play.told(Announce) if a.notice is NoticeType.FAILURE]) == 1
    assert [turn.route for turn in play.told(DispatchTurn)] == [A]


@pytest.mark.parametrize("echo_after", ["claim", "dispatch", "first message", "first token", "answer"])
def test_o13_the_messages_report_may_come_late(echo_after):
    play = Play().start().feed(errored())
    if echo_after != "claim":
        play.elapse()
        assert [turn.route for turn in play.told(DispatchTurn)] == [A]
    if echo_after in ("first message", "first token", "answer"):
        play.feed(answer("m2", A))
    if echo_after in ("first token", "answer"):
        play.feed(PartDeltaReceived(session_id=SES, message_id="m2", part_id="p1"))
    if echo_after == "answer":
        play.feed(answer("m2", A, completed=True, finish="stop"))
    phase = play.session.phase

    play.feed(failed_answer(), failed_answer())

    assert play.place == (1, 0, A)
    assert play.session.phase is (Phase.DISPATCHING if echo_after == "claim" else phase)


@pytest.mark.parametrize("echo_after", ["dispatch", "first message of nobody", "stop"])
def test_o13_the_sessions_report_may_come_late(echo_after):
    play = Play().start().feed(failed_answer())
    assert [turn.route for turn in play.told(DispatchTurn)] == [A]
    if echo_after == "first message of nobody":
        play.feed(answer("m9", A, parent="u0"))
    if echo_after == "stop":
        play.feed(TurnStopped(session_id=SES))
    phase = play.session.phase

    play.feed(errored(), errored())

    assert play.place == (1, 0, A)
    assert play.session.phase is phase


def test_o14_of_three_reports_only_the_first_is_processed():
    play = Play().start()
    processed = []
    for event in (errored(), failed_answer(), IDLED):
        before = play.state.generation
        play.feed(event)
        processed.append(play.state.generation != before)

    assert processed == [True, False, False]
    assert play.state.attempt_count == 1


async def test_o15_two_sessions_have_their_own_locks_and_states():
    host = ScriptedHost()
    host.gate = anyio.Event()
    async with running(host) as plugin:
        plugin.handle(user(session_id="ses_2"))
        plugin.handle(answer(session_id="ses_2"))

        plugin.on_message_updated(failed_answer())
        assert plugin.retry_in_flight == {SES}
        plugin.on_session_error(errored(session_id="ses_2"))
        assert plugin.retry_in_flight == {SES, "ses_2"}

        states = [plugin.sessions[key].state for key in (SES, "ses_2")]
        assert [(s.current_model, s.attempt_count) for s in states if s] == [(A, 1), (A, 1)]

        host.gate.set()
        await settle()
        plugin.handle(answer("m2", A))
        assert plugin.retry_in_flight == {"ses_2"}


async def test_o16_our_abort_stamps_its_session_alone():
    host = ScriptedHost()
    async with running(host) as plugin:
        plugin.handle(user(session_id="ses_2"))
        await anyio.sleep(5)
        before = anyio.current_time()
        plugin.handle(retry())
        await settle()

        assert ("abort", SES) in host.calls
        assert plugin.sessions[SES].aborted_at == before
        assert plugin.sessions["ses_2"].aborted_at is None


def test_o16_an_abort_that_fails_leaves_no_stamp():
    play = Play().start().feed(retry())
    assert play.session.aborted_at == play.now

    play.abort_returns(succeeded=False)

    assert play.session.aborted_at is None


def on_fallback_after_our_abort():
    """The primary retried, we aborted it, and the fallback's first token is awaited."""
    play = Play().start().feed(retry())
    assert play.told(AbortRun)
    play.abort_returns().feed(IDLED)
    assert [turn.route for turn in play.told(DispatchTurn)] == [A]
    play.feed(answer("m2", A))
    assert play.session.phase is Phase.RUNNING
    assert play.place == (1, 0, A)
    return play


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.999])
def test_o17_an_abort_error_within_the_window_is_the_echo_of_ours(seconds):
    play = on_fallback_after_our_abort()
    before = play.session

    play.feed(errored(ABORTED), after=seconds)

    assert play.session is before
    assert play.actions == []
    assert play.place == (1, 0, A)


@pytest.mark.parametrize("seconds", [2.0, 3.0])
def test_o18_after_the_window_it_is_a_real_error(seconds):
    play = on_fallback_after_our_abort()

    play.feed(errored(ABORTED), after=seconds)

    assert play.place == (2, 1, B)
    assert next(a for a in play.told(Announce)).failure.kind is Kind.ABORTED


def test_o19_with_no_abort_of_ours_it_advances_too():
    play = Play().start().fail_over(A, "m2")
    assert play.session.aborted_at is None

    play.feed(errored(ABORTED))

    assert play.place == (2, 1, B)


def test_o19_the_setting_stop_takes_it_for_the_users():
    play = Play(rules(on_unattributed_abort="stop")).start().fail_over(A, "m2")

    play.feed(errored(ABORTED))

    assert play.session.phase is Phase.STOPPED
    assert play.place == (1, 0, A)


def test_o19_once_a_token_was_seen_it_is_the_users_stop():
    play = Play().start().fail_over(A, "m2")

    play.feed(PartDeltaReceived(session_id=SES, message_id="m2", part_id="p1"), errored(ABORTED))

    assert play.session.phase is Phase.STOPPED
    assert play.place == (1, 0, A)


def test_o19_on_the_primary_it_is_the_users_stop():
    play = Play().start().feed(errored(ABORTED))

    assert play.session.phase is Phase.STOPPED
    assert play.place == (0, -1, PRIMARY)


async def test_o20_deletion_takes_the_stamp_and_everything_else():
    host = ScriptedHost()
    async with running(host) as plugin:
        plugin.handle(retry())
        assert plugin.sessions[SES].aborted_at is not None
        assert plugin.retry_in_flight == {SES}

        plugin.handle(SessionDeleted(session_id=SES))

        assert plugin.sessions == {}
        assert plugin.retry_in_flight == set()
        await anyio.sleep(120)
        assert plugin.sessions == {}
        assert host.dispatched() == []

        plugin.handle(user("u9", at=9.0))
        assert plugin.sessions[SES].aborted_at is None


def test_a_failure_that_no_model_can_mend_is_no_advance():
    play = Play().start()

    play.feed(errored(Facts(status=400, name="APIError", message="bad request")))

    assert play.place == (0, -1, PRIMARY)
    (notice,) = play.told(Announce)
    assert isinstance(notice.failure, Failure)
    assert not notice.failure.should_fallback
    assert play.told(SetTimer) == []
