"""An ordeal: many turns of one session on providers that fail at random, by a seed.

Each request of a turn has a fate that depends on the seed, the turn and the request's number within the turn, and on
nothing else. So everybody who goes through the same ordeal meets the same first failure in the same turn, whatever
happened before; only who asks more often meets more. Many turns call a tool once or twice, and some requests fail
after a tool call was told, with the tool already at work.

The models behave as real ones do: what the transcript after the turn's prompt shows as done is not done again, and
what it does not show is. A tool adds one line to a file, another for each call of each turn; a line that is there
twice is a tool that has run twice.

    ordeal = Ordeal(seed=1)
    script = OrdealScript(ordeal)
    for model in MODELS:
        provider.script(model, script)
    ... prompt ordeal.prompt(turn) for each turn in ordeal.turns ...
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fallback_plugin.testing.faults import (
    FAILURES,
    SILENCES,
    Answer,
    CallTool,
    CutStream,
    ErrorInStream,
    Fail,
    Stall,
    Step,
    Truncate,
)
from fallback_plugin.testing.opencode import PROVIDER, OpenCodeAgent, opencode_config

if TYPE_CHECKING:
    from fallback_plugin.testing.provider import ProviderRequest

AGENT = "ordeal"
SPARE = "spare"
"""The id of the second provider: an account that is out leaves half of the chain."""
MODELS = ("first", "second", "third", "fourth")
"""The models' names, in the order of the chain; the agent's own model first."""
ROUTES = (f"{PROVIDER}/first", f"{PROVIDER}/second", f"{SPARE}/third", f"{SPARE}/fourth")
TRACE = "ordeal.txt"
"""The file of the project to which a tool adds its line."""

_AFTER_TEXT: Mapping[str, Step] = {
    "408": Fail(408),
    "504": Fail(504),
    "error after text": ErrorInStream("let me think"),
    "cut after text": CutStream("let me think"),
    "closed after text": CutStream("let me think", reset=False),
    "truncated but done": Truncate(done=True),
}
_AFTER_TOOL_CALL = (Stall(""), CutStream(), CutStream(reset=False), ErrorInStream(), Truncate(""))
_AFTER_TOOL_CALL_SHARE = 0.25
"""How many failures come behind a tool call, where one is due."""
_TOOLS = (0, 0, 0, 1, 1, 2)
# Other plugins put words of their own before the user's.
_TURN = re.compile(r"^turn (\d+):", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordeal:
    """What happens to each request of each turn.

    Attributes:
        seed: another seed, another ordeal.
        length: how many turns.
        failing: share of the requests that fail.
        longest_wait: seconds to which a Retry-After is cut: one of a day would take its model out for good.
    """

    seed: int = 1
    length: int = 200
    failing: float = 0.3
    longest_wait: float = 20.0

    @property
    def turns(self) -> range:
        """The numbers of the turns, from 1."""
        return range(1, self.length + 1)

    def prompt(self, turn: int) -> str:
        """What the user says."""
        return f"turn {turn}: go on"

    def answer(self, turn: int) -> str:
        """What a model says when the turn is done."""
        return f"turn {turn} is done"

    def marks(self, turn: int) -> tuple[str, ...]:
        """The lines that the turn's tools write, each once."""
        count = self._chance("tools", turn).choice(_TOOLS)
        return tuple(f"{turn}.{number}" for number in range(1, count + 1))

    def step(self, turn: int, number: int, tools_done: int) -> Step:
        """What becomes of a request.

        Args:
            turn: the turn's number.
            number: the request's number within the turn, from 1.
            tools_done: how many tools the transcript shows as run.
        """
        chance = self._chance("request", turn, number)
        call = self._call(turn, tools_done)
        if chance.random() >= self.failing:
            return call or Answer(self.answer(turn))

        if call is not None and chance.random() < _AFTER_TOOL_CALL_SHARE:
            return replace(call, then=chance.choice(_AFTER_TOOL_CALL))

        return chance.choice(self.failures())

    def failures(self) -> tuple[Step, ...]:
        """Every way of failing that is not behind a tool call."""
        steps = (*FAILURES.values(), *SILENCES.values(), *_AFTER_TEXT.values())
        return tuple(self._shortened(step) for step in steps)

    def _call(self, turn: int, tools_done: int) -> CallTool | None:
        marks = self.marks(turn)
        if tools_done >= len(marks):
            return None

        command = {"command": f"echo {marks[tools_done]} >> {TRACE}; echo written", "description": "Write a line"}
        return CallTool("bash", command, text="I write a line.")

    def _shortened(self, step: Step) -> Step:
        if not isinstance(step, Fail) or "retry-after" not in step.headers:
            return step

        wait = min(float(step.headers["retry-after"]), self.longest_wait)
        return replace(step, headers={**step.headers, "retry-after": f"{wait:g}"})

    def _chance(self, *what: object) -> random.Random:
        return random.Random(f"{self.seed} {what}")  # noqa: S311 - a seeded play, no secret


class OrdealScript:
    """The ordeal as a provider's script: finds the turn of each request by what the transcript holds.

    Args:
        ordeal: what is to happen.
    """

    def __init__(self, ordeal: Ordeal) -> None:
        self.requests: Counter[int] = Counter()
        """How many requests each turn has cost."""
        self.asked: dict[int, list[str]] = {}
        """The models that each turn has asked, in order."""
        self.fates: dict[int, list[Step]] = {}
        """What became of the requests of each turn."""
        self._ordeal = ordeal

    def __call__(self, request: ProviderRequest) -> Step:
        turn, tools_done = _place(request.messages)
        self.requests[turn] += 1
        step = self._ordeal.step(turn, self.requests[turn], tools_done)
        self.asked.setdefault(turn, []).append(request.model)
        self.fates.setdefault(turn, []).append(step)
        return step


def turn_of(text: str) -> int | None:
    """The turn that a user's message starts, None for any other text."""
    found = _TURN.search(text)
    return int(found.group(1)) if found else None


def _place(messages: Any) -> tuple[int, int]:
    """The turn that a transcript has come to, and how many tool results it shows since that turn's prompt."""
    turn, tools_done = 0, 0
    for message in messages:
        started = turn_of(_text(message.get("content"))) if message.get("role") == "user" else None
        if started is not None:
            turn, tools_done = started, 0
        elif message.get("role") == "tool":
            tools_done += 1

    return turn, tools_done


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content

    return "".join(str(part.get("text", "")) for part in content or ())


def ordeal_config(base_url: str) -> dict[str, Any]:
    """The configuration of an OpenCode server: two providers with two models each, and the agent.

    Args:
        base_url: of the scripted provider, which stands behind both.
    """
    config = opencode_config(base_url, agents=[OpenCodeAgent(name=AGENT, model=ROUTES[0])], models=MODELS)
    known = config["provider"][PROVIDER]["models"]
    spare = {model: known.pop(model) for model in MODELS[2:]}
    config["provider"][SPARE] = {**config["provider"][PROVIDER], "models": spare}
    # The host's git snapshots of each step take longer than the step.
    config["snapshot"] = False
    return config
