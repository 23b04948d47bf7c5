"""SharedHealth: what this process knows about routes and providers, kept in step with the rest of the fleet.

The own view answers at once and is changed first; the store is told after, by compare-and-set, so that a slow or
broken store never delays a decision. What others write is seen within `FOLLOW_SECONDS`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import anyio

from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.health import (
    Health,
    Outage,
    claim_probe,
    from_json,
    health_of,
    is_out,
    key_of,
    record_outage,
    to_json,
    told_by,
)
from fallback_plugin.core.routing import Standing
from fallback_plugin.core.state import scope_key
from fallback_plugin.errors import StoreError
from fallback_plugin.stores.base import Record, Store

logger = logging.getLogger("fallback_plugin")

KIND = "health"
FOLLOW_SECONDS = 0.4
"""Seconds between two looks at what others wrote; an outage is to be known everywhere within a second (issue C)."""
WRITE_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    outage: Outage
    revision: int


class SharedHealth:
    """The health of every route, provider and credential, as far as the fleet knows.

    Args:
        store: where the fleet shares it.
        owner: this process's name; a probe belongs to it.
        wall_clock: epoch seconds.
        on_change: called whenever the view has changed.
    """

    def __init__(
        self,
        store: Store,
        *,
        owner: str,
        wall_clock: Callable[[], float] = time.time,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._owner = owner
        self._wall_clock = wall_clock
        self._on_change = on_change
        self._known: dict[str, _Known] = {}
        self._change = 0

    def __len__(self) -> int:
        return len(self._known)

    def health(self, route: str) -> Health:
        """How a route stands: the worse of its own health and its provider's."""
        now_wall = self._wall_clock()
        order = (Health.COOLING, Health.PROBING, Health.DUE, Health.HEALTHY)
        return min((health_of(self._outage(key), now_wall) for key in _keys(route)), key=order.index)

    def is_out(self, route: str, caller: str | None = None) -> bool:
        """Whether `caller` must not ask `route` now."""
        now_wall = self._wall_clock()
        return any(is_out(self._outage(key), now_wall, caller or self._owner) for key in _keys(route))

    def standing(self, route: str) -> Standing:
        """How a route stands for a prompt: whose probe is under way is out for every other one, of whatever process."""
        now_wall = self._wall_clock()
        own, provider = (self._outage(key) for key in _keys(route))
        if is_out(own, now_wall):
            return Standing.OUT

        if provider is None or not is_out(provider, now_wall):
            return Standing.FREE

        # By its own word, or by nobody's in particular.
        if route in provider.routes or not provider.routes:
            return Standing.OUT

        return Standing.PROVIDER_OUT

    def returns_at_wall(self, route: str) -> float | None:
        """When a route that is out may be asked again; None if it is not out."""
        untils = [known.outage.until_wall for key in _keys(route) if (known := self._known.get(key))]
        return max(untils, default=None)

    def kind(self, route: str) -> Kind | None:
        """Why a route is out; None if nothing is known against it."""
        return next((known.outage.kind for key in _keys(route) if (known := self._known.get(key))), None)

    def outages(self, now: float) -> Mapping[str, float]:
        """What is out: scope key → monotonic seconds until when."""
        now_wall = self._wall_clock()
        out: dict[str, float] = {}
        for key, known in self._known.items():
            if is_out(known.outage, now_wall):
                until_wall = max(known.outage.until_wall, known.outage.probe_until_wall)
                out[key] = now + until_wall - now_wall

        return out

    def is_a_guess(self, route: str) -> bool:
        """Whether a route that is out is so by our own guess only."""
        return not any(known.outage.lasts for key in _keys(route) if (known := self._known.get(key)))

    @property
    def guesses(self) -> frozenset[str]:
        """The scope keys that are out by our own guess only."""
        return frozenset(key for key, known in self._known.items() if not known.outage.lasts)

    async def report_failure(self, route: str, failure: Failure, *, now: float, cooldown: float = 60.0) -> None:
        """A route failed: everybody is to know for how long it is out."""
        key = key_of(route, failure)
        # The probe is over, whatever its failure speaks of: a quota of the account tells nothing about the model.
        await self._release(other for other in _keys(route) if other != key)
        if key is None:
            return

        now_wall = self._wall_clock()

        def fail(known: Outage | None) -> Outage:
            outage = record_outage(known, failure, now=now, now_wall=now_wall, cooldown=cooldown)
            return told_by(outage, route)

        await self._change_outage(key, fail)

    async def report_success(self, route: str) -> None:
        """A route answered: what was known against it is over, and what was known against its provider was too much.

        An account's quota that another route of it does not feel was that of the models that told of it.
        """
        for key in _keys(route):
            known = self._known.get(key)
            if known is None:
                continue

            await self._change_outage(key, lambda known: None)
            for blamed in known.outage.routes:
                if blamed in (route, key):
                    continue

                narrowed = replace(known.outage, prober=None, routes=(blamed,))
                await self._change_outage(blamed, lambda other, narrowed=narrowed: other or narrowed)

    async def claim_probe(self, route: str) -> bool:
        """Become the one caller in the fleet that may ask a route whose time has come.

        Returns:
            Whether the route may be asked: it is healthy, or the probe is this caller's.
        """
        claimed: list[str] = []
        for key in _keys(route):
            if self._outage(key) is None:
                continue

            if not await self._claim(key):
                await self._release(claimed)
                return False

            claimed.append(key)

        return True

    async def _release(self, keys: Iterable[str]) -> None:
        """Give back the probes among `keys` that are this process's: the next caller may ask."""

        def give_back(known: Outage | None) -> Outage | None:
            return replace(known, prober=None) if known and known.prober == self._owner else known

        for key in keys:
            if key in self._known:
                await self._change_outage(key, give_back)

    async def _claim(self, key: str) -> bool:
        wall = self._wall_clock()
        taken = False

        def take(known: Outage | None) -> Outage | None:
            nonlocal taken
            probing = claim_probe(known, self._owner, wall) if known else None
            taken = known is None or probing is not None
            return probing or known

        await self._change_outage(key, take)
        return taken

    async def follow(self) -> None:
        """Keep the view in step with the store until cancelled."""
        while True:
            await self.refresh()
            await anyio.sleep(FOLLOW_SECONDS)

    async def refresh(self) -> None:
        """Take in what others have written since the last look."""
        try:
            changes = await self._store.changes(KIND, after=self._change)
        except StoreError as error:
            logger.debug("health is not shared for now: %s", type(error).__name__)
            return

        self._change = changes.change
        for record in changes.records:
            self._take_in(record)

        if changes.records:
            self._on_change()

    def _take_in(self, record: Record) -> None:
        known = self._known.get(record.key)
        if record.value is None:
            self._known.pop(record.key, None)
        elif known is None or record.revision >= known.revision:
            self._known[record.key] = _Known(outage=from_json(record.value), revision=record.revision)

    def _outage(self, key: str) -> Outage | None:
        known = self._known.get(key)
        return known.outage if known else None

    async def _change_outage(self, key: str, change: Callable[[Outage | None], Outage | None]) -> None:
        """Change the own view, then the store's; a foreign write in between is taken in and changed again."""
        for _ in range(WRITE_TRIES):
            known = self._known.get(key)
            outage = change(known.outage if known else None)
            revision = known.revision if known else 0
            if known is not None and outage == known.outage:
                return

            self._see(key, outage, revision)
            try:
                if await self._write(key, outage, revision):
                    return

                await self._reread(key)
            except StoreError:
                return

    def _see(self, key: str, outage: Outage | None, revision: int) -> None:
        if outage is None:
            self._known.pop(key, None)
        else:
            self._known[key] = _Known(outage=outage, revision=revision)

        self._on_change()

    async def _write(self, key: str, outage: Outage | None, revision: int) -> bool:
        if outage is None:
            return await self._store.delete(KIND, key, expected=revision)

        written = await self._store.put(KIND, key, to_json(outage), expected=revision)
        if written is None:
            return False

        self._known[key] = _Known(outage=outage, revision=written.revision)
        return True

    async def _reread(self, key: str) -> None:
        record = await self._store.get(KIND, key)
        self._known.pop(key, None)
        if record is not None and record.value is not None:
            self._known[key] = _Known(outage=from_json(record.value), revision=record.revision)

        self._on_change()


def _keys(route: str) -> tuple[str, str]:
    return route, scope_key(route, Scope.PROVIDER)
