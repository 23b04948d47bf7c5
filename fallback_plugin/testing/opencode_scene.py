"""One test's part of a shared OpenCode server: an agent and models of its own, conversations, events.

A server takes seconds to start, so many tests share one. `SceneNames` lays out the agents and models
of each when the server is configured; every test takes one set, so that scripts and records never mix.

    async with Scene.open(server, provider, SceneNames("a1")) as scene:
        provider.script(scene.primary, Fail(429))
        conversation = await scene.conversation()
        await conversation.prompt("say hi")
        await conversation.wait_for_event("session.status", lambda it: it["status"]["type"] == "retry")
        await conversation.abort()
        assert await conversation.history() == [("user", "say hi")]
"""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import httpx
from httpx_sse import aconnect_sse

from fallback_plugin.testing.opencode import PROVIDER, OpenCodeAgent
from fallback_plugin.testing.opencode_conversation import Conversation, SeenEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fallback_plugin.testing.opencode import OpenCodeServer
    from fallback_plugin.testing.provider import FaultyProvider

_CONNECT_SECONDS = 10.0
_RECONNECT_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class SceneNames:
    """The names that one test uses on a shared server, all derived from the agent's."""

    agent: str
    """The agent with `primary` as its model and `second`, `third` as its chain."""

    @property
    def bare_agent(self) -> str:
        """An agent without a model and without a chain."""
        return f"{self.agent}-bare"

    @property
    def asking_agent(self) -> str:
        """As `agent`, but it must ask before it runs a command."""
        return f"{self.agent}-asks"

    @property
    def worker(self) -> str:
        """A subagent with a model and a chain of its own, see `worker_models`."""
        return f"{self.agent}-worker"

    @property
    def helper(self) -> str:
        """As `worker`, with a model of its own (`helper_model`) and the same fallbacks."""
        return f"{self.agent}-helper"

    @property
    def heir(self) -> str:
        """A subagent on the worker's model without a chain: it inherits its parent's."""
        return f"{self.agent}-heir"

    @property
    def deputy(self) -> str:
        """A subagent on `deputy_model` that may start subagents itself."""
        return f"{self.agent}-deputy"

    @property
    def worker_models(self) -> tuple[str, str, str]:
        """The worker's model and its two fallbacks."""
        return (f"{self.worker}-primary", f"{self.worker}-second", f"{self.worker}-third")

    @property
    def helper_model(self) -> str:
        """The helper's own model."""
        return f"{self.helper}-primary"

    @property
    def deputy_model(self) -> str:
        """The deputy's own model."""
        return f"{self.deputy}-primary"

    @property
    def subagents(self) -> tuple[OpenCodeAgent, ...]:
        """The subagents to configure."""
        primary, *chain = (route(model) for model in self.worker_models)
        fallbacks = tuple(chain)
        may_delegate = {"bash": "allow", "edit": "allow", "webfetch": "deny", "task": "allow"}

        return (
            OpenCodeAgent(name=self.worker, model=primary, fallback_models=fallbacks, mode="subagent"),
            OpenCodeAgent(name=self.helper, model=route(self.helper_model), fallback_models=fallbacks, mode="subagent"),
            OpenCodeAgent(name=self.heir, model=primary, mode="subagent"),
            OpenCodeAgent(name=self.deputy, model=route(self.deputy_model), mode="subagent", permission=may_delegate),
        )

    @property
    def models(self) -> tuple[str, str, str]:
        """The names of the three models, primary first."""
        return (f"{self.agent}-primary", f"{self.agent}-second", f"{self.agent}-third")

    @property
    def agents(self) -> tuple[OpenCodeAgent, ...]:
        """The agents to configure."""
        primary, *chain = (route(model) for model in self.models)
        asks = {"bash": "ask", "edit": "ask"}

        return (
            OpenCodeAgent(name=self.agent, model=primary, fallback_models=tuple(chain)),
            OpenCodeAgent(name=self.bare_agent),
            OpenCodeAgent(name=self.asking_agent, model=primary, fallback_models=tuple(chain), permission=asks),
        )


def route(model: str) -> str:
    """Give `provider/model` for a model of the scripted provider.

    Args:
        model: the model's name.
    """
    return f"{PROVIDER}/{model}"


class Scene:
    """A test's agent, models, conversations and event log on a shared server; see `Scene.open`."""

    def __init__(self, client: httpx.AsyncClient, provider: FaultyProvider, names: SceneNames) -> None:
        self.client = client
        """For calls that the scene has no word for."""
        self.provider = provider
        self.names = names
        self.events: list[SeenEvent] = []
        """Everything the server has told since the scene was opened, of all sessions."""
        self._by_session: dict[str, list[SeenEvent]] = {}
        self._following = anyio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, server: OpenCodeServer, provider: FaultyProvider, names: SceneNames) -> AsyncGenerator[Scene]:
        """Open a scene and follow the server's events until it is left.

        Args:
            server: a running server that was configured with the names' agents and models.
            provider: the provider that the server asks.
            names: what this scene may use.
        """
        failure: Exception | None = None
        async with server.client() as client, anyio.create_task_group() as tasks:
            scene = cls(client, provider, names)
            tasks.start_soon(scene._follow)
            with anyio.fail_after(_CONNECT_SECONDS):
                await scene._following.wait()

            try:
                yield scene
            except Exception as error:  # noqa: BLE001 - raised below, where no task group wraps it
                failure = error

            tasks.cancel_scope.cancel()

        if failure is not None:
            raise failure

    @property
    def agent(self) -> str:
        """The agent with a chain."""
        return self.names.agent

    @property
    def primary(self) -> str:
        """The agent's own model."""
        return self.names.models[0]

    @property
    def second(self) -> str:
        """The first fallback."""
        return self.names.models[1]

    @property
    def third(self) -> str:
        """The second fallback."""
        return self.names.models[2]

    def events_of(self, session: str) -> list[SeenEvent]:
        """Give what the server has told about one session.

        Args:
            session: the session's id.
        """
        return list(self._by_session.get(session, ()))

    async def warm_up(self, agent: str = "build", *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - a time limit is its contract
        """Have one turn answered: the first of a server takes seconds, whatever it is.

        Args:
            agent: who answers; by default one of the host's own, on the default model.
            timeout: seconds that it may take.
        """
        conversation = await self.conversation(agent=agent)
        await conversation.prompt("warm up")
        await conversation.wait_until_answered(timeout=timeout)

    async def conversation(self, *, agent: str | None = None, parent: str | None = None) -> Conversation:
        """Start a new session.

        Args:
            agent: whom its prompts go to, the scene's agent where None.
            parent: the id of the session that it is a child of.
        """
        response = await self.client.post("/session", json={"parentID": parent} if parent else {})
        response.raise_for_status()

        return Conversation(self, str(response.json()["id"]), agent or self.agent)

    async def _follow(self) -> None:
        while True:
            # The stream ends with the server, whose restart a test may want to watch.
            with suppress(httpx.TransportError):
                await self._follow_once()

            await anyio.sleep(_RECONNECT_SECONDS)

    async def _follow_once(self) -> None:
        async with aconnect_sse(self.client, "GET", "/event", timeout=None) as source:
            async for received in source.aiter_sse():
                if not received.data:
                    continue

                told = json.loads(received.data)
                event = SeenEvent(at=time.monotonic(), type=told["type"], properties=told["properties"])
                self.events.append(event)
                self._by_session.setdefault(event.session, []).append(event)
                self._following.set()
