"""Going through an ordeal on a real server: one session, one prompt after the other, and an account at the end.

Whoever carries the turns on (nobody, this plugin, another one) is seen from outside only: by what the server tells,
by what reaches the provider, by the session's history and by what the tools have left on the disk.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from fallback_plugin.testing.opencode_conversation import Conversation, SeenEvent
from fallback_plugin.testing.opencode_scene import Scene
from fallback_plugin.testing.ordeal import AGENT, MODELS, TRACE, Ordeal, OrdealScript, turn_of
from fallback_plugin.testing.ordeal_account import Account, Outcome, TurnAccount

_POLL_SECONDS = 0.01
_BREATH = 0.1
"""Seconds without an event between an answer and the next prompt."""
_SECOND_WORD = 1.0
"""Seconds without an event in which an alarm could be repeated."""
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One session's way through an ordeal.

    Attributes:
        scene: the server.
        agent: who answers the prompts; its models are the ordeal's.
        project: the directory in which tools run.
        ordeal: what is to happen.
        patience: seconds after which the user gives a turn up, and stops it where the host is still at work.
        on_turn: called with each turn when it is over.
    """

    scene: Scene
    agent: str = AGENT
    project: Path
    ordeal: Ordeal
    patience: float = 10.0
    on_turn: Callable[[TurnAccount], None] = field(default=lambda turn: None)

    async def run(self) -> Account:
        """Go through all turns, and give the account."""
        script = OrdealScript(self.ordeal)
        for model in MODELS:
            self.scene.provider.script(model, script)

        conversation = await self.scene.conversation(agent=self.agent)
        turns: list[TurnAccount] = []
        for turn in self.ordeal.turns:
            ended = await self._play(conversation, turn, script)
            turns.append(ended)
            self.on_turn(ended)

        return self._account(turns, await conversation.messages())

    async def _play(self, conversation: Conversation, turn: int, script: OrdealScript) -> TurnAccount:
        watch = _Watch(self.scene, conversation.id, self.ordeal.answer(turn))
        began = time.monotonic()
        await conversation.prompt(self.ordeal.prompt(turn))
        with anyio.move_on_after(self.patience) as patience:
            while not watch.is_over():  # noqa: ASYNC110 - another process's state
                await anyio.sleep(_POLL_SECONDS)

        stuck = patience.cancelled_caught and not watch.is_answered and not watch.is_idle
        seconds = (time.monotonic() if stuck else watch.last_event) - began
        if stuck:
            await _stop(conversation, watch)

        fates = script.fates.get(turn, [])
        outcome = Outcome.STUCK if stuck else watch.outcome()
        if outcome is Outcome.FAILED and set(script.asked.get(turn, ())) == set(MODELS):
            outcome = Outcome.EXHAUSTED

        return TurnAccount(
            turn=turn,
            outcome=outcome,
            seconds=seconds,
            requests=len(fates),
            alarms=watch.alarms,
            fates=[f"{model}: {step!r}" for model, step in zip(script.asked.get(turn, ()), fates, strict=True)],
        )

    def _account(self, turns: Sequence[TurnAccount], messages: Sequence[Mapping[str, Any]]) -> Account:
        users = [_text(message["parts"]) for message in messages if message["info"]["role"] == "user"]
        seen: set[int] = set()
        doubled: list[str] = []
        for text in users:
            turn = turn_of(text)
            if turn is None or turn in seen:
                doubled.append(text)
            else:
                seen.add(turn)

        trace = self.project / TRACE
        written = Counter(trace.read_text(encoding="utf-8").split() if trace.is_file() else ())
        answered = [turn.turn for turn in turns if turn.outcome is Outcome.ANSWERED]

        return Account(
            turns=tuple(turns),
            doubled=doubled,
            missing=[turn for turn in self.ordeal.turns if turn not in seen],
            repeated=[mark for mark, count in written.items() if count > 1],
            unwritten=[mark for turn in answered for mark in self.ordeal.marks(turn) if mark not in written],
        )


class _Watch:
    """What the server has told since a prompt."""

    def __init__(self, scene: Scene, session: str, answer: str) -> None:
        self.last_event = time.monotonic()
        self.is_answered = False
        self.alarms = 0
        self._scene = scene
        self._session = session
        self._answer = answer
        self._read = len(scene.events)
        self._texts: dict[str, str] = {}
        self._finished: set[str] = set()
        self._failed = False
        self._idle = False

    def is_over(self) -> bool:
        """Whether the turn has come to its end, with an answer or an alarm."""
        self._follow()
        quiet = time.monotonic() - self.last_event
        if not self._idle:
            return False

        if self.is_answered:
            return quiet >= _BREATH

        return self.alarms > 0 and quiet >= _SECOND_WORD

    @property
    def is_idle(self) -> bool:
        """Whether the host has nothing more to do."""
        self._follow()
        return self._idle

    def outcome(self) -> Outcome:
        """How a turn ended that nobody had to stop."""
        if self.is_answered:
            return Outcome.ANSWERED

        if self.alarms:
            return Outcome.EXHAUSTED

        return Outcome.FAILED if self._failed else Outcome.SILENT

    def _follow(self) -> None:
        events = self._scene.events
        while self._read < len(events):
            event = events[self._read]
            self._read += 1
            if event.type == "tui.toast.show":
                self._note_toast(event)
            elif event.session == self._session:
                self._note(event)

    def _note_toast(self, event: SeenEvent) -> None:
        if event.properties.get("variant") == "error":
            self.last_event = event.at
            self.alarms += 1

    def _note(self, event: SeenEvent) -> None:
        self.last_event = event.at
        match event.type:
            case "session.status":
                self._idle = event.properties["status"]["type"] == "idle"
            case "session.error":
                self._failed = self._failed or event.properties["error"]["name"] != "MessageAbortedError"
            case "message.part.updated":
                part = event.properties["part"]
                if part["type"] == "text":
                    self._texts[part["messageID"]] = part["text"]
            case "message.updated":
                self._note_message(event.properties["info"])
            case _:
                pass

        self.is_answered = any(self._answer in self._texts.get(message, "") for message in self._finished)

    def _note_message(self, info: Mapping[str, Any]) -> None:
        if info["role"] == "assistant" and info.get("finish") == "stop" and "completed" in info["time"]:
            self._finished.add(str(info["id"]))


async def _stop(conversation: Conversation, watch: _Watch) -> None:
    """Press Escape, and wait until the host is at rest."""
    await conversation.abort()
    with anyio.move_on_after(_STOP_SECONDS):
        while not watch.is_idle:  # noqa: ASYNC110 - another process's state
            await anyio.sleep(_POLL_SECONDS)


def _text(parts: Sequence[Mapping[str, Any]]) -> str:
    return "".join(str(part["text"]) for part in parts if part["type"] == "text")
