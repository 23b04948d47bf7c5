"""A failing subagent: the session that waits for it gets its real answer, or one clear error. Nothing runs twice."""

from __future__ import annotations

import anyio
import pytest

from fallback_plugin.testing.faults import (
    Answer,
    CallTool,
    CutStream,
    EmptyAnswer,
    Fail,
    Hang,
    SlowAnswer,
    Stall,
    Truncate,
    rate_limited,
)


def task(agent, *, then=None, prompt="do the work"):
    """The model's call of the tool that starts a subagent."""
    return CallTool("task", {"description": "work", "prompt": prompt, "subagent_type": agent}, then=then)


def bash(command, *, then=None):
    return CallTool("bash", {"command": command, "description": "run"}, then=then)


async def children(conversation):
    response = await conversation.scene.client.get(f"/session/{conversation.id}/children")
    return [child["id"] for child in response.json()]


async def users_of(scene, session):
    response = await scene.client.get(f"/session/{session}/message")
    return [item["info"]["id"] for item in response.json() if item["info"]["role"] == "user"]


async def tool_parts(conversation):
    return [part for item in await conversation.messages() for part in item["parts"] if part["type"] == "tool"]


async def has_empty_slots(conversation):
    messages = [item for item in await conversation.messages() if item["info"]["role"] == "assistant"]
    return any(not [part for part in item["parts"] if part["type"] in ("text", "tool")] for item in messages)


FAILURES = {
    "429": rate_limited(),
    "402": Fail(402),
    "hang": Hang(),
    "cut": CutStream("some of it"),
    "stall": Stall(),
    "empty": EmptyAnswer(),
    "truncated": Truncate(),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_the_parent_gets_the_answer_of_the_fallback(scene, provider, attach, failure):
    primary, second, third = scene.names.worker_models
    provider.script(scene.primary, task(scene.names.worker), Answer("the parent is done"))
    provider.script(primary, failure)
    provider.script(second, Answer("the real answer"))
    notices = await attach(timeout_seconds=1.0, stall_timeout_seconds=1.0)
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=1.0)

    first, last = provider.requests_of(scene.primary)
    assert first.roles == ("system", "user")
    assert last.roles == ("system", "user", "assistant", "tool")
    assert "the real answer" in last.texts("tool")[0]
    assert len(provider.requests_of(second)) == 1
    assert provider.requests_of(third, scene.second) == []
    assert await conversation.answers() == ["the parent is done"]
    assert not await has_empty_slots(conversation)
    [child] = await children(conversation)
    assert len(await conversation.user_messages()) == 1
    assert len(await users_of(scene, child)) == 1
    assert notices.of(child) == ["failure", "hop", "recovered"]
    assert notices.of(conversation.id) == []
