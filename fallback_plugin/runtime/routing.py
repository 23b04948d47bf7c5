"""Routing of prompts: the fleet's health at hand before the host asks."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio

from fallback_plugin.core.events import PromptRouted
from fallback_plugin.core.failure import Kind
from fallback_plugin.core.health import Health
from fallback_plugin.core.policy import Policy
from fallback_plugin.core.record import Session
from fallback_plugin.core.routing import Prompt, RouteChoice, Standing, choose_route
from fallback_plugin.runtime.health import SharedHealth

REFRESH_PATIENCE = 0.1
"""Seconds that a prompt waits for what others have learnt in the last moment; a host waits 0.25 s in all (issue D)."""
AGENTS_KEPT = 256


class PromptRouter:
    """Chooses where prompts go.

    Args:
        health: what the fleet knows.
        wall_clock: epoch seconds.
    """

    def __init__(self, health: SharedHealth, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._health = health
        self._wall_clock = wall_clock
        self._usual: dict[str, str] = {}

    async def choose(self, session: Session | None, prompt: Prompt, policy: Policy) -> RouteChoice:
        """The route of a prompt; one whose time has come is given to one prompt in the fleet only.

        Args:
            session: what is known of its session.
            prompt: the prompt.
            policy: its agent's.
        """
        with anyio.move_on_after(REFRESH_PATIENCE):
            await self._health.refresh()

        usual = self._usual.get(prompt.agent or "")
        probed: set[str] = set()
        while True:
            choice = choose_route(session, prompt, policy, lambda route: self._standing(route, probed), usual=usual)
            if choice.route in probed or await self._may_ask(choice.route):
                break

            probed.add(choice.route)

        self._remember(prompt.agent or "", choice.wanted)
        return choice

    def _standing(self, route: str, probed: set[str]) -> Standing:
        return Standing.OUT if route in probed else self._health.standing(route)

    async def _may_ask(self, route: str) -> bool:
        return self._health.health(route) is not Health.DUE or await self._health.claim_probe(route)

    def _remember(self, agent: str, wanted: str) -> None:
        if len(self._usual) >= AGENTS_KEPT:
            self._usual.clear()

        self._usual[agent] = wanted

    def event_of(self, session_id: str, choice: RouteChoice, now: float) -> PromptRouted:
        """What the session is to know of a prompt that does not go where it wanted."""
        returns_at_wall = self._health.returns_at_wall(choice.wanted)
        return PromptRouted(
            session_id=session_id,
            wanted=choice.wanted,
            route=choice.route,
            kind=self._health.kind(choice.wanted) or Kind.RATE_LIMIT,
            returns_at=None if returns_at_wall is None else now + returns_at_wall - self._wall_clock(),
        )
