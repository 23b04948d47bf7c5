"""Issue A, "What must happen on the real server": turns, chains, users."""

from __future__ import annotations

import base64

import anyio
import pytest

from fallback_plugin.testing.faults import (
    Answer,
    CallTool,
    Fail,
    Hang,
    SlowAnswer,
    content_policy,
    context_overflow,
    rate_limited,
)
from fallback_plugin.testing.opencode_scene import route

pytestmark = pytest.mark.parametrize("shared_opencode", ["attach", "plugin"], indirect=True, scope="session")

PIXEL = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
).decode()


def users(history):
    return [text for role, text in history if role == "user"]


async def test_a_tool_that_has_run_is_not_run_again(scene, provider, attach, opencode):
    trace = opencode.project / f"{scene.agent}.txt"
    command = {"command": f"echo run >> {trace}; echo done", "description": "trace"}
    provider.script(scene.primary, CallTool("bash", command), rate_limited())
    provider.script(scene.second, Answer("the tool said done"))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("run the tool")
    await notices.wait_for("recovered", session=conversation.id)

    assert trace.read_text() == "run\n"
    [request] = provider.requests_of(scene.second)
    assert request.roles == ("system", "user", "assistant", "tool")
    assert "done" in request.texts("tool")[0]


async def test_the_third_answers_when_three_fail(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Fail(529))
    provider.script(scene.third, Fail(402))
    notices = await attach(chain=(*map(route, scene.names.models), route("default")))
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await notices.wait_for("recovered", session=conversation.id)

    assert len(await conversation.answers()) == 1
    assert users(await conversation.history()) == ["say hi"]
    assert [len(provider.requests_of(model)) for model in scene.names.models] == [1, 1, 1]
    assert notices.of(conversation.id).count("hop") == 3


async def test_every_route_fails_and_a_new_prompt_starts_a_new_turn(scene, provider, attach):
    provider.script(scene.primary, rate_limited(), Answer("back again"))
    provider.script(scene.second, Fail(500))
    provider.script(scene.third, rate_limited(retry_after=3600))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    exhausted = await notices.wait_for("exhausted", session=conversation.id)
    await conversation.wait_until_idle(quiet=4.0)

    assert [len(provider.requests_of(model)) for model in scene.names.models] == [1, 1, 1]
    assert [failed.route for failed in exhausted.failures] == [route(model) for model in scene.names.models]
    assert [failed.failure.kind.value for failed in exhausted.failures] == ["rate_limit", "server_error", "rate_limit"]
    assert notices.of(conversation.id).count("exhausted") == 1
    [toast] = [
        event.properties
        for event in scene.events
        if event.type == "tui.toast.show"
        and route(scene.third) in event.properties["message"]
        and event.properties["variant"] == "error"
    ]
    assert route(scene.primary) in toast["message"]
    assert "Earliest back in" in toast["message"]

    await conversation.prompt("and now?")
    assert await conversation.wait_until_answered() == ["back again"]


@pytest.mark.parametrize("failure", [Fail(400), content_policy()], ids=["400", "content policy"])
async def test_what_another_model_can_not_help_stays_with_the_host(scene, provider, attach, failure):
    provider.script(scene.primary, failure)
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await conversation.wait_until_idle(quiet=2.0)

    assert provider.requests_of(scene.second, scene.third) == []
    assert len(provider.requests_of(scene.primary)) == 1
    [_, answer] = await conversation.messages()
    assert answer["info"]["error"]["data"]["statusCode"] == 400
    assert notices.of(conversation.id) == ["failure"]


async def test_context_overflow_is_left_to_the_hosts_compaction(scene, provider, attach):
    provider.script(scene.primary, context_overflow(), Answer("a summary"), Answer("the answer"))
    await attach()
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await conversation.wait_until_idle(quiet=2.0)

    assert provider.requests_of(scene.second, scene.third) == []
    assert any(event.type == "session.compacted" for event in conversation.events)
    assert "the answer" in await conversation.answers()


@pytest.mark.parametrize("step", [SlowAnswer(), Hang()], ids=["streaming", "hanging"])
async def test_the_users_abort_on_the_primary_is_final(scene, provider, attach, step):
    provider.script(scene.primary, step)
    notices = await attach(timeout_seconds=20.0)
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await provider.wait_for(scene.primary)
    await anyio.sleep(0.6)
    await conversation.abort()
    await conversation.wait_until_idle(quiet=3.0)

    assert provider.requests_of(scene.second, scene.third) == []
    assert len(provider.requests_of(scene.primary)) == 1
    assert notices.of(conversation.id) == ["stopped"]


async def test_the_users_abort_on_a_streaming_fallback_is_final(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, SlowAnswer())
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await notices.wait_for("hop", session=conversation.id)
    await conversation.wait_for_event("message.part.delta")
    await conversation.abort()
    await conversation.wait_until_idle(quiet=3.0)

    assert len(provider.requests_of(scene.second)) == 1
    assert provider.requests_of(scene.third) == []
    assert notices.of(conversation.id) == ["failure", "hop", "stopped"]


async def test_a_prompt_while_the_fallback_streams_is_answered_too(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, SlowAnswer("the first answer", chunks=5), Answer("the second answer"))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("first")
    await notices.wait_for("hop", session=conversation.id)
    await conversation.wait_for_event("message.part.delta")
    await conversation.prompt("second")
    await conversation.wait_until_answered(prompts=2)

    assert users(await conversation.history()) == ["first", "second"]
    assert len(await conversation.answers()) == 2


async def test_a_prompt_while_the_primary_is_in_retry_is_answered_with_the_first_in_view(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("to both"))
    notices = await attach(host_retries_before_fallback=1)
    conversation = await scene.conversation()

    await conversation.prompt("first")
    await conversation.wait_for_retry()
    await conversation.prompt("second")
    await notices.wait_for("recovered", session=conversation.id)
    await conversation.wait_until_idle(quiet=1.0)

    assert users(await conversation.history()) == ["first", "second"]
    assert provider.requests_of(scene.second)[-1].texts("user") == ["first", "second"]
    assert await conversation.answers() == ["to both"]


async def test_a_model_picked_by_hand_is_not_overridden(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    provider.script(scene.third, Answer("from third"))
    notices = await attach()
    conversation = await scene.conversation()
    await conversation.prompt("say hi")
    await notices.wait_for("recovered", session=conversation.id)

    await conversation.prompt("and you?", model=scene.third)
    await conversation.wait_until_answered(prompts=2)
    await conversation.wait_until_idle()

    assert await conversation.answers() == ["from second", "from third"]
    assert len(provider.requests_of(scene.second)) == 1


async def test_an_agent_without_model_and_the_global_chain(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    notices = await attach(everybodys=True)
    conversation = await scene.conversation(agent=scene.names.bare_agent)

    await conversation.prompt("say hi", model=scene.primary)
    await notices.wait_for("recovered", session=conversation.id)

    assert await conversation.answers() == ["from second"]
    assert users(await conversation.history()) == ["say hi"]
    assert len(provider.requests_of(scene.second)) == 1


async def test_files_images_system_and_tools_are_kept_once(scene, provider, attach, opencode):
    note = opencode.project / f"{scene.agent}.md"
    note.write_text("the note's content")
    parts = [
        {"type": "text", "text": "look at these"},
        {"type": "file", "mime": "text/plain", "filename": note.name, "url": note.as_uri()},
        {"type": "file", "mime": "image/png", "filename": "pixel.png", "url": f"data:image/png;base64,{PIXEL}"},
    ]
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("seen"))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt(parts=parts, system="Be terse.", tools={"webfetch": False})
    await notices.wait_for("recovered", session=conversation.id)

    [first], [second] = provider.requests_of(scene.primary), provider.requests_of(scene.second)
    # The host's system prompt names the model; everything else is the same.
    assert second.messages[1:] == first.messages[1:]
    assert "the note's content" in "".join(second.texts("user"))
    assert "Be terse." in "".join(second.texts("system"))
    assert second.body.get("tools") == first.body.get("tools")
    [user] = [item for item in await conversation.messages() if item["info"]["role"] == "user"]
    assert [part["type"] for part in user["parts"]].count("file") == 2


async def test_twenty_sessions_fail_at_once(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    await attach()
    conversations = [await scene.conversation() for _ in range(20)]

    async with anyio.create_task_group() as tasks:
        for conversation in conversations:
            tasks.start_soon(conversation.prompt, f"say hi to {conversation.id}")
    for conversation in conversations:
        await conversation.wait_until_answered(timeout=100)

    for conversation in conversations:
        assert await conversation.answers() == ["from second"]
        assert users(await conversation.history()) == [f"say hi to {conversation.id}"]
    assert len(provider.requests_of(scene.second)) == 20
    assert provider.requests_of(scene.third) == []


async def test_a_model_that_the_host_does_not_know_is_passed_over(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    notices = await attach(chain=("fake/nobody-knows-it", "nowhere/at-all", route(scene.second)))
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await notices.wait_for("recovered", session=conversation.id)

    assert await conversation.answers() == ["from second"]
    assert notices.of(conversation.id).count("refused") == 2
    assert users(await conversation.history()) == ["say hi"]


async def test_a_first_prompt_for_an_unknown_model_is_carried_on(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    notices = await attach(chain=(route(scene.second),))
    conversation = await scene.conversation()

    await conversation.prompt("say hi", model="nobody-knows-it")
    await notices.wait_for("recovered", session=conversation.id)

    assert await conversation.answers() == ["from second"]


async def test_a_hop_costs_at_most_four_calls_and_a_good_turn_none(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    provider.script(scene.third, Answer("from third"))
    notices = await attach()
    conversation = await scene.conversation()
    attached = notices.calls

    await conversation.prompt("a good turn", model=scene.third)
    await conversation.wait_until_answered()
    await conversation.wait_until_idle()
    assert notices.calls == attached

    await conversation.prompt("a failing turn", model=scene.primary)
    await notices.wait_for("recovered", session=conversation.id)
    await conversation.wait_until_idle()
    assert notices.calls - attached <= 4


async def test_host_retries_are_let_pass_when_asked_for(scene, provider, attach):
    provider.script(scene.primary, rate_limited(), Answer("only a hiccup"))
    notices = await attach(host_retries_before_fallback=1)
    conversation = await scene.conversation()

    await conversation.prompt("say hi")

    assert await conversation.wait_until_answered() == ["only a hiccup"]
    assert notices.of(conversation.id) == []


async def test_the_toast_names_old_model_reason_and_new_model(scene, provider, attach):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await notices.wait_for("recovered", session=conversation.id)
    with anyio.fail_after(5):
        while not (toasts := [event for event in scene.events if event.type == "tui.toast.show"]):
            await anyio.sleep(0.02)

    assert toasts[0].properties["message"] == f"{route(scene.primary)} → {route(scene.second)} (rate limit)"
