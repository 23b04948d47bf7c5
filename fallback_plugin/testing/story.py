"""Four turns that show what the plugin does, told on any host and checked at their end.

A story needs a provider that breaks on command and a `Stage`: a host with the plugin at work on it. Each turn has
a script for the models, a prompt, and the one outcome that is right: how often each model was asked, how many
user messages and answers the session has, how often the tool has run, what the user was told. `perform` plays
the turns and gives what was seen, so that whoever tells the story can also say whether it ended well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import anyio

from fallback_plugin.core.actions import NoticeType
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.testing.chronicle import Actor, Chronicle
from fallback_plugin.testing.faults import (
    CallTool,
    CutStream,
    Fail,
    SlowAnswer,
    Step,
    quota_exhausted,
    rate_limited,
)

AGENT = "coder"
ROUTES: Mapping[str, str] = MappingProxyType(
    {"large": "north/large", "medium": "south/medium", "small": "west/small"},
)
"""Model names and their routes, in the order of the chain; the agent's own model first."""
CHAIN = tuple(ROUTES.values())
TRACE = "trace.txt"
"""The file of the project to which the tool adds a line each time it runs."""
RULES = Rules(default=Policy(chain=CHAIN))

_HOUR, _MINUTE = 3600, 60
_BROKEN_OFF = "The suite has two fail"
_RUN_SUITE = CallTool("bash", {"command": f"echo run >> {TRACE}; echo 12 passed", "description": "Run the suite"})


class Stage(Protocol):
    """A host with the plugin at work on it."""

    @property
    def name(self) -> str:
        """What the host is, in words."""
        ...

    @property
    def project(self) -> Path:
        """The directory in which tools run."""
        ...

    async def open_session(self) -> str:
        """Start a session; gives its id."""
        ...

    async def prompt(self, session_id: str, text: str) -> None:
        """Say something as the user to `AGENT`; returns when the host has taken it."""
        ...

    async def settle(self, session_id: str) -> None:
        """Wait until host and plugin are at rest."""
        ...

    async def history(self, session_id: str) -> list[tuple[str, str]]:
        """Role and text of each message, oldest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a turn has left behind.

    Attributes:
        requests: by model, in the chain's order.
        prompts: user messages that the turn has added to the session.
        answers: what the user can read as the turn's answers.
        tool_runs: how often the tool has run.
        notices: what was announced.
        last_roles: what each request ended with.
        dead_text: requests that held text which a dead model had left.
        returns_in: minutes until the earliest return, where every model is out.
    """

    requests: tuple[int, ...]
    prompts: int = 1
    answers: tuple[str, ...] = ()
    tool_runs: int = 0
    notices: tuple[NoticeType, ...] = ()
    last_roles: tuple[str, ...] = ()
    dead_text: int = 0
    returns_in: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryTurn:
    """One turn: what the models do, what the user says, and what must come of it."""

    title: str
    prompt: str
    scripts: Mapping[str, Sequence[Step]]
    expected: Outcome
    in_session_before: bool = False


_FAILURE, _HOP, _RECOVERED = NoticeType.FAILURE, NoticeType.HOP, NoticeType.RECOVERED

STORY = (
    StoryTurn(
        title="The quota of the agent's model is used up, for three hours",
        prompt="How long is a turn?",
        scripts={
            "large": [Fail(429, quota_exhausted().body, headers={"retry-after": f"{3 * _HOUR}"})],
            "medium": [SlowAnswer("As long as it takes.", chunks=5, delay=0.1)],
        },
        expected=Outcome(
            requests=(1, 1, 0),
            answers=("As long as it takes.",),
            notices=(_FAILURE, _HOP, _RECOVERED),
            last_roles=("user", "user"),
        ),
    ),
    StoryTurn(
        title="A tool has run, then the connection is cut in the middle of the answer",
        prompt="Run the tests.",
        scripts={
            "large": [_RUN_SUITE, CutStream(_BROKEN_OFF)],
            "medium": [SlowAnswer("All 12 tests pass.", chunks=3, delay=0.1)],
        },
        expected=Outcome(
            requests=(2, 1, 0),
            answers=("All 12 tests pass.",),
            tool_runs=1,
            notices=(_FAILURE, _HOP, _RECOVERED),
            last_roles=("user", "tool", "tool"),
        ),
    ),
    StoryTurn(
        title="Every model is out",
        prompt="Is anybody there?",
        scripts={
            "large": [rate_limited(retry_after=3 * _HOUR)],
            "medium": [rate_limited(retry_after=20 * _MINUTE)],
            "small": [Fail(429, quota_exhausted().body, headers={"retry-after": f"{2 * _HOUR}"})],
        },
        expected=Outcome(
            requests=(1, 1, 1),
            notices=(_FAILURE, _HOP, _FAILURE, _HOP, NoticeType.EXHAUSTED),
            last_roles=("user", "user", "user"),
            returns_in=20,
        ),
    ),
    StoryTurn(
        title="The same session later: the agent's model answers again",
        prompt="And now?",
        in_session_before=True,
        scripts={"large": [SlowAnswer("Here I am.", chunks=2, delay=0.1)]},
        expected=Outcome(
            requests=(1, 0, 0),
            answers=("Here I am.",),
            notices=(_RECOVERED,),
            last_roles=("user",),
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnReport:
    """A turn and what came of it."""

    turn: StoryTurn
    seen: Outcome

    @property
    def is_right(self) -> bool:
        """Whether it ended as it must."""
        return self.seen == self.turn.expected

    def differences(self) -> list[str]:
        """What is not as it must be, a line each."""
        return [
            f"{name}: expected {getattr(self.turn.expected, name)}, saw {getattr(self.seen, name)}"
            for name in Outcome.__dataclass_fields__
            if getattr(self.turn.expected, name) != getattr(self.seen, name)
        ]


async def perform(
    stage: Stage,
    chronicle: Chronicle,
    on_turn: Callable[[int, StoryTurn], None],
    story: Sequence[StoryTurn] = STORY,
) -> list[TurnReport]:
    """Play the story.

    Args:
        stage: where; its plugin's observer must be `chronicle.observe`, its rules `RULES`.
        chronicle: told what happens while it happens.
        on_turn: called with number and turn before each begins.
        story: the turns.
    """
    reports: list[TurnReport] = []
    session_id = ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(chronicle.follow)
        for number, turn in enumerate(story, 1):
            on_turn(number, turn)
            session_id = session_id if turn.in_session_before else await stage.open_session()
            reports.append(TurnReport(turn=turn, seen=await _play(stage, chronicle, turn, session_id)))
            chronicle.flush()

        tasks.cancel_scope.cancel()

    return reports


async def _play(stage: Stage, chronicle: Chronicle, turn: StoryTurn, session_id: str) -> Outcome:
    for model, steps in turn.scripts.items():
        chronicle.provider.script(model, *steps)

    history_before = await stage.history(session_id)
    asked_before, told_before = len(chronicle.provider.requests), len(chronicle.notices)
    runs_before = _tool_runs(stage)
    chronicle.add(anyio.current_time(), Actor.USER, f'"{turn.prompt}"')
    await stage.prompt(session_id, turn.prompt)
    await stage.settle(session_id)

    requests = [request for request in chronicle.provider.requests[asked_before:] if request.model in ROUTES]
    notices = chronicle.notices[told_before:]
    added = (await stage.history(session_id))[len(history_before) :]
    returns = [notice.returns_at - now for notice, now in notices if notice.returns_at is not None]
    return Outcome(
        requests=tuple(sum(request.model == model for request in requests) for model in ROUTES),
        prompts=sum(role == "user" for role, _ in added),
        answers=tuple(text for role, text in added if role == "assistant" and text),
        tool_runs=_tool_runs(stage) - runs_before,
        notices=tuple(notice.notice for notice, _ in notices),
        last_roles=tuple(request.last_role for request in requests),
        dead_text=sum(_BROKEN_OFF in text for request in requests for text in request.texts("assistant")),
        returns_in=round(returns[0] / _MINUTE) if returns else None,
    )


def _tool_runs(stage: Stage) -> int:
    trace = stage.project / TRACE
    return len(trace.read_text(encoding="utf-8").splitlines()) if trace.exists() else 0
