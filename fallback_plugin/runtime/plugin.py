"""FallbackPlugin: the only place where decisions meet the clock and the host.

An event is judged at once, without awaiting, by the pure session machine; what it decides is carried out by
tasks whose results come back as events. So the events of a session are handled in the order in which they
arrive, and no two handlers can both hold its advance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from fallback_plugin.core import session as machine
from fallback_plugin.core.actions import (
    AbortRun,
    Action,
    Announce,
    DiscardMessages,
    DispatchTurn,
    InspectSession,
    NoticeType,
    ReportAnswer,
    SetTimer,
    SpliceResult,
    Tell,
)
from fallback_plugin.core.events import (
    AbortReturned,
    AdvanceLost,
    DispatchReturned,
    Event,
    MessageUpdated,
    PartDeltaReceived,
    PartUpdated,
    SessionDeleted,
    SessionErrored,
    SessionInspected,
    TimerElapsed,
)
from fallback_plugin.core.family_events import ChildEnded, ParentSettled, ParentStopped, ResultSpliced
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.record import HOP_PHASES, RESTING_PHASES, Phase, Session, Step
from fallback_plugin.core.routing import Prompt
from fallback_plugin.core.verdict import policy_of
from fallback_plugin.errors import FallbackPluginError
from fallback_plugin.runtime.calls import HostCalls
from fallback_plugin.runtime.claims import LEASE_SECONDS
from fallback_plugin.runtime.fleet import Fleet
from fallback_plugin.runtime.health import SharedHealth
from fallback_plugin.runtime.host import Host
from fallback_plugin.runtime.observe import Observer, toast_for
from fallback_plugin.runtime.records import Records
from fallback_plugin.runtime.routing import PromptRouter
from fallback_plugin.runtime.timers import Timers
from fallback_plugin.stores.base import Store
from fallback_plugin.stores.memory import MemoryStore

logger = logging.getLogger("fallback_plugin")

_TELLS_HEALTH = frozenset({NoticeType.FAILURE, NoticeType.EXHAUSTED})
_OPENS_NO_RECORD = (
    PartUpdated,
    PartDeltaReceived,
    SessionDeleted,
    TimerElapsed,
    AbortReturned,
    AdvanceLost,
    DispatchReturned,
    SessionInspected,
    ChildEnded,
    ParentSettled,
    ParentStopped,
    ResultSpliced,
)


class FallbackPlugin:
    """Carries the turns of one host on to the next model when a provider fails.

    Use it as an async context manager, and hand it every event of the host:

        async with FallbackPlugin(host, rules) as plugin:
            plugin.handle(event)

    Args:
        host: what carries the actions out.
        rules: the policies in force; `reload` replaces them.
        observer: called with every notice; must not block.
        store: what processes share and what outlives this one; in memory if None.
        place: where the host's sessions live, such as the project's directory: unfinished hops of another place are
            left to the processes there.
    """

    def __init__(
        self,
        host: Host,
        rules: Rules,
        *,
        observer: Observer | None = None,
        store: Store | None = None,
        place: str = "",
    ) -> None:
        self._records = Records()
        self._calls = HostCalls(host)
        self._rules = rules
        self._observer = observer
        self._timers = Timers(self._on_timer)
        self._tasks: TaskGroup | None = None
        self._stack = AsyncExitStack()
        self._fleet = Fleet(store or MemoryStore(), on_lost=self._on_lost, on_health=self._on_health, place=place)
        self._router = PromptRouter(self._fleet.health)

    @property
    def sessions(self) -> dict[str, Session]:
        """The records, by session id. Read only."""
        return self._records.sessions

    @property
    def retry_in_flight(self) -> set[str]:
        """Ids of the sessions whose advance is claimed and not yet seen to run. Read only."""
        return self._records.retry_in_flight

    @property
    def health(self) -> SharedHealth:
        """What is known about routes and providers."""
        return self._fleet.health

    async def __aenter__(self) -> Self:
        await self._fleet.open()
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._tasks.start_soon(self._timers.run)
        self._tasks.start_soon(self._records.keep_swept)
        self._tasks.start_soon(self._fleet.keep_swept)
        self._tasks.start_soon(self.health.follow)
        self._tasks.start_soon(self._take_over)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

        await self._stack.__aexit__(kind, error, trace)
        self._tasks = None
        with anyio.CancelScope(shield=True):
            await self._fleet.close()

    def on_message_updated(self, event: MessageUpdated) -> None:
        """Handle message.updated: one of the two events that report a failure."""
        self.handle(event)

    def on_session_error(self, event: SessionErrored) -> None:
        """Handle session.error: the other one. Only one of them advances the chain."""
        self.handle(event)

    def handle(self, event: Event, now: float | None = None) -> None:
        """Judge one event and set going what it leads to. Never raises for what an event holds.

        Args:
            event: the event.
            now: the event loop's seconds, if the caller has just read them.

        Raises:
            FallbackPluginError: the plugin is used outside of its context; the event changed nothing.
        """
        session_id = self._records.resolve(event.session_id)
        if session_id != event.session_id:
            event = replace(event, session_id=session_id)

        session = self.sessions.get(session_id)
        if session is None:
            if isinstance(event, _OPENS_NO_RECORD):
                return

            session = Session(session_id=session_id)

        now = anyio.current_time() if now is None else now
        step = machine.step(session, event, now, self._rules)
        if step.session is not session or step.actions:
            self._apply(session_id, step, now)

    def catch_up(self, at_work: Iterable[str]) -> None:
        """At the start and after a gap in the event stream: ask the host about every session that matters.

        Args:
            at_work: ids of the sessions that the host says are not idle; those that the plugin thinks at work
                are asked about as well.
        """
        now = anyio.current_time()
        for session_id in dict.fromkeys([*at_work, *self._records.at_work()]):
            session = self.sessions.get(session_id) or Session(session_id=session_id)
            self._apply(session_id, machine.attach(session, now), now)

    async def rotate(self, old_id: str, new_id: str) -> None:
        """The host goes on with a session under another id, as after a compaction or a fork (X07, W24, W25).

        The record, a hop under way with its lease and intent, and the timers follow. What is still told under the old
        id is taken for the new one, also when the old one was deleted meanwhile.

        Args:
            old_id: the id so far.
            new_id: the id from now on.
        """
        self._records.rename(old_id, new_id)
        await self._fleet.claims.rename(old_id, new_id)

    async def route_prompt(self, prompt: Prompt) -> str:
        """Say which model a prompt goes to, before the host asks it (design.md, rule 7).

        Args:
            prompt: what the host is about to send.

        Returns:
            The route: the prompt's own unless that is known to be out, or was a stand-in for one that is back.
        """
        session = self.sessions.get(self._records.resolve(prompt.session_id))
        choice = await self._router.choose(session, prompt, self._rules.policy(prompt.agent))
        if choice.route != choice.wanted:
            self.handle(self._router.event_of(prompt.session_id, choice, anyio.current_time()))

        return choice.route

    def reload(self, rules: Rules) -> None:
        """Put other policies in force, from the next decision on."""
        self._rules = replace(rules, outages=self._rules.outages, guesses=self._rules.guesses)

    async def drain(self, patience: float) -> bool:
        """Wait for the hops under way to be seen to run.

        Args:
            patience: seconds to wait at most.

        Returns:
            Whether none is left under way.
        """
        return await self._records.drain(patience)

    def sweep(self, now: float) -> int:
        """Drop the records of sessions long at rest; how many. Done by itself every few minutes."""
        return self._records.sweep(now)

    def _on_timer(self, session_id: str, timer: int) -> None:
        self.handle(TimerElapsed(session_id=session_id, timer=timer))

    def _apply(self, session_id: str, step: Step, now: float) -> None:
        # Before anything is kept: a claim whose actions can't be carried out would be lost.
        self._task_group()
        before, session = self.sessions.get(session_id), step.session
        if session is None:
            self._records.drop(session_id)
            self._start(lambda: self._fleet.claims.forget(session_id))
        else:
            self._records.put(session, now)
            self._coordinate(before, session)

        for action in step.actions:
            self._carry_out(action, now)

    def _coordinate(self, before: Session | None, session: Session) -> None:
        """Claim a hop that has begun; let go of one that is over."""
        was_hop = before is not None and before.phase in HOP_PHASES
        if session.phase in HOP_PHASES:
            if before is None or not was_hop or before.generation != session.generation:
                self._fleet.claims.begin(session, self._task_group())
        elif was_hop:
            self._fleet.claims.end(session.session_id, self._task_group())

    def _on_lost(self, session_id: str, generation: int) -> None:
        self.handle(AdvanceLost(session_id=session_id, generation=generation))

    def _on_health(self) -> None:
        outages = self.health.outages(anyio.current_time())
        self._rules = replace(self._rules, outages=outages, guesses=self.health.guesses)

    async def _take_over(self) -> None:
        """Carry on what other processes, or this one before it died, have left unfinished."""
        while True:
            for session in await self._fleet.claims.pending():
                known = self.sessions.get(session.session_id)
                if known is None or known.phase in RESTING_PHASES:
                    now = anyio.current_time()
                    self._apply(session.session_id, machine.attach(session, now), now)

            await anyio.sleep(LEASE_SECONDS / 2)

    def _carry_out(self, action: Action, now: float) -> None:
        if isinstance(action, SetTimer):
            self._timers.set(action.session_id, action.timer, action.at)
        elif isinstance(action, Announce):
            self._announce(action, now)
        elif isinstance(action, ReportAnswer):
            if len(self.health):
                self._start(lambda: self.health.report_success(action.route))
        elif isinstance(action, AbortRun):
            self._start(lambda: self._abort(action))
        elif isinstance(action, DispatchTurn):
            self._start(lambda: self._dispatch(action))
        elif isinstance(action, DiscardMessages):
            self._start(lambda: self._calls.discard(action))
        elif isinstance(action, SpliceResult):
            self._start(lambda: self._splice(action))
        elif isinstance(action, Tell):
            self.handle(action.event, now)
        else:
            self._start(lambda: self._inspect(action))

    def _start(self, call: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._task_group().start_soon(call)

    def _task_group(self) -> TaskGroup:
        if self._tasks is None:
            message = "FallbackPlugin is not running; use it as an async context manager"
            raise FallbackPluginError(message)

        return self._tasks

    def _announce(self, notice: Announce, now: float) -> None:
        if self._observer is not None:
            try:
                self._observer(notice, now)
            except Exception as error:  # noqa: BLE001 - who looks on must not end what he looks at
                logger.warning("observer failed: %s", type(error).__name__)

        session = self.sessions.get(notice.session_id)
        turn = session.turn if session else None
        policy = policy_of(session, self._rules) if session else self._rules.default
        failure, route = notice.failure, notice.route
        if notice.notice in _TELLS_HEALTH and failure is not None and route is not None:
            cooldown = policy.cooldown_seconds
            self._start(lambda: self.health.report_failure(route, failure, now=now, cooldown=cooldown))

        if notice.toast and policy.notify_on_fallback:
            self._start(lambda: self._show(notice, now, turn.user.message_id if turn else ""))

    async def _abort(self, action: AbortRun) -> None:
        session = self.sessions.get(action.session_id)
        if session is None or session.generation != action.generation or session.phase is Phase.RUNNING:
            return

        if session.phase in HOP_PHASES and not await self._is_granted(action.session_id, action.generation):
            return

        self.handle(await self._calls.abort(action))

    async def _dispatch(self, action: DispatchTurn) -> None:
        if await self._is_granted(action.session_id, action.generation):
            self.handle(await self._calls.dispatch(action))

    async def _splice(self, action: SpliceResult) -> None:
        session = self.sessions.get(action.session_id)
        if session is None:
            return

        if session.phase in HOP_PHASES and not await self._is_granted(action.session_id, session.generation):
            return

        self.handle(await self._calls.splice(action))

    async def _inspect(self, action: InspectSession) -> None:
        inspected = await self._calls.inspect(action)
        if inspected is not None:
            self.handle(inspected)

    async def _is_granted(self, session_id: str, generation: int) -> bool:
        """Whether the hop is this process's, and still the one that was meant when the claim was decided."""
        granted = await self._fleet.claims.granted(session_id, generation)
        session = self.sessions.get(session_id)
        return granted and session is not None and session.generation == generation and session.phase in HOP_PHASES

    async def _show(self, notice: Announce, now: float, message_id: str) -> None:
        is_end = notice.notice is NoticeType.EXHAUSTED
        if is_end and not await self._fleet.may_speak(notice.session_id, message_id):
            return

        await self._calls.show(toast_for(notice, now))
