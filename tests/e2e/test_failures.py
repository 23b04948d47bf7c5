"""Issue A, "What must happen on the real server": one failing primary, every way of failing."""

from __future__ import annotations

import pytest

from fallback_plugin.testing.faults import FAILURES, Answer, Hang, Stall

pytestmark = pytest.mark.parametrize("shared_opencode", ["attach", "plugin"], indirect=True, scope="session")


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_the_first_fallback_answers(scene, provider, attach, failure):
    provider.script(scene.primary, failure)
    provider.script(scene.second, Answer("hello from second"))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await notices.wait_for("recovered", session=conversation.id)
    await conversation.wait_until_idle()

    assert await conversation.answers() == ["hello from second"]
    assert [role for role, _ in await conversation.history()].count("user") == 1
    [request] = provider.requests_of(scene.second)
    assert request.roles == ("system", "user")
    assert provider.requests_of(scene.third) == []
    assert notices.of(conversation.id) == ["failure", "hop", "recovered"]


@pytest.mark.parametrize(
    ("failure", "limits"),
    [(Hang(), {"timeout_seconds": 1.0}), (Stall(), {"timeout_seconds": 5.0, "stall_timeout_seconds": 1.0})],
    ids=["no byte", "silence after the first tokens"],
)
async def test_silence_is_aborted_and_carried_on(scene, provider, attach, failure, limits):
    provider.script(scene.primary, failure)
    provider.script(scene.second, Answer("hello from second"))
    notices = await attach(**limits)
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await notices.wait_for("recovered", session=conversation.id)

    assert await conversation.answers() == ["hello from second"]
    [request] = provider.requests_of(scene.second)
    assert request.roles == ("system", "user")
    assert [role for role, _ in await conversation.history()].count("user") == 1
    assert notices.of(conversation.id) == ["failure", "hop", "recovered"]
