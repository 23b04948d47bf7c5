"""OpenCode's events and messages as core values. Shapes as recorded in opencode-host.md and its recordings.

Parsing is by hand, not by pydantic: a token is worth a microsecond. A value that is missing or of the wrong type
where it matters makes the event malformed; everything else unknown is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from fallback_plugin.core.events import (
    AssistantMessage,
    Event,
    InspectedMessage,
    MessageRemoved,
    MessageUpdated,
    PartDeltaReceived,
    PartType,
    PartUpdated,
    SessionCompacted,
    SessionCreated,
    SessionDeleted,
    SessionErrored,
    SessionIdled,
    SessionStatusChanged,
    ToolExecuted,
    UserMessage,
)
from fallback_plugin.core.failure import Facts

Json = Mapping[str, Any]

CARRIED_KEYS = ("system", "tools", "format")
"""What a dispatch in place must repeat, since the host rewrites the message from the request."""


TASK_TOOL = "task"
"""The tool that runs a subagent."""
_LARGEST = 1e18


class MalformedEvent(ValueError):  # noqa: N818 - counted, never shown
    """An event of a known type whose shape is not the host's."""


def parse_event(event: object, now_wall: float) -> Event | None:
    """One event of /event as a core event; None for a type that says nothing here.

    Args:
        event: the decoded JSON.
        now_wall: epoch seconds at which it arrived.

    Raises:
        MalformedEvent: a known type in an unknown shape.
    """
    fields = _object(event)
    kind = fields.get("type")
    parser = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parser is None:
        return None

    return parser(_object(fields.get("properties")), now_wall)


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise MalformedEvent

    return cast("Json", value)


def _text(fields: Json, key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        raise MalformedEvent

    return value


def _maybe_text(fields: Json, key: str) -> str | None:
    value = fields.get(key)
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float:
    """The number, 0 for what is none. JSON can hold infinity, NaN and integers that no float can."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0

    return float(value) if -_LARGEST < value < _LARGEST else 0.0


def _maybe_object(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _route(model: Json, provider_key: str = "providerID", model_key: str = "modelID") -> str | None:
    provider, name = _maybe_text(model, provider_key), _maybe_text(model, model_key)
    return f"{provider}/{name}" if provider and name else None


def _message_updated(fields: Json, now_wall: float) -> Event | None:
    info = _object(fields.get("info"))
    session_id = _maybe_text(fields, "sessionID") or _text(info, "sessionID")
    message = parse_message(info, now_wall)
    return MessageUpdated(session_id=session_id, message=message) if message else None


def parse_message(info: Json, now_wall: float) -> UserMessage | AssistantMessage | None:
    """The `info` of a message; None for a role that is neither user nor assistant."""
    role = info.get("role")
    if role == "user":
        return UserMessage(
            message_id=_text(info, "id"),
            created_wall=_number(_maybe_object(info.get("time")).get("created")) / 1000,
            agent=_maybe_text(info, "agent"),
            route=_route(_maybe_object(info.get("model"))),
            carried={key: info[key] for key in CARRIED_KEYS if info.get(key) is not None},
        )

    if role != "assistant":
        return None

    error = info.get("error")
    return AssistantMessage(
        message_id=_text(info, "id"),
        parent_id=_maybe_text(info, "parentID"),
        route=_route(info),
        agent=_maybe_text(info, "agent"),
        finish=_maybe_text(info, "finish"),
        completed=bool(_maybe_object(info.get("time")).get("completed")),
        error=parse_error(error, now_wall, provider=_maybe_text(info, "providerID")) if error else None,
        compaction=info.get("mode") == "compaction" or info.get("agent") == "compaction",
    )


def parse_error(error: object, now_wall: float, provider: str | None = None) -> Facts:
    """An error of the host as facts, whatever its shape."""
    if not isinstance(error, dict):
        return Facts(provider=provider, message=str(error)[:2000], observed_at_wall=now_wall)

    fields = cast("Json", error)
    data = _maybe_object(fields.get("data"))
    headers = _maybe_object(data.get("responseHeaders"))
    return Facts(
        provider=provider,
        status=int(_number(data.get("statusCode"))) or None,
        headers={str(name): str(value) for name, value in headers.items()},
        body=data.get("responseBody"),
        name=_maybe_text(fields, "name"),
        message=_maybe_text(data, "message") or _maybe_text(fields, "message"),
        observed_at_wall=now_wall,
    )


_PART_TYPES: Mapping[str, PartType] = {
    "text": PartType.TEXT,
    "reasoning": PartType.REASONING,
    "tool": PartType.TOOL,
    "compaction": PartType.COMPACTION,
}
_TOOL_STATUSES = ("pending", "running", "completed", "error")


def _part_updated(fields: Json, now_wall: float) -> Event:
    part = _object(fields.get("part"))
    kind = _PART_TYPES.get(_text(part, "type"), PartType.OTHER)
    status = _maybe_object(part.get("state")).get("status")
    return PartUpdated(
        session_id=_maybe_text(fields, "sessionID") or _text(part, "sessionID"),
        message_id=_text(part, "messageID"),
        part_id=_text(part, "id"),
        part_type=kind,
        has_content=bool(_maybe_text(part, "text")),
        tool_status=status if kind is PartType.TOOL and status in _TOOL_STATUSES else None,
        child_id=child_of(part),
    )


def child_of(part: Json) -> str | None:
    """The session of the subagent that a tool part has started."""
    state = _maybe_object(part.get("state"))
    return _maybe_text(_maybe_object(state.get("metadata")), "sessionId") if part.get("tool") == TASK_TOOL else None


def _part_delta(fields: Json, now_wall: float) -> Event:
    return PartDeltaReceived(
        session_id=_text(fields, "sessionID"),
        message_id=_text(fields, "messageID"),
        part_id=_text(fields, "partID"),
    )


def _message_removed(fields: Json, now_wall: float) -> Event:
    return MessageRemoved(session_id=_text(fields, "sessionID"), message_id=_text(fields, "messageID"))


def _session_error(fields: Json, now_wall: float) -> Event | None:
    session_id = _maybe_text(fields, "sessionID")
    if session_id is None:
        return None

    return SessionErrored(session_id=session_id, facts=parse_error(fields.get("error"), now_wall))


def _session_status(fields: Json, now_wall: float) -> Event | None:
    return parse_status(_text(fields, "sessionID"), fields.get("status"), now_wall)


def parse_status(session_id: str, value: object, now_wall: float) -> SessionStatusChanged | None:
    """A status as in session.status and GET /session/status; None for a type unknown here."""
    status = _object(value)
    kind = status.get("type")
    if kind not in ("busy", "idle", "retry"):
        return None

    if kind != "retry":
        return SessionStatusChanged(session_id=session_id, status=kind)

    attempt = int(_number(status.get("attempt")))
    facts = Facts(
        message=_maybe_text(status, "message"),
        host_retry_at_wall=_announced_retry(_number(status.get("next")) / 1000, attempt, now_wall),
        observed_at_wall=now_wall,
    )
    return SessionStatusChanged(session_id=session_id, status="retry", attempt=attempt, facts=facts)


def _announced_retry(next_wall: float, attempt: int, now_wall: float) -> float | None:
    """The host's next try where it comes from the provider's Retry-After, not from the host's own backoff.

    The backoff doubles from 2 s (2-2.4, 4-5, 10 s were seen) and stops at 30 s without a header.
    """
    own_backoff = min(2.5 * 2 ** min(max(attempt - 1, 0), 10) + 0.5, 35.0)
    return next_wall if next_wall - now_wall > own_backoff else None


def _session_idle(fields: Json, now_wall: float) -> Event:
    return SessionIdled(session_id=_text(fields, "sessionID"))


def _session_compacted(fields: Json, now_wall: float) -> Event:
    return SessionCompacted(session_id=_text(fields, "sessionID"))


def _tool_executed(fields: Json, now_wall: float) -> Event:
    return ToolExecuted(session_id=_text(fields, "sessionID"))


def _session_created(fields: Json, now_wall: float) -> Event:
    info = _object(fields.get("info"))
    return SessionCreated(session_id=_text(info, "id"), parent_id=_maybe_text(info, "parentID"))


def _session_deleted(fields: Json, now_wall: float) -> Event:
    return SessionDeleted(session_id=_text(_object(fields.get("info")), "id"))


_PARSERS: Mapping[str, Callable[[Json, float], Event | None]] = {
    "message.updated": _message_updated,
    "message.part.updated": _part_updated,
    "message.part.delta": _part_delta,
    "message.removed": _message_removed,
    "session.error": _session_error,
    "session.status": _session_status,
    "session.idle": _session_idle,
    "session.compacted": _session_compacted,
    "session.created": _session_created,
    "session.deleted": _session_deleted,
    # Not the host's own: the plugin inside it tells of the hook of that name.
    "tool.executed": _tool_executed,
}


def parse_history(messages: object, now_wall: float) -> tuple[UserMessage | None, tuple[InspectedMessage, ...]]:
    """The newest user message of a history and the assistant messages that answer it, oldest first.

    Raises:
        MalformedEvent: the history is not a list of messages.
    """
    if not isinstance(messages, list):
        raise MalformedEvent

    entries = [_object(entry) for entry in cast("list[object]", messages)]
    parsed = [(parse_message(_object(entry.get("info")), now_wall), entry) for entry in entries]
    users = [message for message, _ in parsed if isinstance(message, UserMessage)]
    if not users:
        return None, ()

    newest = max(users, key=lambda user: user.created_wall)
    asks_for_summary = any(message is newest and _has_part(entry, "compaction") for message, entry in parsed)
    answers = tuple(
        _inspected(message, entry.get("parts"))
        for message, entry in parsed
        if isinstance(message, AssistantMessage) and message.parent_id == newest.message_id
    )
    return replace(newest, compaction=asks_for_summary), answers


def _has_part(entry: Json, kind: str) -> bool:
    parts = entry.get("parts")
    listed = cast("list[object]", parts) if isinstance(parts, list) else []
    return any(_maybe_object(part).get("type") == kind for part in listed)


def _inspected(message: AssistantMessage, parts: object) -> InspectedMessage:
    has_text = has_finished_tool = False
    running: set[str] = set()
    children: list[tuple[str, str]] = []
    tail: list[str] = []
    for entry in cast("list[object]", parts) if isinstance(parts, list) else []:
        part = _maybe_object(entry)
        part_id, kind = _maybe_text(part, "id") or "", part.get("type")
        if kind == "tool":
            has_finished_tool, tail = True, []
            if _maybe_object(part.get("state")).get("status") in ("pending", "running"):
                running.add(part_id)
                child_id = child_of(part)
                children += [(child_id, part_id)] if child_id else []
        elif kind in ("text", "reasoning") and _maybe_text(part, "text"):
            has_text = True
            tail.append(part_id)

    return InspectedMessage(
        message=message,
        has_text=has_text,
        has_finished_tool=has_finished_tool,
        running_tools=frozenset(running),
        tail_parts=tuple(tail),
        children=tuple(children),
    )
