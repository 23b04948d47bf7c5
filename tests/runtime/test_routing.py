"""Prompts meet the fleet's health: skipped, probed by one, sent back; a store that hangs or raises delays none."""

from __future__ import annotations

import anyio
import pytest

from fallback_plugin.core.actions import NoticeType
from fallback_plugin.core.events import AssistantMessage, MessageUpdated, PartType, PartUpdated, UserMessage
from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.family_events import ParentKnown
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase
from fallback_plugin.core.routing import Prompt, RouteChoice
from fallback_plugin.errors import StoreError
from fallback_plugin.runtime.claims import INTENT_SECONDS, LEASE_SECONDS, Claims
from fallback_plugin.runtime.health import SharedHealth
from fallback_plugin.runtime.plugin import FallbackPlugin
from fallback_plugin.runtime.routing import CLAIM_PATIENCE, REFRESH_PATIENCE, PromptRouter
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.testing.scripted_host import Hang, ScriptedHost
from fallback_plugin.testing.virtual_time import MOMENT, settle

SES = "ses_1"
PRIMARY, A, B = "one/primary", "two/a", "three/b"
POLICY = Policy(primary=PRIMARY, chain=(A, B))
RULES = Rules(default=POLICY)
HOST_PATIENCE = 0.25


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


def wall():
    return 1_000_000.0 + anyio.current_time()


def failure(retry_after=None, *, kind=Kind.RATE_LIMIT, scope=Scope.MODEL):
    retry_at = None if retry_after is None else anyio.current_time() + retry_after
    return Failure(kind=kind, scope=scope, should_fallback=True, retry_at=retry_at)


def prompt(route=PRIMARY, session_id=SES, **fields):
    return Prompt(session_id=session_id, route=route, agent="build", **fields)


class Hanging(MemoryStore):
    """A store whose calls of some names never return."""

    def __init__(self, *names, **options):
        super().__init__(**options)
        self.names = names

    async def changes(self, kind, *, after):
        await self.reach("changes")
        return await super().changes(kind, after=after)

    async def put(self, kind, key, value, *, expected=None):
        await self.reach("put")
        return await super().put(kind, key, value, expected=expected)

    async def reach(self, name):
        if name in self.names:
            await anyio.sleep_forever()


class Raising(Hanging):
    """A store whose calls of some names raise."""

    async def reach(self, name):
        if name in self.names:
            raise StoreError("a test")


class Process:
    """One process of the fleet, as far as prompts go."""

    def __init__(self, store, name="one"):
        self.health = SharedHealth(store, owner=name, wall_clock=wall)
        self.router = PromptRouter(self.health, wall_clock=wall)

    async def fail(self, route, retry_after=None, **fields):
        await self.health.report_failure(route, failure(retry_after, **fields), now=anyio.current_time())

    async def route(self, asked=None, session=None, policy=POLICY):
        return (await self.router.choose(session, asked or prompt(), policy)).route


async def test_a_route_that_another_process_knows_to_be_out_is_passed_over_at_once():
    store = MemoryStore()
    one, other = Process(store, "one"), Process(store, "other")
    await one.fail(PRIMARY, 3600)

    assert await other.route() == A, "nobody follows the store here: the prompt looks by itself"
    assert await other.route(prompt("four/picked", named=True)) == "four/picked"


async def test_a_route_whose_time_has_come_is_asked_by_one_prompt_of_the_fleet():
    store = MemoryStore()
    one, other = Process(store, "one"), Process(store, "other")
    await one.fail(PRIMARY, 5)
    await anyio.sleep(6)

    routes = [await process.route(prompt(session_id=f"s{n}")) for n in range(5) for process in (one, other)]
    assert routes == [PRIMARY, *[A] * 9]


async def test_prompts_of_one_moment_are_one_probe_too():
    store = MemoryStore()
    processes = [Process(store, name) for name in ("one", "other")]
    await processes[0].fail(PRIMARY, 5)
    await anyio.sleep(6)
    routes = []

    async def ask(process):
        routes.append(await process.route())

    async with anyio.create_task_group() as tasks:
        for process in processes * 10:
            tasks.start_soon(ask, process)

    assert sorted(routes) == [PRIMARY, *[A] * 19]


async def test_a_probe_that_is_answered_gives_the_route_back_to_all():
    store = MemoryStore()
    one, other = Process(store, "one"), Process(store, "other")
    await one.fail(PRIMARY, 5)
    await anyio.sleep(6)
    assert await one.route() == PRIMARY
    assert await other.route() == A

    await one.health.report_success(PRIMARY)
    assert await other.route() == PRIMARY
    assert await one.route() == PRIMARY


async def test_a_probe_whose_end_nobody_tells_is_another_prompts_after_its_time():
    process = Process(MemoryStore())
    await process.fail(PRIMARY, 5)
    await anyio.sleep(6)
    assert [await process.route() for _ in range(2)] == [PRIMARY, A]

    await anyio.sleep(60)
    assert [await process.route() for _ in range(2)] == [PRIMARY, A]


async def test_while_the_first_is_probed_by_another_the_next_that_is_due_is_probed():
    process = Process(MemoryStore())
    for route in (PRIMARY, A):
        await process.fail(route, 5)
    await anyio.sleep(6)

    assert [await process.route() for _ in range(3)] == [PRIMARY, A, B]


async def test_the_models_of_a_provider_that_is_out_come_last_and_are_not_claimed():
    process = Process(MemoryStore())
    await process.fail("one/else", 3600, kind=Kind.QUOTA_EXHAUSTED, scope=Scope.PROVIDER)
    assert await process.route() == A

    for route in (A, B):
        await process.fail(route, 3600)
    assert [await process.route() for _ in range(2)] == [PRIMARY, PRIMARY]


async def test_the_event_says_why_and_when_the_route_returns():
    process = Process(MemoryStore())
    await anyio.sleep(50)
    await process.fail(PRIMARY, 600, kind=Kind.QUOTA_EXHAUSTED)
    now = anyio.current_time()
    event = process.router.event_of(SES, RouteChoice(wanted=PRIMARY, route=A), now)

    assert (event.session_id, event.wanted, event.route, event.kind) == (SES, PRIMARY, A, Kind.QUOTA_EXHAUSTED)
    assert event.returns_at == pytest.approx(now + 600)


async def test_the_agents_usual_model_is_what_prompts_ask_for_and_not_where_we_send_turns():
    process = Process(MemoryStore())
    policy = Policy(chain=(A, B))
    asked = prompt("five/usual", named=True)
    assert await process.route(asked, policy=policy) == "five/usual"

    dispatched = prompt(A, named=True, message_id="u1")
    assert await process.route(dispatched, policy=policy) == A
    await process.fail("five/usual", 3600)
    assert await process.route(asked, policy=policy) == A, "still its usual model: guarded"


async def test_the_memory_of_usual_models_is_bounded():
    process = Process(MemoryStore())
    for number in range(1000):
        await process.router.choose(None, Prompt(session_id=SES, route=PRIMARY, agent=f"agent {number}"), POLICY)

    assert len(process.router._usual) <= 256


# ── a store that hangs, a store that raises ──────────────────────────────────────────────────────────────────────


async def timed(process):
    began = anyio.current_time()
    route = await process.route()
    return route, anyio.current_time() - began


@pytest.mark.parametrize("names", [("changes",), ("changes", "put")], ids=" and ".join)
async def test_a_store_that_hangs_costs_the_patience_for_a_look_and_no_more(names):
    store = Hanging()
    process = Process(store)
    await process.fail(PRIMARY, 3600)
    store.names = names
    route, seconds = await timed(process)

    assert route == A, "what this process knows by itself counts"
    assert seconds == pytest.approx(REFRESH_PATIENCE, abs=1e-3)


async def test_a_claim_that_hangs_does_not_hold_the_prompt():
    store = Hanging()
    process = Process(store)
    await process.fail(PRIMARY, 5)
    await anyio.sleep(6)
    store.names = ("changes", "put")
    route, seconds = await timed(process)

    assert route == PRIMARY
    assert seconds == pytest.approx(REFRESH_PATIENCE + CLAIM_PATIENCE, abs=1e-3)
    assert seconds < HOST_PATIENCE * 0.7
    assert await process.route() == A, "this process knows of its own probe"


@pytest.mark.parametrize("names", [("changes",), ("put",), ("changes", "put")], ids=" and ".join)
async def test_a_store_that_raises_costs_nothing(names):
    store = Raising()
    process = Process(store)
    await process.fail(PRIMARY, 3600)
    store.names = names
    route, seconds = await timed(process)
    assert (route, seconds) == (A, 0)

    await anyio.sleep(3601)
    assert [await timed(process) for _ in range(2)] == [(PRIMARY, 0), (A, 0)]


async def test_a_plugin_on_a_store_that_hangs_answers_within_the_hosts_patience():
    store = Hanging()
    async with at_work(store) as plugin:
        await plugin.health.report_failure(PRIMARY, failure(3600), now=anyio.current_time())
        store.names = ("changes", "put")
        with anyio.fail_after(HOST_PATIENCE):
            assert await plugin.route_prompt(prompt()) == A


# ── the whole way, through the plugin ────────────────────────────────────────────────────────────────────────────


class Play(FallbackPlugin):
    """The plugin in virtual time, with its host and what it announced at hand."""

    def __init__(self, store=None, **options):
        self.host = ScriptedHost()
        self.notices = []
        super().__init__(self.host, RULES, observer=lambda notice, now: self.notices.append(notice), store=store)
        for part in (self._fleet, self._fleet.claims, self._fleet.health, self._router):
            part._wall_clock = wall

    def told(self):
        return [notice.notice for notice in self.notices]

    async def answer(self, number, route):
        """The host sends the prompt, and the route answers it."""
        user, message_id = f"u{number}", f"m{number}"
        asked = UserMessage(message_id=user, created_wall=float(number), agent="build", route=route)
        begun = AssistantMessage(message_id=message_id, parent_id=user, route=route, agent="build")
        done = AssistantMessage(
            message_id=message_id, parent_id=user, route=route, agent="build", finish="stop", completed=True
        )
        part = PartUpdated(
            session_id=SES, message_id=message_id, part_id="p1", part_type=PartType.TEXT, has_content=True
        )
        for event in (asked, begun, part, done):
            self.handle(event if event is part else MessageUpdated(session_id=SES, message=event))
        await settle()


at_work = Play


async def test_a_prompt_passes_the_dead_route_returns_after_its_time_and_a_toast_says_so():
    async with at_work() as plugin:
        await plugin.answer(1, PRIMARY)
        await plugin.health.report_failure(PRIMARY, failure(60), now=anyio.current_time())
        assert await plugin.route_prompt(prompt()) == A
        await plugin.answer(2, A)
        assert await plugin.route_prompt(prompt(A)) == A, "the host goes on with its last-used model"
        await plugin.answer(3, A)
        assert plugin.told() == [NoticeType.SKIPPED] * 2
        assert [toast.message for toast in plugin.host.toasts] == [
            f"{PRIMARY} is out (rate limit, back in 60 s); asking {A}"
        ]

        await anyio.sleep(61)
        assert await plugin.route_prompt(prompt(A)) == PRIMARY
        await plugin.answer(4, PRIMARY)
        assert plugin.told() == [NoticeType.SKIPPED, NoticeType.SKIPPED, NoticeType.RECOVERED]
        assert plugin.host.toasts[-1].message == f"{PRIMARY} is back"
        assert len(plugin.health) == 0
        assert plugin.host.made("abort") == plugin.host.made("dispatch") == []


async def test_a_toast_that_hangs_holds_no_prompt():
    async with at_work() as plugin:
        plugin.host.script("show", Hang())
        await plugin.health.report_failure(PRIMARY, failure(60), now=anyio.current_time())
        began = anyio.current_time()
        assert await plugin.route_prompt(prompt()) == A
        assert anyio.current_time() - began <= MOMENT


async def test_two_plugins_on_one_store_probe_once():
    store = MemoryStore(wall=wall)
    async with at_work(store) as one, at_work(store) as other:
        await one.health.report_failure(PRIMARY, failure(5), now=anyio.current_time())
        await anyio.sleep(6)
        routes = [await plugin.route_prompt(prompt(session_id=f"s{n}")) for n in range(5) for plugin in (other, one)]

        assert routes == [PRIMARY, *[A] * 9]


async def test_a_switched_off_policy_and_an_empty_chain_route_nothing():
    async with at_work() as plugin:
        await plugin.health.report_failure(PRIMARY, failure(60), now=anyio.current_time())
        for policy in (Policy(), Policy(chain=(A,), enabled=False)):
            plugin.reload(Rules(default=policy))
            assert await plugin.route_prompt(prompt()) == PRIMARY

        assert plugin.notices == []


async def test_a_subagents_first_prompt_passes_a_dead_route_by_the_chain_that_it_inherits():
    async with at_work() as plugin:
        plugin.reload(Rules(agents={"lead": Policy(primary=B, chain=(B, A))}))
        plugin.handle(ParentKnown(session_id=SES, parent_id="ses_0", lineage=("lead",)))
        await plugin.health.report_failure(PRIMARY, failure(60), now=anyio.current_time())

        assert await plugin.route_prompt(prompt(message_id="u1")) == A


# ── unfinished hops of other places, and of long ago ─────────────────────────────────────────────────────────────


@pytest.fixture
async def unfinished():
    """A store in which a process has died between claiming a hop and carrying it out."""
    store = MemoryStore(wall=wall)
    async with at_work(store) as plugin:
        plugin._fleet.claims._place = "/here"
        plugin.host.script("abort", Hang())
        begun = AssistantMessage(message_id="m1", parent_id="u1", route=PRIMARY, agent="build")
        asked = UserMessage(message_id="u1", created_wall=1.0, agent="build", route=PRIMARY)
        for message in (asked, begun):
            plugin.handle(MessageUpdated(session_id=SES, message=message))
        await anyio.sleep(31)
        assert plugin.sessions[SES].phase is Phase.ENDING

    return store


def claims(store, place):
    return Claims(store, owner="heir", on_lost=lambda *_: None, place=place, wall_clock=wall)


async def test_an_unfinished_hop_is_taken_over_where_its_host_is_and_nowhere_else(unfinished):
    await anyio.sleep(LEASE_SECONDS)

    assert [session.session_id for session in await claims(unfinished, "/here").pending()] == [SES]
    assert await claims(unfinished, "/there").pending() == []
    assert await claims(unfinished, "").pending() == []
    [record] = await unfinished.scan("turn")
    assert record.value["stage"] == "pending"
    assert record.value["intent"] is not None, "left for those whose it is"


async def test_an_unfinished_hop_is_not_taken_over_while_its_lease_lives(unfinished):
    assert await claims(unfinished, "/here").pending() == []


async def test_an_unfinished_hop_of_long_ago_is_left_alone(unfinished):
    [record] = await unfinished.scan("turn")
    claimed_at = record.value["at_wall"]
    await anyio.sleep(claimed_at + INTENT_SECONDS - 1 - wall())
    assert len(await claims(unfinished, "/here").pending()) == 1

    await anyio.sleep(2)
    assert await claims(unfinished, "/here").pending() == []
