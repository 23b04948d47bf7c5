"""Fleet: this process among the others that share its store."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import uuid4

import anyio

from fallback_plugin.errors import StoreError
from fallback_plugin.runtime import claims
from fallback_plugin.runtime.health import SharedHealth
from fallback_plugin.stores.base import Store

SWEEP_PERIOD = 3600.0
KEPT_SECONDS = 7 * 86400.0
"""Seconds for which a finished hop is remembered: a process that lags behind must not make it again (K-H10: 7 days)."""
NOTICE_SECONDS = 60.0
"""Seconds for which one process has the word about a turn whose chain is exhausted."""


class Fleet:
    """What the processes on one store share: who may advance which turn, and who is out.

    Args:
        store: where they share it.
        on_lost: called with session id and generation when an advance is somebody else's.
        on_health: called when what is known about health has changed.
        place: where the host's sessions live.
        wall_clock: epoch seconds.

    Attributes:
        owner: this process's name, new with every start.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_lost: Callable[[str, int], None],
        on_health: Callable[[], None],
        place: str = "",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.owner = uuid4().hex
        self.claims = claims.Claims(store, owner=self.owner, on_lost=on_lost, place=place, wall_clock=wall_clock)
        self.health = SharedHealth(store, owner=self.owner, wall_clock=wall_clock, on_change=on_health)
        self._store = store
        self._wall_clock = wall_clock

    async def open(self) -> None:
        """Open the store and take in what is known.

        Raises:
            ConfigurationError: the store can't be used by this version.
            StoreError: the store can't be reached.
        """
        await self._store.open()
        await self.health.refresh()

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()

    async def keep_swept(self) -> None:
        """Drop what the fleet has long been done with, now and then until cancelled."""
        while True:
            await anyio.sleep(SWEEP_PERIOD)
            await self.sweep()

    async def sweep(self) -> int:
        """Drop tombstones, leases, aliases and finished hops of a week ago, never an intent; how many hops."""
        before_wall = self._wall_clock() - KEPT_SECONDS
        dropped = 0
        try:
            await self._store.forget(before_wall=before_wall)
            for record in await self._store.scan(claims.KIND):
                if claims.is_finished(record, before_wall):
                    dropped += await self._store.delete(claims.KIND, record.key, expected=record.revision)
        except StoreError:
            return dropped

        return dropped

    async def may_speak(self, session_id: str, message_id: str) -> bool:
        """Whether this process is the one to tell the user that a turn has ended in exhaustion."""
        key = f"notice:{session_id}:{message_id}"
        try:
            lease = await self._store.acquire(key, self.owner, NOTICE_SECONDS, now_wall=self._wall_clock())
        except StoreError:
            return True

        return lease is not None
