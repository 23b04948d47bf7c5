"""Which session a call of OpenCode's `task` tool has started, where its part does not say so.

The host runs a tool while it still writes down that it was called. The tool makes the session, and then names it in its
part; if the part is not there yet, or is overwritten by the news that the tool runs, the name is lost until the tool
has ended (tests/e2e/OBSERVATIONS.md, Subagents). What is left is the title, which the host makes out of the call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from fallback_plugin.core.events import Event, PartUpdated, SessionCreated
from fallback_plugin.errors import HostError
from fallback_plugin.hosts.opencode.client import OpenCodeClient
from fallback_plugin.hosts.opencode.events import TASK_TOOL, child_of

Json = Mapping[str, Any]

CHILDREN_KEPT = 256
"""Sessions of subagents that no part has named yet; they are named within milliseconds."""


class TaskCalls:
    """Completes events of parts that have lost the name of their subagent's session."""

    def __init__(self) -> None:
        self._unnamed: deque[tuple[str, str, str]] = deque(maxlen=CHILDREN_KEPT)

    def complete(self, event: Event | None, raw: object) -> Event | None:
        """The event, with the session that its part's call has started.

        Args:
            event: as it was parsed.
            raw: what it was parsed from.
        """
        if isinstance(event, SessionCreated) and event.parent_id is not None:
            info = _object(_properties(raw).get("info"))
            self._unnamed.append((event.parent_id, str(info.get("title")), event.session_id))
        elif isinstance(event, PartUpdated) and event.child_id is not None:
            self._forget(event.child_id)
        elif isinstance(event, PartUpdated) and event.tool_status == "running":
            return replace(event, child_id=self._find(event.session_id, _object(_properties(raw).get("part"))))

        return event

    def _find(self, parent_id: str, part: Json) -> str | None:
        call = (parent_id, title_of(part))
        child_id = next((child for *made_by, child in self._unnamed if tuple(made_by) == call), None)
        if child_id is not None:
            self._forget(child_id)

        return child_id

    def _forget(self, child_id: str) -> None:
        for known in [known for known in self._unnamed if known[-1] == child_id]:
            self._unnamed.remove(known)


async def name_children(client: OpenCodeClient, session_id: str, history: object) -> None:
    """Write into a history which sessions the calls at work have started, as far as that can be told.

    Args:
        client: calls to the server.
        session_id: whose history it is.
        history: its messages as the server gave them; parts are changed in place.
    """
    parts = [part for message in _objects(history) for part in _objects(message.get("parts"))]
    nameless = [part for part in parts if title_of(part) is not None and child_of(part) is None and _is_at_work(part)]
    if not nameless:
        return

    try:
        children = _objects(await client.get(f"/session/{session_id}/children"))
    except HostError:
        return

    named = {child_of(part) for part in parts}
    unnamed = sorted((child for child in children if child.get("id") not in named), key=_created)
    # From the end: earlier calls of that title may have lost the name for good.
    for part in reversed(nameless):
        mine = [child for child in unnamed if child.get("title") == title_of(part)]
        if mine:
            unnamed.remove(mine[-1])
            state = cast("dict[str, Any]", part["state"])
            state["metadata"] = {**_object(state.get("metadata")), "sessionId": mine[-1].get("id")}


def title_of(part: Json) -> str | None:
    """The title that the host gives the session which a call starts; None for a part that is no such call."""
    asked = _object(_object(part.get("state")).get("input"))
    description, agent = asked.get("description"), asked.get("subagent_type")
    return f"{description} (@{agent} subagent)" if part.get("tool") == TASK_TOOL and description and agent else None


def _is_at_work(part: Json) -> bool:
    return _object(part.get("state")).get("status") in ("pending", "running")


def _created(session: Json) -> float:
    created = _object(session.get("time")).get("created")
    return float(created) if isinstance(created, int | float) else 0.0


def _properties(raw: object) -> Json:
    return _object(_object(raw).get("properties"))


def _object(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _objects(value: object) -> list[Json]:
    return [_object(each) for each in cast("list[object]", value)] if isinstance(value, list) else []
