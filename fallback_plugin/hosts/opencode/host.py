"""OpenCode as a host of the plugin: abort, resume in place, inspect, toast."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import anyio

from fallback_plugin.core.actions import DispatchTurn, Removal, SpliceResult
from fallback_plugin.core.events import DispatchReturned, SessionInspected
from fallback_plugin.core.family_events import ResultSpliced
from fallback_plugin.errors import HostRefused, HostUnavailable
from fallback_plugin.hosts.opencode.client import ABORT_PATIENCE, OpenCodeClient
from fallback_plugin.hosts.opencode.events import MalformedEvent, parse_history, parse_status
from fallback_plugin.hosts.opencode.replay import replay_tiers
from fallback_plugin.hosts.opencode.task_calls import name_children
from fallback_plugin.hosts.opencode.task_results import StillRunning, parent_of, splice_result
from fallback_plugin.runtime.host import Toast

HISTORY_LIMIT = 50
"""Newest messages that an inspection looks at."""
TOAST_MILLISECONDS = 8000
CONFLICT = 409
"""What the server answers to the deletion of a message while the session is busy."""
DISCARD_TRIES = 20
DISCARD_PAUSE = 0.25
"""Seconds between two tries to delete what a run that is being ended has left."""


class OpenCodeHost:
    """Carries the plugin's actions out on an OpenCode server.

    Args:
        client: calls to the server.
        wall_clock: epoch seconds, for absolute times in what the server says.
    """

    def __init__(self, client: OpenCodeClient, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._wall_clock = wall_clock

    async def abort(self, session_id: str) -> None:
        """End the session's run; the server answers when it has ended (60-115 ms)."""
        await self._client.post(f"/session/{session_id}/abort", {}, patience=ABORT_PATIENCE)

    async def dispatch(self, turn: DispatchTurn) -> DispatchReturned:
        """Delete what the next model must not see, then resume the user message in place."""
        try:
            await self._remove(turn)
            if turn.replay:
                return await self._replay(turn)

            await self._client.post(f"/session/{turn.session_id}/prompt_async", _resumption(turn))
        except HostRefused as refusal:
            return _returned(turn, "refused", str(refusal))
        except HostUnavailable as failure:
            return _returned(turn, "unavailable", str(failure))

        return _returned(turn, "accepted")

    async def _remove(self, turn: DispatchTurn) -> None:
        """Best effort, but for a session that is still busy: that one hears no prompt either."""
        for removal in turn.removals:
            try:
                await self._client.delete(_removal_path(turn.session_id, removal))
            except HostRefused as refusal:
                if refusal.status == CONFLICT:
                    message = "the session is still busy"
                    raise HostUnavailable(message) from refusal

    async def discard(self, session_id: str, removals: Sequence[Removal]) -> None:
        """Delete messages; the server refuses while the session is busy, so this waits for its end, for some seconds.

        Raises:
            HostUnavailable: the server did not answer.
            HostRefused: it keeps the messages; status 409 if the session stayed busy.
        """
        for removal in removals:
            await self._discard(_removal_path(session_id, removal))

    async def _discard(self, path: str) -> None:
        for _ in range(DISCARD_TRIES):
            try:
                return await self._client.delete(path)
            except HostRefused as refusal:
                if refusal.status != CONFLICT:
                    raise

            await anyio.sleep(DISCARD_PAUSE)

        message = "the session stays busy"
        raise HostRefused(message, status=CONFLICT)

    async def _replay(self, turn: DispatchTurn) -> DispatchReturned:
        """Send the turn as a new message, with fewer kinds of parts each time it is refused (S13)."""
        path = f"/session/{turn.session_id}/message/{turn.user_message_id}"
        message = await self._client.get(path)
        refusal = "the message has no parts to send again"
        for tier in replay_tiers(message):
            try:
                await self._client.post(
                    f"/session/{turn.session_id}/prompt_async",
                    {**_prompt(turn), "parts": tier.parts},
                )
            except HostRefused as error:
                refusal = str(error)
                continue

            return _returned(turn, "accepted", dropped_parts=tier.dropped, replayed=True)

        return _returned(turn, "refused", refusal)

    async def inspect(self, session_id: str) -> SessionInspected:
        """Status and newest turn.

        Raises:
            HostUnavailable: the server did not answer.
            HostRefused: what it answered can't be read.
        """
        statuses = await self._client.get("/session/status")
        try:
            history = await self._client.get(f"/session/{session_id}/message", parameters={"limit": HISTORY_LIMIT})
        except HostRefused as refusal:
            if refusal.status == 404:
                return SessionInspected(session_id=session_id, found=False)

            raise

        await name_children(self._client, session_id, history)
        now_wall = self._wall_clock()
        try:
            user, assistants = parse_history(history, now_wall)
            status = parse_status(session_id, _status_of(statuses, session_id), now_wall)
        except MalformedEvent as error:
            message = f"the history of session {session_id} has an unknown shape"
            raise HostRefused(message) from error

        parent_id = await parent_of(self._client, session_id)
        return SessionInspected(
            session_id=session_id, status=status, user=user, assistants=assistants, parent_id=parent_id
        )

    async def splice(self, action: SpliceResult) -> ResultSpliced:
        """Write a subagent's answer into the tool part of the session that called it."""
        outcome: Literal["done", "unfinished"] = "done"
        try:
            await splice_result(self._client, action, limit=HISTORY_LIMIT)
        except StillRunning:
            outcome = "unfinished"

        return ResultSpliced(session_id=action.session_id, child_id=action.child_id, outcome=outcome)

    async def show(self, toast: Toast) -> None:
        """Show a toast in every terminal that looks at the server."""
        await self._client.post(
            "/tui/show-toast",
            {
                "title": toast.title,
                "message": toast.message,
                "variant": toast.variant,
                "duration": TOAST_MILLISECONDS,
            },
        )

    async def sessions_at_work(self) -> list[str]:
        """Ids of the sessions that are not idle."""
        statuses = await self._client.get("/session/status")
        return list(cast("dict[str, Any]", statuses)) if isinstance(statuses, dict) else []


def _status_of(statuses: object, session_id: str) -> object:
    found = cast("dict[str, Any]", statuses).get(session_id) if isinstance(statuses, dict) else None
    return found or {"type": "idle"}


def _removal_path(session_id: str, removal: Removal) -> str:
    path = f"/session/{session_id}/message/{removal.message_id}"
    return path if removal.part_id is None else f"{path}/part/{removal.part_id}"


def _prompt(turn: DispatchTurn) -> dict[str, Any]:
    provider, _, model = turn.route.partition("/")
    prompt: dict[str, Any] = {**turn.carried, "model": {"providerID": provider, "modelID": model}}
    if turn.agent is not None:
        prompt["agent"] = turn.agent

    return prompt


def _resumption(turn: DispatchTurn) -> Mapping[str, Any]:
    return {**_prompt(turn), "messageID": turn.user_message_id, "parts": []}


def _returned(
    turn: DispatchTurn,
    outcome: Any,
    reason: str = "",
    *,
    dropped_parts: tuple[str, ...] = (),
    replayed: bool = False,
) -> DispatchReturned:
    return DispatchReturned(
        session_id=turn.session_id,
        generation=turn.generation,
        outcome=outcome,
        reason=reason,
        replayed=replayed,
        dropped_parts=dropped_parts,
    )
