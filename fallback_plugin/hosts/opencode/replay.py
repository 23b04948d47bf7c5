"""Sending a turn again as a new message, where the host refuses to resume it in place (S13).

Tiers, each with fewer kinds of parts: everything; text and files; text alone. A tier that would send what the
one before sent, or nothing, is left out. Ids are not copied: part ids are primary keys of the host, and a copy
of one leaves an empty message behind (opencode-host.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

_HOST_KEYS = frozenset({"id", "messageID", "sessionID", "time"})
_SENT = frozenset({"text", "file", "agent", "subtask"})
_TIERS = (_SENT, frozenset({"text", "file"}), frozenset({"text"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayTier:
    """What one try sends.

    Attributes:
        parts: the parts, without the host's ids.
        dropped: types of the message's parts that are not among them.
    """

    parts: list[dict[str, Any]]
    dropped: tuple[str, ...]


def replay_tiers(message: object) -> list[ReplayTier]:
    """The tries for a message as GET /session/{id}/message/{messageID} returns it, fullest first."""
    found = cast("dict[str, Any]", message).get("parts") if isinstance(message, dict) else None
    listed = cast("list[object]", found) if isinstance(found, list) else []
    parts = [cast("dict[str, Any]", part) for part in listed if isinstance(part, dict)]
    # What the host itself derived from the user's parts, it derives again.
    own = [part for part in parts if not part.get("synthetic") and part.get("type") != "compaction"]
    tiers: list[ReplayTier] = []
    for kinds in _TIERS:
        sent = [part for part in own if part.get("type") in kinds]
        if not sent or (tiers and len(sent) == len(tiers[-1].parts)):
            continue

        dropped = sorted({str(part.get("type")) for part in own if part.get("type") not in kinds})
        tiers.append(ReplayTier(parts=[_without_ids(part) for part in sent], dropped=tuple(dropped)))

    return tiers


def _without_ids(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in _HOST_KEYS}
