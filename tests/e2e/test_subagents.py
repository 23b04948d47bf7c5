"""A failing subagent: the session that waits for it gets its real answer, or one clear error. Nothing runs twice."""

from __future__ import annotations

import os
import signal
import time

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
    bash,
    rate_limited,
)
from fallback_plugin.testing.opencode_scene import route

pytestmark = pytest.mark.parametrize("shared_opencode", ["plugin"], indirect=True, scope="session")


def task(agent, *, then=None, prompt="do the work"):
    """The model's call of the tool that starts a subagent."""
    return CallTool("task", {"description": "work", "prompt": prompt, "subagent_type": agent}, then=then)


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
    notices = await attach(timeout_seconds=2.0, stall_timeout_seconds=2.0)
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


@pytest.mark.parametrize("last", [rate_limited(), Fail(402)], ids=["429", "402"])
async def test_an_exhausted_chain_is_one_clear_error(scene, provider, attach, last):
    primary, second, third = scene.names.worker_models
    provider.script(scene.primary, task(scene.names.worker), Answer("the parent is done"))
    provider.script(primary, rate_limited())
    provider.script(second, Fail(402))
    provider.script(third, last)
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=2.0)

    [_, request] = provider.requests_of(scene.primary)
    [result] = request.texts("tool")
    [part] = await tool_parts(conversation)
    assert part["state"]["status"] == "error"
    assert result == part["state"]["error"]
    assert "every model has failed" in result
    assert all(model in result for model in (primary, second, third))
    assert [len(provider.requests_of(model)) for model in (primary, second, third)] == [1, 1, 1]
    assert await conversation.answers() == ["the parent is done"]
    [child] = await children(conversation)
    assert notices.of(child).count("exhausted") == 1
    assert notices.of(conversation.id) == []


async def test_a_chain_without_a_next_model_is_one_clear_error(scene, provider, attach):
    primary, second, _ = scene.names.worker_models
    provider.script(scene.primary, task(scene.names.worker), Answer("the parent is done"))
    provider.script(primary, rate_limited())
    await attach(max_fallback_attempts=0)
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=1.0)

    [_, request] = provider.requests_of(scene.primary)
    assert "every model has failed" in request.texts("tool")[0]
    assert provider.requests_of(second) == []


@pytest.mark.parametrize("failure", [rate_limited(), Fail(402)], ids=["429", "402"])
@pytest.mark.parametrize("slow", ["failing", "other"])
async def test_of_two_children_the_one_that_works_is_not_asked_again(scene, provider, attach, opencode, slow, failure):
    trace = opencode.project / f"{scene.agent}-helper.txt"
    primary, second, _ = scene.names.worker_models
    both = task(scene.names.worker, then=task(scene.names.helper))
    provider.script(scene.primary, both, Answer("the parent is done"))
    provider.script(primary, failure)
    pace = {"chunks": 7, "delay": 0.5}
    provider.script(second, SlowAnswer("of the fallback", **pace) if slow == "failing" else Answer("of the fallback"))
    said = SlowAnswer("of the helper", **pace) if slow == "other" else Answer("of the helper")
    provider.script(scene.names.helper_model, bash(f"echo run >> {trace}; echo done"), said)
    await attach()
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=1.0)

    [_, request] = provider.requests_of(scene.primary)
    assert request.roles == ("system", "user", "assistant", "tool", "tool")
    results = request.texts("tool")
    assert "of the fallback" in results[0]
    assert "of the helper" in results[1]
    assert trace.read_text() == "run\n"
    assert len(provider.requests_of(scene.names.helper_model)) == 2
    assert len(provider.requests_of(primary)) == 1
    assert len(provider.requests_of(second)) == 1
    assert await conversation.answers() == ["the parent is done"]
    assert not await has_empty_slots(conversation)
    errors = [item["info"].get("error") for item in await conversation.messages()]
    assert any(errors) == (slow == "failing")


async def test_two_children_fail_at_once(scene, provider, attach):
    primary, second, third = scene.names.worker_models
    both = task(scene.names.worker, then=task(scene.names.helper))
    provider.script(scene.primary, both, Answer("the parent is done"))
    provider.script(primary, rate_limited())
    provider.script(scene.names.helper_model, Fail(402))
    provider.script(second, Answer("one"), SlowAnswer("two", chunks=2, delay=0.5))
    await attach()
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=1.0)

    [_, request] = provider.requests_of(scene.primary)
    assert request.roles == ("system", "user", "assistant", "tool", "tool")
    assert {"one", "two"} == {text.split("<task_result>\n")[1].split("\n")[0] for text in request.texts("tool")}
    assert len(provider.requests_of(second)) == 2
    assert provider.requests_of(third) == []


@pytest.mark.parametrize("seconds", [0.2, 2.5], ids=["short", "long"])
async def test_a_command_beside_a_failing_child_is_not_disturbed(scene, provider, attach, opencode, seconds):
    trace = opencode.project / f"{scene.agent}-beside.txt"
    primary, second, _ = scene.names.worker_models
    command = bash(f"echo start >> {trace}; sleep {seconds}; echo end >> {trace}; echo done")
    provider.script(scene.primary, task(scene.names.worker, then=command), Answer("the parent is done"))
    provider.script(primary, rate_limited())
    provider.script(second, SlowAnswer("the real answer", chunks=3, delay=0.4))
    await attach()
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=1.0)

    [_, request] = provider.requests_of(scene.primary)
    results = request.texts("tool")
    assert "the real answer" in results[0]
    assert results[1] == "done\n"
    assert trace.read_text() == "start\nend\n"
    assert len(provider.requests_of(second)) == 1


async def test_a_childs_child(scene, provider, attach):
    primary, second, _ = scene.names.worker_models
    deputy = scene.names.deputy_model
    provider.script(scene.primary, task(scene.names.deputy), Answer("the parent is done"))
    provider.script(deputy, task(scene.names.worker), Answer("the deputy is done"))
    provider.script(primary, rate_limited())
    provider.script(second, Answer("the real answer"))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=1.0)

    [_, middle] = provider.requests_of(deputy)
    assert "the real answer" in middle.texts("tool")[0]
    [_, top] = provider.requests_of(scene.primary)
    assert "the deputy is done" in top.texts("tool")[0]
    assert len(provider.requests_of(second)) == 1
    assert await conversation.answers() == ["the parent is done"]
    [child] = await children(conversation)
    assert notices.of(conversation.id) == notices.of(child) == []
    assert len(await users_of(scene, child)) == 1
    assert not await has_empty_slots(conversation)


async def test_a_child_without_a_chain_inherits_its_parents(scene, provider, attach):
    primary = scene.names.worker_models[0]
    provider.script(scene.primary, task(scene.names.heir), Answer("the parent is done"))
    provider.script(primary, Fail(402))
    provider.script(scene.second, Answer("the real answer"))
    await attach(chain=(route(scene.second),))
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()

    [_, request] = provider.requests_of(scene.primary)
    assert "the real answer" in request.texts("tool")[0]
    assert len(provider.requests_of(scene.second)) == 1


async def test_a_grandchild_without_a_chain_inherits_from_the_top(scene, provider, attach):
    primary = scene.names.worker_models[0]
    provider.script(scene.primary, task(scene.names.deputy), Answer("the parent is done"))
    provider.script(scene.names.deputy_model, task(scene.names.heir), Answer("the deputy is done"))
    provider.script(primary, Hang())
    provider.script(scene.second, Answer("the real answer"))
    await attach(timeout_seconds=2.0, chain=(route(scene.second),))
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()

    [_, middle] = provider.requests_of(scene.names.deputy_model)
    assert "the real answer" in middle.texts("tool")[0]


@pytest.mark.parametrize("beside", [None, "sleep 4"], ids=["alone", "beside a command"])
@pytest.mark.parametrize("moment", ["before the hop", "during the hop", "while it waits"])
async def test_the_users_abort_of_the_parent_stops_all_of_it(scene, provider, attach, moment, beside):
    primary, second, third = scene.names.worker_models
    calls = task(scene.names.worker, then=bash(beside) if beside else None)
    provider.script(scene.primary, calls, Answer("the parent is done"))
    provider.script(primary, Hang() if moment == "before the hop" else rate_limited())
    provider.script(second, SlowAnswer(chunks=20, delay=0.3))
    notices = await attach(timeout_seconds=10.0)
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await provider.wait_for(second if moment == "while it waits" else primary)
    [child] = await children(conversation)
    if moment != "during the hop":
        await anyio.sleep(1.0)
    elif beside:
        await notices.wait_for("failure", session=child)
    else:
        # An abort beside our own is told by nothing (OBSERVATIONS.md, h): one right after it is.
        await conversation.wait_for_event("message.updated", lambda it: it["info"].get("error"))
        await anyio.sleep(0.12)
    await conversation.abort()
    stopped = time.monotonic()
    await conversation.wait_until_idle(quiet=4.0)

    assert len(provider.requests_of(scene.primary)) == 1
    assert all(request.arrived < stopped + 0.1 for request in provider.requests_of(second))
    assert all(request.disconnected for request in provider.requests_of(second))
    assert provider.requests_of(third, scene.second) == []
    response = await scene.client.get("/session/status")
    assert not {child, conversation.id} & set(response.json())


async def test_the_users_abort_at_the_top_stops_the_whole_family(scene, provider, attach):
    primary, second, _ = scene.names.worker_models
    provider.script(scene.primary, task(scene.names.deputy), Answer("the parent is done"))
    provider.script(scene.names.deputy_model, task(scene.names.worker), Answer("the deputy is done"))
    provider.script(primary, rate_limited())
    provider.script(second, SlowAnswer(chunks=20, delay=0.3))
    await attach()
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await provider.wait_for(second)
    await anyio.sleep(1.0)
    await conversation.abort()
    await conversation.wait_until_idle(quiet=4.0)

    assert len(provider.requests_of(scene.primary)) == 1
    assert len(provider.requests_of(scene.names.deputy_model)) == 1
    [request] = provider.requests_of(second)
    assert request.disconnected
    assert (await scene.client.get("/session/status")).json() == {}


async def test_a_prompt_while_the_parent_waits_is_answered_with_the_result_in_view(scene, provider, attach):
    primary, second, _ = scene.names.worker_models
    provider.script(scene.primary, task(scene.names.worker), Answer("answer to both"))
    provider.script(primary, rate_limited())
    provider.script(second, SlowAnswer("the real answer", chunks=6, delay=0.4))
    await attach()
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await provider.wait_for(second)
    await anyio.sleep(0.7)
    await conversation.prompt("and be quick")
    await provider.wait_for(second, ended=True)
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=1.5)

    last = provider.requests_of(scene.primary)[-1]
    assert last.texts("user") == ["delegate", "and be quick"]
    assert last.last_role == "user"
    assert "the real answer" in last.texts("tool")[0]
    assert await conversation.answers() == ["answer to both"]
    assert len(provider.requests_of(second)) == 1
    assert len(await conversation.user_messages()) == 2


async def test_a_childs_tool_that_has_run_is_not_run_again(scene, provider, attach, opencode):
    trace = opencode.project / f"{scene.agent}-child.txt"
    primary, second, _ = scene.names.worker_models
    provider.script(scene.primary, task(scene.names.worker), Answer("the parent is done"))
    provider.script(primary, bash(f"echo run >> {trace}; echo done"), rate_limited())
    provider.script(second, Answer("the real answer"))
    await attach()
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await conversation.wait_until_answered()

    assert trace.read_text() == "run\n"
    [request] = provider.requests_of(second)
    assert request.roles == ("system", "user", "assistant", "tool")
    assert "the real answer" in provider.requests_of(scene.primary)[-1].texts("tool")[0]


async def test_the_parents_model_fails_after_its_child_did(scene, provider, attach):
    primary, second, _ = scene.names.worker_models
    provider.script(scene.primary, task(scene.names.worker), rate_limited())
    provider.script(primary, rate_limited())
    provider.script(second, Answer("the real answer"))
    provider.script(scene.second, Answer("the parent is done"))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("delegate")
    await notices.wait_for("recovered", session=conversation.id)
    await conversation.wait_until_idle(quiet=1.0)

    [request] = provider.requests_of(scene.second)
    assert request.roles == ("system", "user", "assistant", "tool")
    assert "the real answer" in request.texts("tool")[0]
    assert await conversation.answers() == ["the parent is done"]
    assert len(provider.requests_of(scene.primary)) == 2
    assert len(provider.requests_of(second)) == 1


@pytest.mark.parametrize("failure", [rate_limited(retry_after=3600), Hang()], ids=["429", "hang"])
async def test_the_plugin_comes_when_the_child_has_failed_already(scene, provider, attach, opencode, failure):
    primary, second, _ = scene.names.worker_models
    provider.script(scene.primary, task(scene.names.worker), Answer("the parent is done"))
    provider.script(primary, failure)
    provider.script(second, Answer("the real answer"))
    await attach(timeout_seconds=2.0)
    # One that is deaf until it dies has never been there.
    bridge = opencode.bridges()[-1]
    os.kill(bridge, signal.SIGSTOP)
    conversation = await scene.conversation()
    await conversation.prompt("delegate")
    await provider.wait_for(primary)
    await anyio.sleep(0.5)

    os.kill(bridge, signal.SIGKILL)
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=1.0)

    assert opencode.bridges()[-1] != bridge
    [_, request] = provider.requests_of(scene.primary)
    assert "the real answer" in request.texts("tool")[0]
    assert len(provider.requests_of(second)) == 1
