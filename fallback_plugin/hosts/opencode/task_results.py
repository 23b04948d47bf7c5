"""The result of OpenCode's `task` tool, written from what the subagent's session holds.

Shapes as the host writes them itself (tests/e2e/OBSERVATIONS.md, Subagents).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fallback_plugin.core.actions import SpliceResult
from fallback_plugin.errors import HostRefused, HostUnavailable
from fallback_plugin.hosts.opencode.client import OpenCodeClient
from fallback_plugin.hosts.opencode.events import child_of

Json = Mapping[str, Any]

_UNFINISHED = (None, "unknown", "tool-calls")


class StillRunning(Exception):  # noqa: N818 - an outcome, told as such
    """The tool has not ended; the host would write over what is put there."""


async def splice_result(client: OpenCodeClient, call: SpliceResult, *, limit: int) -> None:
    """Replace the result of the tool call that started a subagent by what that subagent's session ended with.

    Args:
        client: calls to the server.
        call: which call of which session; its reason, where there is one, is the error that the tool gets.
        limit: how many of the newest messages are looked at.

    Raises:
        StillRunning: the tool has not ended.
        HostUnavailable: the server did not answer.
        HostRefused: the server said no.
    """
    part = _task_part(await _messages(client, call.session_id, limit), call)
    if part is None:
        return

    state = _object(part.get("state"))
    if state.get("status") in ("pending", "running"):
        raise StillRunning

    child = await _messages(client, call.child_id, limit)
    answer = None if call.reason else _answer(child)
    spliced = _completed(state, call, answer) if answer is not None else _failed(state, call, _error(child))
    path = f"/session/{call.session_id}/message/{part.get('messageID')}/part/{part.get('id')}"
    await client.patch(path, {**part, "state": spliced})


async def parent_of(client: OpenCodeClient, session_id: str) -> str | None:
    """The session whose subagent a session is; None also where the server does not tell."""
    try:
        info = _object(await client.get(f"/session/{session_id}"))
    except (HostRefused, HostUnavailable):
        return None

    parent_id = info.get("parentID")
    return parent_id if isinstance(parent_id, str) and parent_id else None


async def _messages(client: OpenCodeClient, session_id: str, limit: int) -> list[Json]:
    try:
        messages = await client.get(f"/session/{session_id}/message", parameters={"limit": limit})
    except HostRefused as refusal:
        if refusal.status == 404:
            return []

        raise

    return [_object(message) for message in cast("list[object]", messages)] if isinstance(messages, list) else []


def _object(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _parts(message: Json) -> list[Json]:
    parts = message.get("parts")
    return [_object(part) for part in cast("list[object]", parts)] if isinstance(parts, list) else []


def _task_part(messages: list[Json], call: SpliceResult) -> Json | None:
    """The tool part: the one that is named, else the newest of that subagent, which may have been called before."""
    parts = [part for message in messages for part in _parts(message)]
    named = [part for part in parts if part.get("id") == call.part_id]
    calls = named or [part for part in parts if child_of(part) == call.child_id]
    return calls[-1] if calls else None


def _last_info(messages: list[Json]) -> Json:
    return _object(messages[-1].get("info")) if messages else _object(None)


def _answer(messages: list[Json]) -> str | None:
    """The last text of the last answer, as the host takes it; None where the newest prompt has no answer."""
    last = _last_info(messages)
    if last.get("role") != "assistant" or last.get("error") or last.get("finish") in _UNFINISHED:
        return None

    texts = [part.get("text") for part in _parts(messages[-1]) if part.get("type") == "text"]
    return str(texts[-1]) if texts else ""


def _error(messages: list[Json]) -> str:
    """What ended the child, in the host's words; never what a model or a user has said."""
    error = _object(_last_info(messages).get("error"))
    message = _object(error.get("data")).get("message")
    return f"Subagent failed: {message}" if isinstance(message, str) and message else "Task cancelled"


def _completed(state: Json, call: SpliceResult, answer: str) -> Json:
    output = f'<task id="{call.child_id}" state="completed">\n<task_result>\n{answer}\n</task_result>\n</task>'
    title = state.get("title") or _object(state.get("input")).get("description") or ""
    return {**_common(state, call), "status": "completed", "output": output, "title": title}


def _failed(state: Json, call: SpliceResult, error: str) -> Json:
    return {**_common(state, call), "status": "error", "error": call.reason or error}


def _common(state: Json, call: SpliceResult) -> Json:
    times = _object(state.get("time"))
    start = times.get("start") or 0
    family = {"parentSessionId": call.session_id, "sessionId": call.child_id}
    return {
        "input": state.get("input") or {},
        "metadata": {**family, **_object(state.get("metadata"))},
        "time": {"start": start, "end": times.get("end") or start},
    }
