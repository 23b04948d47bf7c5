"""Issue C, leases: processes that are fed with the same events make one advance per failure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest

from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.routing import Standing
from fallback_plugin.runtime.fleet import Fleet
from fallback_plugin.runtime.health import SharedHealth
from fallback_plugin.runtime.plugin import FallbackPlugin
from fallback_plugin.runtime.turn import Turns
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.testing.scripted_host import ScriptedHost

WORKER = Path(__file__).parent / "fleet_worker.py"
SESSIONS = 500


def start(url):
    command = [sys.executable, str(WORKER), url, str(SESSIONS)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_two(url):
    """Two processes on one store, fed at the same time; what each has dispatched."""
    workers = [start(url), start(url)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()

    dispatched = []
    for worker in workers:
        output, _ = worker.communicate(timeout=100)
        assert worker.returncode == 0
        dispatched.append([tuple(each) for each in json.loads(output)])

    return dispatched


@pytest.fixture
def url_of_sqlite(tmp_path):
    return f"sqlite://{tmp_path}/state.db"


@pytest.fixture
def url_of_redis(valkey_url):
    return f"{valkey_url}?namespace=fleet"


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_two_processes_make_one_advance_per_failure(store, request):
    one, other = run_two(request.getfixturevalue(f"url_of_{store}"))
    dispatched = Counter(one + other)

    assert set(dispatched) == {(f"ses_{number}", "two/a") for number in range(SESSIONS)}
    assert set(dispatched.values()) == {1}


def failure(retry_after=None, *, kind=Kind.RATE_LIMIT, scope=Scope.MODEL):
    retry_at = None if retry_after is None else anyio.current_time() + retry_after
    return Failure(kind=kind, scope=scope, should_fallback=True, retry_at=retry_at, reason="a test")


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


@pytest.fixture
def rules():
    return Rules(default=Policy(chain=("two/a", "three/b")))


def wall():
    return 1_000_000.0 + anyio.current_time()


async def test_what_one_process_learns_the_others_know_within_a_second():
    store = MemoryStore()
    one, other = (SharedHealth(store, owner=name, wall_clock=wall) for name in ("one", "other"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other.follow)
        await one.report_failure("one/primary", failure(3600), now=anyio.current_time())
        assert one.is_out("one/primary")
        await anyio.sleep(1.0)
        assert other.is_out("one/primary")
        assert not other.is_out("one/else")
        tasks.cancel_scope.cancel()


async def test_a_quota_of_the_account_is_out_for_all_its_models():
    health = SharedHealth(MemoryStore(), owner="one", wall_clock=wall)
    quota = failure(3600, kind=Kind.QUOTA_EXHAUSTED, scope=Scope.PROVIDER)
    await health.report_failure("one/primary", quota, now=anyio.current_time())
    assert health.is_out("one/else")
    assert set(health.outages(anyio.current_time())) == {"one"}
    assert health.standing("one/primary") is Standing.OUT
    assert health.standing("one/else") is Standing.PROVIDER_OUT


async def test_a_probe_that_fails_for_the_whole_account_is_over_for_its_model_too():
    health = SharedHealth(MemoryStore(), owner="one", wall_clock=wall)
    await health.report_failure("one/primary", failure(5), now=anyio.current_time())
    await anyio.sleep(6)
    assert await health.claim_probe("one/primary")

    quota = failure(1, kind=Kind.QUOTA_EXHAUSTED, scope=Scope.PROVIDER)
    await health.report_failure("one/primary", quota, now=anyio.current_time(), cooldown=1.0)
    assert set(health.outages(anyio.current_time())) == {"one"}
    await anyio.sleep(2)
    assert await health.claim_probe("one/primary"), "not in a minute, when nobody probes"


async def test_a_probe_of_which_half_is_anothers_is_given_back():
    store = MemoryStore()
    one, other = (SharedHealth(store, owner=name, wall_clock=wall) for name in ("one", "other"))
    quota = failure(5, kind=Kind.QUOTA_EXHAUSTED, scope=Scope.PROVIDER)
    await one.report_failure("one/primary", failure(5), now=anyio.current_time())
    await one.report_failure("one/else", quota, now=anyio.current_time(), cooldown=5.0)
    await anyio.sleep(6)
    await other.refresh()
    assert await other.claim_probe("one/else")
    assert not await one.claim_probe("one/primary")

    await other.report_success("one/else")
    await one.refresh()
    assert await one.claim_probe("one/primary")


async def test_a_quota_that_another_route_does_not_feel_was_that_of_one_model():
    store = MemoryStore()
    health = SharedHealth(store, owner="one", wall_clock=wall)
    quota = failure(3600, kind=Kind.QUOTA_EXHAUSTED, scope=Scope.PROVIDER)
    await health.report_failure("one/primary", quota, now=anyio.current_time())
    await health.report_success("one/else")
    assert health.is_out("one/primary")
    assert health.standing("one/else") is Standing.FREE
    assert set(health.outages(anyio.current_time())) == {"one/primary"}
    await health.report_success("one/primary")
    assert not health.is_out("one/primary")
    assert len(health) == 0


async def test_every_route_that_told_of_a_quota_is_out_by_its_own_word():
    store = MemoryStore()
    one, other = (SharedHealth(store, owner=name, wall_clock=wall) for name in ("one", "other"))
    quota = failure(3600, kind=Kind.QUOTA_EXHAUSTED, scope=Scope.PROVIDER)
    for route in ("one/primary", "one/second"):
        await one.report_failure(route, quota, now=anyio.current_time())

    await other.refresh()
    for health in (one, other):
        assert [health.standing(f"one/{name}") for name in ("primary", "second", "else")] == [
            Standing.OUT,
            Standing.OUT,
            Standing.PROVIDER_OUT,
        ]

    await one.report_success("one/else")
    assert set(one.outages(anyio.current_time())) == {"one/primary", "one/second"}
    await one.report_success("one/primary")
    assert set(one.outages(anyio.current_time())) == {"one/second"}


async def test_one_caller_in_the_fleet_probes(rules):
    store = MemoryStore()
    async with Turns(rules, store=store, wall_clock=wall) as one, Turns(rules, store=store, wall_clock=wall) as other:
        first = await one.begin("s1", agent=None, route="one/primary").next_attempt()
        await first.failed(failure(5))
        await anyio.sleep(6)

        turns = [process.begin(f"s{n}", agent=None, route="one/primary") for n in range(10) for process in (one, other)]
        asked = [(await turn.next_attempt()).route for turn in turns]
        assert asked.count("one/primary") == 1
        assert asked.count("two/a") == 19


async def test_a_probe_that_is_answered_ends_the_outage_for_all(rules):
    store = MemoryStore()
    async with Turns(rules, store=store, wall_clock=wall) as one, Turns(rules, store=store, wall_clock=wall) as other:
        attempt = await one.begin("s1", agent=None, route="one/primary").next_attempt()
        await attempt.failed(failure(5))
        await anyio.sleep(6)
        probe = await one.begin("s2", agent=None, route="one/primary").next_attempt()
        await probe.answered()
        await anyio.sleep(1)
        again = await other.begin("s3", agent=None, route="one/primary").next_attempt()
        assert again.route == "one/primary"


async def test_a_route_that_is_out_is_not_asked_unless_picked_by_hand(rules):
    async with Turns(rules, wall_clock=wall) as turns:
        attempt = await turns.begin("s1", agent=None, route="one/primary").next_attempt()
        await attempt.failed(failure(3600))
        assert (await turns.begin("s2", agent=None, route="one/primary").next_attempt()).route == "two/a"
        picked = turns.begin("s3", agent=None, route="one/primary", picked=True)
        assert (await picked.next_attempt()).route == "one/primary"


async def test_an_exhausted_turn_says_what_failed_and_when_the_earliest_returns(rules):
    async with Turns(rules, wall_clock=wall) as turns:
        turn = turns.begin("s1", agent=None, route="one/primary")
        waits = iter((3600, 7200, 600))
        while attempt := await turn.next_attempt():
            await attempt.failed(failure(next(waits)))

        assert [failed.route for failed in turn.failures] == ["one/primary", "two/a", "three/b"]
        assert str(turn.exhausted()) == (
            "every model has failed (one/primary: rate_limit; two/a: rate_limit; three/b: rate_limit); "
            "earliest back in 10 min"
        )


@pytest.mark.parametrize(
    ("kind", "retry_after", "asked"),
    [
        (Kind.SERVER_ERROR, None, ["one/primary", "two/a", "three/b"]),
        (Kind.SERVER_ERROR, 3600, []),
        (Kind.QUOTA_EXHAUSTED, None, []),
    ],
)
async def test_where_nothing_is_left_a_guess_is_asked_and_what_is_known_is_not(rules, kind, retry_after, asked):
    async with Turns(rules, wall_clock=wall) as turns:
        for expected in (["one/primary", "two/a", "three/b"], asked):
            turn = turns.begin("s1", agent=None, route="one/primary")
            while attempt := await turn.next_attempt():
                await attempt.failed(failure(retry_after, kind=kind))

            assert [failed.route for failed in turn.failures] == expected


async def test_a_failure_that_no_other_model_helps_ends_the_attempts(rules):
    async with Turns(rules, wall_clock=wall) as turns:
        turn = turns.begin("s1", agent=None, route="one/primary")
        attempt = await turn.next_attempt()
        await attempt.failed(Failure(kind=Kind.BAD_REQUEST, scope=Scope.MODEL, should_fallback=False))
        assert await turn.next_attempt() is None
        assert not turns.health.is_out("one/primary")


async def test_a_hop_passes_over_what_another_session_has_learnt(rules):
    host = ScriptedHost()
    async with FallbackPlugin(host, rules) as plugin:
        await plugin.health.report_failure("two/a", failure(3600), now=anyio.current_time())
        assert "two/a" in plugin._rules.outages


async def test_a_finished_hop_is_forgotten_after_a_week_and_an_unfinished_one_never():
    store = MemoryStore(wall=wall)
    fleet = Fleet(store, on_lost=lambda *_: None, on_health=lambda: None, wall_clock=wall)
    for key, stage in (("done", "made"), ("left", "pending")):
        await store.put("turn", key, {"stage": stage, "at_wall": wall(), "intent": None})

    assert await fleet.sweep() == 0
    await anyio.sleep(8 * 86400)
    assert await fleet.sweep() == 1
    assert [record.key for record in await store.scan("turn")] == ["left"]
