"""JSON-RPC 2.0 between two processes, one message a line.

Either side may ask. What the other side sends and what can't be read as JSON-RPC is counted and passed over: a broken
peer is the peer's fault, and must not end this side. An answer that does not come in time raises in the caller alone;
when the peer is gone, nobody waits for it any more.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from fallback_plugin.errors import HostUnavailable

logger = logging.getLogger("fallback_plugin")

Json = Mapping[str, Any]
Id = int | str
Notified = Callable[[Json], None]
"""Takes a notification's parameters, at once, in the order of arrival."""
Answered = Callable[[Json], Awaitable[Json]]
"""Takes a request's parameters and returns its result; runs as a task of its own."""

LINE_BYTES = 16 * 1024 * 1024
"""A longer line is dropped: an event is a few kilobytes."""
METHOD_NOT_FOUND, INVALID_PARAMS, FAILED = -32601, -32602, -32000
OUTBOX = 10_000
"""Messages that wait for a peer that does not read; what comes after them is dropped."""


class Channel(Protocol):
    """Bytes to and from the peer."""

    async def read(self) -> bytes:
        """Some bytes; empty when the peer has closed.

        Raises:
            OSError: the peer is gone.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            OSError: the peer is gone.
        """
        ...


@dataclass(slots=True)
class _Pending:
    """A request that waits; no answer when it is over means that the peer is gone."""

    over: anyio.Event = field(default_factory=anyio.Event)
    answer: Json | None = None


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
        self._waiting: dict[int, _Pending] = {}
        self._next_id = 0
        streams: tuple[MemoryObjectSendStream[bytes], MemoryObjectReceiveStream[bytes]]
        streams = anyio.create_memory_object_stream[bytes](OUTBOX)
        self._outbox, self._sent = streams

    async def run(self) -> None:
        """Read until the peer closes."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send)
                async for line in self._lines():
                    self._take(line, tasks)

                tasks.cancel_scope.cancel()
        finally:
            self._part()
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
            HostUnavailable: the peer answered with an error, takes nothing, or is gone.
        """
        self._next_id += 1
        number, pending = self._next_id, _Pending()
        self._waiting[number] = pending
        try:
            if not self._put({"id": number, "method": method, "params": params}):
                raise HostUnavailable(f"{method} could not be sent to the host")

            with anyio.fail_after(patience):
                await pending.over.wait()
        finally:
            del self._waiting[number]

        if pending.answer is None:
            raise HostUnavailable(f"the host has gone before it answered {method}")

        return _result_of(pending.answer, method)

    def _part(self) -> None:
        """The peer is gone."""
        self._outbox.close()
        for pending in self._waiting.values():
            pending.over.set()

    def _put(self, message: Json) -> bool:
        line = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
        try:
            self._outbox.send_nowait(line)
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.counts["unsent"] += 1
            return False

        return True

    async def _send(self) -> None:
        async for line in self._sent:
            try:
                await self._channel.write(line)
            except OSError:
                self._part()
                return

    async def _lines(self) -> AsyncIterator[bytes]:
        lines = Lines()
        while data := await self._read():
            for line in lines.feed(data):
                if line is not None:
                    yield line
                else:
                    self.counts["too long"] += 1

    async def _read(self) -> bytes:
        try:
            return await self._channel.read()
        except OSError:
            return b""

    def _take(self, line: bytes, tasks: TaskGroup) -> None:
        try:
            decoded = json.loads(line)
        except (ValueError, RecursionError):
            self.counts["malformed"] += 1
            return

        message: Json = cast("Json", decoded) if isinstance(decoded, dict) else {}
        method, number = message.get("method"), message.get("id")
        # True would be found under 1.
        known = self._waiting.get(number) if type(number) is int else None
        if isinstance(method, str) and (number is None or isinstance(number, int | str)):
            self._dispatch(method, number, message.get("params", {}), tasks)
        elif method is None and known is not None and known.answer is None:
            known.answer = message
            known.over.set()
        else:
            self.counts["passed over"] += 1

    def _dispatch(self, method: str, number: Id | None, params: object, tasks: TaskGroup) -> None:
        handlers = self._notified if number is None else self._answered
        if method not in handlers:
            self.counts["unknown method"] += 1
            self._refuse(number, METHOD_NOT_FOUND, f"no method {method[:40]}")
        elif not isinstance(params, dict):
            self.counts["passed over"] += 1
            self._refuse(number, INVALID_PARAMS, "params must be an object")
        elif number is None:
            self._notice(method, cast("Json", params))
        else:
            tasks.start_soon(self._answer, number, method, cast("Json", params))

    def _refuse(self, number: Id | None, code: int, reason: str) -> None:
        if number is not None:
            self._put({"id": number, "error": {"code": code, "message": reason}})

    def _notice(self, method: str, params: Json) -> None:
        # One message that can't be handled must not end the connection.
        try:
            self._notified[method](params)
        except Exception as error:  # noqa: BLE001
            self._note(method, error)

    async def _answer(self, number: Id, method: str, params: Json) -> None:
        try:
            self._put({"id": number, "result": await self._answered[method](params)})
        except Exception as error:  # noqa: BLE001 - as above
            self._note(method, error)
            self._refuse(number, FAILED, type(error).__name__)

    def _note(self, method: str, error: Exception) -> None:
        self.counts["failed"] += 1
        logger.warning("%s could not be handled: %s", method, type(error).__name__)


class Lines:
    """Cuts bytes into lines, wherever they were cut before."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_too_long = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that `data` ends, without the empty ones; None for one longer than `LINE_BYTES`."""
        *ends, begun = data.split(b"\n")
        for end in ends:
            self._grow(end)
            if self._is_too_long or self._rest:
                yield None if self._is_too_long else bytes(self._rest)

            self._rest.clear()
            self._is_too_long = False

        self._grow(begun)

    def _grow(self, data: bytes) -> None:
        if self._is_too_long:
            return

        self._rest += data
        if len(self._rest) > LINE_BYTES:
            self._is_too_long = True
            self._rest.clear()


def _result_of(answer: Json, method: str) -> Json:
    result = answer.get("result")
    if isinstance(result, dict):
        return cast("Json", result)

    error = answer.get("error")
    reason = cast("Json", error).get("message") if isinstance(error, dict) else "no result"
    raise HostUnavailable(f"{method} failed in the host: {reason}")
