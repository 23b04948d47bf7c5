"""What is told of the shared store: that it is out, and that it is back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

logger = logging.getLogger("fallback_plugin.stores")


class StoreNoticeType(StrEnum):
    """What happened to the store."""

    DEGRADED = "degraded"
    BACK = "back"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreNotice:
    """Told once when the store goes out, and once when it is back.

    Attributes:
        reason: why it is out; empty when it is back.
        seconds: how long it was out.
        written: records, leases, streams and aliases that were brought back.
        conflicts: how many of them others had written to meanwhile.
    """

    notice: StoreNoticeType
    reason: str = ""
    seconds: float = 0.0
    written: int = 0
    conflicts: int = 0

    @property
    def text(self) -> str:
        """As one human sentence."""
        if self.notice is StoreNoticeType.DEGRADED:
            return f"the shared store is out ({self.reason}); going on with what this process knows"

        met = f", {self.conflicts} of them written by others too" if self.conflicts else ""
        return f"the shared store is back after {self.seconds:.0f} s; {self.written} changes brought back{met}"


StoreObserver = Callable[[StoreNotice], None]


def log_notice(notice: StoreNotice) -> None:
    """The observer that logs."""
    level = logging.WARNING if notice.notice is StoreNoticeType.DEGRADED else logging.INFO
    logger.log(level, notice.text)
