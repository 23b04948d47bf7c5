"""Following a running OpenCode server: connect, check, catch up, read events, come back after a drop."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

import anyio

from fallback_plugin.core.policy import Rules
from fallback_plugin.errors import HostError, HostRefused
from fallback_plugin.hosts.opencode.client import OpenCodeClient
from fallback_plugin.hosts.opencode.host import OpenCodeHost
from fallback_plugin.hosts.opencode.intake import Intake
from fallback_plugin.hosts.opencode.rules import RulesMaker
from fallback_plugin.runtime.observe import Observer
from fallback_plugin.runtime.plugin import FallbackPlugin
from fallback_plugin.stores.base import Store

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds before the event stream is opened again: doubled for each try, up to the second."""
EVENT_BYTES = 8 * 1024 * 1024
"""A larger event is counted and skipped: nothing that is needed is that large."""
DRAIN_PATIENCE = 8.0
"""Seconds that hops under way get to finish when the process is asked to end."""

NEEDED_OPERATIONS = {
    "/event": "get",
    "/config": "get",
    "/session/status": "get",
    "/session/{sessionID}/message": "get",
    "/session/{sessionID}/message/{messageID}": "delete",
    "/session/{sessionID}/message/{messageID}/part/{partID}": "delete",
    "/session/{sessionID}/prompt_async": "post",
    "/session/{sessionID}/abort": "post",
    "/tui/show-toast": "post",
}
"""What the server must offer, as its GET /doc names it."""


async def check_server(client: OpenCodeClient) -> None:
    """Make sure that an OpenCode server with every operation needed answers.

    Raises:
        HostUnavailable: nobody answers.
        HostRefused: the password is wrong, it is not an OpenCode server, or an operation is missing.
    """
    try:
        document = await client.get("/doc")
    except HostRefused as refusal:
        if refusal.status == 401:
            raise

        message = f"{client.url} is not an OpenCode server: GET /doc is not its OpenAPI document"
        raise HostRefused(message, status=refusal.status) from refusal

    paths = cast("Any", document).get("paths") if isinstance(document, dict) else None
    if not isinstance(paths, dict) or "/session" not in paths:
        message = f"{client.url} is not an OpenCode server: GET /doc is not its OpenAPI document"
        raise HostRefused(message)

    missing = _missing_operations(cast("Mapping[str, Any]", paths))
    if missing:
        message = f"the OpenCode at {client.url} lacks {', '.join(missing)}; update it (1.18.33 has them)"
        raise HostRefused(message)


def _missing_operations(paths: Mapping[str, Any]) -> list[str]:
    offered = {_shape(path): cast("object", verbs) for path, verbs in paths.items()}
    return [
        f"{method.upper()} {path}"
        for path, method in NEEDED_OPERATIONS.items()
        if not _offers(offered.get(_shape(path)), method)
    ]


def _offers(verbs: object, method: str) -> bool:
    return isinstance(verbs, dict) and method in verbs


def _shape(path: str) -> str:
    """A path with its parameters' names left out; they have changed between versions."""
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


class Attachment:
    """One plugin on one server.

    Args:
        client: calls to the server.
        rules_of: makes the policies out of the server's own configuration (the JSON of GET /config).
        store: what processes share and what outlives this one; in memory if None.
        observer: called with every notice.
        on_line: called with what the attachment itself has to say (connected, lost, back).

    Attributes:
        plugin: the plugin, while `run` runs.
    """

    def __init__(
        self,
        client: OpenCodeClient,
        rules_of: RulesMaker,
        *,
        store: Store | None = None,
        observer: Observer | None = None,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._client = client
        self._host = OpenCodeHost(client)
        self._rules_of = rules_of
        self._host_config: object = {}
        self.plugin = FallbackPlugin(self._host, Rules(), observer=observer, store=store, place=client.place)
        self._intake = Intake(self.plugin)
        self._on_line = on_line

    async def run(self, stop: anyio.Event, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Follow the server until `stop` is set; then let the hops under way finish.

        Args:
            stop: set it to end the run.
            on_ready: called once, when events are being read and sessions at work were found.
        """
        await self._read_host_config()
        async with self.plugin, anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, on_ready)
            await stop.wait()
            await self.plugin.drain(DRAIN_PATIENCE)
            tasks.cancel_scope.cancel()

    @property
    def counts(self) -> Counter[str]:
        """Events seen, and those skipped, by reason."""
        return self._intake.counts

    def reload(self, rules_of: RulesMaker) -> None:
        """Put another configuration in force, from the next decision on."""
        self._rules_of = rules_of
        self.plugin.reload(rules_of(self._host_config))

    async def _read_host_config(self) -> None:
        try:
            self._host_config = await self._client.get("/config")
        except HostError as error:
            self._on_line(f"the server's own configuration is not known: {error}")

        self.plugin.reload(self._rules_of(self._host_config))

    async def _follow(self, on_ready: Callable[[], None]) -> None:
        pause = FIRST_PAUSE
        connected_before = False
        while True:
            try:
                async with self._client.events() as events:
                    async for data in events:
                        if self.read(data) == "server.connected":
                            await self._catch_up(again=connected_before)
                            if not connected_before:
                                on_ready()
                            connected_before, pause = True, FIRST_PAUSE
            except HostError as error:
                self.counts["dropped"] += 1
                self._on_line(f"{error}; trying again in {pause:g} s")

            await anyio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _catch_up(self, *, again: bool) -> None:
        """Find the sessions at work: at the start, and after a gap in the events."""
        if again:
            self._on_line("the event stream is back")
            await self._read_host_config()

        try:
            at_work = await self._host.sessions_at_work()
        except HostError as error:
            self._on_line(f"sessions at work are not known: {error}")
            at_work = []

        self.plugin.catch_up(at_work)

    def read(self, data: str) -> str | None:
        """Decode and handle one event of the stream; what can't be read is skipped."""
        self.counts["events"] += 1
        if len(data) > EVENT_BYTES:
            self.counts["too large"] += 1
            return None

        try:
            raw = json.loads(data)
        except (ValueError, RecursionError):
            self.counts["malformed"] += 1
            return None

        return self._intake.take(raw)
