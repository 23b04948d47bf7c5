"""What came of an ordeal: how each turn ended, and whether anything was done twice."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """How a turn ended."""

    ANSWERED = "answered"
    EXHAUSTED = "exhausted"
    """No model is left, and the user was told."""
    FAILED = "failed"
    """An error was shown although models were left."""
    SILENT = "silent"
    """The host is idle, and has neither answered nor said why not."""
    STUCK = "stuck"
    """Somebody had to lose patience and stop it."""


LOST = (Outcome.FAILED, Outcome.SILENT, Outcome.STUCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAccount:
    """One turn.

    Attributes:
        turn: its number, from 1.
        outcome: how it ended.
        seconds: from the prompt to its end.
        requests: what it has cost.
        alarms: how often the user was told that all is over.
        fates: what became of the requests, in words, for whoever wants to know why.
    """

    turn: int
    outcome: Outcome
    seconds: float
    requests: int
    alarms: int = 0
    fates: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All turns of one session.

    Attributes:
        turns: in order.
        doubled: user messages beyond the first of each turn, as their texts (empty ones too).
        missing: turns whose user message is not in the history.
        repeated: lines that tools have written more than once.
        unwritten: lines of answered turns that no tool has written.
    """

    turns: Sequence[TurnAccount]
    doubled: Sequence[str] = ()
    missing: Sequence[int] = ()
    repeated: Sequence[str] = ()
    unwritten: Sequence[str] = ()
    _count: Mapping[Outcome, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_count", Counter(turn.outcome for turn in self.turns))

    def count(self, *outcomes: Outcome) -> int:
        """How many turns ended in one of these ways."""
        return sum(self._count.get(outcome, 0) for outcome in outcomes)

    @property
    def lost(self) -> tuple[TurnAccount, ...]:
        """The turns that were neither answered nor cleanly exhausted."""
        return tuple(turn for turn in self.turns if turn.outcome in LOST)

    def lines(self) -> dict[str, str]:
        """The account as lines of a table: what was counted, and the figure."""
        seconds = sorted(turn.seconds for turn in self.turns)
        requests = [turn.requests for turn in self.turns]

        return {
            "turns": str(len(self.turns)),
            "answered": str(self.count(Outcome.ANSWERED)),
            "exhausted, said once": str(sum(_is_clean(turn) for turn in self.turns)),
            "exhausted, not said once": str(
                self.count(Outcome.EXHAUSTED) - sum(_is_clean(turn) for turn in self.turns)
            ),
            "lost": str(len(self.lost)),
            "  error shown": str(self.count(Outcome.FAILED)),
            "  no answer, no word": str(self.count(Outcome.SILENT)),
            "  stopped by hand": str(self.count(Outcome.STUCK)),
            "user messages doubled": str(len(self.doubled)),
            "user messages missing": str(len(self.missing)),
            "tools run twice": str(len(self.repeated)),
            "tools not run": str(len(self.unwritten)),
            "requests per turn": f"{statistics.mean(requests):.2f} (most {max(requests)})",
            "seconds per turn": f"{statistics.median(seconds):.2f} (95 %: {_quantile(seconds, 0.95):.1f})",
            "seconds in all": f"{sum(seconds):.0f}",
        }


def _is_clean(turn: TurnAccount) -> bool:
    return turn.outcome is Outcome.EXHAUSTED and turn.alarms == 1


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def side_by_side(accounts: Mapping[str, Account]) -> str:
    """Several accounts as one table of text.

    Args:
        accounts: by the name of who went through the ordeal.
    """
    columns = {name: account.lines() for name, account in accounts.items()}
    titles = [title for lines in columns.values() for title in lines]
    rows = [["", *columns]]
    rows += [[title, *(lines[title] for lines in columns.values())] for title in dict.fromkeys(titles)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]

    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )
