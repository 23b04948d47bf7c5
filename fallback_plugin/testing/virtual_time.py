"""An hour in a millisecond: event loops whose clock jumps to the next timer as soon as nothing is left to do.

Use it to test what waits: timeouts, cooldowns, backoff. With pytest and anyio's plugin:

    @pytest.fixture(params=VIRTUAL_BACKENDS)
    def anyio_backend(request):
        return virtual_backend(request.param)

    async def test_patience():
        await anyio.sleep(3600)

Trio brings such a clock; asyncio gets one here. What happens outside of the loop (sockets, threads, processes)
takes no virtual time: the clock may run ahead of it, so test those in real time.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any, Literal

import anyio

VIRTUAL_BACKENDS: tuple[Literal["asyncio", "trio"], ...] = ("asyncio", "trio")
"""Names that `virtual_backend` takes."""

MOMENT = 1e-6
"""Seconds that `settle` lets pass: less than any wait of this package."""


class JumpingEventLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that starts at 0 s and never waits: its clock jumps to the next timer instead.

    With no timer set it waits for real, as for a thread's result.
    """

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Move the clock on."""
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    """Asks for ready files without waiting; the loop only waits when it has nothing else to do."""

    def __init__(self, loop: JumpingEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)

        ready = super().select(0)
        if not ready and timeout > 0:
            self._loop.jump(timeout)

        return ready


def virtual_backend(name: Literal["asyncio", "trio"]) -> tuple[str, dict[str, Any]]:
    """A value for anyio's `anyio_backend` fixture or `anyio.run`, with a new clock that starts at 0 s.

    Args:
        name: the event loop. "trio" needs trio installed.
    """
    if name == "asyncio":
        return name, {"loop_factory": JumpingEventLoop}

    # An extra of the tests; asyncio's half works without it.
    from trio.testing import MockClock  # noqa: PLC0415

    return name, {"clock": MockClock(autojump_threshold=0)}


async def settle() -> None:
    """Let every task run on until each of them waits. Virtual time moves by `MOMENT`, so it takes no real time."""
    await anyio.sleep(MOMENT)
