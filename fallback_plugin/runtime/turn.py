"""Turns for hosts that call the model themselves: which route to ask next, and what became of it.

    async with Turns(rules, store=store) as turns:
        turn = turns.begin(session_id, agent="coder", route="anthropic/claude-sonnet-5")
        while attempt := await turn.next_attempt():
            try:
                answer = await call_model(attempt.route)
            except Exception as error:
                await attempt.failed(error)
            else:
                await attempt.answered()
                break
        else:
            raise turn.exhausted()

A route that is known to be out is not asked at all. When its time has come, one caller in the whole fleet asks it, and
the others go on with the next route until its verdict is known. What is out by our own guess only is asked where
nothing else is left. A failure that another model can't help is raised on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from fallback_plugin.core.actions import RouteFailure
from fallback_plugin.core.exception_facts import read_failure
from fallback_plugin.core.failure import Failure
from fallback_plugin.core.health import Health
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.errors import ChainExhausted
from fallback_plugin.runtime.fleet import Fleet
from fallback_plugin.runtime.health import SharedHealth
from fallback_plugin.runtime.observe import format_wait
from fallback_plugin.stores.base import Store
from fallback_plugin.stores.memory import MemoryStore


class Turns:
    """Turns of one process; health is shared with every other process on the same store.

    Args:
        rules: the policies in force.
        store: where health is shared; in memory if None.
        wall_clock: epoch seconds.
    """

    def __init__(
        self, rules: Rules, *, store: Store | None = None, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.rules = rules
        self._wall_clock = wall_clock
        self._fleet = Fleet(store or MemoryStore(), on_lost=_ignore, on_health=lambda: None, wall_clock=wall_clock)
        self._tasks: TaskGroup | None = None

    @property
    def health(self) -> SharedHealth:
        """What is known about routes and providers."""
        return self._fleet.health

    async def __aenter__(self) -> Self:
        await self._fleet.open()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self.health.follow)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(kind, error, trace)

        with anyio.CancelScope(shield=True):
            await self._fleet.close()

    def begin(self, session_id: str, *, agent: str | None, route: str, picked: bool = False) -> Turn:
        """A turn of a session.

        Args:
            session_id: the host's id of the session.
            agent: whose chain holds.
            route: "provider/model" that the agent is configured with, or the user chose.
            picked: whether the user picked the route by hand for this prompt: then it is asked even if it is out.
        """
        policy = self.rules.policy(agent)
        return Turn(
            session_id=session_id,
            route=route,
            picked=picked,
            policy=policy,
            health=self.health,
            wall_clock=self._wall_clock,
        )


def _ignore(session_id: str, generation: int) -> None:
    """Turns of this kind run in one process; nobody else can claim them."""


class Turn:
    """One user message on its way through the chain.

    Attributes:
        failures: which routes failed, in order.
    """

    def __init__(
        self,
        *,
        session_id: str,
        route: str,
        picked: bool,
        policy: Policy,
        health: SharedHealth,
        wall_clock: Callable[[], float],
    ) -> None:
        self.session_id = session_id
        self.failures: list[RouteFailure] = []
        self._routes = tuple(dict.fromkeys((route, *policy.chain)))
        self._picked = picked
        self._policy = policy
        self._health = health
        self._wall_clock = wall_clock
        self._tried: set[str] = set()

    async def next_attempt(self) -> Attempt | None:
        """The next route to ask; None when there is none left, or the limit of attempts is reached."""
        if len(self._tried) > self._policy.max_fallback_attempts or not self._may_go_on():
            return None

        left = [route for route in self._routes if route not in self._tried]
        for may_ask in (self._may_ask, self._is_a_guess):
            for route in left:
                if await may_ask(route):
                    self._tried.add(route)
                    return Attempt(turn=self, route=route)

        return None

    def _may_go_on(self) -> bool:
        return not self.failures or (self._policy.enabled and self.failures[-1].failure.should_fallback)

    async def _may_ask(self, route: str) -> bool:
        if not self._policy.enabled or (self._picked and route == self._routes[0]):
            return route == self._routes[0]

        health = self._health.health(route)
        if health is Health.HEALTHY:
            return True

        return health is Health.DUE and await self._health.claim_probe(route)

    async def _is_a_guess(self, route: str) -> bool:
        """Whether a route is out by our own guess only: where nothing else is left, that must not end a turn."""
        return self._policy.enabled and self._health.is_a_guess(route)

    def exhausted(self) -> ChainExhausted:
        """The error that says what failed with what, and when the earliest route comes back."""
        tried = "; ".join(f"{failed.route}: {failed.failure.kind.value}" for failed in self.failures)
        returns = [at for route in self._routes if (at := self._health.returns_at_wall(route)) is not None]
        wait = format_wait(min(returns) - self._wall_clock()) if returns else None
        back = f"; earliest back in {wait}" if wait else ""
        return ChainExhausted(f"every model has failed ({tried or 'all are known to be out'}){back}")

    async def record(self, route: str, failure: Failure) -> None:
        """Remember a failure of this turn, and tell the fleet."""
        self.failures.append(RouteFailure(route=route, failure=failure))
        await self._health.report_failure(
            route, failure, now=anyio.current_time(), cooldown=self._policy.cooldown_seconds
        )

    async def recover(self, route: str) -> None:
        """Tell the fleet that a route has answered."""
        await self._health.report_success(route)

    def read(self, error: BaseException, route: str) -> Failure:
        """What an exception of a model call means."""
        return read_failure(
            error,
            now=anyio.current_time(),
            now_wall=self._wall_clock(),
            provider=route.partition("/")[0],
            rules=self._policy.classifier,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One route to ask."""

    turn: Turn
    route: str

    async def failed(self, error: BaseException | Failure) -> Failure:
        """The route failed.

        Args:
            error: what the call raised, or a failure already judged.
        """
        failure = error if isinstance(error, Failure) else self.turn.read(error, self.route)
        await self.turn.record(self.route, failure)
        return failure

    async def answered(self) -> None:
        """The route answered to the end."""
        await self.turn.recover(self.route)
