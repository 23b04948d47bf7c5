"""What happens in a story, in the order of its time: who was asked, what it said, what the plugin made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import anyio

from fallback_plugin.core.actions import Announce
from fallback_plugin.runtime.observe import describe, format_wait
from fallback_plugin.testing.faults import Answer, CallTool, CutStream, Fail, SlowAnswer, Step
from fallback_plugin.testing.provider import FaultyProvider, ProviderRequest

_POLL_SECONDS = 0.02


class Actor(StrEnum):
    """Who does something in the story."""

    USER = "user"
    HOST = "host"
    PROVIDER = "provider"
    PLUGIN = "plugin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One line of the story.

    Attributes:
        at: monotonic seconds.
        actor: who.
        text: what, in words.
    """

    at: float
    actor: Actor
    text: str


@dataclass(slots=True, kw_only=True)
class Chronicle:
    """What happens, in the order of its time.

    Attributes:
        provider: whose requests are told.
        routes: "provider/model" by the model's name; requests for other models are passed over.
        tell: called with each happening.
        notices: everything that the plugin has announced, with its time.
    """

    provider: FaultyProvider
    routes: Mapping[str, str]
    tell: Callable[[Happening], None]
    notices: list[tuple[Announce, float]] = field(default_factory=list[tuple[Announce, float]])
    _pending: list[Happening] = field(default_factory=list[Happening])
    _asked: int = 0
    _answering: list[ProviderRequest] = field(default_factory=list[ProviderRequest])

    def observe(self, notice: Announce, now: float) -> None:
        """Note what the plugin announces; an `Observer`."""
        self.notices.append((notice, now))
        self.add(now, Actor.PLUGIN, describe(notice, now))

    def add(self, at: float, actor: Actor, text: str) -> None:
        """Note a happening; it is told with the next flush."""
        self._pending.append(Happening(at=at, actor=actor, text=text))

    def flush(self) -> None:
        """Tell everything that has happened since the last time."""
        fresh = self.provider.requests[self._asked :]
        self._asked += len(fresh)
        for request in fresh:
            if request.model in self.routes:
                told = ", with the tool's result" if request.last_role == "tool" else ""
                self.add(request.arrived, Actor.HOST, f"asks {self.routes[request.model]}{told}")
                self._answering.append(request)

        for request in [request for request in self._answering if request.ended is not None]:
            self._answering.remove(request)
            self.add(
                request.ended or 0.0, Actor.PROVIDER, f"{self.routes[request.model]}: {describe_step(request.step)}"
            )

        for happening in sorted(self._pending, key=lambda each: each.at):
            self.tell(happening)

        self._pending.clear()

    async def follow(self) -> None:
        """Tell what happens until cancelled."""
        while True:
            self.flush()
            await anyio.sleep(_POLL_SECONDS)


def describe_step(step: Step) -> str:
    """What a scripted provider has done with a request, in words."""
    match step:
        case Fail():
            wait = step.headers.get("retry-after")
            after = f", retry-after {format_wait(float(wait))}" if wait else ""
            return f"{step.status} {_code_of(step)}{after}"
        case CallTool():
            return f"calls the tool {step.name}"
        case CutStream():
            return f'"{step.after_text}" and the connection is gone'
        case Answer() | SlowAnswer():
            return f'"{step.text}"'
        case _:
            return type(step).__name__


def _code_of(step: Fail) -> str:
    error = step.body.get("error") if isinstance(step.body, Mapping) else None
    return str(error["code"]) if error else "Too Many Requests"
