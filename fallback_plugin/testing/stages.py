"""Where a story is played: the loopback host in this process, or the real OpenCode server."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from fallback_plugin.hosts.opencode.attachment import Attachment
from fallback_plugin.hosts.opencode.client import OpenCodeClient
from fallback_plugin.runtime.plugin import FallbackPlugin
from fallback_plugin.testing.chronicle import Chronicle
from fallback_plugin.testing.loopback_host import LoopbackHost
from fallback_plugin.testing.opencode import PROVIDER, OpenCodeAgent, OpenCodeServer, opencode_config
from fallback_plugin.testing.opencode_conversation import Conversation
from fallback_plugin.testing.opencode_scene import Scene, SceneNames
from fallback_plugin.testing.story import AGENT, CHAIN, ROUTES, RULES

QUIET_SECONDS = 0.8
"""A turn is over when nothing has been heard of it for so long; a hop's own pause is below 0.2 s."""
_READY_SECONDS = 10.0
_TAKEN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopbackStage:
    """The loopback host."""

    host: LoopbackHost
    plugin: FallbackPlugin
    project: Path
    name: str = "a small host in this process"

    async def open_session(self) -> str:
        """Start a session; gives its id."""
        return self.host.open_session()

    async def prompt(self, session_id: str, text: str) -> None:
        """Say something as the user."""
        self.host.prompt(session_id, text, agent=AGENT)

    async def settle(self, session_id: str) -> None:
        """Wait until host and plugin are at rest."""
        await self.host.wait_until_quiet(session_id, QUIET_SECONDS)
        while session_id in self.plugin.retry_in_flight:
            await self.host.wait_until_quiet(session_id, QUIET_SECONDS)

    async def history(self, session_id: str) -> list[tuple[str, str]]:
        """Role and text of each message."""
        return self.host.history(session_id)


@asynccontextmanager
async def loopback_stage(chronicle: Chronicle) -> AsyncGenerator[LoopbackStage]:
    """The loopback host with the plugin at work on it.

    Args:
        chronicle: observes the plugin; its provider is what the host asks.
    """
    base_url = chronicle.provider.base_url
    providers = {route.partition("/")[0]: base_url for route in CHAIN}
    with tempfile.TemporaryDirectory(prefix="fallback-plugin-") as directory:
        project = Path(directory)

        async def bash(arguments: Mapping[str, Any]) -> str:
            done = await anyio.run_process(["sh", "-c", str(arguments["command"])], cwd=project, check=False)
            return done.stdout.decode(errors="replace")

        host = LoopbackHost(providers, agents={AGENT: CHAIN[0]}, tools={"bash": bash})
        async with host, FallbackPlugin(host, RULES, observer=chronicle.observe) as plugin:
            host.subscribe(plugin.handle)
            yield LoopbackStage(host=host, plugin=plugin, project=project)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCodeStage:
    """The real OpenCode server with the plugin attached."""

    scene: Scene
    plugin: FallbackPlugin
    project: Path
    name: str
    conversations: dict[str, Conversation] = field(default_factory=dict[str, Conversation])

    async def open_session(self) -> str:
        """Start a session; gives its id."""
        conversation = await self.scene.conversation(agent=AGENT)
        self.conversations[conversation.id] = conversation
        return conversation.id

    async def prompt(self, session_id: str, text: str) -> None:
        """Say something as the user; the host has taken it when it says that it works."""
        conversation = self.conversations[session_id]
        asked_at = anyio.current_time()
        await conversation.prompt(text)
        await conversation.wait_for_event(
            "session.status",
            lambda properties: properties["status"]["type"] == "busy",
            since=asked_at,
            timeout=_TAKEN_SECONDS,
        )

    async def settle(self, session_id: str) -> None:
        """Wait until host and plugin are at rest."""
        conversation = self.conversations[session_id]
        await conversation.wait_until_idle(quiet=QUIET_SECONDS)
        while session_id in self.plugin.retry_in_flight:
            await conversation.wait_until_idle(quiet=QUIET_SECONDS)

    async def history(self, session_id: str) -> list[tuple[str, str]]:
        """Role and text of each message."""
        return await self.conversations[session_id].history()


@asynccontextmanager
async def opencode_stage(binary: Path, chronicle: Chronicle) -> AsyncGenerator[OpenCodeStage]:
    """The real OpenCode server with the plugin attached as `fallback-plugin attach` does it.

    Args:
        binary: the OpenCode binary, see `find_opencode`.
        chronicle: observes the plugin; its provider is what the server asks.

    Raises:
        HostUnavailable: the server does not start.
    """
    base_url = chronicle.provider.base_url
    async with (
        OpenCodeServer(binary, config=_config(base_url)) as server,
        Scene.open(server, chronicle.provider, SceneNames(AGENT)) as scene,
    ):
        await scene.warm_up()
        async with _attached(server.url, chronicle) as plugin:
            name = f"OpenCode {await _version(scene)}"
            yield OpenCodeStage(scene=scene, plugin=plugin, project=server.project, name=name)


@asynccontextmanager
async def _attached(url: str, chronicle: Chronicle) -> AsyncGenerator[FallbackPlugin]:
    async with anyio.create_task_group() as tasks:
        client = OpenCodeClient(url)
        attachment = Attachment(client, lambda host_config: RULES, observer=chronicle.observe)
        stop, ready = anyio.Event(), anyio.Event()
        tasks.start_soon(lambda: attachment.run(stop, on_ready=ready.set))
        with anyio.fail_after(_READY_SECONDS):
            await ready.wait()

        try:
            yield attachment.plugin
        finally:
            stop.set()
            with anyio.CancelScope(shield=True):
                await client.close()


def _config(base_url: str) -> dict[str, Any]:
    """The scripted provider under one id for each route, and the host's side jobs on a model of their own."""
    config = opencode_config(base_url, agents=[OpenCodeAgent(name=AGENT, model=CHAIN[0])], models=())
    providers = config["provider"]
    for model, route in ROUTES.items():
        own = opencode_config(base_url, models=(model,))["provider"][PROVIDER]
        providers[route.partition("/")[0]] = {**own, "models": {model: own["models"][model]}}

    return config


async def _version(scene: Scene) -> str:
    response = await scene.client.get("/global/health")
    return str(response.json()["version"])
