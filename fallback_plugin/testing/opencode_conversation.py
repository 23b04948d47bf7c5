"""One session on the real server: the calls that tests need, and what the server has told about it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from fallback_plugin.testing.opencode import PROVIDER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx

    from fallback_plugin.testing.opencode_scene import Scene

_POLL_SECONDS = 0.005
_UNFINISHED = {None, "unknown", "tool-calls"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """One event of the server's stream."""

    at: float
    """Monotonic seconds of its arrival."""
    type: str
    properties: Mapping[str, Any]

    @property
    def session(self) -> str:
        """The session it is about, empty for others."""
        return str(self.properties.get("sessionID") or "")


class Conversation:
    """One session on the server, with the calls that tests need and the record of what happened."""

    def __init__(self, scene: Scene, session: str, agent: str) -> None:
        self.scene = scene
        self.id = session
        self.agent = agent

    @property
    def events(self) -> list[SeenEvent]:
        """What the server has told about this session."""
        return self.scene.events_of(self.id)

    async def prompt(
        self,
        text: str = "",
        *,
        model: str | None = None,
        message: str | None = None,
        parts: Sequence[Mapping[str, Any]] | None = None,
        **body: Any,
    ) -> httpx.Response:
        """Send a prompt without waiting for its answer (prompt_async).

        Args:
            text: what the user says; leave out to resume in place.
            model: name of a model of the scripted provider, None to leave the choice to the host.
            message: the id of the user message, to resume it in place.
            parts: used instead of the text.
            body: more keys of the request, such as `system` or `tools`.
        """
        said = [{"type": "text", "text": text}] if text else []
        request: dict[str, Any] = {"agent": self.agent, "parts": list(parts) if parts is not None else said}
        if model is not None:
            request["model"] = {"providerID": PROVIDER, "modelID": model}

        if message is not None:
            request["messageID"] = message

        return await self.scene.client.post(self._path("prompt_async"), json={**request, **body})

    async def abort(self) -> httpx.Response:
        """Do what the Escape key does."""
        return await self.scene.client.post(self._path("abort"))

    async def delete(self) -> httpx.Response:
        """Delete the session."""
        return await self.scene.client.delete(self._path())

    async def status(self) -> dict[str, Any]:
        """Give the host's status object, `{"type": "idle"}` where it lists none."""
        response = await self.scene.client.get("/session/status")
        response.raise_for_status()
        return response.json().get(self.id, {"type": "idle"})

    async def messages(self) -> list[dict[str, Any]]:
        """Give the whole history as the host stores it: `[{"info": …, "parts": […]}, …]`."""
        response = await self.scene.client.get(self._path("message"))
        response.raise_for_status()
        return response.json()

    async def history(self) -> list[tuple[str, str]]:
        """Give the history as pairs of role and text; messages without text have an empty one."""
        return [(str(item["info"]["role"]), _text_of(item["parts"])) for item in await self.messages()]

    async def user_messages(self) -> list[str]:
        """Give the ids of the user messages, oldest first."""
        return [str(item["info"]["id"]) for item in await self.messages() if item["info"]["role"] == "user"]

    async def wait_for_event(
        self,
        kind: str,
        accept: Callable[[Mapping[str, Any]], bool] = lambda _: True,
        *,
        since: float = 0.0,
        timeout: float = 20.0,  # noqa: ASYNC109 - a time limit is this call's very contract
    ) -> SeenEvent:
        """Wait for an event of this session, also one that has already come.

        Args:
            kind: the event's type.
            accept: says whether its properties fit.
            since: monotonic seconds; earlier events do not count.
            timeout: seconds.

        Raises:
            TimeoutError: it did not come; lists what came.
        """
        with anyio.move_on_after(timeout):
            while True:
                for event in self.events:
                    if event.type == kind and event.at >= since and accept(event.properties):
                        return event

                await anyio.sleep(_POLL_SECONDS)

        raise TimeoutError(f"no {kind} in {timeout} s; seen: {[event.type for event in self.events]}")

    async def wait_for_retry(self, *, timeout: float = 20.0) -> SeenEvent:  # noqa: ASYNC109
        """Wait until the host says that it will ask the failing provider again."""
        return await self.wait_for_event(
            "session.status", lambda properties: properties["status"]["type"] == "retry", timeout=timeout
        )

    async def wait_until_idle(self, *, quiet: float = 0.5, timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """Wait until the session is idle and nothing has been heard of it for a while.

        Args:
            quiet: seconds without an event.
            timeout: seconds.

        Raises:
            TimeoutError: it stays busy.
        """
        try:
            with anyio.fail_after(timeout):
                while not await self._is_quiet(quiet):  # noqa: ASYNC110 - another process's state
                    await anyio.sleep(0.02)
        except TimeoutError:
            raise TimeoutError(f"still {await self.status()} after {timeout} s") from None

    async def wait_until_answered(self, *, prompts: int = 1, timeout: float = 30.0) -> list[str]:  # noqa: ASYNC109
        """Wait until so many user messages have a finished answer and the session is idle; give the answers.

        Args:
            prompts: how many user messages must have an answer.
            timeout: seconds.

        Raises:
            TimeoutError: some have none; shows the history.
        """
        try:
            with anyio.fail_after(timeout):
                while len(self._answered()) < prompts or not self._idle():  # noqa: ASYNC110
                    await anyio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise TimeoutError(f"no answer in {timeout} s; history: {await self.history()}") from None

        return await self.answers()

    async def answers(self) -> list[str]:
        """Give what assistants have said, oldest first; messages without text are left out."""
        return [text for role, text in await self.history() if role == "assistant" and text]

    async def _is_quiet(self, quiet: float) -> bool:
        events = self.events
        if not events or not self._idle() or time.monotonic() - events[-1].at < quiet:
            return False

        return (await self.status())["type"] == "idle"

    def _idle(self) -> bool:
        told = [event for event in self.events if event.type == "session.status"]
        return bool(told) and told[-1].properties["status"]["type"] == "idle"

    def _answered(self) -> set[str]:
        infos = [event.properties["info"] for event in self.events if event.type == "message.updated"]

        return {
            info["parentID"]
            for info in infos
            if info["role"] == "assistant"
            and info.get("finish") not in _UNFINISHED
            and "completed" in info["time"]
            and not info.get("error")
        }

    def _path(self, rest: str = "") -> str:
        return f"/session/{self.id}/{rest}".rstrip("/")


def _text_of(parts: Sequence[Mapping[str, Any]]) -> str:
    return "".join(str(part["text"]) for part in parts if part["type"] == "text" and not part.get("synthetic"))
