"""Issue C, rotation: a session that goes on under another id keeps its record, hop, lease, intent and timers (X07)."""

from __future__ import annotations

import anyio
import pytest

from fallback_plugin.core.events import AssistantMessage, MessageUpdated, SessionDeleted, SessionIdled, UserMessage
from fallback_plugin.core.failure import Facts
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase
from fallback_plugin.runtime.plugin import FallbackPlugin
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.testing.scripted_host import ScriptedHost
from fallback_plugin.testing.virtual_time import settle

OLD, NEW = "ses_old", "ses_new"
PRIMARY, A, B = "one/primary", "two/a", "three/b"
QUOTA = Facts(status=402, name="APIError", message="Insufficient balance")


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


@pytest.fixture
def store():
    return MemoryStore(wall=anyio.current_time)


@pytest.fixture
async def plugin(store):
    rules = Rules(default=Policy(chain=(A, B), min_hop_interval_seconds=0.0, timeout_seconds=30.0))
    host = ScriptedHost()
    async with FallbackPlugin(host, rules, store=store) as running:
        running.host = host
        yield running


def user(session_id=OLD):
    message = UserMessage(message_id="u1", created_wall=1.0, agent="build", route=PRIMARY)
    return MessageUpdated(session_id=session_id, message=message)


def answer(session_id, message_id="m1", route=PRIMARY, **fields):
    message = AssistantMessage(message_id=message_id, parent_id="u1", route=route, agent="build", **fields)
    return MessageUpdated(session_id=session_id, message=message)


def failed(session_id, message_id="m1", route=PRIMARY):
    return answer(session_id, message_id, route, completed=True, error=QUOTA)


async def test_x07_a_hop_under_way_follows_and_both_ids_hold_one_lease(plugin, store):
    plugin.handle(user())
    plugin.handle(answer(OLD))
    plugin.handle(failed(OLD))
    await settle()
    before = await store.holder(f"turn:{OLD}", now_wall=anyio.current_time())

    await plugin.rotate(OLD, NEW)

    leases = [await store.holder(f"turn:{key}", now_wall=anyio.current_time()) for key in (OLD, NEW)]
    assert {(lease.owner, lease.generation) for lease in leases} == {(before.owner, before.generation)}
    assert plugin.retry_in_flight == {NEW}
    assert list(plugin.sessions) == [NEW]

    plugin.handle(answer(NEW, "m2", A))
    await settle()
    assert plugin.sessions[NEW].phase is Phase.RUNNING
    assert plugin.retry_in_flight == set()
    assert await store.holder(f"turn:{NEW}", now_wall=anyio.current_time()) is None


async def test_x07_what_is_told_under_the_old_id_is_meant_for_the_new_one(plugin):
    plugin.handle(user())
    plugin.handle(answer(OLD))
    await plugin.rotate(OLD, NEW)

    plugin.handle(failed(OLD))
    plugin.handle(failed(NEW))
    plugin.handle(SessionIdled(session_id=OLD))
    await settle()

    assert [(turn.session_id, turn.route) for turn in plugin.host.turns] == [(NEW, A)]
    assert list(plugin.sessions) == [NEW]


async def test_x07_the_timers_follow(plugin):
    plugin.handle(user())
    plugin.handle(answer(OLD))
    await plugin.rotate(OLD, NEW)
    await anyio.sleep(31)

    assert [call.session_id for call in plugin.host.made("abort")][:1] == [NEW]


async def test_w25_a_rotation_to_a_session_nobody_knows_yet_and_a_second_one_hold(plugin):
    await plugin.rotate(OLD, NEW)
    await plugin.rotate(NEW, "ses_third")
    plugin.handle(user(OLD))

    assert list(plugin.sessions) == ["ses_third"]


async def test_x07_a_deletion_forgets_every_name(plugin):
    plugin.handle(user())
    await plugin.rotate(OLD, NEW)
    plugin.handle(SessionDeleted(session_id=NEW))
    await settle()

    assert plugin.sessions == {}
    assert plugin._records._renamed == {}
