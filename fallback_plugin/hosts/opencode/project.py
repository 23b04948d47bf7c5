"""The plugin on one directory of an OpenCode that has loaded us: configuration, store, events, prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from fallback_plugin.config.load import ConfigSource, LoadedConfig
from fallback_plugin.config.schema import Settings
from fallback_plugin.config.watch import watch_config
from fallback_plugin.core.actions import Announce
from fallback_plugin.core.policy import Rules
from fallback_plugin.core.routing import Prompt
from fallback_plugin.errors import ConfigurationError, HostError
from fallback_plugin.hosts.opencode.client import OpenCodeClient
from fallback_plugin.hosts.opencode.host import OpenCodeHost
from fallback_plugin.hosts.opencode.intake import Intake
from fallback_plugin.hosts.opencode.rules import RulesMaker, rules_maker
from fallback_plugin.runtime.host import Toast
from fallback_plugin.runtime.observe import as_record
from fallback_plugin.runtime.plugin import FallbackPlugin
from fallback_plugin.stores.base import Store
from fallback_plugin.stores.degrading import DegradingStore
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.stores.url import default_url, open_store


class Say(Protocol):
    """Writes a line into the log."""

    def __call__(self, text: str, **fields: object) -> None:
        """Write `text`, with facts for machines beside it."""
        ...


TOAST_DELAY = 3.0
"""Seconds until a terminal that is starting shows toasts."""
EARLY_EVENTS = 10_000
"""Events kept while the plugin starts."""


class Project:
    """One directory of the host.

    Args:
        directory: its path.
        client: calls to the host, for that directory.
        say: called with a line for the log.
    """

    def __init__(self, directory: str, client: OpenCodeClient, say: Say) -> None:
        self._directory = directory
        self._client = client
        self._say = say
        self._host = OpenCodeHost(client)
        self._host_config: object = {}
        self._rules_of: RulesMaker = lambda config: Rules()
        self._plugin: FallbackPlugin | None = None
        self._intake: Intake | None = None
        self._early: list[object] = []
        self._closed = anyio.Event()

    def configure(self, host_config: object) -> None:
        """Take the host's own configuration into account, from the next decision on."""
        self._host_config = host_config
        if self._plugin is not None:
            self._plugin.reload(self._rules_of(host_config))

    def handle(self, raw: object) -> None:
        """Handle one event of the host."""
        if self._intake is not None:
            self._intake.take(raw)
        elif len(self._early) < EARLY_EVENTS:
            self._early.append(raw)

    def close(self) -> None:
        """End `run`."""
        self._closed.set()

    async def route_prompt(self, prompt: Prompt) -> str:
        """The route that a prompt goes to; its own while the plugin starts."""
        return prompt.route if self._plugin is None else await self._plugin.route_prompt(prompt)

    def created_wall(self, prompt: Prompt) -> float | None:
        """When the user message was created that a prompt resumes; None for a new one, or one not known here."""
        session = self._plugin.sessions.get(prompt.session_id) if self._plugin else None
        if session is None or session.turn is None:
            return None

        known = (session.turn.user, session.queued)
        return next((user.created_wall for user in known if user and user.message_id == prompt.message_id), None)

    async def run(self) -> None:
        """Carry turns on until `close`; may be called again after it has failed."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._serve)
                await self._closed.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._plugin = self._intake = None

        await self._client.close()

    async def _serve(self) -> None:
        loaded = await self._load()
        self._rules_of = rules_maker(loaded.settings, self._say)
        store = await self._open_store(loaded)
        plugin = FallbackPlugin(self._host, Rules(), observer=self._observe, store=store, place=self._directory)
        async with plugin, anyio.create_task_group() as tasks:
            self._begin(plugin)
            tasks.start_soon(self._watch, loaded, tasks)
            if isinstance(store, DegradingStore):
                tasks.start_soon(store.run)

            await self.catch_up()
            path = loaded.path or "no configuration file"
            self._say(f"{self._directory}: ready ({path})", ready=True, directory=self._directory)

    async def catch_up(self) -> None:
        """Look at the sessions that are at work."""
        try:
            at_work = await self._host.sessions_at_work()
        except HostError as error:
            self._say(f"sessions at work are not known: {error}")
            at_work = []

        if self._plugin is not None:
            self._plugin.catch_up(at_work)

    def _begin(self, plugin: FallbackPlugin) -> None:
        self._plugin, self._intake = plugin, Intake(plugin)
        self.configure(self._host_config)
        for raw in self._early:
            self._intake.take(raw)

        self._early.clear()

    async def _load(self) -> LoadedConfig:
        """The configuration; a broken file, of which the watch tells, must not cost the chains of the host's own."""
        try:
            loaded = await to_thread.run_sync(self._source.load)
        except ConfigurationError:
            return LoadedConfig(settings=Settings())

        for warning in loaded.warnings:
            self._say(f"warning: {warning}")

        return loaded

    @property
    def _source(self) -> ConfigSource:
        return ConfigSource(directory=Path(self._directory))

    async def _open_store(self, loaded: LoadedConfig) -> Store:
        try:
            store = DegradingStore(
                open_store(loaded.settings.store or default_url()), lambda notice: self._say(notice.text)
            )
            await store.open()
        except ConfigurationError as error:
            self._say(f"{error}; nothing is shared with other processes")
            return MemoryStore()

        return store

    async def _watch(self, loaded: LoadedConfig, tasks: TaskGroup) -> None:
        async def on_change(changed: LoadedConfig) -> None:
            self._rules_of = rules_maker(changed.settings, self._say)
            self.configure(self._host_config)
            text = f"configuration reloaded from {changed.path or 'the defaults'}"
            self._say(text, reloaded=True, calls=self._client.calls)

        async def on_error(error: ConfigurationError) -> None:
            self._say(f"{error}\nthe last good configuration stays in force")
            tasks.start_soon(self._complain, str(error))

        await watch_config(self._source, on_change, on_error, current=loaded)

    async def _complain(self, fault: str) -> None:
        await anyio.sleep(TOAST_DELAY)
        try:
            await self._host.show(Toast(title="fallback-plugin", message=fault.partition("\n")[0], variant="error"))
        except HostError:
            return

    def _observe(self, notice: Announce, now: float) -> None:
        record = as_record(notice, now)
        self._say(f"{notice.session_id}  {record.pop('text')}", **record, calls=self._client.calls)
