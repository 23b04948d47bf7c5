"""The loopback host by itself: it keeps sessions, asks over HTTP and retries, with and without the plugin."""

from __future__ import annotations

import anyio
import pytest

from fallback_plugin import FallbackPlugin, Policy, Rules
from fallback_plugin.core.actions import DispatchTurn
from fallback_plugin.core.events import AssistantMessage, MessageUpdated, SessionErrored, SessionStatusChanged
from fallback_plugin.errors import HostRefused
from fallback_plugin.testing.faults import (
    Answer,
    CallTool,
    CutStream,
    EmptyAnswer,
    ErrorInStream,
    Fail,
    Hang,
    SlowAnswer,
    Stall,
    Truncate,
    rate_limited,
)
from fallback_plugin.testing.loopback_host import LoopbackHost
from fallback_plugin.testing.provider import FaultyProvider

CHAIN = ("north/large", "south/medium")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def runs():
    return []


@pytest.fixture
async def provider():
    async with FaultyProvider() as running:
        yield running


@pytest.fixture
async def host(provider, runs):
    async def note(arguments):
        runs.append(arguments["text"])
        return "noted"

    providers = {"north": provider.base_url, "south": provider.base_url}
    async with LoopbackHost(providers, agents={"coder": CHAIN[0]}, tools={"note": note}) as running:
        yield running


@pytest.fixture
def events(host):
    heard = []
    host.subscribe(heard.append)
    return heard


@pytest.fixture
async def plugin(host):
    rules = Rules(default=Policy(chain=CHAIN, timeout_seconds=0.5, stall_timeout_seconds=0.5))
    async with FallbackPlugin(host, rules) as running:
        host.subscribe(running.handle)
        yield running


def ask(host, text="say hi"):
    session_id = host.open_session()
    return session_id, host.prompt(session_id, text, agent="coder")


def statuses(events):
    return [event.status for event in events if isinstance(event, SessionStatusChanged)]


async def test_a_turn_is_answered(host, provider, events):
    provider.script("large", Answer("hello there"))
    session_id, _ = ask(host)
    await host.wait_until_quiet(session_id, 0.1)

    assert host.history(session_id) == [("user", "say hi"), ("assistant", "hello there")]
    assert statuses(events) == ["busy", "idle"]
    [request] = provider.requests
    assert request.roles == ("user",)
    assert request.streaming


async def test_a_tool_is_run_and_its_result_sent_back(host, provider, runs):
    provider.script("large", CallTool("note", {"text": "milk"}), Answer("done"))
    session_id, _ = ask(host)
    await host.wait_until_quiet(session_id, 0.1)

    assert runs == ["milk"]
    assert provider.requests[1].roles == ("user", "assistant", "tool")
    assert provider.requests[1].texts("tool") == ["noted"]
    assert host.history(session_id)[-1] == ("assistant", "done")


async def test_an_unknown_tool_is_told_to_the_model(host, provider, runs):
    provider.script("large", CallTool("fly", {}), Answer("done"))
    session_id, _ = ask(host)
    await host.wait_until_quiet(session_id, 0.1)

    assert runs == []
    assert provider.requests[1].texts("tool") == ["no tool named fly"]


@pytest.mark.parametrize("step", [Fail(429), Fail(503), CutStream("half"), ErrorInStream("half")])
async def test_a_passing_failure_is_retried_on_the_same_model(host, provider, events, step):
    provider.script("large", step, Answer("back again"))
    session_id, _ = ask(host)
    await host.wait_until_quiet(session_id, 0.1)

    assert host.history(session_id)[-1] == ("assistant", "back again")
    assert statuses(events) == ["busy", "retry", "busy", "idle"]
    assert len(provider.requests_of("large")) == 2


async def test_a_lasting_failure_ends_the_run_with_an_error(host, provider, events):
    provider.script("large", Fail(401))
    session_id, _ = ask(host)
    await host.wait_until_quiet(session_id, 0.1)

    [told] = [event for event in events if isinstance(event, SessionErrored)]
    assert told.facts.status == 401
    inspected = await host.inspect(session_id)
    assert inspected.assistants[-1].message.error.status == 401
    assert inspected.status.status == "idle"


async def test_an_abort_ends_the_run_and_its_request(host, provider, events):
    provider.script("large", SlowAnswer())
    session_id, _ = ask(host)
    [request] = await provider.wait_for("large")
    await anyio.sleep(0.3)
    await host.abort(session_id)
    inspected = await host.inspect(session_id)

    assert inspected.assistants[-1].message.error.name == "MessageAbortedError"
    assert statuses(events)[-1] == "idle"
    await provider.wait_for("large", ended=True)
    assert request.disconnected


async def test_a_session_that_is_not_there(host):
    with pytest.raises(HostRefused):
        await host.abort("session-99")

    assert not (await host.inspect("session-99")).found


async def test_a_dispatch_while_a_run_is_under_way_is_not_taken(host, provider):
    provider.script("large", Hang())
    session_id, message_id = ask(host)
    await provider.wait_for("large")
    turn = DispatchTurn(session_id=session_id, generation=1, user_message_id=message_id, route="south/medium")

    assert (await host.dispatch(turn)).outcome == "unavailable"
    assert provider.requests_of("medium") == []


async def test_a_dispatch_of_a_message_that_is_not_there_is_refused(host):
    turn = DispatchTurn(
        session_id=host.open_session(), generation=1, user_message_id="message-99", route="south/medium"
    )

    assert (await host.dispatch(turn)).outcome == "refused"


async def test_two_prompts_are_answered_with_both_in_view(host, provider):
    provider.script("large", SlowAnswer("first", chunks=2), Answer("second"))
    session_id, _ = ask(host, "one")
    await provider.wait_for("large")
    host.prompt(session_id, "two", agent="coder")
    await host.wait_until_quiet(session_id, 0.2)

    assert [text for role, text in host.history(session_id) if role == "assistant"] == ["first", "second"]
    assert provider.requests[1].texts("user") == ["one", "two"]


@pytest.mark.parametrize(
    "step",
    [
        Fail(401),
        Fail(402),
        Fail(404),
        rate_limited(retry_after=7200),
        Fail(500),
        Fail(529),
        CutStream("half"),
        ErrorInStream("half"),
        Hang(),
        Stall("let me"),
        EmptyAnswer(),
    ],
    ids=lambda step: f"{type(step).__name__} {getattr(step, 'status', '')}",
)
async def test_the_plugin_carries_the_turn_on(host, provider, plugin, step):
    provider.script("large", step)
    provider.script("medium", Answer("from medium"))
    session_id, _ = ask(host)
    with anyio.fail_after(20):
        await host.wait_until_quiet(session_id, 0.9)

    history = host.history(session_id)
    assert [text for role, text in history if role == "user"] == ["say hi"]
    assert [text for role, text in history if role == "assistant" and text] == ["from medium"]
    [request] = provider.requests_of("medium")
    assert request.roles == ("user",)
    assert len(provider.requests_of("large")) == 1
    assert [toast.variant for toast in host.toasts] == ["warning"]


async def test_the_plugin_does_not_carry_on_what_the_user_has_stopped(host, provider, plugin):
    provider.script("large", SlowAnswer())
    session_id, _ = ask(host)
    await provider.wait_for("large")
    await anyio.sleep(0.3)
    await host.stop(session_id)
    await host.wait_until_quiet(session_id, 1.0)

    assert provider.requests_of("medium") == []
    assert plugin.retry_in_flight == set()


async def test_a_truncated_answer_ends_the_turn_here(host, provider, events):
    """The loopback host does not ask again for ever after an answer without a finish reason."""
    provider.script("large", Truncate("half of"))
    session_id, _ = ask(host)
    await host.wait_until_quiet(session_id, 0.2)

    answers = [event.message for event in events if isinstance(event, MessageUpdated)]
    finishes = [message.finish for message in answers if isinstance(message, AssistantMessage)]
    assert finishes[-1] == "unknown"
    assert len(provider.requests) == 1
