"""Issue A, "What must happen on the real server": one failing primary, every way of failing."""

from __future__ import annotations

import pytest

from fallback_plugin.testing.faults import (
    Answer,
    CutStream,
    EmptyAnswer,
    ErrorInStream,
    Fail,
    Hang,
    Stall,
    Truncate,
    bad_gateway_page,
    quota_exhausted,
    rate_limited,
)

pytestmark = pytest.mark.parametrize("opencode", ["attach", "plugin"], indirect=True, scope="session")

FAILURES = {
    "429": rate_limited(),
    "429 insufficient_quota": quota_exhausted(),
    "429 retry-after a day": rate_limited(retry_after=86400),
    "503 retry-after an hour": Fail(503, headers={"retry-after": "3600"}),
    "500": Fail(500),
    "502 html": bad_gateway_page(),
    "529": Fail(529),
    "error in stream": ErrorInStream(),
    "cut": CutStream(),
    "401": Fail(401),
    "402": Fail(402),
    "403 key limit": Fail(403, {"error": {"message": "Key limit exceeded (total limit)", "code": 403}}),
    "404": Fail(404),
    "empty": EmptyAnswer(),
    "truncated": Truncate(),
}


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
