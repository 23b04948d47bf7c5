"""What an agent host must be able to do for the plugin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fallback_plugin.core.actions import DispatchTurn, Removal, SpliceResult
from fallback_plugin.core.events import DispatchReturned, SessionInspected
from fallback_plugin.core.family_events import ResultSpliced


@dataclass(frozen=True, slots=True, kw_only=True)
class Toast:
    """A message on the user's screen."""

    title: str
    message: str
    variant: Literal["info", "success", "warning", "error"]


class Host(Protocol):
    """An agent host that keeps its own sessions.

    Every call returns within a time that the host adapter bounds. What it raises (`HostError`) is taken as a
    failure of that call, never as one of the plugin.
    """

    async def abort(self, session_id: str) -> None:
        """End the session's run; return when it has ended.

        Raises:
            HostError: the host did not answer, or refused.
        """
        ...

    async def dispatch(self, turn: DispatchTurn) -> DispatchReturned:
        """Remove what the turn names, then resume its user message on its route. Safe to repeat."""
        ...

    async def discard(self, session_id: str, removals: Sequence[Removal]) -> None:
        """Delete messages of a session as soon as its run is over. Safe to repeat.

        Raises:
            HostError: the host did not answer, or refused.
        """
        ...

    async def inspect(self, session_id: str) -> SessionInspected:
        """Status and newest turn of a session.

        Raises:
            HostError: the host did not answer, or refused.
        """
        ...

    async def splice(self, action: SpliceResult) -> ResultSpliced:
        """Replace the result of a subagent's tool call by the answer that its session ended with. Safe to repeat.

        Raises:
            HostError: the host did not answer, or refused.
        """
        ...

    async def show(self, toast: Toast) -> None:
        """Show a toast to whoever looks at the session.

        Raises:
            HostError: the host did not answer, or refused.
        """
        ...
