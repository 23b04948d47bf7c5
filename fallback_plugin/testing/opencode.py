"""The real OpenCode server, started for a test or a demonstration and gone afterwards.

    agents = [OpenCodeAgent(name="coder", model="fake/primary", fallback_models=("fake/b", "fake/c"))]
    config = opencode_config(provider.base_url, agents=agents, models=("primary", "b", "c"))
    async with OpenCodeServer(find_opencode(), config=config) as server, server.client() as client:
        await client.post("/session", json={})

Each server has a home directory and a git project of its own, sees nothing of the user's
configuration, fetches nothing from the network and ends with its whole process group.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import anyio
import httpx

from fallback_plugin.errors import HostUnavailable
from fallback_plugin.testing.opencode_binary import find_opencode
from fallback_plugin.testing.opencode_workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

__all__ = ["PROVIDER", "OpenCodeAgent", "OpenCodeServer", "find_opencode", "opencode_config"]

PROVIDER = "fake"
"""The id under which `opencode_config` registers the scripted provider."""

_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_LOG_TAIL = 2_000


def _allow_everything() -> Mapping[str, str]:
    return {"bash": "allow", "edit": "allow", "webfetch": "deny"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCodeAgent:
    """One agent of the server's configuration."""

    name: str
    model: str | None = None
    """`provider/model`, None to use the configuration's default model."""
    fallback_models: tuple[str, ...] = ()
    """The agent's chain, as `provider/model`."""
    mode: str = "primary"
    """"primary", "subagent" or "all"."""
    permission: Mapping[str, str] = field(default_factory=_allow_everything)
    """Tool name to "allow", "ask" or "deny"."""


def opencode_config(
    base_url: str, *, agents: Iterable[OpenCodeAgent] = (), models: Iterable[str], context: int = 128_000
) -> dict[str, Any]:
    """Make a configuration whose only provider is a scripted one.

    Args:
        base_url: the provider's, as `FaultyProvider.base_url` gives it.
        agents: the agents besides the host's own.
        models: names of the provider's models; `default` (for agents without a model) and `title`
            (the host's title job) are added.
        context: tokens of context that each model claims.
    """
    limit = {"context": context, "output": 4_000}
    sight = {"input": ["text", "image"], "output": ["text"]}
    known = {
        name: {"name": name, "tool_call": True, "attachment": True, "modalities": sight, "limit": limit}
        for name in ("default", "title", *models)
    }
    options = {"baseURL": base_url, "apiKey": "x"}

    return {
        "$schema": "https://opencode.ai/config.json",
        "model": f"{PROVIDER}/default",
        "small_model": f"{PROVIDER}/title",
        "share": "disabled",
        "permission": dict(_allow_everything()),
        # The host's own limit is 1: a subagent's subagent would be refused.
        "subagent_depth": 3,
        "provider": {PROVIDER: {"npm": "@ai-sdk/openai-compatible", "options": options, "models": known}},
        "agent": {agent.name: _agent_config(agent) for agent in agents},
    }


def _agent_config(agent: OpenCodeAgent) -> dict[str, Any]:
    config: dict[str, Any] = {
        "mode": agent.mode,
        "description": f"the agent {agent.name}",
        "permission": dict(agent.permission),
    }
    if agent.model:
        config["model"] = agent.model

    if agent.fallback_models:
        config["fallback_models"] = list(agent.fallback_models)

    return config


class OpenCodeServer:
    """`opencode serve` on a free port of loopback, as an async context manager.

    Args:
        binary: the OpenCode binary, see `find_opencode`.
        config: what opencode.json holds, see `opencode_config`.
        password: turns on HTTP Basic authentication for the user `opencode`.
        environment: more environment variables.
        files: more files of the project, path inside it to text (plugins, AGENTS.md).

    Raises:
        HostUnavailable: on entering, where the server ends or stays silent; says what it has printed.
    """

    def __init__(
        self,
        binary: Path,
        *,
        config: Mapping[str, Any],
        password: str = "",
        environment: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        self.password = password
        self._binary = binary
        secret = {"OPENCODE_SERVER_PASSWORD": password} if password else {}
        self._workspace = Workspace(config, files=files, environment=secret | dict(environment or {}))
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The server's URL, without a path."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def project(self) -> Path:
        """The git directory that the server works in."""
        return self._workspace.project

    @property
    def home(self) -> Path:
        """The server's home directory."""
        return self._workspace.home

    @property
    def pid(self) -> int:
        """The process id of the running server, 0 where there is none."""
        return self._process.pid if self._process else 0

    @property
    def output(self) -> str:
        """What the server has printed so far."""
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def client(self, *, timeout: float = 20.0) -> httpx.AsyncClient:
        """Make an HTTP client for this server, authenticated where it has a password.

        Args:
            timeout: seconds per call.
        """
        auth = ("opencode", self.password) if self.password else None

        return httpx.AsyncClient(base_url=self.url, auth=auth, timeout=timeout, trust_env=False)

    async def restart(self, *, hard: bool = False) -> None:
        """Stop the server and start it again with the same home, project and port.

        Args:
            hard: True kills it without a chance to clean up.
        """
        await self._stop(signal.SIGKILL if hard else signal.SIGTERM)
        await self._start()

    async def __aenter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._workspace)
            self._port = _free_port()
            self._stack = stack.pop_all()

        try:
            await self._start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack, anyio.CancelScope(shield=True):
            await self._stop(signal.SIGTERM)

    @property
    def _log(self) -> Path:
        return self._workspace.root / "output.log"

    async def _start(self) -> None:
        with self._log.open("ab") as output:
            self._process = self._spawn(output)

        try:
            with anyio.fail_after(_START_SECONDS):
                await self._wait_until_it_answers()
        except TimeoutError:
            raise HostUnavailable(f"OpenCode is silent for {_START_SECONDS} s: {self._tail()}") from None

    def _spawn(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [str(self._binary), "serve", "--hostname", "127.0.0.1", "--port", str(self._port)]

        return subprocess.Popen(  # noqa: S603 - the caller names the binary
            command,
            cwd=self.project,
            env=self._workspace.variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    async def _wait_until_it_answers(self) -> None:
        # A request that arrives during the start can be accepted and never answered: many short tries.
        async with self.client(timeout=0.5) as client:
            while not await _answers(client, "/global/health"):
                if self._process and self._process.poll() is not None:
                    raise HostUnavailable(f"OpenCode ended at its start: {self._tail()}")

                await anyio.sleep(0.02)

        async with self.client(timeout=5.0) as client:
            while not await _answers(client, "/config"):  # noqa: ASYNC110
                await anyio.sleep(0.1)

    def _tail(self) -> str:
        return self.output[-_LOG_TAIL:] or "(it has printed nothing)"

    async def _stop(self, first_signal: signal.Signals) -> None:
        process = self._process
        if process is None:
            return

        _signal_group(process.pid, first_signal)
        with anyio.move_on_after(_STOP_SECONDS):
            while process.poll() is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)

        # Tools that the host has started live in its group and may outlive it.
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        self._process = None


async def _answers(client: httpx.AsyncClient, path: str) -> bool:
    try:
        response = await client.get(path)
    except httpx.TransportError:
        return False

    return response.is_success


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
