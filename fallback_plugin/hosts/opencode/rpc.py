"""JSON-RPC 2.0 between two processes, one message a line.

Either side may ask. What the other side sends and what can't be read as JSON-RPC is counted and passed over: a broken
peer is the peer's fault, and must not end this side. An answer that does not come in time raises in the caller alone.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, cast

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from fallback_plugin.errors import HostUnavailable

logger = logging.getLogger("fallback_plugin")

Json = Mapping[str, Any]
Notified = Callable[[Json], None]
"""Takes a notification's parameters, at once, in the order of arrival."""
Answered = Callable[[Json], Awaitable[Json]]
"""Takes a request's parameters and returns its result; runs as a task of its own."""

LINE_BYTES = 16 * 1024 * 1024
"""A longer line is dropped: an event is a few kilobytes."""
METHOD_NOT_FOUND, FAILED = -32601, -32000
_OUTBOX = 10_000


class Channel(Protocol):
    """Bytes to and from the peer."""

    async def read(self) -> bytes:
        """Some bytes; empty when the peer has closed."""
        ...

    async def write(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            OSError: the peer is gone.
        """
        ...


class Peer:
    """One end of a connection.

    Args:
        channel: bytes to and from the peer.
        notified: handlers of notifications, by method.
        answered: handlers of requests, by method.

    Attributes:
        counts: what was passed over, by reason.
    """

    def __init__(self, channel: Channel, *, notified: Mapping[str, Notified], answered: Mapping[str, Answered]) -> None:
        self.counts: Counter[str] = Counter()
        self._channel = channel
        self._notified = notified
        self._answered = answered
        self._waiting: dict[int, Callable[[Json], None]] = {}
        self._next_id = 0
        streams: tuple[MemoryObjectSendStream[bytes], MemoryObjectReceiveStream[bytes]]
        streams = anyio.create_memory_object_stream[bytes](_OUTBOX)
        self._outbox, self._sent = streams

    async def run(self) -> None:
        """Read until the peer closes."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send)
            async for line in self._lines():
                self._take(line, tasks)

            tasks.cancel_scope.cancel()

        self._outbox.close()
        self._sent.close()

    def notify(self, method: str, params: Json) -> None:
        """Tell the peer; what it can't take any more is dropped."""
        self._put({"method": method, "params": params})

    async def request(self, method: str, params: Json, *, patience: float) -> Json:
        """Ask the peer.

        Args:
            method: what.
            params: with what.
            patience: seconds until its answer counts as lost.

        Returns:
            The result.

        Raises:
            TimeoutError: no answer came in time.
            HostUnavailable: the peer answered with an error, or is gone.
        """
        self._next_id += 1
        number = self._next_id
        done = anyio.Event()
        answers: list[Json] = []

        def take(answer: Json) -> None:
            answers.append(answer)
            done.set()

        self._waiting[number] = take
        try:
            self._put({"id": number, "method": method, "params": params})
            with anyio.fail_after(patience):
                await done.wait()
        finally:
            del self._waiting[number]

        return _result_of(answers[0], method)

    def _put(self, message: Json) -> None:
        try:
            self._outbox.send_nowait(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.counts["unsent"] += 1

    async def _send(self) -> None:
        async for line in self._sent:
            try:
                await self._channel.write(line)
            except OSError:
                return

    async def _lines(self) -> AsyncIterator[bytes]:
        rest = bytearray()
        while data := await self._channel.read():
            rest += data
            if b"\n" not in data:
                self._bound(rest)
                continue

            *lines, last = rest.split(b"\n")
            rest = bytearray(last)
            for line in lines:
                if line:
                    yield bytes(line)

    def _bound(self, rest: bytearray) -> None:
        if len(rest) > LINE_BYTES:
            rest.clear()
            self.counts["too long"] += 1

    def _take(self, line: bytes, tasks: TaskGroup) -> None:
        try:
            decoded = json.loads(line)
        except (ValueError, RecursionError):
            self.counts["malformed"] += 1
            return

        message: Json = cast("Json", decoded) if isinstance(decoded, dict) else {}
        method, number = message.get("method"), message.get("id")
        params = message.get("params")
        if isinstance(method, str) and isinstance(params, dict):
            self._dispatch(method, number, cast("Json", params), tasks)
        elif method is None and isinstance(number, int) and number in self._waiting:
            self._waiting[number](message)
        else:
            self.counts["passed over"] += 1

    def _dispatch(self, method: str, number: object, params: Json, tasks: TaskGroup) -> None:
        if number is None and (notified := self._notified.get(method)):
            # One message that can't be handled must not end the connection.
            try:
                notified(params)
            except Exception as error:  # noqa: BLE001
                self._note(method, error)
        elif number is not None and (answered := self._answered.get(method)):
            tasks.start_soon(self._answer, number, method, answered, params)
        else:
            self.counts["unknown method"] += 1
            if number is not None:
                self._put({"id": number, "error": {"code": METHOD_NOT_FOUND, "message": f"no method {method[:40]}"}})

    async def _answer(self, number: object, method: str, answered: Answered, params: Json) -> None:
        try:
            self._put({"id": number, "result": await answered(params)})
        except Exception as error:  # noqa: BLE001 - as above
            self._note(method, error)
            self._put({"id": number, "error": {"code": FAILED, "message": type(error).__name__}})

    def _note(self, method: str, error: Exception) -> None:
        self.counts["failed"] += 1
        logger.warning("%s could not be handled: %s", method, type(error).__name__)


def _result_of(answer: Json, method: str) -> Json:
    result = answer.get("result")
    if isinstance(result, dict):
        return cast("Json", result)

    error = answer.get("error")
    reason = cast("Json", error).get("message") if isinstance(error, dict) else "no result"
    raise HostUnavailable(f"{method} failed in the host: {reason}")
