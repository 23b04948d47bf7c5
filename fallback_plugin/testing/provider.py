"""A provider on loopback that breaks on command.

`FaultyProvider` speaks the chat-completions protocol of OpenAI over real HTTP, streaming or not. Each model
has a script (see `fallback_plugin.testing.faults`); a model without one answers normally, so a host's side
jobs (titles, summaries) need no thought. Every request is recorded with what it held and when its response
ended.

    async with FaultyProvider() as provider:
        provider.script("primary", Fail(429))
        ... point the host at provider.base_url ...
        assert [request.roles for request in provider.requests_of("primary")] == [("system", "user")]

Where the step depends on what is asked, a function takes its place: `provider.script("primary", choose)` calls
`choose(request)` for every request, and plays the step that it gives.

Callers without an event loop, and tests whose loop may be busy, use it as a plain context manager: it then
serves from a thread of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import anyio
import h11
from anyio.abc import SocketAttribute
from anyio.from_thread import start_blocking_portal

from fallback_plugin.testing.faults import Answer, Step, usual_error
from fallback_plugin.testing.playback import Exchange, Playback

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from anyio.abc import SocketStream, TaskGroup


@dataclass(slots=True, kw_only=True)
class ProviderRequest:
    """One request that reached the provider; filled in further until its response has ended."""

    number: int
    """Counts from 1 over all models."""
    model: str
    messages: Sequence[dict[str, Any]]
    """The chat messages as the host sent them."""
    body: dict[str, Any]
    """The whole request body."""
    step: Step
    """What the script said to do; the provider's default while a function chooses."""
    arrived: float
    """Monotonic seconds at which the request had been read."""
    ended: float | None = None
    """Monotonic seconds after the response's last byte, or when the client went away; None while open."""
    disconnected: bool = False
    """Whether the client went away before the response had ended."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the messages, in order."""
        return tuple(str(message.get("role")) for message in self.messages)

    @property
    def last_role(self) -> str:
        """The role of the last message, empty where there is none."""
        return self.roles[-1] if self.messages else ""

    @property
    def streaming(self) -> bool:
        """Whether the host asked for a stream."""
        return bool(self.body.get("stream"))

    def texts(self, role: str) -> list[str]:
        """Give the text of every message with a role.

        Args:
            role: such as "user" or "assistant".
        """
        return [_text_of(message) for message in self.messages if message.get("role") == role]


Choice = Callable[[ProviderRequest], Step]
"""Says what to do with one request; called where the provider runs, which may be another thread."""


class FaultyProvider:
    """An OpenAI-compatible provider on a free port of loopback, scripted per model.

    Args:
        default: what models without a script do.
    """

    def __init__(self, *, default: Step | None = None) -> None:
        self.requests: list[ProviderRequest] = []
        """Everything that arrived, in order."""
        self._default: Step = default if default is not None else Answer()
        self._scripts: dict[str, _Script] = {}
        self._port = 0
        self._async_stack = AsyncExitStack()
        self._thread_stack = ExitStack()

    @property
    def base_url(self) -> str:
        """The URL to configure in a host, ending in `/v1`; valid once the provider has been entered."""
        return f"http://127.0.0.1:{self._port}/v1"

    def script(self, model: str, *steps: Step | Choice) -> None:
        """Set what a model does, one step per request, the last one repeated.

        Args:
            model: the model's name as in the request body.
            steps: at least one step, or function that gives one for a request.

        Raises:
            ValueError: without any step.
        """
        if not steps:
            raise ValueError(f"the script of {model!r} needs at least one step")

        self._scripts[model] = _Script(steps=steps)

    def requests_of(self, *models: str) -> list[ProviderRequest]:
        """Give the requests for some models, in order of arrival.

        Args:
            models: the models' names.
        """
        return [request for request in list(self.requests) if request.model in models]

    async def wait_for(
        self,
        model: str,
        count: int = 1,
        *,
        ended: bool = False,
        timeout: float = 10.0,  # noqa: ASYNC109 - a time limit is this call's very contract
    ) -> list[ProviderRequest]:
        """Wait until a model has got so many requests, and give them.

        Args:
            model: the model's name.
            count: how many requests to wait for.
            ended: count only the requests whose response has ended.
            timeout: seconds.

        Raises:
            TimeoutError: they did not come; says how many did.
        """
        try:
            with anyio.fail_after(timeout):
                # The provider may live in another thread, with another event loop: nothing to await there.
                while len(found := self._counted(model, ended=ended)) < count:  # noqa: ASYNC110
                    await anyio.sleep(0.002)
        except TimeoutError:
            came = len(self._counted(model, ended=ended))
            raise TimeoutError(f"{model} got {came} requests of {count} awaited in {timeout} s") from None

        return found

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
            await stack.enter_async_context(listener)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            self._port = int(listener.extra(SocketAttribute.local_port))  # noqa: S610 - no query, a socket
            tasks.start_soon(listener.serve, self._serve, tasks)
            self._async_stack = stack.pop_all()

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._async_stack.aclose()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self))
            self._thread_stack = stack.pop_all()

        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread_stack.close()

    def _counted(self, model: str, *, ended: bool) -> list[ProviderRequest]:
        return [request for request in self.requests_of(model) if request.ended is not None or not ended]

    async def _serve(self, stream: SocketStream) -> None:
        exchange = Exchange(stream)
        try:
            async with stream:
                await self._handle(exchange)
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError, h11.RemoteProtocolError):
            # The client has gone or does not speak HTTP; the record says so, nobody else needs to know.
            pass

    async def _handle(self, exchange: Exchange) -> None:
        received = await exchange.receive()
        if received is None:
            return

        target, content = received
        if not target.endswith("/chat/completions"):
            await exchange.respond(404, json.dumps(usual_error(404)))
            return

        request = self._record(content)
        if request is None:
            await exchange.respond(400, json.dumps(usual_error(400)))
            return

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_watch_client, exchange.stream, request, tasks)
                playback = Playback(exchange, number=request.number, model=request.model, streaming=request.streaming)
                await playback.play(request.step)
                request.ended = time.monotonic()
                tasks.cancel_scope.cancel()
        finally:
            if request.ended is None:
                request.ended = time.monotonic()

    def _record(self, content: bytes) -> ProviderRequest | None:
        try:
            body = json.loads(content)
        except ValueError:
            return None

        if not isinstance(body, dict):
            return None

        body = cast("dict[str, Any]", body)
        model = str(body.get("model", ""))
        script = self._scripts.get(model)
        request = ProviderRequest(
            number=len(self.requests) + 1,
            model=model,
            messages=body.get("messages") or [],
            body=body,
            step=self._default,
            arrived=time.monotonic(),
        )
        if script:
            request.step = script.next(request)

        self.requests.append(request)
        return request


@dataclass(slots=True, kw_only=True)
class _Script:
    steps: Sequence[Step | Choice]
    used: int = 0

    def next(self, request: ProviderRequest) -> Step:
        step = self.steps[min(self.used, len(self.steps) - 1)]
        self.used += 1
        return step(request) if callable(step) else step


async def _watch_client(stream: SocketStream, request: ProviderRequest, tasks: TaskGroup) -> None:
    try:
        while True:
            await stream.receive()
    except anyio.ClosedResourceError:
        # We have cut the stream ourselves.
        return
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        request.disconnected = True
        request.ended = time.monotonic()
        tasks.cancel_scope.cancel()


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content

    if not isinstance(content, list):
        return ""

    parts = cast("list[dict[str, Any]]", content)
    return "".join(str(part.get("text", "")) for part in parts)
