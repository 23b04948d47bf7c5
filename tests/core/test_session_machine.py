"""The session machine against a naive host and an adversary between the two.

`NaiveHost` says what OpenCode says (recordings, tests/e2e/OBSERVATIONS.md) for every way in which a turn can fail. The
adversary decides when it works on, which of its words arrive late, twice, swapped within one breath or never, and
what becomes of our calls: lost on the way, carried out without a reply, refused. After a lost event the stream is
taken up again, as the runtime does (`attach`). Time is a number.

Two limits keep the adversary within what is possible. One stream keeps its order, so a signal that names no message
never comes after the first message of the next run; and no word is older than DELAY when it arrives, or every
healthy answer would look like a hang.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fallback_plugin.core.actions import (
    AbortRun,
    Announce,
    DispatchTurn,
    InspectSession,
    NoticeType,
    ReportAnswer,
    SetTimer,
)
from fallback_plugin.core.events import (
    AbortReturned,
    AssistantMessage,
    DispatchReturned,
    InspectedMessage,
    MessageRemoved,
    MessageUpdated,
    PartDeltaReceived,
    PartType,
    PartUpdated,
    SessionDeleted,
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
from fallback_plugin.core.record import HOP_PHASES, RESTING_PHASES, Phase, Session
from fallback_plugin.core.session import attach, step

SES = "ses_1"
PRIMARY, PICKED = "one/primary", "six/picked"
CHAIN = ("two/a", "three/b", "four/c")
OPENS_NO_RECORD = (PartUpdated, PartDeltaReceived, AbortReturned, DispatchReturned, SessionInspected)
ROUTES = (PRIMARY, PICKED, *CHAIN)
DELAY = 0.75
TIMEOUT, STALL = 30.0, 120.0
GRAIN = 0.3
TICKS = 64
"""Ticks of the clock in a second: a timer fires at the next one, as real timers do."""
POLICY = Policy(
    chain=CHAIN,
    timeout_seconds=TIMEOUT,
    stall_timeout_seconds=STALL,
    cooldown_seconds=0.0,
    min_hop_interval_seconds=0.0,
    on_unattributed_abort="stop",
)
RULES = Rules(default=POLICY)

WORKS = ("ok", "tool")
FAILS = ("retry", "terminal", "hang", "stall", "loop", "empty", "unknown")
FATES = (*WORKS, *FAILS, "bad request")
QUOTA = Facts(status=402, name="APIError", message="Insufficient balance")
REFUSED = Facts(status=400, name="APIError", message="Invalid value for temperature")
THROTTLED = Facts(message="Rate limit reached")
ABORTED = Facts(name="MessageAbortedError", message="Aborted")


def unknown_model(route):
    return Facts(name="UnknownError", message=f"Model not found: {route}.")


@dataclass
class Run:
    """One answer that the host works on, with all its steps and repetitions."""

    number: int
    user_id: str
    route: str
    message_id: str | None = None
    stage: str = "asked"
    failed: bool = False
    claimed: bool = False
    tokens: bool = False
    token_at: float = 0.0
    unfinished_answers: int = 0
    retries: int = 0
    signs: list = field(default_factory=list)
    unknown: bool = False
    messages: list = field(default_factory=list)
    error: Facts = QUOTA


@dataclass
class Word:
    """One event on its way."""

    event: object
    said_at: float
    breath: int


@dataclass
class Call:
    """One call of ours on its way."""

    action: object
    asked_at: float


@dataclass
class Result:
    """What a call has led to, on its way back."""

    event: object
    given_at: float


@dataclass
class NaiveHost:
    health: dict = field(default_factory=lambda: dict.fromkeys(ROUTES, "ok"))
    users: list = field(default_factory=list)
    answers: list = field(default_factory=list)
    texts: set = field(default_factory=set)
    tools: set = field(default_factory=set)
    run: Run | None = None
    runs: list = field(default_factory=list)
    next_up: str | None = None
    rewrite: UserMessage | None = None
    stream: list = field(default_factory=list)
    deleted: bool = False
    ended_at: float = 0.0
    now: float = 0.0
    breath: int = 0
    ids: int = 0

    # ── what it says ─────────────────────────────────────────────────────────────────────────────────────────

    def say(self, *events):
        self.breath += 1
        self.stream += [Word(event, self.now, self.breath) for event in events]

    def new_id(self, prefix):
        self.ids += 1
        return f"{prefix}{self.ids}"

    def status(self, name, attempt=0):
        facts = THROTTLED if name == "retry" else None
        return SessionStatusChanged(session_id=SES, status=name, attempt=attempt, facts=facts)

    def idle(self):
        return self.status("idle"), SessionIdled(session_id=SES)

    def message(self, message):
        return MessageUpdated(session_id=SES, message=message)

    def user(self, user_id):
        return next(user for user in self.users if user.message_id == user_id)

    def answer(self, message_id, **changes):
        at = next(i for i, answer in enumerate(self.answers) if answer.message_id == message_id)
        self.answers[at] = replace(self.answers[at], **changes)
        return self.message(self.answers[at])

    # ── what people and we ask of it ─────────────────────────────────────────────────────────────────────────

    def prompt(self, route):
        user = UserMessage(
            message_id=self.new_id("u"), created_wall=float(len(self.users) + 1), agent="build", route=route
        )
        self.users.append(user)
        self.say(self.message(user))
        if self.run is None:
            self.begin(user.message_id)
        else:
            self.next_up = user.message_id

    def begin(self, user_id):
        self.run = Run(number=len(self.runs), user_id=user_id, route=self.user(user_id).route, signs=[self.now])
        self.runs.append(self.run)
        self.next_up = None
        self.say(self.status("busy"))
        if self.health[self.run.route] == "unknown":
            self.run.failed = self.run.unknown = True
            unknown = SessionErrored(session_id=SES, facts=unknown_model(self.run.route))
            self.say(unknown, *self.idle(), unknown)
            self.run = None
        else:
            self.slot()

    def slot(self):
        run = self.run
        run.message_id, run.stage, run.tokens = self.new_id("m"), "asked", False
        message = AssistantMessage(message_id=run.message_id, parent_id=run.user_id, route=run.route, agent="build")
        run.messages.append(run.message_id)
        self.answers.append(message)
        self.say(self.message(message))

    def removed(self, message_id):
        self.answers = [answer for answer in self.answers if answer.message_id != message_id]
        self.say(MessageRemoved(session_id=SES, message_id=message_id))

    def dispatch(self, turn, *, stale_write_wins):
        if turn.replay:
            self.prompt(turn.route)
            return

        for removal in turn.removals:
            known = any(answer.message_id == removal.message_id for answer in self.answers)
            if known and removal.part_id is None and self.run is None:
                self.removed(removal.message_id)
            elif removal.part_id is not None:
                self.texts.discard(removal.message_id)

        old = self.user(turn.user_message_id)
        self.users[self.users.index(old)] = replace(old, route=turn.route)
        self.say(self.message(self.user(turn.user_message_id)))
        stale = self.rewrite is not None and self.rewrite.message_id == turn.user_message_id
        if stale and stale_write_wins:
            self.users[self.users.index(self.user(turn.user_message_id))] = self.rewrite
            self.say(self.message(self.rewrite))

        self.rewrite = None
        if self.run is not None:
            if self.run.stage not in ("retry", "dying") and turn.user_message_id == self.newest.message_id:
                self.next_up = turn.user_message_id

            return

        last = [answer for answer in self.answers if answer.parent_id == turn.user_message_id][-1:]
        if last and last[0].finish == "stop":
            self.say(self.status("busy"), *self.idle())
        else:
            self.begin(turn.user_message_id)

    def abort(self):
        run, self.run, self.next_up = self.run, None, None
        if run is None:
            self.say(*self.idle())
            return

        if run.stage == "retry":
            self.say(self.answer(run.message_id, completed=True), *self.idle())
        elif run.stage == "dying":
            self.say(self.answer(run.message_id, completed=True, error=QUOTA), *self.idle())
        else:
            self.say(SessionErrored(session_id=SES, facts=ABORTED), *self.idle())
            self.say(self.answer(run.message_id, completed=True, error=ABORTED), *self.idle())

    def inspected(self):
        if self.deleted:
            return SessionInspected(session_id=SES, found=False)

        newest = max(self.users, key=lambda user: user.created_wall, default=None)
        answers = tuple(
            InspectedMessage(
                message=answer,
                has_text=answer.message_id in self.texts,
                has_finished_tool=answer.message_id in self.tools,
            )
            for answer in self.answers
            if newest is not None and answer.parent_id == newest.message_id
        )
        state = "idle" if self.run is None else "retry" if self.run.stage == "retry" else "busy"
        attempt = self.run.retries if self.run else 0
        return SessionInspected(session_id=SES, status=self.status(state, attempt), user=newest, assistants=answers)

    # ── what it does by itself ───────────────────────────────────────────────────────────────────────────────

    @property
    def is_in_a_hurry(self):
        """What follows the end of a step or a run is the host's own and takes a moment only."""
        return self.rewrite is not None or (self.run is not None and self.run.stage == "dying")

    @property
    def has_work(self):
        if self.rewrite is not None:
            return True

        if self.run is None:
            return False

        fate, stage = self.health[self.run.route], self.run.stage
        return not (fate == "hang" and stage in ("asked", "retry")) and not (fate == "stall" and stage == "streaming")

    def work(self):
        """The next thing that the host does."""
        if self.rewrite is not None:
            user, self.rewrite = self.rewrite, None
            self.say(self.message(user))
            return

        run, breath = self.run, self.breath
        self.work_on(run, self.health[run.route])
        if self.breath > breath:
            run.signs.append(self.now)

    def work_on(self, run, fate):
        if run.stage == "dying":
            self.die()
        elif run.stage == "retry":
            self.say(self.status("busy"))
            run.stage = "asked"
        elif run.stage == "streaming":
            self.finish(fate)
        else:
            self.provider(fate)

    def provider(self, fate):
        run = self.run
        if fate in ("retry", "unknown"):
            run.failed, run.stage, run.retries = True, "retry", run.retries + 1
            self.say(self.status("retry", run.retries))
        elif fate in ("terminal", "bad request"):
            run.failed, run.stage, self.ended_at = True, "dying", self.now
            run.error = QUOTA if fate == "terminal" else REFUSED
            self.say(SessionErrored(session_id=SES, facts=run.error), *self.idle())
        elif fate == "empty":
            run.stage = "streaming"
        elif fate != "hang":
            self.token()

    def token(self):
        run = self.run
        run.stage, run.tokens, run.token_at = "streaming", True, self.now
        self.texts.add(run.message_id)
        self.say(PartDeltaReceived(session_id=SES, message_id=run.message_id, part_id=f"p{run.message_id}"))

    def die(self):
        run, self.run = self.run, None
        self.say(self.answer(run.message_id, completed=True, error=run.error), *self.idle())

    def finish(self, fate):
        run = self.run
        if fate == "tool" and run.message_id not in self.tools and not self.tools & self.of(run.user_id):
            self.tool_step()
        elif fate == "loop":
            run.unfinished_answers += 1
            run.failed = run.failed or run.unfinished_answers >= 3
            self.say(self.answer(run.message_id, finish="unknown"))
            self.say(self.answer(run.message_id, finish="unknown", completed=True), self.status("busy"))
            self.slot()
        else:
            run.failed = run.failed or not run.tokens
            self.say(self.answer(run.message_id, finish="stop"))
            self.say(self.answer(run.message_id, finish="stop", completed=True))
            self.end_well(run)

    def of(self, user_id):
        return {answer.message_id for answer in self.answers if answer.parent_id == user_id}

    def tool_step(self):
        message_id = self.run.message_id
        self.tools.add(message_id)
        tool = {"session_id": SES, "message_id": message_id, "part_id": f"t{message_id}", "part_type": PartType.TOOL}
        self.say(PartUpdated(**tool, tool_status="running"))
        self.say(PartUpdated(**tool, tool_status="completed"), self.answer(message_id, finish="tool-calls"))
        self.say(
            self.answer(message_id, finish="tool-calls", completed=True), self.message(self.user(self.run.user_id))
        )
        if self.next_up is not None:
            self.begin(self.next_up)
        else:
            self.slot()

    def end_well(self, run):
        self.run = None
        self.rewrite, self.ended_at = self.user(run.user_id), self.now
        if self.next_up is not None:
            self.rewrite = None
            self.begin(self.next_up)
        else:
            self.say(self.status("busy"), *self.idle())

    @property
    def newest(self):
        return max(self.users, key=lambda user: user.created_wall)

    @property
    def is_answered(self):
        return any(
            answer.finish == "stop" and answer.message_id in self.texts
            for answer in self.answers
            if answer.parent_id == self.newest.message_id
        )


class SessionUnderFire(RuleBasedStateMachine):
    """A session, its host, and what happens between them."""

    @initialize(primary=st.sampled_from(FATES), fates=st.tuples(*(st.sampled_from(FATES) for _ in CHAIN)))
    def start(self, primary, fates):
        self.host = NaiveHost()
        self.host.health.update(dict(zip(CHAIN, fates, strict=True)), **{PRIMARY: primary})
        self.session = Session(session_id=SES)
        self.now = 0.0
        self.timer = None
        self.calls = []
        self.results = []
        self.heard = []
        self.recorded = False
        self.missed = False
        self.lost_words = False
        self.has_asked = False
        self.final_turn = None
        self.lost_dispatches = 0
        self.claims_of = {}
        self.tried = set()
        self.stops = 0
        self.host.prompt(PRIMARY)

    # ── the machine, as the runtime drives it ────────────────────────────────────────────────────────────────

    def feed(self, event):
        before = self.session
        self.has_asked = self.has_asked or isinstance(event, SessionInspected)
        if not self.recorded and isinstance(event, OPENS_NO_RECORD):
            return

        self.apply(before, step(before, event, self.now, RULES))
        self.check_stop(event)

    def apply(self, before, done):
        if done.session is None:
            assert isinstance(done.actions, tuple)
            assert done.actions == ()
            self.session, self.timer, self.calls = Session(session_id=SES), None, []
            self.final_turn, self.recorded = None, False
            return

        self.session, self.recorded = done.session, True
        self.check_claims(before, done)
        for action in done.actions:
            if isinstance(action, SetTimer):
                assert action.timer == self.session.timer
                self.timer = action
            elif not isinstance(action, Announce | ReportAnswer):
                self.calls.append(Call(action, self.now))

    def check_claims(self, before, done):
        notices = [action for action in done.actions if isinstance(action, Announce)]
        refused = any(notice.notice is NoticeType.REFUSED for notice in notices)
        claims = [
            n for n in notices if n.notice is NoticeType.EXHAUSTED or (n.notice is NoticeType.FAILURE and n.next_route)
        ]
        assert len(claims) <= 1, "two advances in one step"
        for claim in claims:
            event(f"claim: {claim.failure.kind.value}")
            if before.phase in HOP_PHASES and before.hop is not None and self.session.turn == before.turn:
                assert claim.route == before.hop.plan.new_model, "a second hop while one is under way"

            if not self.cannot_know_the_prompt:
                self.check_claim(claim, refused=refused)

            assert self.final_turn is None, "an advance after a stop"
            if len(self.session.turn.failures) == 1:
                self.tried = set()
            self.tried.add(claim.route)
            if claim.notice is NoticeType.EXHAUSTED:
                assert self.session.phase is Phase.EXHAUSTED

            turn = self.session.turn.user.message_id
            self.claims_of[turn] = self.claims_of.get(turn, 0) + 1
            assert self.claims_of[turn] <= len(CHAIN) + 2, "attempts are not bounded"

    @property
    def cannot_know_the_prompt(self):
        """Whether it can't be told what became of a prompt, or which of several an event speaks of.

        The history tells of the newest prompt only, not of the one that the host works on; and a prompt for a
        model that the host does not know leaves nothing in it.
        """
        guesses = self.lost_words or self.has_asked
        reasons = len(self.host.users) > 1, guesses, any(run.unknown for run in self.host.runs)
        return sum(reasons) > 1

    def check_claim(self, claim, *, refused):
        if not refused:
            self.claim_run(claim)
            return

        unknown = any(run.unknown for run in self.host.runs if run.route == claim.route)
        assert self.lost_dispatches > 0 or unknown, "refused without a refusal"

    def claim_run(self, claim):
        retired = self.session.turn.retired
        runs = [run for run in self.host.runs if run.route == claim.route]
        assert runs, f"an advance for {claim.route}, which was never asked"
        own = [run for run in runs if run.user_id == self.session.turn.user.message_id]
        run = next((run for run in runs if retired and retired[-1] in run.messages), [*runs, *own][-1])
        assert not run.claimed, "a second advance for one failure"
        run.claimed = True
        if claim.failure.kind is Kind.TIMEOUT:
            unheard = self.host.stream[0].said_at if self.host.stream else self.now + 1
            limit = STALL if run.tokens and run.token_at < unheard and not self.lost_words else TIMEOUT
            heard = max(at for at in run.signs if at < unheard or at == run.signs[0])
            assert self.now - heard >= limit - GRAIN, "silence that was none"
        else:
            assert run.failed, "an advance without a failure"

    def check_stop(self, event):
        """From the event on that shows a stop, the turn is over until a newer prompt."""
        if isinstance(event, TurnStopped) and self.session.turn is not None:
            self.final_turn = self.host.user(self.session.turn.user.message_id).created_wall
            assert self.session.phase is Phase.STOPPED
        elif self.final_turn is not None and self.told_of(event) > self.final_turn:
            self.final_turn = None

    def told_of(self, event):
        """When the prompt was made that an event speaks of."""
        if isinstance(event, SessionInspected):
            return event.user.created_wall if event.user else 0.0
        if not isinstance(event, MessageUpdated):
            return 0.0

        message = event.message
        return (
            message.created_wall if isinstance(message, UserMessage) else self.host.user(message.parent_id).created_wall
        )

    # ── the adversary ────────────────────────────────────────────────────────────────────────────────────────

    @rule(steps=st.integers(1, 3))
    def host_works(self, steps):
        for _ in range(steps):
            if self.host.has_work:
                self.host.work()

    @precondition(lambda self: self.host.stream)
    @rule(words=st.integers(1, 6))
    def deliver(self, words):
        for _ in range(words):
            if self.host.stream:
                self.deliver_one()

    def deliver_one(self):
        word = self.host.stream.pop(0)
        self.hear(word.event)

    def hear(self, event):
        if isinstance(event, MessageUpdated | PartUpdated | PartDeltaReceived):
            self.heard = [*self.heard[-11:], event]

        self.feed(event)

    @precondition(lambda self: self.host.stream)
    @rule()
    def deliver_twice(self):
        self.hear(self.host.stream[0].event)
        self.deliver_one()

    @precondition(lambda self: self.heard and not self.host.deleted)
    @rule(back=st.integers(1, 12))
    def echo(self, back):
        """What names its message can come again at any time."""
        self.feed(self.heard[-min(back, len(self.heard))])

    @precondition(lambda self: self.host.stream and not self.tells_of_the_user(12))
    @rule(words=st.integers(1, 12))
    def stream_breaks(self, words):
        """Some words are lost; the stream is taken up again, and the runtime asks about what it may have missed."""
        del self.host.stream[:words]
        self.lost_words = True
        if self.host.run is not None or self.session.phase not in RESTING_PHASES:
            self.apply(self.session, attach(self.session, self.now))
        else:
            self.missed = True

    def tells_of_the_user(self, words):
        """A deletion or a stop is what these tests are about; without it there is nothing to check."""
        return any(isinstance(word.event, SessionDeleted | TurnStopped) for word in self.host.stream[:words])

    @precondition(lambda self: len(self.host.stream) > 1 and self.host.stream[0].breath == self.host.stream[1].breath)
    @rule()
    def swap(self):
        self.host.stream[:2] = reversed(self.host.stream[:2])

    @precondition(lambda self: self.calls)
    @rule(
        which=st.integers(0, 3),
        fate=st.sampled_from(["done", "done", "done", "lost", "no reply", "refused"]),
        stale_write_wins=st.booleans(),
    )
    def carry_out(self, which, fate, stale_write_wins):
        self.perform(self.calls.pop(min(which, len(self.calls) - 1)).action, fate, stale_write_wins=stale_write_wins)

    def perform(self, action, fate, *, stale_write_wins=False):
        self.host.now = self.now
        if isinstance(action, InspectSession):
            if fate == "done":
                self.reply(self.host.inspected())
        elif isinstance(action, AbortRun):
            self.perform_abort(action, fate)
        else:
            self.perform_dispatch(action, fate, stale_write_wins=stale_write_wins)

    def perform_abort(self, action, fate):
        if self.session.generation != action.generation or self.session.phase is Phase.RUNNING:
            return

        if fate in ("done", "no reply") and not self.host.deleted:
            self.host.abort()

        succeeded = fate == "done"
        self.reply(AbortReturned(session_id=SES, generation=action.generation, succeeded=succeeded))

    def perform_dispatch(self, action, fate, *, stale_write_wins):
        if self.session.generation != action.generation or self.session.phase is not Phase.DISPATCHING:
            return

        assert self.final_turn is None, "a dispatch after a stop"
        assert action.route in CHAIN
        assert action.route not in self.tried, "a dispatch to a model that has failed in this turn"
        answer = DispatchReturned(
            session_id=SES, generation=action.generation, outcome="accepted", replayed=action.replay
        )
        runs = len(self.host.runs)
        if fate in ("done", "no reply") and not self.host.deleted:
            self.host.dispatch(action, stale_write_wins=stale_write_wins)
        if fate != "done" or len(self.host.runs) == runs or self.host.runs[-1].route != action.route:
            self.lost_dispatches += 1
        if fate != "done":
            answer = replace(answer, outcome="refused" if fate == "refused" else "unavailable", reason="no")

        self.reply(answer)

    def reply(self, event):
        self.results.append(Result(event, self.now))

    @precondition(lambda self: self.results)
    @rule(which=st.integers(0, 2))
    def result_arrives(self, which):
        self.feed(self.results.pop(min(which, len(self.results) - 1)).event)

    @rule(seconds=st.sampled_from([0.0625, 0.25, 0.625, 1.125, 2.625, 5.125, 31.0, 125.0]))
    def time_passes(self, seconds):
        self.pass_time(seconds)

    def pass_time(self, seconds):
        """Timers fire, and nothing stays on its way for longer than DELAY."""
        until = self.now + seconds
        while (due := min(self.due(), key=lambda found: found[0], default=None)) and due[0] <= until:
            self.set_clock(due[0])
            due[1]()

        self.set_clock(until)

    def set_clock(self, at):
        self.now = self.host.now = max(self.now, ceil(at * TICKS) / TICKS)

    def due(self):
        if self.timer is not None:
            yield self.timer.at, self.fire
        if self.host.is_in_a_hurry:
            yield self.host.ended_at + 1.0, self.host.work
        if self.host.stream:
            yield self.host.stream[0].said_at + DELAY, self.deliver_one
        if self.calls:
            yield self.calls[0].asked_at + DELAY, self.perform_first
        if self.results:
            yield self.results[0].given_at + DELAY, self.take_first_result

    def fire(self):
        timer, self.timer = self.timer, None
        self.feed(TimerElapsed(session_id=SES, timer=timer.timer))

    def perform_first(self):
        self.perform(self.calls.pop(0).action, "done")

    def take_first_result(self):
        self.feed(self.results.pop(0).event)

    @precondition(lambda self: not self.host.deleted)
    @rule(route=st.sampled_from(ROUTES), fate=st.sampled_from(FATES))
    def health_changes(self, route, fate):
        if self.host.run is None or self.host.run.route != route:
            self.host.health[route] = fate

    # ── the user ─────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: not self.host.deleted and len(self.host.users) < 4)
    @rule(route=st.sampled_from([PRIMARY, PRIMARY, PICKED, CHAIN[1]]))
    def user_prompts(self, route):
        self.host.prompt(route)

    @precondition(lambda self: not self.host.deleted)
    @rule(told=st.booleans())
    def user_stops(self, told):
        """Esc; a host with a stop of its own says so first, others just abort."""
        self.stops += 1
        self.host.now = self.now
        if told:
            self.host.say(TurnStopped(session_id=SES))

        self.host.abort()

    @precondition(lambda self: not self.host.deleted and self.host.run is None)
    @rule()
    def user_takes_the_message_back(self):
        self.stops += 1
        self.host.say(MessageRemoved(session_id=SES, message_id=self.host.newest.message_id))

    @precondition(lambda self: not self.host.deleted and self.host.run is None)
    @rule()
    def user_deletes_the_session(self):
        self.host.deleted = True
        self.host.rewrite = None
        self.host.say(SessionDeleted(session_id=SES))
        while self.host.stream:
            self.deliver_one()

        assert self.session == Session(session_id=SES), "a record is left after deletion"

    # ── always ───────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def a_hop_has_its_phase_and_its_model(self):
        session = getattr(self, "session", None)
        if session is None:
            return

        if session.phase in HOP_PHASES:
            assert session.hop is not None
            assert session.state.pending_fallback_model == session.state.current_model == session.hop.plan.new_model
        else:
            assert session.hop is None

    @invariant()
    def every_wait_has_an_end(self):
        session = getattr(self, "session", None)
        if session is not None and session.phase in (*HOP_PHASES, Phase.SETTLING, Phase.INSPECTING):
            assert self.timer is not None
            assert self.timer.timer == session.timer

    # ── when the adversary stops ─────────────────────────────────────────────────────────────────────────────

    def teardown(self):
        if getattr(self, "session", None) is None:
            return

        tried_before = set(self.session.state.tried) if self.session.state else set()
        for _ in range(2000):
            if not self.quiet_step():
                break
        else:
            assert self.cannot_know_the_prompt, "the session never comes to rest"

        if self.host.deleted or self.cannot_know_the_prompt:
            return

        event(f"ends {self.session.phase.value}")
        assert self.host.run is None or self.session.phase in (Phase.RUNNING, Phase.EXHAUSTED, Phase.STOPPED)
        assert self.session.phase in RESTING_PHASES or self.session.phase is Phase.RUNNING
        self.check_answered(tried_before)

    def quiet_step(self):
        run = self.host.run
        if self.host.stream:
            self.deliver_one()
        elif self.results:
            self.take_first_result()
        elif self.calls:
            self.perform_first()
        elif self.host.has_work and (run is None or run.retries < 8):
            self.pass_time(0.125)
            if self.host.has_work:
                self.host.work()
        elif self.timer is not None:
            self.pass_time(max(0.0, self.timer.at - self.now))
        else:
            return False

        return True

    def check_answered(self, tried_before):
        """A turn with a working model left is answered, unless somebody stopped it or no model may help."""
        last = self.host.runs[-1]
        if self.host.is_answered or self.stops or self.missed or last.error == REFUSED:
            return

        working = {route for route in CHAIN if self.host.health[route] in WORKS} - tried_before - self.tried
        assert not working, f"unanswered although {working} would have worked; {self.session.phase}"


SessionUnderFire.TestCase.settings = settings(
    max_examples=500,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(HypothesisPhase.generate, HypothesisPhase.shrink),
    suppress_health_check=list(HealthCheck),
)
TestSessionUnderFire = SessionUnderFire.TestCase


# ── Sequences that it has found, in their shortest form ──────────────────────────────────────────────────────


U1 = UserMessage(message_id="u1", created_wall=1.0, agent="build", route=PRIMARY)
U2 = UserMessage(message_id="u2", created_wall=2.0, agent="build", route=PRIMARY)
RETRYING = SessionStatusChanged(session_id=SES, status="retry", attempt=1, facts=THROTTLED)
BUSY = SessionStatusChanged(session_id=SES, status="busy")
IDLE = SessionStatusChanged(session_id=SES, status="idle")


def said(message):
    return MessageUpdated(session_id=SES, message=message)


def answer(message_id="m1", parent="u1", route=PRIMARY, **fields):
    return AssistantMessage(message_id=message_id, parent_id=parent, route=route, agent="build", **fields)


def found(status, user, *assistants):
    return SessionInspected(session_id=SES, status=status, user=user, assistants=assistants)


def token(message_id="m1"):
    return PartDeltaReceived(session_id=SES, message_id=message_id, part_id="p1")


class Sequence:
    """Events fed by hand; `said` collects what the machine asks for."""

    def __init__(self, session=None):
        self.session = session or Session(session_id=SES)
        self.asked = []

    def feed(self, *events, at=0.0):
        for each in events:
            self.take(step(self.session, each, at, RULES))

        return self

    def take(self, done):
        assert done.session is not None
        self.session = done.session
        self.asked += done.actions
        return self

    def elapse(self, at):
        return self.feed(TimerElapsed(session_id=SES, timer=self.session.timer), at=at)

    def of(self, kind):
        return [action for action in self.asked if isinstance(action, kind)]

    @property
    def advances(self):
        return [n for n in self.of(Announce) if n.notice is NoticeType.FAILURE and n.next_route is not None]

    @property
    def is_watched(self):
        """Whether the newest timer was set and not voided."""
        return any(timer.timer == self.session.timer for timer in self.of(SetTimer))


@pytest.mark.parametrize("started", [2.05, 2.16, 2.25, 3.3, 1e5 + 0.1])
def test_a_watch_that_fires_on_time_finds_the_silence(started):
    """(2.05 + 30) - 2.05 is less than 30: a watch that subtracts sets itself for the same moment, for ever."""
    sequence = Sequence().feed(said(U1), said(answer()), at=started)
    timer = sequence.of(SetTimer)[-1]

    sequence.elapse(timer.at)

    assert [notice.failure.kind for notice in sequence.advances] == [Kind.TIMEOUT]


def test_a_second_prompt_does_not_hide_the_hang_before_it_from_an_inspection():
    sequence = Sequence().feed(said(U1), said(answer()), said(U2))
    sequence.take(attach(sequence.session, 1.0)).feed(found(BUSY, U2), at=1.1)

    for _ in range(4):
        sequence.elapse(sequence.of(SetTimer)[-1].at)

    assert sequence.advances


def test_a_session_at_work_is_watched_after_an_inspection_that_shows_no_answer_yet():
    sequence = Sequence()
    sequence.take(attach(sequence.session, 0.0)).feed(found(BUSY, U1), at=0.1)

    assert sequence.session.phase is Phase.RUNNING
    assert sequence.is_watched


def test_an_answer_whose_tokens_fell_into_a_gap_is_not_empty():
    sequence = Sequence().feed(said(U1), said(answer()))
    sequence.take(attach(sequence.session, 1.0))

    sequence.feed(said(answer(finish="stop", completed=True)), at=1.1)
    sequence.feed(
        found(IDLE, U1, InspectedMessage(message=answer(finish="stop", completed=True), has_text=True)), at=1.2
    )

    assert sequence.advances == []


def test_an_answer_whose_token_overtook_the_inspection_is_not_empty():
    sequence = Sequence()
    sequence.take(attach(sequence.session, 0.0))

    sequence.feed(token(), found(BUSY, U1, InspectedMessage(message=answer())), at=0.1)
    sequence.feed(said(answer(finish="stop", completed=True)), at=0.2)

    assert sequence.advances == []


@pytest.mark.parametrize("completed", [True, False])
def test_an_answer_first_seen_finished_is_not_empty_for_that(completed):
    sequence = Sequence().feed(said(U1), said(answer(finish="stop", completed=completed)))
    sequence.feed(said(answer(finish="stop", completed=True)))

    assert sequence.advances == []


def test_an_inspected_answer_without_text_is_empty():
    sequence = Sequence().feed(said(U1), said(answer()))
    sequence.take(attach(sequence.session, 1.0))

    sequence.feed(found(IDLE, U1, InspectedMessage(message=answer(finish="stop", completed=True))), at=1.2)

    assert [notice.failure.kind for notice in sequence.advances] == [Kind.EMPTY]


def test_a_loop_that_outruns_every_inspection_is_broken():
    """The host begins the next answer before the history comes back, so the answer finds no one who waits."""
    sequence = Sequence()
    for number in range(2, 40):
        message_id = f"m{number}"
        sequence.feed(said(answer(message_id)), token(message_id))
        sequence.feed(said(answer(message_id, finish="unknown", completed=True)), said(answer(f"m{number + 1}")))
        done = InspectedMessage(message=answer(message_id, finish="unknown", completed=True), has_text=True)
        if sequence.of(InspectSession):
            sequence.feed(found(BUSY, U1, done, InspectedMessage(message=answer(f"m{number + 1}"))))

    assert [notice.failure.kind for notice in sequence.advances] == [Kind.TRUNCATED]
    assert sequence.of(AbortRun)


def test_a_picture_from_before_the_dispatch_is_no_sign_of_its_loss():
    sequence = Sequence().feed(said(U1), said(answer()))
    for at in (1.0, 1.1, 1.2):
        sequence.take(attach(sequence.session, at))
    dead = answer(completed=True, error=QUOTA)
    sequence.feed(said(dead), at=1.3)
    assert len(sequence.of(DispatchTurn)) == 1

    for at in (1.4, 1.5, 1.6):
        sequence.feed(found(IDLE, U1, InspectedMessage(message=dead)), at=at)

    assert len(sequence.of(DispatchTurn)) == 1
    assert len(sequence.advances) == 1


def test_one_cut_answer_told_three_times_is_no_loop():
    sequence = Sequence().feed(said(U1), said(answer()), token())

    sequence.feed(*[said(answer(finish="unknown", completed=True))] * 4)

    assert sequence.advances == []


@pytest.mark.parametrize("stop", [TurnStopped(session_id=SES), SessionErrored(session_id=SES, facts=ABORTED)])
def test_a_picture_from_before_the_stopped_turn_does_not_revive_the_one_before(stop):
    sequence = Sequence().feed(said(U1), said(answer()), token(), said(answer(finish="stop", completed=True)))
    sequence.take(attach(sequence.session, 1.0))
    sequence.feed(said(U2), said(answer("m2", "u2")), stop, at=2.0)
    assert sequence.session.phase is Phase.STOPPED

    sequence.feed(found(BUSY, U1, InspectedMessage(message=answer("m1"))), at=2.1)

    assert sequence.session.phase is Phase.STOPPED


def test_a_stop_holds_for_a_turn_that_was_not_known_yet():
    answering = InspectedMessage(message=answer())
    sequence = Sequence().feed(RETRYING, TurnStopped(session_id=SES))
    assert sequence.of(InspectSession)

    sequence.feed(found(RETRYING, U1, answering))

    assert sequence.session.phase is Phase.STOPPED
    assert sequence.advances == []
    sequence.feed(said(U2), said(answer("m2", "u2")), RETRYING)
    assert len(sequence.advances) == 1


def test_a_session_taken_up_is_asked_about_again_if_the_first_question_is_lost():
    sequence = Sequence()
    sequence.take(attach(sequence.session, 0.0))
    assert len(sequence.of(InspectSession)) == 1

    assert sequence.is_watched
    sequence.elapse(sequence.of(SetTimer)[-1].at)
    assert len(sequence.of(InspectSession)) == 2


def test_a_prompt_during_an_inspection_does_not_leave_the_running_answer():
    sequence = Sequence().feed(said(U1), said(answer()), token())
    sequence.take(attach(sequence.session, 1.0))

    sequence.feed(said(U2), at=1.1)
    sequence.feed(RETRYING, at=1.2)

    assert [notice.route for notice in sequence.advances] == [PRIMARY]
    assert sequence.session.attempt is not None
    assert sequence.session.attempt.assistant_id == "m1"


def test_a_prompt_after_an_idle_that_ended_nothing_does_not_leave_the_running_answer():
    sequence = Sequence().feed(said(U1), said(answer()), token(), SessionIdled(session_id=SES))
    assert sequence.session.phase is Phase.SETTLING

    sequence.feed(said(U2), said(answer(finish="unknown", completed=True)), at=0.1)
    for number in (2, 3):
        sequence.feed(said(answer(f"m{number}")), token(f"m{number}"))
        sequence.feed(said(answer(f"m{number}", finish="unknown", completed=True)))

    assert [notice.failure.kind for notice in sequence.advances] == [Kind.TRUNCATED]


@pytest.mark.parametrize("error_first", [True, False])
def test_an_abort_of_ours_that_comes_late_and_hits_the_fallback_is_no_stop_of_the_user(error_first):
    """The first abort is slow, so a second one is sent; it lands when the next model is at work already."""
    sequence = Sequence().feed(said(U1), said(answer()), RETRYING)
    sequence.elapse(2.5)
    assert len(sequence.of(AbortRun)) == 2
    over = said(answer(completed=True)), IDLE, AbortReturned(session_id=SES, generation=1, succeeded=True)
    sequence.feed(*over, said(answer("m2", route=CHAIN[0])), at=2.6)
    assert sequence.session.phase is Phase.RUNNING

    echo = (
        SessionErrored(session_id=SES, facts=ABORTED),
        said(answer("m2", route=CHAIN[0], completed=True, error=ABORTED)),
    )
    sequence.feed(*(echo if error_first else echo[1:]), IDLE, at=2.7)

    assert sequence.session.phase is not Phase.STOPPED
    assert [turn.route for turn in sequence.of(DispatchTurn)][-1] in CHAIN


def test_a_retry_before_any_answer_was_seen_is_not_laid_to_the_prompts_model():
    """Rule 1 of the machine: only an attempt can fail, and an attempt runs only after its message was seen."""
    picked = replace(U2, route=PICKED)
    sequence = Sequence().feed(said(picked), RETRYING)

    assert sequence.advances == []
    assert sequence.of(InspectSession)


def test_the_next_models_refusal_is_told_from_an_echo_of_the_last_ones():
    """Both models are unknown to the host; it names them in its words."""
    sequence = Sequence().feed(said(U1))
    sequence.feed(SessionErrored(session_id=SES, facts=unknown_model(PRIMARY)))
    sequence.feed(IDLE, SessionIdled(session_id=SES))
    sequence.feed(SessionErrored(session_id=SES, facts=unknown_model(PRIMARY)))
    assert [turn.route for turn in sequence.of(DispatchTurn)] == ["two/a"]

    sequence.feed(SessionErrored(session_id=SES, facts=unknown_model("two/a")))

    assert [turn.route for turn in sequence.of(DispatchTurn)] == ["two/a", "three/b"]


def test_a_prompt_that_starts_no_run_is_not_waited_for_without_end():
    sequence = Sequence().feed(said(U1))

    assert sequence.session.phase in RESTING_PHASES or sequence.is_watched
