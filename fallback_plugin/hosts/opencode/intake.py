"""What the host tells, on its way to the plugin: counted, parsed, without repeats."""

from __future__ import annotations

import time
from collections import Counter
from typing import cast

from fallback_plugin.hosts.opencode.events import MalformedEvent, parse_event
from fallback_plugin.hosts.opencode.task_calls import TaskCalls
from fallback_plugin.runtime.plugin import FallbackPlugin


class Intake:
    """Hands the host's events to a plugin.

    Args:
        plugin: who handles them.

    Attributes:
        counts: events seen, and those skipped, by reason.
    """

    def __init__(self, plugin: FallbackPlugin) -> None:
        self.counts: Counter[str] = Counter()
        self._plugin = plugin
        self._last_id: str | None = None
        self._calls = TaskCalls()

    def take(self, raw: object) -> str | None:
        """Parse and handle one decoded event; what can't be read is skipped.

        Args:
            raw: `{id, type, properties}`.

        Returns:
            The type of an event that says nothing to the plugin, None for any other.
        """
        try:
            event = parse_event(raw, time.time())
        except (MalformedEvent, RecursionError):
            self.counts["malformed"] += 1
            return None

        fields = cast("dict[str, str | None]", raw)
        identity = fields.get("id")
        if identity is not None and identity == self._last_id:
            self.counts["duplicate"] += 1
            return None

        self._last_id = identity
        event = self._calls.complete(event, raw)
        if event is None:
            self.counts["passed over"] += 1
            return fields.get("type")

        self._plugin.handle(event)
        return None
