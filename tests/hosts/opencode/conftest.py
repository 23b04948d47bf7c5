"""An OpenCode server in memory, for tests in virtual time: a transport for httpx that answers as it is told."""

from __future__ import annotations

import json
from itertools import count
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from fallback_plugin.hosts.opencode.client import OpenCodeClient


class Memory(httpx.AsyncBaseTransport):
    """Answers each (method, path) as `on` said: with a status, a body, an exception, or what a function returns.

    Several answers are used in turn, the last one for ever; a path without any gets 404. GET /event is a stream that
    `say` writes to, `end` ends and `cut` breaks; each connection begins with server.connected, unless `refuse` is set.
    """

    def __init__(self):
        self.requests = []
        self.answers = {}
        self.streams = []
        self.refuse = None
        self.opened = []
        self._ids = count(1)
        self.on("GET", "/config", {})
        self.on("GET", "/session/status", {})

    def on(self, method, path, *answers):
        self.answers[method, path] = list(answers)

    def made(self, *methods):
        """(method, path) of each request, but for the event stream."""
        return [
            (verb, path) for verb, path, _ in self.requests if path != "/event" and (not methods or verb in methods)
        ]

    def bodies(self, path):
        return [body for _, asked, body in self.requests if asked == path]

    def event(self, kind, **properties):
        return {"id": f"evt_{next(self._ids)}", "type": kind, "properties": properties}

    def say(self, kind, **properties):
        self.say_raw(json.dumps(self.event(kind, **properties)))

    def say_raw(self, data):
        self.streams[-1].send_nowait(f"data: {data}\n\n".encode())

    def end(self):
        self.streams[-1].send_nowait(None)

    def cut(self):
        self.streams[-1].send_nowait(httpx.ReadError("cut"))

    async def handle_async_request(self, request):
        path = urlsplit(str(request.url)).path
        body = json.loads(request.content) if request.content else None
        self.requests.append((request.method, path, body))
        if path == "/event":
            return self._open_stream(request)

        answers = self.answers.get((request.method, path), [404])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return await _respond(answer, request)

    def _open_stream(self, request):
        self.opened.append(anyio.current_time())
        if self.refuse is not None:
            raise self.refuse

        sender, receiver = anyio.create_memory_object_stream(float("inf"))
        self.streams.append(sender)
        self.say("server.connected")
        return httpx.Response(
            200, headers={"content-type": "text/event-stream"}, stream=_Stream(receiver, sender), request=request
        )


async def _respond(answer, request):
    if callable(answer):
        answer = await answer(request)
    if isinstance(answer, Exception):
        raise answer
    if isinstance(answer, httpx.Response):
        answer.request = request
        return answer
    if isinstance(answer, int) and not isinstance(answer, bool):
        return httpx.Response(answer, request=request)

    return httpx.Response(
        200, headers={"content-type": "application/json"}, content=json.dumps(answer), request=request
    )


class _Stream(httpx.AsyncByteStream):
    def __init__(self, receiver, sender):
        self._receiver = receiver
        self._sender = sender

    async def __aiter__(self):
        async for item in self._receiver:
            if item is None:
                return
            if isinstance(item, Exception):
                raise item

            yield item

    async def aclose(self):
        self._receiver.close()
        self._sender.close()


@pytest.fixture
def server():
    """A server in memory."""
    return Memory()


@pytest.fixture
async def client(server):
    """A client of it."""
    opened = OpenCodeClient("http://opencode.test", transport=server)
    yield opened
    await opened.close()
