"""The command `fallback-plugin attach` as its users run it: a process of its own on the real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from fallback_plugin.testing.faults import Answer, CallTool, Hang, SlowAnswer, rate_limited
from fallback_plugin.testing.opencode import PROVIDER, OpenCodeServer, opencode_config
from fallback_plugin.testing.opencode_scene import route

ATTACH = [sys.executable, "-m", "fallback_plugin", "attach", "--json", "--wait"]


class Attached:
    """A running `attach` and the JSON lines that it has printed."""

    def __init__(self, process):
        self.process = process
        self.records = []

    async def read(self):
        rest = ""
        async for text in TextReceiveStream(self.process.stdout):
            *lines, rest = (rest + text).split("\n")
            self.records += [json.loads(line) for line in lines]

    async def wait_for(self, accept, timeout=20):
        with anyio.fail_after(timeout):
            while True:
                for record in self.records:
                    if accept(record):
                        return record

                await anyio.sleep(0.02)

    async def wait_for_notice(self, kind, session):
        return await self.wait_for(lambda record: record["notice"] == kind and record["session"] == session)

    def of(self, session):
        return [record["notice"] for record in self.records if record.get("session") == session]


@asynccontextmanager
async def attach_process(url, *arguments, config=None, tmp_path=None, environment=None):
    if config is not None:
        file = tmp_path / "opencode-fallback.json"
        file.write_text(json.dumps(config))
        arguments = (*arguments, "--config", str(file))
    # Each test has a fleet of its own.
    home = tmp_path or Path(tempfile.mkdtemp())
    variables = {**os.environ, "FALLBACK_PLUGIN_HOME": str(home), **(environment or {})}
    async with await anyio.open_process([*ATTACH, "--url", url, *arguments], stderr=None, env=variables) as process:
        attached = Attached(process)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attached.read)
            try:
                await attached.wait_for(lambda record: record.get("ready"))
                yield attached
            finally:
                if process.returncode is None:
                    process.terminate()
                with anyio.fail_after(15):
                    assert await process.wait() == 0


@pytest.fixture
def chain(scene):
    return {"fallback_models": [route(scene.second), route(scene.third)]}


async def test_attach_carries_on_with_the_global_chain_of_its_file(scene, provider, opencode, chain, tmp_path):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    conversation = await scene.conversation(agent=scene.names.bare_agent)
    async with attach_process(opencode.url, config=chain, tmp_path=tmp_path) as attached:
        await conversation.prompt("say hi", model=scene.primary)
        await attached.wait_for_notice("recovered", conversation.id)

    assert await conversation.answers() == ["from second"]
    assert attached.of(conversation.id) == ["failure", "hop", "recovered"]


async def test_attach_takes_the_chain_of_the_agent_in_the_hosts_configuration(scene, provider, opencode):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    conversation = await scene.conversation()
    async with attach_process(opencode.url) as attached:
        await conversation.prompt("say hi")
        await attached.wait_for_notice("recovered", conversation.id)

    assert await conversation.answers() == ["from second"]


async def test_a_summary_by_hand_is_written_by_the_next_model(scene, provider, opencode):
    """What test_compaction.py holds with the plugin inside the host, once from beside it."""
    provider.script(scene.primary, Answer("hello"), rate_limited())
    provider.script(scene.second, Answer("the summary"))
    conversation = await scene.conversation()
    await conversation.prompt("say hi")
    await conversation.wait_until_answered()
    async with attach_process(opencode.url) as attached:
        body = {"providerID": PROVIDER, "modelID": scene.primary}
        # The host goes on with a summary whose caller has left.
        with anyio.move_on_after(1.0):
            await scene.client.post(f"/session/{conversation.id}/summarize", json=body)

        await attached.wait_for_notice("recovered", conversation.id)
        await conversation.wait_until_idle()

    assert await conversation.answers() == ["hello", "the summary"]
    assert len(await conversation.user_messages()) == 2
    assert len(provider.requests_of(scene.second)) == 1
    assert attached.of(conversation.id) == ["failure", "hop", "recovered"]

    provider.script(scene.primary, Answer("after the summary"))
    await conversation.prompt("and now?")
    assert (await conversation.wait_until_answered(prompts=3))[-1] == "after the summary"
    assert "the summary" in "".join(provider.requests_of(scene.primary)[-1].texts("assistant"))


async def test_a_changed_file_is_in_force_and_a_broken_one_is_not(scene, provider, opencode, chain, tmp_path):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    conversation = await scene.conversation(agent=scene.names.bare_agent)
    async with attach_process(opencode.url, config={}, tmp_path=tmp_path) as attached:
        file = tmp_path / "opencode-fallback.json"
        file.write_text(json.dumps(chain))
        await attached.wait_for(lambda record: "reloaded" in record["text"])
        file.write_text('{"fallback_model": []}')
        await anyio.sleep(2.0)
        await conversation.prompt("say hi", model=scene.primary)
        await attached.wait_for_notice("recovered", conversation.id)

    assert await conversation.answers() == ["from second"]


async def test_a_session_that_is_already_in_retry_is_found(scene, provider, opencode, chain, tmp_path):
    provider.script(scene.primary, rate_limited(retry_after=86400))
    provider.script(scene.second, Answer("from second"))
    conversation = await scene.conversation()
    await conversation.prompt("say hi", system="Be terse.")
    await conversation.wait_for_retry()

    async with attach_process(opencode.url, config=chain, tmp_path=tmp_path) as attached:
        await attached.wait_for_notice("recovered", conversation.id)

    assert await conversation.answers() == ["from second"]
    [request] = provider.requests_of(scene.second)
    assert request.roles == ("system", "user")
    assert "Be terse." in "".join(request.texts("system"))
    failure = next(record for record in attached.records if record["notice"] == "failure")
    assert failure["failure"]["retry_after_s"] == pytest.approx(86400, abs=60)


async def test_a_dropped_event_stream_is_caught_up_with(scene, provider, opencode, chain, tmp_path, proxied):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    conversation = await scene.conversation()
    async with (
        proxied() as proxy,
        attach_process(proxy.url, config=chain, tmp_path=tmp_path) as attached,
    ):
        proxy.accepting = False
        proxy.cut()
        await conversation.prompt("say hi")
        await conversation.wait_for_retry()
        proxy.accepting = True
        await attached.wait_for_notice("recovered", conversation.id)

    assert await conversation.answers() == ["from second"]
    assert len(provider.requests_of(scene.second)) == 1


async def test_a_stream_that_drops_in_the_middle_of_a_hop_does_nothing_twice(
    scene, provider, opencode, chain, tmp_path, proxied
):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, SlowAnswer("from second", chunks=5))
    conversation = await scene.conversation()
    async with (
        proxied() as proxy,
        attach_process(proxy.url, config=chain, tmp_path=tmp_path) as attached,
    ):
        await conversation.prompt("say hi")
        await provider.wait_for(scene.second)
        proxy.cut()
        await attached.wait_for_notice("recovered", conversation.id)
        await conversation.wait_until_idle()

    assert await conversation.answers() == ["from second"]
    assert len(provider.requests_of(scene.second)) == 1
    assert provider.requests_of(scene.third) == []
    assert len(await conversation.user_messages()) == 1


async def test_two_processes_on_one_server_make_one_advance(scene, provider, opencode, chain, tmp_path):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    conversations = [await scene.conversation() for _ in range(5)]
    async with (
        attach_process(opencode.url, config=chain, tmp_path=tmp_path) as one,
        attach_process(opencode.url, config=chain, tmp_path=tmp_path) as other,
    ):
        for conversation in conversations:
            await conversation.prompt("say hi")
        for conversation in conversations:
            await one.wait_for_notice("recovered", conversation.id)
            await other.wait_for_notice("recovered", conversation.id)
            await conversation.wait_until_idle()

    for conversation in conversations:
        assert len(await conversation.user_messages()) == 1
        assert len(await conversation.answers()) == 1
    assert len(provider.requests_of(scene.second)) == len(conversations)
    assert provider.requests_of(scene.third) == []
    hops = [notice for process in (one, other) for item in conversations for notice in process.of(item.id)]
    assert hops.count("hop") == len(conversations)


async def test_a_hop_under_way_is_finished_before_the_end(scene, provider, opencode, chain, tmp_path):
    provider.script(scene.primary, Hang())
    provider.script(scene.second, Answer("from second"))
    conversation = await scene.conversation()
    limits = {**chain, "timeout_seconds": 1}
    async with attach_process(opencode.url, config=limits, tmp_path=tmp_path) as attached:
        await conversation.prompt("say hi")
        await attached.wait_for_notice("failure", conversation.id)
        attached.process.send_signal(signal.SIGTERM)
        await conversation.wait_until_answered()

    assert await conversation.answers() == ["from second"]
    assert "hop" in attached.of(conversation.id)


async def test_a_subagents_fallback_answers_the_session_that_waits_for_it(scene, provider, opencode):
    primary, second, _ = scene.names.worker_models
    work = {"description": "work", "prompt": "do the work", "subagent_type": scene.names.worker}
    provider.script(scene.primary, CallTool("task", work), Answer("the parent is done"))
    provider.script(primary, rate_limited())
    provider.script(second, Answer("the real answer"))
    conversation = await scene.conversation()
    async with attach_process(opencode.url) as attached:
        await conversation.prompt("delegate")
        await conversation.wait_until_answered()
        await conversation.wait_until_idle(quiet=1.0)

    [_, request] = provider.requests_of(scene.primary)
    assert "the real answer" in request.texts("tool")[0]
    assert len(provider.requests_of(second)) == 1
    [child] = (await scene.client.get(f"/session/{conversation.id}/children")).json()
    assert attached.of(child["id"]) == ["failure", "hop", "recovered"]
    assert attached.of(conversation.id) == []


def run_attach(*arguments, environment=None):
    variables = {key: value for key, value in os.environ.items() if key != "OPENCODE_SERVER_PASSWORD"}
    return subprocess.run(
        [sys.executable, "-m", "fallback_plugin", "attach", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**variables, **(environment or {})},
    )


async def test_the_password_is_taken_from_the_environment(opencode_binary, provider):
    config = opencode_config(provider.base_url, models=("m",))
    async with OpenCodeServer(opencode_binary, config=config, password="right") as server:
        wrong = await anyio.to_thread.run_sync(
            lambda: run_attach("--url", server.url, environment={"OPENCODE_SERVER_PASSWORD": "wrong"})
        )
        assert wrong.returncode == 3
        assert "OPENCODE_SERVER_PASSWORD" in wrong.stderr
        assert len(wrong.stderr.strip().splitlines()) == 1

        async with attach_process(server.url, environment={"OPENCODE_SERVER_PASSWORD": "right"}) as attached:
            assert attached.records[0]["ready"]


async def test_another_servers_port_is_refused(provider):
    url = provider.base_url.removesuffix("/v1")
    done = await anyio.to_thread.run_sync(lambda: run_attach("--url", url))
    assert done.returncode == 3
    assert done.stderr.strip() == f"{url} is not an OpenCode server: GET /doc is not its OpenAPI document"
