"""What sessions of one family tell each other; when and why stands in `core.family` and `core.subagents`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentKnown:
    """A session tells its subagent's who it is.

    Attributes:
        parent_id: the session that waits for this one.
        lineage: the agents of that session and of its own ancestors, nearest first.
        asks: whether it wants to hear how this session stands.
    """

    session_id: str
    parent_id: str
    lineage: tuple[str, ...] = ()
    asks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFailed:
    """A subagent's session is about to be carried on, and waits for this one to settle."""

    session_id: str
    child_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnded:
    """A subagent's session is at rest.

    Attributes:
        outcome: answered, as far as is known; exhausted: every model has failed; stopped by the user.
        reason: one sentence for the result of the tool where there is no answer.
    """

    session_id: str
    child_id: str
    outcome: Literal["answered", "exhausted", "stopped"] = "answered"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentSettled:
    """The session that waits for this one no longer holds it: it may be dispatched."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentStopped:
    """The user has stopped the session that waits for this one."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSpliced:
    """A subagent's answer was put in the place of its tool call's result.

    Attributes:
        outcome: done; unfinished: the tool still runs, and would write over it; unavailable: the host did not do it.
    """

    session_id: str
    child_id: str
    outcome: Literal["done", "unfinished", "unavailable"]
