"""The host's summary of a session, whose model fails: by hand (`summarize`), on an overflow, over the token threshold."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager

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
    context_overflow,
    rate_limited,
)
from fallback_plugin.testing.opencode import PROVIDER
from fallback_plugin.testing.opencode_scene import route

pytestmark = pytest.mark.parametrize("shared_opencode", ["plugin"], indirect=True, scope="session")

NEARLY_FULL = 127_000
"""Prompt tokens that leave no room in a context of 128,000."""
FAILURES = {
    "429": rate_limited(),
    "402": Fail(402),
    "cut": CutStream("half a sum"),
    "hang": Hang(),
    "stall": Stall("half a sum"),
    "empty": EmptyAnswer(),
    "truncated": Truncate("half a sum"),
    "overflow": context_overflow(),
}
LIMITS = {"timeout_seconds": 1.5, "stall_timeout_seconds": 1.5}
PATIENCE_OVER = 2.5
"""Seconds after which the limits above and the host's first retry (2 s) would have shown themselves."""


def requests_for_summary(history):
    return [item for item in history if item["parts"] and any(part["type"] == "compaction" for part in item["parts"])]


def summaries(history):
    """Models and texts of the summaries in a history."""
    return [
        (item["info"]["modelID"], "".join(part["text"] for part in item["parts"] if part["type"] == "text"))
        for item in history
        if item["info"].get("summary") is True
    ]


def prompts(history):
    """What the user has said, and the host in the user's name."""
    return [
        part["text"]
        for item in history
        for part in item["parts"]
        if item["info"]["role"] == "user" and part["type"] == "text"
    ]


async def begin(scene):
    """A session with one finished turn on the primary."""
    conversation = await scene.conversation()
    await conversation.prompt("say hi")
    await conversation.wait_until_answered()
    await conversation.wait_until_idle(quiet=0.2)
    return conversation


@asynccontextmanager
async def summarizing(scene, conversation, model=None):
    """The user's /compact, whose call returns when its run ends."""

    async def summarize():
        body = {"providerID": PROVIDER, "modelID": model or scene.primary}
        response = await scene.client.post(f"/session/{conversation.id}/summarize", json=body, timeout=60)
        response.raise_for_status()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(summarize)
        yield
        tasks.cancel_scope.cancel()


def aborts_after(scene, conversation, at):
    """Idles that came after a time: an abort of an idle session shows itself by one."""
    return [event for event in conversation.events if event.type == "session.idle" and event.at > at]


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_summary_by_hand_is_written_by_the_next_model(scene, provider, attach, failure):
    provider.script(scene.primary, Answer("hello"), FAILURES[failure])
    provider.script(scene.second, Answer("the summary"))
    notices = await attach(**LIMITS)
    conversation = await begin(scene)

    async with summarizing(scene, conversation):
        await notices.wait_for("recovered", session=conversation.id)
        await conversation.wait_until_idle()

    history = await conversation.messages()
    assert summaries(history) == [(scene.second, "the summary")]
    assert len(requests_for_summary(history)) == 1
    assert len(history) == 4
    assert prompts(history) == ["say hi"]
    assert len(provider.requests_of(scene.second)) == 1
    assert provider.requests_of(scene.third) == []
    assert notices.of(conversation.id) == ["failure", "hop", "recovered"]

    # A model that has failed rests; too long a history says nothing against it.
    next_model = scene.primary if failure == "overflow" else scene.second
    provider.script(next_model, Answer("after the summary"))
    await conversation.prompt("and now?")
    assert (await conversation.wait_until_answered(prompts=3))[-1] == "after the summary"
    assert "the summary" in "".join(provider.requests_of(next_model)[-1].texts("assistant"))


async def test_a_summary_that_goes_well_costs_nothing_and_is_left_in_peace(scene, provider, attach):
    notices = await attach(**LIMITS)
    conversation = await begin(scene)
    calls = notices.calls

    async with summarizing(scene, conversation):
        await conversation.wait_for_event("session.compacted")
        await conversation.wait_until_idle()

    ended = conversation.events[-1].at
    await anyio.sleep(PATIENCE_OVER)
    assert aborts_after(scene, conversation, ended) == []
    assert notices.of(conversation.id) == []
    # Other settings tell the count again.
    assert (await attach()).calls == calls


async def test_the_third_model_writes_it_and_nothing_fires_into_the_idle_session(scene, provider, attach):
    provider.script(scene.primary, Answer("hello"), rate_limited())
    provider.script(scene.second, Fail(402))
    provider.script(scene.third, Answer("the summary"))
    notices = await attach(**LIMITS)
    conversation = await begin(scene)

    async with summarizing(scene, conversation):
        await notices.wait_for("recovered", session=conversation.id)
        await conversation.wait_until_idle()

    history = await conversation.messages()
    assert summaries(history) == [(scene.third, "the summary")]
    assert len(history) == 4
    ended = conversation.events[-1].at
    await anyio.sleep(PATIENCE_OVER)
    assert aborts_after(scene, conversation, ended) == []
    assert [len(provider.requests_of(model)) for model in scene.names.models] == [2, 1, 1]


@pytest.mark.parametrize("failure", [rate_limited(), Fail(402), Hang()], ids=["429", "402", "hang"])
async def test_after_an_overflow_the_host_goes_on_with_the_users_prompt(scene, provider, attach, failure):
    provider.script(scene.primary, Answer("hello"), context_overflow(), failure, Answer("the answer"))
    provider.script(scene.second, Answer("the summary"))
    notices = await attach(**LIMITS)
    conversation = await begin(scene)

    await conversation.prompt("question two")
    await notices.wait_for("recovered", session=conversation.id)
    await conversation.wait_for_event("session.compacted")
    await conversation.wait_until_idle()

    history = await conversation.messages()
    assert summaries(history) == [(scene.second, "the summary")]
    assert len(requests_for_summary(history)) == 1
    assert (await conversation.answers())[-1] == "the answer"
    # The second is the host's own copy of it, behind the summary.
    assert prompts(history) == ["say hi", "question two", "question two"]
    assert len(provider.requests_of(scene.primary)) == 4
    assert len(provider.requests_of(scene.second)) == 1


async def test_an_overflow_of_the_summary_too_is_carried_on(scene, provider, attach):
    provider.script(scene.primary, Answer("hello"), context_overflow(), context_overflow(), Answer("the answer"))
    provider.script(scene.second, Answer("the summary"))
    notices = await attach()
    conversation = await begin(scene)

    await conversation.prompt("question two")
    await notices.wait_for("recovered", session=conversation.id)
    await conversation.wait_until_idle()

    assert summaries(await conversation.messages()) == [(scene.second, "the summary")]
    assert (await conversation.answers())[-1] == "the answer"


@pytest.mark.parametrize("step", ["answer", "tool"])
async def test_over_the_threshold_the_host_goes_on_by_itself(scene, provider, attach, opencode, step):
    trace = opencode.project / f"{scene.agent}-{step}.txt"
    call = CallTool("bash", {"command": f"echo run >> {trace}", "description": "x"}, prompt_tokens=NEARLY_FULL)
    first = call if step == "tool" else Answer("hello", prompt_tokens=NEARLY_FULL)
    provider.script(scene.primary, first, rate_limited())
    provider.script(scene.second, Answer("the summary"), Answer("the rest"))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("a long task")
    await notices.wait_for("recovered", session=conversation.id)
    await conversation.wait_for_event("session.compacted")
    await conversation.wait_until_idle()

    history = await conversation.messages()
    assert summaries(history) == [(scene.second, "the summary")]
    assert len(requests_for_summary(history)) == 1
    assert (await conversation.answers())[-1] == "the rest"
    asked = prompts(history)
    assert len(asked) == 2
    assert asked[1].startswith("Continue if you have next steps")
    assert [len(provider.requests_of(model)) for model in scene.names.models] == [2, 2, 0]
    assert trace.read_text() == "run\n" if step == "tool" else not trace.exists()


@pytest.mark.parametrize("last", [rate_limited(), Fail(402), Hang()], ids=["429", "402", "hang"])
async def test_an_exhausted_chain_is_said_once_and_does_not_swallow_the_next_prompt(scene, provider, attach, last):
    provider.script(scene.primary, Answer("hello"), rate_limited(), Answer("back again"))
    provider.script(scene.second, Fail(402))
    provider.script(scene.third, last)
    notices = await attach(**LIMITS)
    conversation = await begin(scene)

    async with summarizing(scene, conversation):
        await notices.wait_for("exhausted", session=conversation.id)
        await conversation.wait_until_idle(quiet=PATIENCE_OVER)

    assert [len(provider.requests_of(model)) for model in scene.names.models] == [2, 1, 1]
    assert notices.of(conversation.id).count("exhausted") == 1
    assert notices.of(conversation.id).count("stopped") == 0
    history = await conversation.messages()
    assert [item["info"]["role"] for item in history] == ["user", "assistant"]

    await conversation.prompt("and now?")
    assert (await conversation.wait_until_answered(prompts=2))[-1] == "back again"
    assert summaries(await conversation.messages()) == []


async def test_an_exhausted_chain_in_the_middle_of_a_turn(scene, provider, attach):
    provider.script(scene.primary, Answer("hello"), context_overflow(), rate_limited())
    provider.script(scene.second, Fail(500))
    provider.script(scene.third, Fail(402))
    notices = await attach()
    conversation = await begin(scene)

    await conversation.prompt("question two")
    await notices.wait_for("exhausted", session=conversation.id)
    await conversation.wait_until_idle(quiet=PATIENCE_OVER)

    assert notices.of(conversation.id).count("exhausted") == 1
    assert prompts(await conversation.messages()) == ["say hi", "question two"]
    assert [len(provider.requests_of(model)) for model in scene.names.models] == [3, 1, 1]


@pytest.mark.parametrize("when", ["on the primary", "on the fallback"])
async def test_the_users_stop_is_final(scene, provider, attach, when):
    slow = SlowAnswer("a summary that takes its time", chunks=20)
    provider.script(scene.primary, Answer("hello"), slow if when == "on the primary" else rate_limited())
    provider.script(scene.second, slow)
    notices = await attach()
    conversation = await begin(scene)
    told = len(conversation.events)

    async with summarizing(scene, conversation):
        with anyio.fail_after(20):
            while not any(event.type == "message.part.delta" for event in conversation.events[told:]):
                await anyio.sleep(0.02)

        await conversation.abort()
        await conversation.wait_until_idle(quiet=PATIENCE_OVER)

    assert notices.of(conversation.id)[-1] == "stopped"
    assert len(provider.requests_of(scene.second)) == (0 if when == "on the primary" else 1)
    assert provider.requests_of(scene.third) == []


async def test_a_prompt_while_the_summary_is_retried_is_answered_instead(scene, provider, attach):
    provider.script(scene.primary, Answer("hello"), rate_limited())
    provider.script(scene.second, Answer("the answer"))
    notices = await attach(host_retries_before_fallback=1)
    conversation = await begin(scene)

    async with summarizing(scene, conversation):
        await conversation.wait_for_retry()
        await conversation.prompt("question two")
        await notices.wait_for("recovered", session=conversation.id)
        await conversation.wait_until_idle(quiet=1.0)

    history = await conversation.messages()
    assert prompts(history) == ["say hi", "question two"]
    assert requests_for_summary(history) == []
    assert await conversation.answers() == ["hello", "the answer"]
    assert provider.requests_of(scene.second)[-1].texts("user")[-1] == "question two"
    assert provider.requests_of(scene.second)[-1].last_role == "user"


async def test_a_compaction_that_was_under_way_before_the_bridge_came(scene, provider, attach, opencode):
    provider.script(scene.primary, Answer("hello"), rate_limited())
    provider.script(scene.second, Answer("the summary"))
    notices = await attach(host_retries_before_fallback=1)
    conversation = await begin(scene)

    # The host goes on with a summary whose caller has left.
    async with summarizing(scene, conversation):
        await conversation.wait_for_retry()

    bridges = opencode.bridges()
    os.kill(bridges[-1], signal.SIGKILL)
    await notices.wait_for("recovered", session=conversation.id)
    await conversation.wait_until_idle()

    history = await conversation.messages()
    assert summaries(history) == [(scene.second, "the summary")]
    assert len(history) == 4
    assert len(opencode.bridges()) == len(bridges) + 1


async def test_summaries_on_the_chosen_model_are_carried_on_by_the_chain_from_its_start(scene, provider, attach):
    provider.script(scene.third, rate_limited())
    provider.script(scene.primary, Answer("hello"), Answer("the summary"))
    notices = await attach(chain=(route(scene.primary), route(scene.second)))
    conversation = await begin(scene)

    async with summarizing(scene, conversation, model=scene.third):
        await notices.wait_for("recovered", session=conversation.id)
        await conversation.wait_until_idle()

    assert summaries(await conversation.messages()) == [(scene.primary, "the summary")]
