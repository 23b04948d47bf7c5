"""The Python side of the plugin that OpenCode loads (plugin.js): one process for all projects of one OpenCode.

The host starts us, tells us its events and asks where a prompt shall go, over JSON-RPC 2.0 on our stdin and stdout. It
has no port that we could call: what `OpenCodeClient` sends goes back through the same pipe and is carried out by the
host's own fetch. So the host that `attach` knows serves here as well; only its transport is another one.

When stdin ends the host has ended, and so do we. What was under way stands in the store, and is carried on by whoever
opens the project next.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
from anyio.abc import TaskGroup

from fallback_plugin.core.routing import Prompt
from fallback_plugin.errors import HostUnavailable
from fallback_plugin.hosts.opencode.client import CALL_PATIENCE, OpenCodeClient
from fallback_plugin.hosts.opencode.project import Project
from fallback_plugin.hosts.opencode.rpc import Channel, Peer

logger = logging.getLogger("fallback_plugin")

Json = Mapping[str, Any]
_URL = "http://opencode.internal"
"""The host replaces it by its own."""
AGAIN_SECONDS = 5.0
"""Seconds until a project whose work has failed is served again."""
_UNUSED_HEADERS = frozenset({"host", "connection", "accept-encoding", "content-length", "user-agent"})


class BridgeTransport(httpx.AsyncBaseTransport):
    """Requests that the host carries out for us.

    Args:
        peer: the host's side.
        directory: the project whose client it uses.
    """

    def __init__(self, peer: Peer, directory: str) -> None:
        self._peer = peer
        self._directory = directory

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; errors as from any transport of httpx, whatever the host's side answers."""
        body = await request.aread()
        patience = float(cast("Json", request.extensions.get("timeout", {})).get("read") or CALL_PATIENCE)
        params = {
            "directory": self._directory,
            "method": request.method,
            "path": request.url.raw_path.decode(),
            "headers": {name: value for name, value in request.headers.items() if name not in _UNUSED_HEADERS},
            "body": body.decode() or None,
            "timeout": int(patience * 1000),
        }
        try:
            answer = await self._peer.request("http", params, patience=patience)
        except TimeoutError as error:
            raise httpx.ReadTimeout("the host did not answer", request=request) from error
        except HostUnavailable as error:
            raise httpx.ConnectError(str(error), request=request) from error

        try:
            return _response(answer, request)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise httpx.RemoteProtocolError("the host's side answered no response", request=request) from error


def _response(answer: Json, request: httpx.Request) -> httpx.Response:
    status = int(answer["status"])
    if not 100 <= status < 600:
        raise ValueError

    headers = cast("dict[str, str]", answer.get("headers") or {})
    return httpx.Response(status, headers=headers, text=str(answer.get("body") or ""), request=request)


class Bridge:
    """All projects of one OpenCode.

    Args:
        channel: bytes to and from the host's side.
    """

    def __init__(self, channel: Channel) -> None:
        self._peer = Peer(
            channel,
            notified={
                "project.opened": self._open,
                "project.closed": self._close,
                "event": self._handle,
                "tool.executed": self._note_tool,
            },
            answered={"chat.message": self._route_prompt, "ping": self._pong},
        )
        self._projects: dict[str, Project] = {}
        self._tasks: TaskGroup | None = None

    async def run(self) -> None:
        """Serve until the host closes the pipe."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await self._peer.run()
            tasks.cancel_scope.cancel()

    def _open(self, params: Json) -> None:
        directory = str(params["directory"])
        project = self._projects.get(directory)
        if project is not None:
            project.configure(params.get("config"))
            self._start(project.catch_up)
            return

        client = OpenCodeClient(_URL, transport=BridgeTransport(self._peer, directory))
        project = Project(directory, client, self._say)
        project.configure(params.get("config"))
        self._projects[directory] = project
        self._start(project.run, again=True)

    def _close(self, params: Json) -> None:
        project = self._projects.pop(str(params["directory"]), None)
        if project is not None:
            project.close()

    def _handle(self, params: Json) -> None:
        project = self._projects.get(str(params["directory"]))
        if project is not None:
            project.handle(params["event"])

    def _note_tool(self, params: Json) -> None:
        self._handle({"directory": params["directory"], "event": {"type": "tool.executed", "properties": params}})

    async def _route_prompt(self, params: Json) -> Json:
        project = self._projects.get(str(params["directory"]))
        model = params["model"]
        route = f"{model['providerID']}/{model['modelID']}"
        if project is None:
            return {}

        prompt = Prompt(
            session_id=str(params["sessionID"]),
            route=route,
            agent=params.get("agent"),
            named=bool(params.get("picked")),
            message_id=params.get("messageID"),
        )
        answer: dict[str, Any] = {}
        created_wall = project.created_wall(prompt)
        if created_wall:
            answer["created"] = round(created_wall * 1000)

        chosen = await project.route_prompt(prompt)
        if chosen != route:
            provider, _, name = chosen.partition("/")
            answer["model"] = {"providerID": provider, "modelID": name}

        return answer

    async def _pong(self, params: Json) -> Json:  # noqa: ARG002 - as the table asks
        return {"projects": len(self._projects)}

    def _start(self, work: Callable[[], Awaitable[None]], *, again: bool = False) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self._guarded, work, again)

    async def _guarded(self, work: Callable[[], Awaitable[None]], again: bool) -> None:  # noqa: FBT001 - from start_soon
        """One project's failure must not be all projects' end, nor its own for good."""
        while True:
            try:
                return await work()
            except Exception as error:  # noqa: BLE001
                # What an error says may hold a prompt.
                logger.error("a project's work failed: %s", ", ".join(_places(error)))  # noqa: TRY400

            if not again:
                return None

            await anyio.sleep(AGAIN_SECONDS)

    def _say(self, text: str, **fields: object) -> None:
        logger.info("%s", text, extra={"fields": fields})
        self._peer.notify("log", {"level": "info", "message": text})


def _places(error: BaseException) -> list[str]:
    """Type and place of an error, or of each one in a group."""
    if isinstance(error, BaseExceptionGroup):
        errors = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return [place for inner in errors for place in _places(inner)]

    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return [type(error).__name__ + where]
