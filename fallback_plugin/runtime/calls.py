"""Calls to the host. What a call raises is that call's failure, never the plugin's."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from fallback_plugin.core.actions import AbortRun, DiscardMessages, DispatchTurn, InspectSession, SpliceResult
from fallback_plugin.core.events import AbortReturned, DispatchReturned, SessionInspected
from fallback_plugin.core.family_events import ResultSpliced
from fallback_plugin.runtime.failpoints import reach
from fallback_plugin.runtime.host import Host, Toast

logger = logging.getLogger("fallback_plugin")


class HostCalls:
    """The host's methods as calls that always come back, with an event to tell the machine.

    Args:
        host: the host.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    async def abort(self, action: AbortRun) -> AbortReturned:
        """End the session's run."""
        succeeded = await _guarded("abort", self._host.abort, action.session_id)
        reach("aborted")
        return AbortReturned(session_id=action.session_id, generation=action.generation, succeeded=succeeded)

    async def dispatch(self, turn: DispatchTurn) -> DispatchReturned:
        """Send the turn to its next model."""
        answers: list[DispatchReturned] = []

        async def send(turn: DispatchTurn) -> None:
            answers.append(await self._host.dispatch(turn))

        reach("dispatching")
        if await _guarded("dispatch", send, turn):
            reach("dispatched")
            return answers[0]

        return DispatchReturned(
            session_id=turn.session_id,
            generation=turn.generation,
            outcome="unavailable",
            reason="the host did not answer the dispatch",
        )

    async def discard(self, action: DiscardMessages) -> None:
        """Delete what would spoil the session's next turn, if the host can."""
        await _guarded("discard", self._host.discard, action.session_id, action.removals)

    async def inspect(self, action: InspectSession) -> SessionInspected | None:
        """Ask for the session's history; None if the host did not tell."""
        found: list[SessionInspected] = []

        async def ask(session_id: str) -> None:
            found.append(await self._host.inspect(session_id))

        return found[0] if await _guarded("inspect", ask, action.session_id) else None

    async def splice(self, action: SpliceResult) -> ResultSpliced:
        """Put a subagent's answer into the history of the session that waits for it."""
        answers: list[ResultSpliced] = []

        async def put(action: SpliceResult) -> None:
            answers.append(await self._host.splice(action))

        if await _guarded("splice", put, action):
            return answers[0]

        return ResultSpliced(session_id=action.session_id, child_id=action.child_id, outcome="unavailable")

    async def show(self, toast: Toast) -> None:
        """Show a toast, if the host can."""
        await _guarded("toast", self._host.show, toast)


async def _guarded(what: str, call: Callable[..., Awaitable[None]], *arguments: object) -> bool:
    try:
        await call(*arguments)
    except Exception as error:  # noqa: BLE001 - a host adapter's bug must not end the plugin
        logger.warning("%s failed: %s", what, type(error).__name__)
        return False

    return True
