"""Issue D: what only a plugin inside the host can do, and what it must survive, on the real server."""

from __future__ import annotations

import os
import signal
import sys
import time
from itertools import count

import anyio
import pytest

from fallback_plugin.testing.faults import Answer, Fail, Hang, bash, rate_limited
from fallback_plugin.testing.opencode import opencode_config
from fallback_plugin.testing.opencode_conversation import Conversation
from fallback_plugin.testing.opencode_plugged import PluggedOpenCode
from fallback_plugin.testing.opencode_scene import Scene, SceneNames, route

shared = pytest.mark.parametrize("shared_opencode", ["plugin"], indirect=True, scope="session")


def toasts(scene):
    return [event.properties["message"] for event in scene.events if event.type == "tui.toast.show"]


async def ask(scene, text="say hi", *, conversation=None, **options):
    conversation = conversation or await scene.conversation()
    prompts = len(await conversation.user_messages()) + 1
    await conversation.prompt(text, **options)
    await conversation.wait_until_answered(prompts=prompts)
    await conversation.wait_until_idle()
    return conversation


@shared
async def test_five_sessions_cost_a_dead_primary_one_request(scene, provider, attach):
    provider.script(scene.primary, rate_limited(retry_after=3 * 86400))
    provider.script(scene.second, Answer("from second"))
    await attach()

    for _ in range(5):
        conversation = await ask(scene)
        assert await conversation.answers() == ["from second"]
        assert len(await conversation.user_messages()) == 1

    assert len(provider.requests_of(scene.primary)) == 1
    assert len(provider.requests_of(scene.second)) == 5
    skipped = f"{route(scene.primary)} is out (quota exhausted, back in 3 d); asking {route(scene.second)}"
    assert toasts(scene).count(skipped) == 4


@shared
async def test_the_primary_is_used_again_when_it_is_back_and_a_toast_says_so(scene, provider, attach):
    provider.script(scene.primary, rate_limited(retry_after=12), Answer("back again"))
    provider.script(scene.second, Answer("from second"))
    notices = await attach(cooldown_seconds=1.0)
    conversation = await ask(scene)
    await ask(scene, "and now?", conversation=conversation)
    assert len(provider.requests_of(scene.primary)) == 1

    [request] = provider.requests_of(scene.primary)
    await anyio.sleep(max(0.0, request.ended + 12.5 - time.monotonic()))
    await ask(scene, "are you back?", conversation=conversation)

    assert await conversation.answers() == ["from second", "from second", "back again"]
    await notices.wait_for("recovered", session=conversation.id)
    with anyio.fail_after(5):
        while f"{route(scene.primary)} is back" not in toasts(scene):
            await anyio.sleep(0.02)


@shared
async def test_a_resumed_message_keeps_its_time(scene, provider, attach):
    """Screens know a message by its time and its id: with another time they show it twice."""
    provider.script(scene.primary, bash("echo hi"), rate_limited())
    provider.script(scene.second, Answer("from second"))
    await attach()
    conversation = await ask(scene)

    assert await conversation.answers() == ["from second"]
    updates = [event.properties["info"] for event in conversation.events if event.type == "message.updated"]
    users = [
        (info["id"], info["time"]["created"], info["model"]["modelID"]) for info in updates if info["role"] == "user"
    ]
    [(user, created)] = {(user, created) for user, created, _ in users}
    assert {model for _, _, model in users} == {scene.primary, scene.second}
    [message] = [item["info"] for item in await conversation.messages() if item["info"]["role"] == "user"]
    assert (message["id"], message["time"]["created"]) == (user, created)


@shared
async def test_a_model_picked_by_hand_is_tried_as_picked(scene, provider, attach):
    provider.script(scene.primary, rate_limited(retry_after=3600))
    provider.script(scene.second, Answer("from second"))
    provider.script(scene.third, rate_limited(retry_after=3600), Answer("from third"))
    await attach()
    first = await ask(scene, model=scene.third)
    assert len(provider.requests_of(scene.third)) == 1
    assert await first.answers() == ["from second"]

    conversation = await ask(scene)
    await ask(scene, "now you", conversation=conversation, model=scene.third)

    assert len(provider.requests_of(scene.third)) == 2
    assert await conversation.answers() == ["from second", "from third"]


@shared
async def test_a_killed_bridge_is_replaced_and_carries_the_hop_on(scene, provider, attach, opencode):
    provider.script(scene.primary, Hang())
    provider.script(scene.second, Answer("from second"))
    notices = await attach(timeout_seconds=2.0)
    conversation = await scene.conversation()
    await conversation.prompt("say hi")
    await provider.wait_for(scene.primary)

    os.kill(opencode.bridges()[-1], signal.SIGKILL)
    await notices.wait_for("recovered", session=conversation.id, timeout=30)

    assert await conversation.answers() == ["from second"]
    assert len(await conversation.user_messages()) == 1
    assert len(provider.requests_of(scene.second)) == 1
    assert len(set(opencode.bridges())) > 1


NUMBERS = count(1)


@pytest.fixture
def names():
    """An agent and models for a server of the test's own; the provider is everybody's."""
    return SceneNames(f"own{next(NUMBERS)}")


@pytest.fixture
def start(opencode_binary, provider, names):
    """Makes a server of the test's own with the plugin inside."""
    config = opencode_config(provider.base_url, agents=names.agents, models=names.models)
    chain = {"fallback_models": [route(model) for model in names.models[1:]], "timeout_seconds": 20}
    return lambda kind=PluggedOpenCode, **options: kind(opencode_binary, config=config, settings=chain, **options)


@pytest.fixture
def dies_once(tmp_path):
    """Makes a command whose first bridge dies at a failpoint; those that the host starts after it do not."""

    def make(failpoint):
        once, script = tmp_path / "once", tmp_path / "bridge.sh"
        script.write_text(
            f'[ -e "{once}" ] || export FALLBACK_PLUGIN_FAILPOINT={failpoint}\n'
            f'touch "{once}"\nexec "{sys.executable}" -m fallback_plugin bridge\n'
        )
        return ("sh", str(script))

    return make


async def wait_until_gone(pid):
    with anyio.fail_after(20):
        while is_alive(pid):
            await anyio.sleep(0.02)


@pytest.mark.parametrize("failpoint", ["claimed", "aborted", "dispatching", "dispatched"])
async def test_a_bridge_that_dies_in_the_middle_of_a_hop(start, provider, names, dies_once, failpoint):
    provider.script(names.models[0], rate_limited(retry_after=3600))
    provider.script(names.models[1], Answer("from second"))
    async with start(command=dies_once(failpoint)) as server, Scene.open(server, provider, names) as scene:
        conversation = await scene.conversation()
        await conversation.prompt("say hi")

        assert await conversation.wait_until_answered(timeout=40) == ["from second"]
        await conversation.wait_until_idle()
        assert len(await conversation.user_messages()) == 1
        assert [len(provider.requests_of(model)) for model in names.models] == [1, 1, 0]
        assert len(server.bridges()) == 2


async def test_a_host_that_is_restarted_in_the_middle_of_a_hop(start, provider, names, dies_once):
    provider.script(names.models[0], rate_limited(retry_after=3600))
    provider.script(names.models[1], Answer("from second"))
    async with start(command=dies_once("dispatching")) as server:
        async with Scene.open(server, provider, names) as scene:
            conversation = await scene.conversation()
            await conversation.prompt("say hi")
            await server.wait_for_record(lambda record: record.get("notice") == "failure")
            await wait_until_gone(server.bridges()[0])

        await server.restart(hard=True)
        async with Scene.open(server, provider, names) as scene:
            again = Conversation(scene, conversation.id, names.agent)
            with anyio.fail_after(40):
                while not await again.answers():
                    await anyio.sleep(0.1)

            assert await again.answers() == ["from second"]
            assert len(await again.user_messages()) == 1
            assert [len(provider.requests_of(model)) for model in names.models] == [1, 1, 0]


class Joined:
    """A workspace that another host has laid out and will clear away."""

    def __init__(self, workspace):
        self._workspace = workspace

    def __getattr__(self, name):
        return getattr(self._workspace, name)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        return


class Twin(PluggedOpenCode):
    """A second OpenCode in the same project, for the same user."""

    def __init__(self, *arguments, first, **options):
        super().__init__(*arguments, **options)
        self._workspace = Joined(first._workspace)


async def test_two_hosts_on_one_project_share_what_they_know(start, provider, names):
    provider.script(names.models[0], rate_limited(retry_after=3 * 86400))
    provider.script(names.models[1], Answer("from second"))
    async with start() as one, start(Twin, first=one) as two:
        for server in (one, two, one, two):
            async with Scene.open(server, provider, names) as scene:
                conversation = await ask(scene)
                assert await conversation.answers() == ["from second"]
                assert len(await conversation.user_messages()) == 1

        assert len(one.bridges()) == 2

    assert [len(provider.requests_of(model)) for model in names.models] == [1, 4, 0]


BROKEN = {
    "missing": ("/nowhere/at/all/python",),
    "ends at once": (sys.executable, "-c", "raise SystemExit(1)"),
    "talks nonsense": (sys.executable, "-c", "while True: print('{]' * 999, flush=True)"),
    "deaf and dumb": (sys.executable, "-c", "import time; time.sleep(600)"),
}


@pytest.mark.parametrize("command", BROKEN.values(), ids=BROKEN.keys())
async def test_the_host_works_without_us(start, provider, names, command):
    provider.script(names.models[0], Answer("a good answer"))
    async with start(command=command) as server, Scene.open(server, provider, names) as scene:
        for _ in range(2):
            conversation = await ask(scene)
            assert await conversation.answers() == ["a good answer"]


async def test_a_password_does_not_keep_the_bridge_out(start, provider, names):
    provider.script(names.models[0], Fail(402))
    provider.script(names.models[1], Answer("from second"))
    async with start(password="secret") as server, Scene.open(server, provider, names) as scene:
        conversation = await ask(scene)
        assert await conversation.answers() == ["from second"]


async def test_the_bridge_ends_with_the_host(start):
    async with start() as server:
        await server.wait_for_record(lambda record: bool(record.get("ready")))
        [bridge] = server.bridges()
        os.kill(server.pid, signal.SIGKILL)
        await wait_until_gone(bridge)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False

    return True
