"""A story in the terminal: a line for each happening, and a table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fallback_plugin.testing.chronicle import Actor, Happening
from fallback_plugin.testing.story import CHAIN, StoryTurn, TurnReport

_PLAIN_WIDTH = 120
"""Columns where the output goes to no terminal, so that no table is squeezed."""
_STYLES = {Actor.USER: "bold", Actor.HOST: "cyan", Actor.PROVIDER: "yellow", Actor.PLUGIN: "bold green"}


@dataclass(slots=True, kw_only=True)
class Timeline:
    """Writes the story.

    Attributes:
        console: where to; without colours where it is no terminal.
        began_at: monotonic seconds at which the turn began; offsets count from here.
    """

    console: Console
    began_at: float | None = None

    def say(self, text: str) -> None:
        """One line about the demonstration itself."""
        self.console.print(Text(text), soft_wrap=True)

    def begin_turn(self, number: int, turn: StoryTurn) -> None:
        """The heading of a turn."""
        self.began_at = None
        self.console.print(Text(f"\n{number}. {turn.title}", style="bold"), soft_wrap=True)

    def tell(self, happening: Happening) -> None:
        """The line of a happening."""
        if self.began_at is None:
            self.began_at = happening.at

        line = Text.assemble(
            (f"{happening.at - self.began_at:7.2f} s  ", "dim"),
            (f"{happening.actor.value:<10}", _STYLES[happening.actor]),
            happening.text,
        )
        self.console.print(line, soft_wrap=True)

    def summarize(self, reports: Sequence[TurnReport]) -> None:
        """The table of what was seen, and what is not as it must be."""
        table = Table(box=SIMPLE_HEAD, title="requests, and what the session holds")
        for heading in ("turn", *(f"to {route}" for route in CHAIN), "user messages", "tool runs"):
            table.add_column(heading, justify="right")
        for heading in ("answer", "as it must be"):
            table.add_column(heading)

        for number, report in enumerate(reports, 1):
            seen = report.seen
            table.add_row(
                str(number),
                *map(str, seen.requests),
                str(seen.prompts),
                str(seen.tool_runs),
                Text("\n".join(seen.answers) or "none"),
                Text("yes", style="green") if report.is_right else Text("no", style="bold red"),
            )

        self.console.print()
        self.console.print(table)
        for number, report in enumerate(reports, 1):
            for difference in report.differences():
                self.say(f"turn {number}: {difference}")


def open_console() -> Console:
    """A console on standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, _PLAIN_WIDTH))
