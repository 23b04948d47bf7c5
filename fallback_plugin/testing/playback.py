"""How one step of a script becomes an HTTP response: the wire side of the scripted provider."""

from __future__ import annotations

import json
import math
import socket
import struct
from typing import TYPE_CHECKING, Any, assert_never

import anyio
import h11
from anyio.abc import SocketAttribute

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
    Step,
    Truncate,
    usual_error,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyio.abc import SocketStream

_RECEIVE_BYTES = 65_536
_LINGER_NOTHING = struct.pack("ii", 1, 0)
_READING_TIME = 0.02
_CLOSING = [("connection", "close")]
_ANSWER_TOKENS = 5


class Exchange:
    """One HTTP/1.1 request and its response on one connection."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self._connection = h11.Connection(h11.SERVER)

    async def receive(self) -> tuple[str, bytes] | None:
        """Give target and body, None where the client closed without a request."""
        target = ""
        body = bytearray()
        while True:
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                self._connection.receive_data(await self._receive_some())
            elif isinstance(event, h11.Request):
                target = event.target.decode("ascii")
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return target, bytes(body)
            else:
                return None

    async def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        await self._send(h11.Response(status_code=status, headers=[*headers, *_CLOSING]))

    async def data(self, text: str) -> None:
        await self._send(h11.Data(data=text.encode()))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def respond(self, status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        body = text.encode()
        kind = "text/html" if text.startswith("<") else "application/json"
        await self.start(status, [("content-type", kind), ("content-length", str(len(body))), *headers])
        await self.data(text)
        await self.end()

    async def cut(self, *, reset: bool) -> None:
        if reset:
            # A reset overtakes bytes that the client has not read yet.
            await anyio.sleep(_READING_TIME)
            raw = self.stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - no query, a socket
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)

        await self.stream.aclose()

    async def _receive_some(self) -> bytes:
        try:
            return await self.stream.receive(_RECEIVE_BYTES)
        except anyio.EndOfStream:
            return b""

    async def _send(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
        data = self._connection.send(event)
        if data:
            await self.stream.send(data)


class Playback:
    """Plays one step as the response to one request.

    Args:
        exchange: where the response goes.
        number: the request's number, for ids that are unique within a provider.
        model: the model's name, repeated in the response.
        streaming: whether the client asked for a stream.
    """

    def __init__(self, exchange: Exchange, *, number: int, model: str, streaming: bool) -> None:
        self._exchange = exchange
        self._number = number
        self._streaming = streaming
        self._calls = 0
        self._envelope = {"id": f"chatcmpl-{number}", "created": 0, "model": model}

    async def play(self, step: Step) -> None:
        """Send the whole response, or as much of it as the step wants."""
        if isinstance(step, Fail):
            await self._fail(step)
        elif isinstance(step, Hang):
            await self._hang(step)
        elif self._streaming:
            await self._stream(step)
        else:
            await self._whole(step)

    async def _fail(self, step: Fail) -> None:
        await anyio.sleep(step.delay)
        body = step.body if step.body is not None else usual_error(step.status)
        text = body if isinstance(body, str) else json.dumps(body)
        await self._exchange.respond(step.status, text, list(step.headers.items()))

    async def _hang(self, step: Hang) -> None:
        if step.headers:
            await self._exchange.start(200, [("content-type", "text/event-stream")])

        await anyio.sleep_forever()

    async def _stream(self, step: Step) -> None:
        await self._exchange.start(200, [("content-type", "text/event-stream"), ("cache-control", "no-cache")])
        await self._delta({"role": "assistant", "content": ""})
        await self._stream_rest(step)

    async def _stream_rest(self, step: Step) -> None:
        match step:
            case Answer() | SlowAnswer():
                await self._answer(step)
            case EmptyAnswer():
                await self._finish("stop", step)
            case CallTool():
                await self._call(step)
            case ErrorInStream():
                await self._say(step.after_text)
                await self._event({"error": dict(step.error)})
                await self._exchange.end()
            case CutStream():
                await self._say(step.after_text)
                await self._exchange.cut(reset=step.reset)
            case Truncate():
                await self._say(step.text)
                await self._exchange.data("data: [DONE]\n\n" if step.done else "")
                await self._exchange.end()
            case Stall():
                await self._say(step.after_text)
                await anyio.sleep_forever()
            case Fail() | Hang():
                raise AssertionError("played before the stream began")
            case _:
                assert_never(step)

    async def _answer(self, step: Answer | SlowAnswer) -> None:
        await anyio.sleep(step.first_token_after)
        if isinstance(step, Answer) and step.reasoning:
            await self._delta({"reasoning_content": step.reasoning})

        for number, piece in enumerate(_pieces(step.text, step.chunks)):
            await anyio.sleep(step.delay if number else 0)
            await self._delta({"content": piece})

        await self._finish("stop", step)

    async def _call(self, step: CallTool) -> None:
        await self._say(step.text)
        await self._delta({"tool_calls": [self._tool_call(step)]})
        if step.then is None:
            await self._finish("tool_calls", step)
        else:
            await self._stream_rest(step.then)

    def _tool_call(self, step: CallTool) -> dict[str, Any]:
        place = self._calls
        self._calls += 1
        suffix = f"_{place + 1}" if place else ""
        return {
            "index": place,
            "id": step.call_id or f"call_{self._number}{suffix}",
            "type": "function",
            "function": {"name": step.name, "arguments": json.dumps(dict(step.arguments))},
        }

    async def _whole(self, step: Step) -> None:
        match step:
            case Answer() | SlowAnswer():
                pieces = len(_pieces(step.text, step.chunks))
                await anyio.sleep(step.first_token_after + step.delay * max(pieces - 1, 0))
                await self._message({"content": step.text}, "stop", step)
            case EmptyAnswer():
                await self._message({"content": ""}, "stop", step)
            case CallTool():
                message = {"content": step.text or None, "tool_calls": [self._tool_call(step)]}
                await self._message(message, "tool_calls", step)
            case ErrorInStream():
                await self._exchange.respond(200, json.dumps({"error": dict(step.error)}))
            case Truncate():
                await self._message({"content": step.text}, None, step)
            case CutStream():
                await self._exchange.start(200, [("content-type", "application/json")])
                await self._exchange.data('{"id": "')
                await self._exchange.cut(reset=step.reset)
            case Stall():
                await self._exchange.start(200, [("content-type", "application/json")])
                await anyio.sleep_forever()
            case Fail() | Hang():
                raise AssertionError("played before the body began")
            case _:
                assert_never(step)

    async def _message(self, message: Mapping[str, Any], finish_reason: str | None, step: Step) -> None:
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
        completion = {**self._envelope, "object": "chat.completion", "choices": [choice], "usage": _usage(step)}
        await self._exchange.respond(200, json.dumps(completion))

    async def _say(self, text: str) -> None:
        for piece in _pieces(text, 2):
            await self._delta({"content": piece})

    async def _delta(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason}
        await self._event({**self._envelope, "object": "chat.completion.chunk", "choices": [choice]})

    async def _finish(self, reason: str, step: Step) -> None:
        await self._delta({}, reason)
        usage: dict[str, Any] = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(step)}
        await self._event({**self._envelope, **usage})
        await self._exchange.data("data: [DONE]\n\n")
        await self._exchange.end()

    async def _event(self, payload: Mapping[str, Any]) -> None:
        await self._exchange.data(f"data: {json.dumps(payload)}\n\n")


def _usage(step: Step) -> dict[str, int]:
    asked = step.prompt_tokens if isinstance(step, Answer | CallTool) else Answer().prompt_tokens

    return {"prompt_tokens": asked, "completion_tokens": _ANSWER_TOKENS, "total_tokens": asked + _ANSWER_TOKENS}


def _pieces(text: str, count: int) -> list[str]:
    size = math.ceil(len(text) / max(count, 1))

    return [text[start : start + size] for start in range(0, len(text), size)] if text else []
