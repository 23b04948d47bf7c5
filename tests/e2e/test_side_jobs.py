"""The host's side jobs: a title job that fails must not disturb the turn that it runs beside."""

from __future__ import annotations

import pytest

from fallback_plugin.testing.faults import Answer, Fail, Hang, rate_limited

pytestmark = pytest.mark.parametrize("shared_opencode", ["plugin"], indirect=True, scope="session")

TITLE = "title"
"""The model of the title job, shared by all scenes."""
FAILURES = {"429": rate_limited(), "401": Fail(401), "hang": Hang()}


@pytest.fixture
def failing_title(provider):
    yield lambda failure: provider.script(TITLE, failure)
    provider.script(TITLE, Answer())


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_a_turn_beside_a_failing_title_job_is_left_alone(scene, provider, attach, failing_title, failure):
    failing_title(failure)
    before = len(provider.requests_of(TITLE))
    provider.script(scene.primary, Answer("hello", first_token_after=1.0))
    notices = await attach(timeout_seconds=2.0)
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    assert await conversation.wait_until_answered() == ["hello"]
    await conversation.wait_until_idle(quiet=3.0)

    assert len(provider.requests_of(TITLE)) > before
    assert len(provider.requests_of(scene.primary)) == 1
    assert provider.requests_of(scene.second, scene.third) == []
    assert notices.of(conversation.id) == []


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_a_failing_turn_beside_a_failing_title_job_hops_once(scene, provider, attach, failing_title, failure):
    failing_title(failure)
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("hello from second", first_token_after=1.0))
    notices = await attach()
    conversation = await scene.conversation()

    await conversation.prompt("say hi")
    await notices.wait_for("recovered", session=conversation.id)
    await conversation.wait_until_idle(quiet=3.0)

    assert await conversation.answers() == ["hello from second"]
    assert [len(provider.requests_of(model)) for model in scene.names.models] == [1, 1, 0]
    assert notices.of(conversation.id) == ["failure", "hop", "recovered"]
