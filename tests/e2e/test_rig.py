"""The rig itself: the real server, the scripted provider and the words that the scenario tests are written in."""

from __future__ import annotations

import os
import time

import anyio
import httpx
import pytest

from fallback_plugin.errors import HostUnavailable
from fallback_plugin.testing.faults import Answer, CallTool, CutStream, Fail, Stall
from fallback_plugin.testing.opencode import OpenCodeServer, find_opencode, opencode_config
from fallback_plugin.testing.opencode_scene import Scene, SceneNames
from fallback_plugin.testing.provider import FaultyProvider

TOUCH = {"command": "echo ran >> proof.txt", "description": "leave a mark"}


async def test_a_turn_is_answered(scene, provider):
    provider.script(scene.primary, Answer("hello from the primary"))
    conversation = await scene.conversation()

    await conversation.prompt("say hi")

    assert await conversation.wait_until_answered() == ["hello from the primary"]
    assert await conversation.history() == [("user", "say hi"), ("assistant", "hello from the primary")]
    (request,) = provider.requests_of(scene.primary)
    assert request.roles == ("system", "user")
    assert request.texts("user") == ["say hi"]
    assert request.streaming
    assert not request.disconnected
    assert request.arrived < request.ended


async def test_a_429_makes_the_host_retry(scene, provider):
    provider.script(scene.primary, Fail(429, headers={"retry-after": "3600"}))
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    event = await conversation.wait_for_retry()

    status = event.properties["status"]
    assert status["message"] == "Rate limit reached for requests"
    assert status["next"] / 1000 - time.time() == pytest.approx(3600, abs=10)
    assert await conversation.status() == status
    assert (await conversation.abort()).json() is True
    await conversation.wait_until_idle()
    assert len(provider.requests_of(scene.primary)) == 1


async def test_a_402_ends_the_turn_with_an_error(scene, provider):
    provider.script(scene.primary, Fail(402))
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    event = await conversation.wait_for_event("session.error")

    assert event.properties["error"]["name"] == "APIError"
    assert event.properties["error"]["data"]["statusCode"] == 402
    await conversation.wait_until_idle()
    assert [request.model for request in provider.requests_of(*scene.names.models)] == [scene.primary]


async def test_resuming_in_place_does_not_run_the_tool_again(scene, provider, opencode):
    provider.script(scene.primary, CallTool("bash", TOUCH), Fail(429))
    provider.script(scene.second, Answer("went on"))
    conversation = await scene.conversation()

    await conversation.prompt("leave a mark")
    await conversation.wait_for_retry()
    await conversation.abort()
    (message,) = await conversation.user_messages()
    await conversation.prompt(message=message, model=scene.second)

    assert await conversation.wait_until_answered() == ["went on"]
    assert (opencode.project / "proof.txt").read_text().splitlines() == ["ran"]
    (request,) = provider.requests_of(scene.second)
    assert request.roles == ("system", "user", "assistant", "tool")
    assert request.last_role == "tool"
    assert await conversation.user_messages() == [message]


async def test_the_record_tells_a_cut_from_a_client_that_left(scene, provider):
    provider.script(scene.primary, Stall("let me"))
    provider.script(scene.second, CutStream("half"))
    conversation = await scene.conversation()
    await conversation.prompt("wait")
    await conversation.wait_for_event("message.part.delta")

    (open_request,) = provider.requests_of(scene.primary)
    assert open_request.ended is None
    await conversation.abort()
    (left,) = await provider.wait_for(scene.primary, ended=True)
    other = await scene.conversation()
    await other.prompt("be cut", model=scene.second)
    await other.wait_for_retry()
    await other.abort()

    assert left.disconnected
    assert not provider.requests_of(scene.second)[0].disconnected


async def test_events_of_other_sessions_stay_out_of_a_conversation(scene):
    first, second = await scene.conversation(), await scene.conversation()

    await first.prompt("one")
    await first.wait_until_answered()

    assert {event.session for event in first.events} == {first.id}
    assert {event.type for event in second.events} <= {"session.created", "session.updated"}


async def test_a_server_with_a_password_dies_with_its_context(opencode_binary):
    names = SceneNames("solo")
    with FaultyProvider() as provider:
        config = opencode_config(provider.base_url, agents=names.agents, models=names.models)
        async with OpenCodeServer(opencode_binary, config=config, password="secret") as server:
            pid, url, project = server.pid, server.url, server.project
            async with httpx.AsyncClient(base_url=url, auth=("opencode", "wrong")) as stranger:
                assert (await stranger.get("/config")).status_code == 401

            async with Scene.open(server, provider, names) as scene:
                provider.script(scene.primary, CallTool("bash", {"command": "sleep 300", "description": "wait"}))
                conversation = await scene.conversation()
                await conversation.prompt("wait")
                await conversation.wait_for_event(
                    "message.part.updated",
                    lambda it: it["part"]["type"] == "tool" and it["part"]["state"]["status"] == "running",
                )

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert server.pid == 0
    assert not project.exists()
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_a_session_outlives_a_restart(opencode_binary):
    names = SceneNames("again")
    with FaultyProvider() as provider:
        config = opencode_config(provider.base_url, agents=names.agents, models=names.models)
        async with OpenCodeServer(opencode_binary, config=config) as server:
            async with Scene.open(server, provider, names) as scene:
                before = await scene.conversation()
                await before.prompt("remember me")
                await before.wait_until_answered()
                history = await before.history()

            await server.restart(hard=True)
            async with server.client() as client:
                messages = (await client.get(f"/session/{before.id}/message")).json()

    assert [item["info"]["role"] for item in messages] == [role for role, _ in history] == ["user", "assistant"]


async def test_a_server_that_ends_at_its_start_says_why(tmp_path):
    broken = tmp_path / "opencode"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    broken.chmod(0o755)

    with anyio.fail_after(20), pytest.raises(HostUnavailable, match="no such luck"):
        async with OpenCodeServer(broken, config={}):
            pytest.fail("a server that has ended was entered")


def test_the_finder_prefers_the_named_binary(monkeypatch, tmp_path):
    named = tmp_path / "mine"
    named.write_text("")
    monkeypatch.setenv("FALLBACK_PLUGIN_OPENCODE", str(named))

    assert find_opencode() == named


def test_the_finder_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("FALLBACK_PLUGIN_OPENCODE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(FileNotFoundError, match="install the npm package opencode-ai"):
        find_opencode([tmp_path])
