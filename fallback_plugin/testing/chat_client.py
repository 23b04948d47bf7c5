"""The client side of chat completions: one streamed request to an OpenAI-compatible provider."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
from httpx_sse import EventSource

from fallback_plugin.core.failure import Facts

SILENCE_SECONDS = 300.0
"""A stream silent for so long is given up; the plugin's own limits are far below it."""


class ChatFailed(Exception):  # noqa: N818 - names the condition
    """The provider did not answer, or not to the end.

    Attributes:
        facts: what it said.
        passing: whether asking the same model again may help, as hosts commonly judge it.
    """

    def __init__(self, facts: Facts, *, passing: bool) -> None:
        super().__init__(f"{facts.provider}: {facts.name}")
        self.facts = facts
        self.passing = passing


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call as the provider streamed it, in one piece or many."""

    call_id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One event of the stream: some text, pieces of tool calls by index, the finish reason."""

    text: str = ""
    calls: Mapping[int, ToolCall] = field(default_factory=dict[int, ToolCall])
    finish: str | None = None


async def stream_chat(
    client: httpx.AsyncClient, base_url: str, route: str, messages: Sequence[Mapping[str, Any]]
) -> AsyncGenerator[Chunk]:
    """Ask a model and give its answer as it comes.

    Args:
        client: makes the request.
        base_url: the provider's, ending in `/v1`.
        route: "provider/model"; the model is what the request names.
        messages: the chat messages.

    Raises:
        ChatFailed: an HTTP error, an error in the stream, or a connection that broke.
    """
    provider, _, model = route.partition("/")
    body = {"model": model, "stream": True, "messages": list(messages)}
    try:
        timeout = httpx.Timeout(SILENCE_SECONDS)
        async with client.stream("POST", f"{base_url}/chat/completions", json=body, timeout=timeout) as response:
            if not response.is_success:
                await response.aread()
                raise _http_failure(provider, response)

            async for event in EventSource(response).aiter_sse():
                if event.data and event.data != "[DONE]":
                    yield _chunk(provider, json.loads(event.data))
    except httpx.HTTPError as error:
        facts = Facts(
            provider=provider,
            name=type(error).__name__,
            message="Connection reset by server",
            observed_at_wall=time.time(),
        )
        raise ChatFailed(facts, passing=True) from error


def _http_failure(provider: str, response: httpx.Response) -> ChatFailed:
    status = response.status_code
    facts = Facts(
        provider=provider,
        status=status,
        headers=dict(response.headers),
        body=response.text,
        name="APIError",
        observed_at_wall=time.time(),
    )
    return ChatFailed(facts, passing=status in (408, 429) or status >= 500)


def _chunk(provider: str, event: dict[str, Any]) -> Chunk:
    if "error" in event:
        facts = Facts(provider=provider, body=event, name="APIError", observed_at_wall=time.time())
        raise ChatFailed(facts, passing=True)

    choices = cast("list[dict[str, Any]]", event.get("choices") or [])
    if not choices:
        return Chunk()

    delta = cast("dict[str, Any]", choices[0].get("delta") or {})
    calls = cast("list[dict[str, Any]]", delta.get("tool_calls") or [])
    return Chunk(
        text=delta.get("content") or "",
        calls={int(call["index"]): _call(call) for call in calls},
        finish=choices[0].get("finish_reason"),
    )


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = cast("dict[str, str]", call.get("function") or {})
    return ToolCall(
        call_id=call.get("id") or "",
        name=function.get("name") or "",
        arguments=function.get("arguments") or "",
    )


def join_calls(chunks: Sequence[Chunk]) -> list[ToolCall]:
    """The tool calls that a finished stream asked for, in the provider's order."""
    joined: dict[int, ToolCall] = {}
    for chunk in chunks:
        for index, piece in chunk.calls.items():
            begun = joined.get(index, ToolCall())
            joined[index] = ToolCall(
                call_id=begun.call_id + piece.call_id,
                name=begun.name + piece.name,
                arguments=begun.arguments + piece.arguments,
            )

    return [joined[index] for index in sorted(joined)]
