"""One task that wakes any number of sessions, each at its time."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import anyio


class Timers:
    """A heap of deadlines. Replaced timers stay in it until their time; their number tells them apart.

    Args:
        fire: called with session id and timer number when a deadline has come.
    """

    def __init__(self, fire: Callable[[str, int], None]) -> None:
        self._fire = fire
        self._heap: list[tuple[float, str, int]] = []
        self._changed = anyio.Event()

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, session_id: str, timer: int, at: float) -> None:
        """Fire at `at` (the event loop's own seconds)."""
        heapq.heappush(self._heap, (at, session_id, timer))
        if self._heap[0][0] >= at:
            self._changed.set()

    async def run(self) -> None:
        """Fire timers until cancelled."""
        while True:
            self._changed = anyio.Event()
            self._fire_due(anyio.current_time())
            with anyio.move_on_after(self._patience(anyio.current_time())):
                await self._changed.wait()

    def _fire_due(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            _, session_id, timer = heapq.heappop(self._heap)
            self._fire(session_id, timer)

    def _patience(self, now: float) -> float | None:
        return max(0.0, self._heap[0][0] - now) if self._heap else None
