"""FallbackPlugin over a scripted host, in virtual time on both event loops."""

from __future__ import annotations

import logging
from dataclasses import replace

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fallback_plugin.core.actions import NoticeType, Removal
from fallback_plugin.core.events import (
    AssistantMessage,
    InspectedMessage,
    MessageUpdated,
    PartDeltaReceived,
    PartType,
    PartUpdated,
    SessionCreated,
    SessionDeleted,
    SessionErrored,
    SessionIdled,
    SessionInspected,
    SessionStatusChanged,
    TurnStopped,
    UserMessage,
)
from fallback_plugin.core.failure import Facts
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase
from fallback_plugin.errors import FallbackPluginError, HostRefused, HostUnavailable
from fallback_plugin.runtime import records as records_module
from fallback_plugin.runtime.plugin import FallbackPlugin
from fallback_plugin.runtime.records import SESSION_AGE
from fallback_plugin.testing.scripted_host import Hang, NotReached, Refuse, Replay, ScriptedHost, Wait
from fallback_plugin.testing.virtual_time import VIRTUAL_BACKENDS, settle, virtual_backend

SES = "ses_1"
PRIMARY, A, B = "one/primary", "two/a", "three/b"
RULES = Rules(default=Policy(chain=(A, B), min_hop_interval_seconds=0.0))
QUOTA = Facts(status=402, name="APIError", message="Insufficient balance")
THROTTLED = Facts(message="Rate limit reached")
NO_ANSWER = HostUnavailable("no answer")


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


def user(session_id=SES, message_id="u1", at=1.0, agent="build", **carried):
    message = UserMessage(message_id=message_id, created_wall=at, agent=agent, route=PRIMARY, carried=carried)
    return MessageUpdated(session_id=session_id, message=message)


def answer(message_id="m1", route=PRIMARY, session_id=SES, parent="u1", **fields):
    message = AssistantMessage(message_id=message_id, parent_id=parent, route=route, agent="build", **fields)
    return MessageUpdated(session_id=session_id, message=message)


def failed(message_id="m1", route=PRIMARY, session_id=SES, facts=QUOTA):
    return answer(message_id, route, session_id, completed=True, error=facts)


def retrying(session_id=SES, attempt=1):
    return SessionStatusChanged(session_id=session_id, status="retry", attempt=attempt, facts=THROTTLED)


def status(name, session_id=SES):
    return SessionStatusChanged(session_id=session_id, status=name)


def text(message_id="m1", part_id="p1", session_id=SES):
    return PartUpdated(
        session_id=session_id, message_id=message_id, part_id=part_id, part_type=PartType.TEXT, has_content=True
    )


def idled(session_id=SES):
    return SessionIdled(session_id=session_id)


def picture(session_id=SES, status_name="idle", *answers):
    """What an inspection finds: the user message and its answers."""
    facts = THROTTLED if status_name == "retry" else None
    return SessionInspected(
        session_id=session_id,
        status=SessionStatusChanged(session_id=session_id, status=status_name, attempt=1, facts=facts),
        user=user(session_id).message,
        assistants=tuple(
            InspectedMessage(message=event.message, has_text=event.message.finish == "stop") for event in answers
        ),
    )


class Play(FallbackPlugin):
    """The plugin with its host and what it announced at hand."""

    def __init__(self, host=None, rules=RULES):
        self.host = host or ScriptedHost()
        self.notices = []
        self.times = []
        super().__init__(self.host, rules, observer=self._note)

    def _note(self, notice, now):
        self.notices.append(notice)
        self.times.append(now)

    def told(self):
        return [notice.notice.value for notice in self.notices]

    async def feed(self, *events):
        for event in events:
            self.handle(event)
        await settle()

    async def start(self, session_id=SES):
        """A turn whose primary has begun to answer."""
        await self.feed(user(session_id), status("busy", session_id), answer(session_id=session_id))


# ── whole hops ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_throttled_turn_is_aborted_and_resumed_on_the_next_model_once():
    async with Play() as plugin:
        await plugin.start()
        assert plugin.retry_in_flight == set()

        await plugin.feed(retrying())
        assert plugin.retry_in_flight == {SES}
        assert [call.name for call in plugin.host.calls] == ["abort"]

        await plugin.feed(answer(completed=True), status("idle"), idled())
        assert plugin.retry_in_flight == {SES}, "dispatched, but not seen to run"
        [turn] = plugin.host.turns
        assert (turn.session_id, turn.user_message_id, turn.route, turn.agent) == (SES, "u1", A, "build")
        assert turn.replay is False

        await plugin.feed(status("busy"), answer("m2", A))
        assert plugin.retry_in_flight == set()

        await plugin.feed(text("m2"), answer("m2", A, completed=True, finish="stop"), status("idle"), idled())
        assert plugin.told() == ["failure", "hop", "recovered"]
        assert plugin.sessions[SES].phase is Phase.IDLE

        await anyio.sleep(600)
        assert plugin.host.routes == [A]
        assert [call.name for call in plugin.host.calls] == ["abort", "dispatch", "show"]


async def test_a_dispatch_repeats_what_the_message_carried_and_removes_the_dead_models_text():
    async with Play() as plugin:
        await plugin.feed(user(system="Be terse.", tools={"bash": False}), answer(), text())
        await plugin.feed(retrying(), status("idle"), idled())

        [turn] = plugin.host.turns
        assert dict(turn.carried) == {"system": "Be terse.", "tools": {"bash": False}}
        assert turn.removals == (Removal(message_id="m1"),)


@pytest.mark.parametrize("step", [None, NO_ANSWER, HostRefused("busy", status=409)], ids=["done", "no answer", "busy"])
async def test_a_summary_that_no_model_writes_is_cleared_away_once(step):
    async with Play(rules=Rules(default=Policy(chain=(A,), min_hop_interval_seconds=0.0))) as plugin:
        plugin.host.script("discard", step)
        request = PartUpdated(session_id=SES, message_id="u1", part_id="p1", part_type=PartType.COMPACTION)
        await plugin.feed(user(), request, answer(compaction=True))
        await plugin.feed(answer(compaction=True, completed=True, error=QUOTA))
        await plugin.feed(answer("m2", A, compaction=True))
        await plugin.feed(answer("m2", A, compaction=True, completed=True, error=QUOTA))

        assert [turn.removals for turn in plugin.host.turns] == [(Removal(message_id="m1"),)]
        [discarded] = plugin.host.made("discard")
        assert discarded.session_id == SES
        assert discarded.removals == (Removal(message_id="m2"), Removal(message_id="u1"))
        assert plugin.told() == ["failure", "hop", "exhausted"]

        await anyio.sleep(600)
        assert plugin.host.made("abort") == []
        assert plugin.host.routes == [A]


async def test_silence_is_noticed_by_the_timer_alone():
    async with Play() as plugin:
        await plugin.start()
        began = anyio.current_time()
        await anyio.sleep(29)
        assert plugin.host.calls == []

        await anyio.sleep(2)
        [abort] = plugin.host.made("abort")
        assert abort.at - began == pytest.approx(30, abs=0.01)

        await plugin.feed(idled())
        assert plugin.host.routes == [A]


async def test_tokens_keep_the_watch_away_and_their_end_brings_it():
    async with Play() as plugin:
        await plugin.start()
        for _ in range(200):
            await anyio.sleep(1)
            plugin.handle(PartDeltaReceived(session_id=SES, message_id="m1", part_id="p1"))
        assert plugin.host.calls == []

        last = anyio.current_time()
        await anyio.sleep(300)
        first = plugin.host.made("abort")[0]
        assert first.at - last == pytest.approx(120, abs=1.5)
        assert plugin.notices[0].failure.reason == "no more tokens for 120 s"


async def test_a_running_tool_is_no_silence():
    async with Play() as plugin:
        await plugin.start()
        tool = PartUpdated(
            session_id=SES, message_id="m1", part_id="t1", part_type=PartType.TOOL, tool_status="running"
        )
        await plugin.feed(tool)
        await anyio.sleep(600)
        assert plugin.host.calls == []

        await plugin.feed(replace(tool, tool_status="completed"))
        await anyio.sleep(600)
        assert len(plugin.host.made("abort")) >= 1


@pytest.mark.parametrize("error_first", [True, False], ids=["error first", "message first"])
@pytest.mark.parametrize("awaits_between", [True, False])
async def test_the_handlers_called_by_name_in_either_order_make_one_advance(error_first, awaits_between):
    async with Play() as plugin:
        await plugin.start()
        handlers = [
            lambda: plugin.on_session_error(SessionErrored(session_id=SES, facts=QUOTA)),
            lambda: plugin.on_message_updated(failed()),
        ]
        for handler in handlers if error_first else reversed(handlers):
            handler()
            assert plugin.retry_in_flight == {SES}
            if awaits_between:
                await settle()

        await settle()
        await plugin.feed(status("idle"), idled(), idled(), failed())
        assert plugin.host.routes == [A]
        assert plugin.sessions[SES].state.attempt_count == 1
        assert plugin.told() == ["failure"]


async def test_twenty_sessions_that_fail_at_once_hop_once_each():
    names = [f"ses_{number}" for number in range(20)]
    async with Play() as plugin:
        for name in names:
            await plugin.start(name)
        await plugin.feed(*[retrying(name) for name in names])
        assert plugin.retry_in_flight == set(names)

        await plugin.feed(*[idled(name) for name in names])
        assert sorted(turn.session_id for turn in plugin.host.turns) == sorted(names)

        await plugin.feed(*[answer("m2", A, name) for name in names])
        assert plugin.retry_in_flight == set()
        assert {turn.route for turn in plugin.host.turns} == {A}


async def test_an_exhausted_chain_is_said_once_and_the_hosts_retry_is_stopped():
    async with Play() as plugin:
        await plugin.start()
        for message_id, route, following in (("m1", PRIMARY, A), ("m2", A, B)):
            await plugin.feed(failed(message_id, route))
            assert plugin.host.routes[-1] == following
            await plugin.feed(answer("m2" if following == A else "m3", following))

        await plugin.feed(retrying(), retrying(attempt=2))
        assert plugin.told().count("exhausted") == 1
        [notice] = [notice for notice in plugin.notices if notice.notice is NoticeType.EXHAUSTED]
        assert [failure.route for failure in notice.failures] == [PRIMARY, A, B]
        assert len(plugin.host.made("abort")) >= 1

        await anyio.sleep(600)
        assert plugin.host.routes == [A, B]

        await plugin.feed(user(message_id="u2", at=2.0), answer("m4", PRIMARY, parent="u2"))
        assert plugin.sessions[SES].phase is Phase.RUNNING


# ── a host that fails ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "step", [NO_ANSWER, HostRefused("no", status=403), RuntimeError("a bug of the adapter"), Hang()], ids=repr
)
async def test_an_abort_that_never_works_is_tried_three_times_and_led_on_by_the_timer(step, caplog):
    async with Play() as plugin:
        plugin.host.script("abort", step, step, step)
        await plugin.start()
        began = anyio.current_time()
        await plugin.feed(retrying())
        await anyio.sleep(60)

        assert len(plugin.host.made("abort")) == 3
        assert plugin.host.routes[0] == A
        assert plugin.host.made("dispatch")[0].at - began < 10


async def test_an_abort_that_works_late_does_not_dispatch_twice():
    async with Play() as plugin:
        plugin.host.script("abort", Wait(4.0), Wait(4.0), Wait(4.0))
        await plugin.start()
        await plugin.feed(retrying())
        await anyio.sleep(5)
        await plugin.feed(idled())
        await plugin.feed(answer("m2", A))
        await anyio.sleep(20)

        assert plugin.host.routes == [A]
        assert plugin.told() == ["failure", "hop"]


@pytest.mark.parametrize("step", [NotReached(), NO_ANSWER, OSError("broken")], ids=repr)
async def test_a_dispatch_that_nobody_answered_is_made_again(step):
    async with Play() as plugin:
        plugin.host.script("dispatch", step)
        await plugin.start()
        await plugin.feed(failed())
        await anyio.sleep(1.5)
        assert plugin.host.routes == [A, A]
        assert plugin.host.turns[0].user_message_id == plugin.host.turns[1].user_message_id == "u1"

        await plugin.feed(answer("m2", A))
        await anyio.sleep(20)
        assert plugin.host.routes == [A, A]
        assert plugin.told() == ["failure", "hop"]


async def test_a_model_that_is_never_reached_is_given_up_after_three_tries_with_a_word():
    async with Play() as plugin:
        plugin.host.script("dispatch", NO_ANSWER, NO_ANSWER, NO_ANSWER)
        await plugin.start()
        await plugin.feed(failed())
        await anyio.sleep(8)

        assert plugin.host.routes[:4] == [A, A, A, B]
        assert plugin.told()[:3] == ["failure", "refused", "failure"]
        assert plugin.notices[1].route == A


async def test_a_refused_dispatch_is_replayed_then_goes_to_the_next_model():
    async with Play() as plugin:
        plugin.host.script("dispatch", Refuse("answered 400"), Refuse("answered 400 again"))
        await plugin.start()
        await plugin.feed(failed())

        assert [(turn.route, turn.replay) for turn in plugin.host.turns] == [(A, False), (A, True), (B, False)]
        [refused] = [notice for notice in plugin.notices if notice.notice is NoticeType.REFUSED]
        assert refused.route == A
        assert refused.failure.reason == "answered 400 again"

        await plugin.feed(answer("m2", B))
        assert plugin.retry_in_flight == set()


async def test_a_host_that_refuses_everything_ends_exhausted():
    async with Play() as plugin:
        plugin.host.script("dispatch", *[Refuse()] * 10)
        await plugin.start()
        await plugin.feed(failed())
        await anyio.sleep(60)

        assert plugin.host.routes == [A, A, B, B]
        assert plugin.sessions[SES].phase is Phase.EXHAUSTED
        assert plugin.retry_in_flight == set()
        assert plugin.told()[-1] == "exhausted"


async def test_an_accepted_dispatch_that_shows_nothing_is_asked_about_and_made_again():
    async with Play() as plugin:
        plugin.host.pictures[SES] = picture(SES, "idle", failed())
        await plugin.start()
        await plugin.feed(failed())
        await anyio.sleep(30)

        assert plugin.host.routes[:3] == [A, A, A]
        assert len(plugin.host.made("inspect")) >= 2


async def test_a_dispatch_that_hangs_is_asked_about():
    async with Play() as plugin:
        plugin.host.script("dispatch", Hang())
        plugin.host.pictures[SES] = picture(SES, "idle", failed())
        await plugin.start()
        await plugin.feed(failed())
        await anyio.sleep(4)

        assert plugin.host.made("inspect")
        assert plugin.host.routes == [A, A]


async def test_an_unconfirmed_dispatch_is_found_at_work_by_asking():
    async with Play() as plugin:
        plugin.host.pictures[SES] = picture(SES, "busy", failed(), answer("m2", A))
        await plugin.start()
        await plugin.feed(failed())
        await anyio.sleep(6)

        assert plugin.host.routes == [A]
        assert plugin.retry_in_flight == set()
        assert plugin.told() == ["failure", "hop"]


@pytest.mark.parametrize("step", [NO_ANSWER, HostRefused("history has no shape", status=400), Hang()], ids=repr)
async def test_a_lost_dispatch_whose_history_can_never_be_read_still_comes_to_an_end(step):
    async with Play() as plugin:
        plugin.host.script("inspect", *[step] * 500)
        await plugin.start()
        await plugin.feed(failed())
        await anyio.sleep(900)

        assert plugin.retry_in_flight == set()


@pytest.mark.parametrize("name", ["abort", "dispatch", "inspect", "show"])
async def test_no_failing_call_ends_the_plugin(name, caplog):
    async with Play() as plugin:
        plugin.host.script(name, *[RuntimeError("secret prompt text")] * 50)
        await plugin.start()
        await plugin.feed(retrying())
        await anyio.sleep(600)
        await plugin.feed(user("ses_2"), answer(session_id="ses_2"), failed(session_id="ses_2"))

        assert any(turn.session_id == "ses_2" for turn in plugin.host.turns)

    assert "secret prompt text" not in caplog.text
    if name != "show":
        assert f"{name} failed: RuntimeError" in caplog.text


STEPS = st.sampled_from([NO_ANSWER, RuntimeError("bug"), Hang(), Refuse(), NotReached(), None, Wait(3.0), Wait(20.0)])


@pytest.mark.parametrize("backend", VIRTUAL_BACKENDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    aborts=st.lists(STEPS, max_size=8),
    dispatches=st.lists(STEPS, max_size=12),
    inspections=st.lists(STEPS, max_size=5),
)
def test_whatever_the_host_does_every_hop_ends(backend, aborts, dispatches, inspections):
    """A host that never shows an answer: each route is tried a bounded number of times, then it is over."""

    async def play():
        async with Play() as plugin:
            plugin.host.script("abort", *aborts)
            plugin.host.script("dispatch", *dispatches)
            plugin.host.script("inspect", *inspections)
            plugin.host.pictures[SES] = picture(SES, "idle", failed())
            await plugin.start()
            await plugin.feed(retrying())
            await anyio.sleep(900)

            assert plugin.retry_in_flight == set()
            assert plugin.sessions[SES].phase is Phase.EXHAUSTED
            assert plugin.told().count("exhausted") == 1
            assert len(plugin.host.turns) <= 12
            assert plugin.host.routes == sorted(plugin.host.routes, key=(A, B).index)

    name, options = virtual_backend(backend)
    logging.getLogger("fallback_plugin").setLevel(logging.CRITICAL)
    try:
        anyio.run(play, backend=name, backend_options=options)
    finally:
        logging.getLogger("fallback_plugin").setLevel(logging.NOTSET)


# ── stops and deletions ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stop_while_the_abort_is_under_way_dispatches_nothing():
    async with Play() as plugin:
        plugin.host.script("abort", Wait(1.0))
        await plugin.start()
        await plugin.feed(retrying(), TurnStopped(session_id=SES))
        await plugin.feed(status("idle"), idled())
        await anyio.sleep(600)

        assert plugin.host.routes == []
        assert plugin.retry_in_flight == set()
        assert plugin.told() == ["failure", "stopped"]


async def test_a_session_deleted_in_the_middle_of_a_hop_is_forgotten():
    async with Play() as plugin:
        plugin.host.script("abort", Wait(1.0))
        await plugin.start()
        await plugin.feed(retrying(), SessionDeleted(session_id=SES))
        await anyio.sleep(600)

        assert plugin.sessions == {}
        assert plugin.retry_in_flight == set()
        assert plugin.host.routes == []


async def test_an_inspection_that_comes_back_after_the_deletion_brings_nothing_to_life():
    async with Play() as plugin:
        plugin.host.pictures[SES] = picture(SES, "retry", answer())
        plugin.host.script("inspect", Wait(1.0))
        plugin.catch_up([SES])
        await settle()
        await plugin.feed(SessionDeleted(session_id=SES))
        await anyio.sleep(60)

        assert plugin.sessions == {}
        assert [call.name for call in plugin.host.calls] == ["inspect"]


async def test_ten_thousand_sessions_come_and_go_and_leave_nothing():
    async with Play() as plugin:
        for number in range(10_000):
            name = f"ses_{number}"
            plugin.handle(SessionCreated(session_id=name))
            plugin.handle(user(name))
            plugin.handle(answer(session_id=name))
            plugin.handle(text(session_id=name))
            if number % 100 == 0:
                plugin.handle(retrying(name))
            plugin.handle(SessionDeleted(session_id=name))
            plugin.handle(text(session_id=name))
            plugin.handle(idled(name))
        await settle()

        assert plugin.sessions == {}
        assert plugin.retry_in_flight == set()
        assert plugin._records._touched == {}
        assert len(plugin._timers) <= 3 * 10_000

        await anyio.sleep(300)
        assert len(plugin._timers) == 0
        assert plugin.host.routes == []


async def test_a_long_stream_leaves_few_timers():
    async with Play() as plugin:
        await plugin.start()
        for _ in range(5000):
            await anyio.sleep(0.1)
            plugin.handle(PartDeltaReceived(session_id=SES, message_id="m1", part_id="p1"))

        assert len(plugin._timers) < 10


# ── toasts ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_hop_is_toasted_with_old_model_reason_and_new_model():
    async with Play() as plugin:
        await plugin.start()
        await plugin.feed(failed())
        assert plugin.host.toasts == []

        await plugin.feed(answer("m2", A))
        [toast] = plugin.host.toasts
        assert toast.variant == "warning"
        assert toast.message == f"{PRIMARY} → {A} (quota exhausted)"


async def test_an_exhausted_chain_is_toasted_as_an_error():
    async with Play(rules=Rules(default=Policy(chain=(PRIMARY,)))) as plugin:
        await plugin.start()
        await plugin.feed(failed())

        [toast] = plugin.host.toasts
        assert (toast.variant, toast.title) == ("error", "All models failed")
        assert PRIMARY in toast.message


async def test_s13_parts_that_a_replay_had_to_leave_out_are_told_on_screen():
    async with Play() as plugin:
        plugin.host.script("dispatch", Refuse(), Replay(("agent", "file")))
        await plugin.start()
        await plugin.feed(failed())
        replayed = user(message_id="u2", at=2.0)
        replayed = replace(replayed, message=replace(replayed.message, route=A))
        await plugin.feed(replayed, answer("m2", A, parent="u2"))

        assert plugin.told()[-1] == "hop"
        assert "agent, file" in " ".join(toast.message for toast in plugin.host.toasts)


@pytest.mark.parametrize("agent", ["build", "quiet"])
async def test_no_toast_where_the_agent_wants_none(agent):
    loud = Policy(chain=(A,), min_hop_interval_seconds=0.0)
    rules = Rules(default=loud, agents={"quiet": replace(loud, notify_on_fallback=False)})
    async with Play(rules=rules) as plugin:
        await plugin.feed(user(agent=agent), answer(), failed(), answer("m2", A), failed("m2", A))

        assert plugin.told() == ["failure", "hop", "exhausted"]
        assert len(plugin.host.toasts) == (2 if agent == "build" else 0)


# ── reload, catch up, drain ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_reload_is_in_force_from_the_next_decision_on():
    async with Play() as plugin:
        await plugin.start()
        plugin.reload(Rules(default=Policy(chain=(B,))))
        await plugin.feed(failed())
        assert plugin.host.routes == [B]

        plugin.reload(Rules(default=Policy(enabled=False, chain=(A,))))
        await plugin.feed(user("ses_2"), answer(session_id="ses_2"), failed(session_id="ses_2"))
        assert plugin.host.routes == [B]
        assert "ses_2" not in plugin.retry_in_flight


async def test_catch_up_finds_a_session_that_is_in_retry_and_carries_it_on():
    async with Play() as plugin:
        plugin.host.pictures[SES] = picture(SES, "retry", answer())
        plugin.catch_up([SES])
        await settle()
        assert [call.name for call in plugin.host.calls] == ["inspect", "abort"]

        await plugin.feed(idled())
        assert plugin.host.routes == [A]


async def test_catch_up_asks_about_sessions_thought_at_work_and_each_one_once():
    async with Play() as plugin:
        await plugin.start("known")
        await plugin.feed(user("resting"), answer(session_id="resting", completed=True, finish="stop"))
        await plugin.feed(SessionCreated(session_id="idle"))
        plugin.host.pictures["known"] = picture("known", "busy", answer(session_id="known"))
        plugin.host.calls.clear()

        plugin.catch_up(["known", "told", "told"])
        await settle()

        asked = [call.session_id for call in plugin.host.made("inspect")]
        assert sorted(asked) == ["known", "told"]
        assert "told" not in plugin.sessions, "the host knows no such session"


async def test_catch_up_learns_of_a_turn_that_was_answered_during_the_gap():
    async with Play() as plugin:
        await plugin.start()
        plugin.host.pictures[SES] = picture(SES, "idle", answer(completed=True, finish="stop"))
        plugin.catch_up([])
        await settle()

        assert plugin.sessions[SES].phase is Phase.IDLE
        await anyio.sleep(600)
        assert plugin.host.routes == []


async def test_catch_up_in_the_middle_of_a_hop_does_nothing_twice():
    async with Play() as plugin:
        await plugin.start()
        await plugin.feed(failed())
        assert plugin.host.routes == [A]

        plugin.host.pictures[SES] = picture(SES, "busy", failed(), answer("m2", A))
        plugin.catch_up([SES])
        await settle()
        assert plugin.host.routes == [A]
        assert plugin.told() == ["failure", "hop"]


@pytest.mark.parametrize("step", [NO_ANSWER, Wait(5.0, NO_ANSWER)], ids=repr)
async def test_a_session_at_work_whose_first_inspection_fails_is_asked_about_again(step):
    async with Play() as plugin:
        plugin.host.pictures[SES] = picture(SES, "retry", answer())
        plugin.host.script("inspect", step)
        plugin.catch_up([SES])
        await anyio.sleep(60)

        assert len(plugin.host.made("inspect")) >= 2
        assert plugin.host.routes[:1] == [A]


async def test_drain_has_nothing_to_wait_for_where_no_hop_is_under_way():
    async with Play() as plugin:
        await plugin.start()
        began = anyio.current_time()

        assert await plugin.drain(60)
        assert anyio.current_time() == pytest.approx(began)


async def test_drain_waits_until_every_hop_is_seen_to_run():
    async with Play() as plugin:
        for name in ("ses_1", "ses_2"):
            await plugin.start(name)
            await plugin.feed(failed(session_id=name))

        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_answer_later, plugin, "ses_1", 0.5)
            tasks.start_soon(_answer_later, plugin, "ses_2", 1.5)
            assert await plugin.drain(60)

        assert anyio.current_time() - began == pytest.approx(1.5, abs=0.01)


async def _answer_later(plugin, session_id, delay):
    await anyio.sleep(delay)
    plugin.handle(answer("m2", A, session_id))


async def test_drain_gives_up_after_its_patience():
    async with Play() as plugin:
        plugin.host.script("abort", Hang(), Hang(), Hang())
        await plugin.start()
        await plugin.feed(retrying())
        began = anyio.current_time()

        assert not await plugin.drain(2.0)
        assert anyio.current_time() - began == pytest.approx(2.0, abs=0.01)


async def test_leaving_the_plugin_ends_every_call_under_way():
    with anyio.fail_after(5):
        async with Play() as plugin:
            plugin.host.script("abort", Hang())
            plugin.host.script("dispatch", Hang())
            await plugin.start()
            await plugin.feed(retrying(), user("ses_2"), answer(session_id="ses_2"), failed(session_id="ses_2"))
            assert len(plugin.host.calls) == 2


async def test_an_error_inside_of_the_context_comes_out():
    async def break_inside():
        async with Play() as plugin:
            await plugin.start()
            raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as caught:
        await break_inside()

    assert caught.group_contains(ZeroDivisionError)


# ── sweep ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_long_at_rest_is_dropped_and_a_younger_one_stays():
    async with Play() as plugin:
        plugin.handle(SessionCreated(session_id="old"), now=1000.0)
        plugin.handle(SessionCreated(session_id="young"), now=1000.0 + SESSION_AGE / 2)
        assert plugin.sweep(1000.0 + SESSION_AGE - 1) == 0
        assert set(plugin.sessions) == {"old", "young"}

        assert plugin.sweep(1000.0 + SESSION_AGE) == 1
        assert set(plugin.sessions) == {"young"}
        assert set(plugin._records._touched) == {"young"}


async def test_the_sweep_comes_by_itself(monkeypatch):
    monkeypatch.setattr(records_module, "SESSION_AGE", 400.0)
    async with Play() as plugin:
        plugin.handle(SessionCreated(session_id="old"))
        await anyio.sleep(390)
        assert set(plugin.sessions) == {"old"}

        await anyio.sleep(300)
        assert plugin.sessions == {}


async def test_k28_a_session_at_work_is_never_dropped_however_long_it_streams():
    async with Play(rules=Rules(default=Policy(chain=(A,), timeout_seconds=0, stall_timeout_seconds=0))) as plugin:
        await plugin.start("streaming")
        await plugin.start("hopping")
        plugin.host.script("dispatch", Hang())
        plugin.host.script("inspect", *[Hang()] * 10_000)
        await plugin.feed(failed(session_id="hopping"))
        hopping = "hopping" in plugin.retry_in_flight
        await anyio.sleep(10)
        for _ in range(3):
            assert plugin.sweep(anyio.current_time() + 100 * SESSION_AGE) == 0

        assert hopping
        assert set(plugin.sessions) == {"streaming", "hopping"}


async def test_too_many_sessions_lose_the_longest_at_rest_first(monkeypatch):
    monkeypatch.setattr(records_module, "SESSION_COUNT", 10)
    async with Play() as plugin:
        await plugin.start("live")
        for number in range(30):
            plugin.handle(SessionCreated(session_id=f"ses_{number}"))
            await anyio.sleep(0.1)

        assert plugin.sweep(anyio.current_time()) == 21
        assert set(plugin.sessions) == {"live", *[f"ses_{number}" for number in range(21, 30)]}


async def test_activity_makes_a_resting_session_young_again():
    async with Play() as plugin:
        for event in (user(), answer(), text(), answer(completed=True, finish="stop")):
            plugin.handle(event, now=1000.0)
        again = 1000.0 + SESSION_AGE - 1
        ended = answer("m2", parent="u2", completed=True, finish="stop")
        for event in (user(message_id="u2", at=2.0), answer("m2", parent="u2"), text("m2"), ended):
            plugin.handle(event, now=again)
        assert plugin.sessions[SES].phase is Phase.IDLE
        assert plugin.sweep(again + SESSION_AGE - 1) == 0
        assert plugin.sweep(again + SESSION_AGE) == 1


# ── use and misuse ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_outside_of_its_context_the_plugin_says_so_and_loses_nothing():
    plugin = Play()
    for event in (user(), answer(), retrying()):
        with pytest.raises(FallbackPluginError, match="async context manager"):
            plugin.handle(event)
    assert plugin.retry_in_flight == set()
    assert plugin.sessions == {}

    async with plugin:
        await plugin.start()
        await plugin.feed(retrying(), idled())
        assert plugin.host.routes == [A]

    with pytest.raises(FallbackPluginError, match="async context manager"):
        plugin.handle(user("ses_2"))


async def test_an_observer_that_raises_neither_ends_the_plugin_nor_stops_the_hop(caplog):
    def observe(notice, now):
        raise RuntimeError("secret prompt text")

    host = ScriptedHost()
    async with FallbackPlugin(host, RULES, observer=observe) as plugin:
        for event in (user(), answer(), retrying(), idled()):
            plugin.handle(event)
        await settle()
        plugin.handle(answer("m2", A))
        await settle()

        assert host.routes == [A]
        assert plugin.retry_in_flight == set()
        assert len(host.toasts) == 1

    assert "observer failed: RuntimeError" in caplog.text
    assert "secret prompt text" not in caplog.text


async def test_an_observer_hears_of_a_notice_with_the_loops_time():
    async with Play() as plugin:
        await anyio.sleep(100)
        await plugin.start()
        now = anyio.current_time()
        plugin.handle(failed())

        assert plugin.times == [now]


async def test_events_of_unknown_sessions_that_open_no_turn_open_no_record():
    async with Play() as plugin:
        await plugin.feed(
            text(), PartDeltaReceived(session_id=SES, message_id="m1", part_id="p1"), idled(), status("busy"),
            status("idle"), SessionDeleted(session_id=SES), picture(SES, "retry", answer()),
        )  # fmt: skip

        assert plugin.sessions == {}
        assert plugin.host.calls == []


async def test_the_callers_clock_is_taken():
    async with Play() as plugin:
        await plugin.start()
        plugin.handle(failed(), now=anyio.current_time() + 5)

        assert plugin.times == [pytest.approx(anyio.current_time() + 5, abs=0.1)]
