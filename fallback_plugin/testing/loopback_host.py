"""A small agent host in memory: sessions, tools, and real HTTP to whatever providers it is given.

It is the least that a host must do for `FallbackPlugin` to carry its turns on, and what the demonstration and
the examples use where no other host is at hand. Its manners are those of OpenCode: a passing failure (408, 429,
5xx, a broken stream) is retried on the same model for ever, with the provider's Retry-After where there is one;
any other ends the run with an error; a tool's result goes into the next request; a dispatch resumes a user
message in place.

    providers = {"north": provider.base_url}
    async with LoopbackHost(providers, agents={"coder": "north/large"}) as host, FallbackPlugin(host, rules) as plugin:
        host.subscribe(plugin.handle)
        session_id = host.open_session()
        host.prompt(session_id, "say hi", agent="coder")
        await host.wait_until_quiet(session_id)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Any, Self

import anyio
import httpx

from fallback_plugin.core.actions import DispatchTurn, Removal, SpliceResult
from fallback_plugin.core.events import (
    DispatchReturned,
    Event,
    MessageRemoved,
    PartDeltaReceived,
    SessionErrored,
    SessionIdled,
    SessionInspected,
    SessionStatusChanged,
    TurnStopped,
)
from fallback_plugin.core.failure import Facts
from fallback_plugin.core.family_events import ResultSpliced
from fallback_plugin.errors import HostRefused
from fallback_plugin.runtime.host import Toast
from fallback_plugin.testing.chat_client import ChatFailed, Chunk, join_calls, stream_chat
from fallback_plugin.testing.loopback_session import Answer, LoopbackSession, Prompt, Tool, ToolPart, run_tool

ABORTED = "MessageAbortedError"
LONGEST_BACKOFF = 30.0
"""Seconds between two of the host's own tries where the provider named no time; doubled from 2."""
_NO_TOOLS: Mapping[str, Tool] = {}


class LoopbackHost:
    """An agent host that lives in this process; implements `fallback_plugin.runtime.host.Host`.

    Args:
        providers: base URL by provider id, each ending in `/v1`.
        agents: each agent's own model, as "provider/model".
        tools: what models may call, by name; each takes the arguments and gives a text.

    Attributes:
        toasts: what the user was shown.
    """

    def __init__(
        self, providers: Mapping[str, str], *, agents: Mapping[str, str], tools: Mapping[str, Tool] = _NO_TOOLS
    ) -> None:
        self.toasts: list[Toast] = []
        self._providers = dict(providers)
        self._agents = dict(agents)
        self._tools = dict(tools)
        self._sessions: dict[str, LoopbackSession] = {}
        self._numbers = itertools.count(1)
        self._listeners: list[Callable[[Event], None]] = []
        self._http = httpx.AsyncClient(trust_env=False)
        self._runs = anyio.create_task_group()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._http)
        await self._stack.enter_async_context(self._runs)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runs.cancel_scope.cancel()
        await self._stack.__aexit__(kind, error, trace)

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Tell a listener every event from now on; `FallbackPlugin.handle` is one."""
        self._listeners.append(listener)

    def open_session(self) -> str:
        """Start a session; gives its id."""
        session_id = f"session-{next(self._numbers)}"
        self._sessions[session_id] = LoopbackSession(session_id)
        return session_id

    def prompt(self, session_id: str, text: str, *, agent: str, route: str | None = None) -> str:
        """Say something as the user; gives the message's id.

        Args:
            session_id: the session.
            text: what the user says.
            agent: who is to answer.
            route: a model picked by hand, the agent's own if None.
        """
        session = self._sessions[session_id]
        prompt = session.add_prompt(self._message_id(), text, agent=agent, route=route or self._agents[agent])
        self._tell(session.updated(prompt))
        self._start(session)
        return prompt.message_id

    async def stop(self, session_id: str) -> None:
        """End the run as the user's stop: nothing carries it on."""
        self._tell(TurnStopped(session_id=session_id))
        await self.abort(session_id)

    async def wait_until_quiet(self, session_id: str, quiet: float = 0.5) -> None:
        """Wait until the session has been idle for so many seconds."""
        session = self._sessions[session_id]
        while True:
            await session.ended.wait()
            with anyio.move_on_after(quiet):
                await session.begun.wait()
                continue

            return

    def history(self, session_id: str) -> list[tuple[str, str]]:
        """Role and text of each message, oldest first."""
        return [(message.role, message.text) for message in self._sessions[session_id].messages]

    async def abort(self, session_id: str) -> None:
        """End the session's run; return when it has ended.

        Raises:
            HostRefused: no such session.
        """
        session = self._session(session_id)
        if session.scope is None:
            self._tell_idle(session)
            return

        session.scope.cancel()
        await session.ended.wait()

    async def dispatch(self, turn: DispatchTurn) -> DispatchReturned:
        """Remove what the turn names, then resume its user message on its route."""
        session = self._session(turn.session_id)
        if session.scope is not None:
            return _returned(turn, "unavailable", "the session is still busy")

        prompt = session.prompt(turn.user_message_id)
        if prompt is None:
            return _returned(turn, "refused", "no such user message")

        await self.discard(turn.session_id, turn.removals)
        if turn.replay:
            prompt = session.add_prompt(self._message_id(), prompt.text, agent=prompt.agent, route=turn.route)
        else:
            prompt.route, prompt.agent = turn.route, turn.agent or prompt.agent
            prompt.answered = False

        self._tell(session.updated(prompt))
        self._start(session)
        return _returned(turn, "accepted", replayed=turn.replay)

    async def discard(self, session_id: str, removals: Sequence[Removal]) -> None:
        """Remove messages, and tell of it."""
        session = self._session(session_id)
        for removal in removals:
            if session.remove(removal.message_id, removal.part_id) and removal.part_id is None:
                self._tell(MessageRemoved(session_id=session_id, message_id=removal.message_id))

    async def inspect(self, session_id: str) -> SessionInspected:
        """Status and newest turn of a session; `found` is False for an unknown one."""
        session = self._sessions.get(session_id)
        return session.inspected() if session else SessionInspected(session_id=session_id, found=False)

    async def splice(self, action: SpliceResult) -> ResultSpliced:
        """Refuse: this host has no subagents.

        Raises:
            HostRefused: always.
        """
        raise HostRefused(f"no tool of {action.session_id} has started {action.child_id}")

    async def show(self, toast: Toast) -> None:
        """Keep the toast where the user would see it."""
        self.toasts.append(toast)

    def _session(self, session_id: str) -> LoopbackSession:
        try:
            return self._sessions[session_id]
        except KeyError:
            raise HostRefused(f"no session {session_id}") from None

    def _message_id(self) -> str:
        return f"message-{next(self._numbers)}"

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def _tell_status(self, session: LoopbackSession, status: SessionStatusChanged) -> None:
        session.status = status
        self._tell(status)

    def _tell_idle(self, session: LoopbackSession) -> None:
        self._tell_status(session, SessionStatusChanged(session_id=session.session_id, status="idle"))
        self._tell(SessionIdled(session_id=session.session_id))

    def _start(self, session: LoopbackSession) -> None:
        if session.scope is None:
            scope = anyio.CancelScope()
            session.begin(scope)
            self._runs.start_soon(self._run, session, scope)

    async def _run(self, session: LoopbackSession, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                self._tell_status(session, SessionStatusChanged(session_id=session.session_id, status="busy"))
                while (prompt := session.unanswered()) is not None:
                    await self._answer(session, prompt)

            if scope.cancelled_caught:
                self._close_aborted(session)
        finally:
            session.end()

        self._tell_idle(session)

    def _close_aborted(self, session: LoopbackSession) -> None:
        answer = session.open_answer()
        if answer is None:
            return

        answer.completed = True
        # An answer that waits for the next try just ends; one that was being written ends with an error.
        if session.status.status != "retry":
            answer.error = Facts(name=ABORTED, message="The run was aborted")
            self._tell(SessionErrored(session_id=session.session_id, facts=answer.error))

        self._tell(session.updated(answer))

    async def _answer(self, session: LoopbackSession, prompt: Prompt) -> None:
        """Ask until the model has nothing more to call, or has failed for good."""
        prompt.answered = True
        while True:
            answer = session.add_answer(self._message_id(), prompt)
            self._tell(session.updated(answer))
            if not await self._ask_until_answered(session, answer):
                return

            for part in answer.tool_parts:
                await self._use_tool(session, answer, part)

            answer.completed = True
            self._tell(session.updated(answer))
            # As OpenCode does after every finished step.
            self._tell(session.updated(prompt))
            if not answer.tool_parts:
                return

    async def _ask_until_answered(self, session: LoopbackSession, answer: Answer) -> bool:
        for attempt in itertools.count(1):
            try:
                await self._ask(session, answer)
            except ChatFailed as failed:
                if not failed.passing:
                    self._fail(session, answer, failed.facts)
                    return False

                await self._wait_for_next_try(session, failed.facts, attempt)
            else:
                return True

        raise AssertionError("unreachable")

    async def _ask(self, session: LoopbackSession, answer: Answer) -> None:
        provider = answer.route.partition("/")[0]
        if provider not in self._providers:
            raise ChatFailed(Facts(name="UnknownError", message=f"Model not found: {answer.route}."), passing=False)

        # What a broken try had said is not part of the next one.
        answer.parts.clear()
        chunks: list[Chunk] = []
        async with aclosing(
            stream_chat(self._http, self._providers[provider], answer.route, session.transcript())
        ) as stream:
            async for chunk in stream:
                chunks.append(chunk)
                if chunk.text:
                    part_id = answer.write(chunk.text)
                    identity = {"session_id": session.session_id, "message_id": answer.message_id}
                    self._tell(PartDeltaReceived(**identity, part_id=part_id))

        reasons = [chunk.finish for chunk in chunks if chunk.finish]
        answer.call(join_calls(chunks))
        answer.finish = reasons[-1].replace("_", "-") if reasons else "unknown"

    async def _wait_for_next_try(self, session: LoopbackSession, facts: Facts, attempt: int) -> None:
        named = facts.headers.get("retry-after", "")
        pause = float(named) if named.isdigit() else min(2.0**attempt, LONGEST_BACKOFF)
        status: dict[str, Any] = {"session_id": session.session_id, "attempt": attempt, "facts": facts}
        self._tell_status(session, SessionStatusChanged(status="retry", **status))
        await anyio.sleep(pause)
        self._tell_status(session, SessionStatusChanged(session_id=session.session_id, status="busy"))

    def _fail(self, session: LoopbackSession, answer: Answer, facts: Facts) -> None:
        answer.error, answer.completed = facts, True
        self._tell(SessionErrored(session_id=session.session_id, facts=facts))
        self._tell(session.updated(answer))

    async def _use_tool(self, session: LoopbackSession, answer: Answer, part: ToolPart) -> None:
        part.status = "running"
        self._tell(session.part_updated(answer, part))
        part.output = await run_tool(self._tools.get(part.name), part)
        part.status = "completed"
        self._tell(session.part_updated(answer, part))


def _returned(turn: DispatchTurn, outcome: Any, reason: str = "", *, replayed: bool = False) -> DispatchReturned:
    return DispatchReturned(
        session_id=turn.session_id,
        generation=turn.generation,
        outcome=outcome,
        reason=reason,
        replayed=replayed,
    )
