"""The scripted provider over real HTTP, without any host."""

from __future__ import annotations

import json
import socket
import threading
import time

import anyio
import httpx
import pytest

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
    bad_gateway_page,
    content_policy,
    context_overflow,
    quota_exhausted,
    rate_limited,
)
from fallback_plugin.testing.provider import FaultyProvider

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]


@pytest.fixture
async def provider():
    async with FaultyProvider() as running:
        yield running


async def ask(provider, *, stream=True, model="m", timeout=5.0):
    body = {"model": model, "messages": MESSAGES, "stream": stream}
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.post(f"{provider.base_url}/chat/completions", json=body, timeout=timeout)


def chunks(response):
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def said(response):
    deltas = [choice["delta"] for chunk in chunks(response) for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def finish(response):
    reasons = [choice["finish_reason"] for chunk in chunks(response) for choice in chunk.get("choices", [])]
    return [reason for reason in reasons if reason]


async def test_steps_are_used_one_per_request_and_the_last_repeats(provider):
    provider.script("m", Fail(429), Answer("one"), Answer("two"))

    responses = [await ask(provider) for _ in range(4)]

    assert [response.status_code for response in responses] == [429, 200, 200, 200]
    assert [said(response) for response in responses[1:]] == ["one", "two", "two"]


@pytest.mark.parametrize(
    ("step", "text", "reasons", "done"),
    [
        (Answer("some words", chunks=4), "some words", ["stop"], True),
        (SlowAnswer("some words", chunks=2, delay=0.01), "some words", ["stop"], True),
        (EmptyAnswer(), "", ["stop"], True),
        (Truncate("half"), "half", [], False),
        (Truncate("half", done=True), "half", [], True),
        (CallTool("bash", {"command": "date"}, text="look"), "look", ["tool_calls"], True),
    ],
)
async def test_streams_that_end(provider, step, text, reasons, done):
    provider.script("m", step)

    response = await ask(provider)

    assert (said(response), finish(response)) == (text, reasons)
    assert response.text.endswith("data: [DONE]\n\n") is done


@pytest.mark.parametrize(
    ("step", "content", "reason"),
    [
        (Answer("words"), "words", "stop"),
        (SlowAnswer("words", chunks=2, delay=0.01), "words", "stop"),
        (EmptyAnswer(), "", "stop"),
        (Truncate("half"), "half", None),
        (CallTool("bash"), None, "tool_calls"),
    ],
)
async def test_whole_answers(provider, step, content, reason):
    provider.script("m", step)

    (choice,) = (await ask(provider, stream=False)).json()["choices"]

    assert (choice["message"]["content"], choice["finish_reason"]) == (content, reason)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("step", "tokens"),
    [
        (Answer(), 10),
        (SlowAnswer(delay=0.0), 10),
        (Answer(prompt_tokens=900), 900),
        (CallTool("x", prompt_tokens=7), 7),
    ],
)
async def test_the_usage_says_what_the_step_says(provider, stream, step, tokens):
    provider.script("m", step)

    response = await ask(provider, stream=stream)

    usage = (chunks(response)[-1] if stream else response.json())["usage"]
    assert usage == {"prompt_tokens": tokens, "completion_tokens": 5, "total_tokens": tokens + 5}


async def test_a_tool_call_carries_its_arguments_and_an_id_of_its_own(provider):
    provider.script("m", CallTool("bash", {"command": "date"}))

    first, second = chunks(await ask(provider)), chunks(await ask(provider))

    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in (first[1], second[1])]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"command": "date"}] * 2
    assert calls[0]["id"] != calls[1]["id"]


async def test_reasoning_comes_before_the_text(provider):
    provider.script("m", Answer("so", reasoning="hm", chunks=1))

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(await ask(provider))[:3]]

    assert deltas[1:] == [{"reasoning_content": "hm"}, {"content": "so"}]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_cut_is_an_error_on_the_wire_and_not_the_clients_doing(provider, stream, reset):
    provider.script("m", CutStream("half", reset=reset))

    with pytest.raises(httpx.TransportError):
        await ask(provider, stream=stream)

    (request,) = await provider.wait_for("m", ended=True)
    assert not request.disconnected


async def test_a_call_may_be_followed_by_a_cut(provider):
    provider.script("m", CallTool("bash", then=CutStream("and")))

    with pytest.raises(httpx.TransportError):
        await ask(provider)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_inside_a_good_response(provider, stream):
    provider.script("m", ErrorInStream("so far", {"message": "broken"}))

    response = await ask(provider, stream=stream)

    assert response.status_code == 200
    error = chunks(response)[-1] if stream else response.json()
    assert error == {"error": {"message": "broken"}}


@pytest.mark.parametrize(
    ("step", "status", "kind", "text"),
    [
        (Fail(402), 402, "application/json", "Insufficient Balance"),
        (Fail(418), 418, "application/json", "HTTP 418"),
        (Fail(500, {"error": "mine"}), 500, "application/json", '"mine"'),
        (bad_gateway_page(), 502, "text/html", "<h1>502 Bad Gateway</h1>"),
        (quota_exhausted(), 429, "application/json", "insufficient_quota"),
        (context_overflow(), 400, "application/json", "context_length_exceeded"),
        (content_policy(), 400, "application/json", "content_policy_violation"),
    ],
)
async def test_failures_before_the_stream(provider, step, status, kind, text):
    provider.script("m", step)

    response = await ask(provider)

    assert (response.status_code, response.headers["content-type"]) == (status, kind)
    assert text in response.text


async def test_a_rate_limit_may_say_when(provider):
    provider.script("m", rate_limited(retry_after=3600), rate_limited())

    assert (await ask(provider)).headers["retry-after"] == "3600"
    assert "retry-after" not in (await ask(provider)).headers


@pytest.mark.parametrize("step", [Hang(), Hang(headers=True), Stall("so far")])
@pytest.mark.parametrize("stream", [True, False])
async def test_silence_lasts_until_the_client_leaves(provider, step, stream):
    provider.script("m", step)

    with pytest.raises(httpx.ReadTimeout):
        await ask(provider, stream=stream, timeout=0.2)

    (request,) = await provider.wait_for("m", ended=True)
    assert request.disconnected
    assert 0.15 < request.ended - request.arrived < 2


async def test_closing_the_provider_ends_every_silence():
    outcome = []

    async def wait(provider):
        try:
            await ask(provider, timeout=30)
        except httpx.TransportError as error:
            outcome.append(type(error))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks, FaultyProvider(default=Hang()) as provider:
            tasks.start_soon(wait, provider)
            await provider.wait_for("m")

    (ended,) = outcome
    assert not issubclass(ended, httpx.TimeoutException)


async def test_the_record(provider):
    provider.script("other", Fail(503))

    await ask(provider)
    before = time.monotonic()
    await ask(provider, stream=False, model="other")

    first, second = provider.requests
    assert [first.number, second.number] == [1, 2]
    assert provider.requests_of("other") == [second]
    assert provider.requests_of("m", "other") == [first, second]
    assert (second.roles, second.last_role, second.streaming) == (("system", "user"), "user", False)
    assert second.texts("user") == ["hi"]
    assert second.step == Fail(503)
    assert before <= second.arrived <= second.ended <= time.monotonic()


async def test_waiting_in_vain_says_how_many_came(provider):
    await ask(provider)

    with pytest.raises(TimeoutError, match="m got 1 requests of 2"):
        await provider.wait_for("m", 2, timeout=0.05)


def test_an_empty_script_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        FaultyProvider().script("m")


@pytest.mark.parametrize("content", [b"not json", b"[]"])
async def test_a_body_that_is_no_object_is_refused(provider, content):
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(f"{provider.base_url}/chat/completions", content=content)
        elsewhere = await client.get(f"{provider.base_url}/models")

    assert (response.status_code, elsewhere.status_code, provider.requests) == (400, 404, [])


async def test_a_stranger_on_the_port_does_no_harm(provider):
    host, port = provider.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    for greeting in (b"", b"\x16\x03\x01 what is this\r\n\r\n"):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(greeting)

    assert said(await ask(provider)) == "hello there"


def test_a_thread_of_its_own():
    before = threading.active_count()
    with FaultyProvider() as provider:
        response = httpx.post(
            f"{provider.base_url}/chat/completions", json={"model": "m", "messages": []}, trust_env=False
        )
        assert response.json()["choices"][0]["message"]["content"] == "hello there"
        assert provider.requests[0].last_role == ""

    assert threading.active_count() == before
