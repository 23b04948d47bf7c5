"""Many wordings tried on one text, cheaply.

A row of the phrase tables holds dozens of patterns, and trying each on every character of an error text would
cost milliseconds. Nearly all of them demand some literal word, though ("insufficient …", "… overload"). That
word is derived from the pattern; looking for it is a plain substring search, and only a pattern whose word
occurs is compiled (once) and tried. The patterns are ours, not the text's: bounded repeats, no nested ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_LEAST = 3
_CONTINUED = re.compile(r"\\\n\s{0,40}")
_LITERAL_ESCAPES = frozenset(".()[]{}|/'\"`+*?^$\\-")


@dataclass(frozen=True, slots=True)
class Wordings:
    """Patterns, any of which may occur.

    Attributes:
        patterns: (literals, pattern): one of the literals occurs in every match; no literals, always try.
    """

    patterns: tuple[tuple[tuple[str, ...], str], ...]

    def found_in(self, text: str) -> bool:
        """Whether one of the patterns occurs in a squeezed text."""
        return any(
            _compiled(pattern).search(text) is not None
            for literals, pattern in self.patterns
            if not literals or any(literal in text for literal in literals)
        )


def wordings(lines: str, **parts: str) -> Wordings:
    """Reads a table of patterns.

    Args:
        lines: one pattern a line; a backslash at the end of a line goes on with the next.
        parts: what to put for `<name>` in the patterns.

    Returns:
        The patterns with the literals that each demands.
    """
    for name, part in parts.items():
        lines = lines.replace(f"<{name}>", part)

    joined = _CONTINUED.sub("", lines)
    patterns = [line.strip() for line in joined.splitlines() if line.strip()]
    return Wordings(tuple((demanded(pattern), pattern) for pattern in patterns))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def demanded(pattern: str) -> tuple[str, ...]:
    """Literals one of which occurs in every match of a pattern; none if that can't be told."""
    branches = _branches(pattern)
    if len(branches) == 1:
        return _demanded_by_sequence(pattern)

    each = [demanded(branch) for branch in branches]
    return tuple(dict.fromkeys(literal for literals in each for literal in literals)) if all(each) else ()


def _branches(pattern: str) -> list[str]:
    """Splits at the alternations of the outermost level."""
    parts: list[str] = []
    depth, start, position = 0, 0, 0
    while position < len(pattern):
        sign = pattern[position]
        if sign == "\\":
            position += 1
        elif sign == "[":
            position = _class_end(pattern, position)
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "|" and depth == 0:
            parts.append(pattern[start:position])
            start = position + 1

        position += 1

    return [*parts, pattern[start:]]


def _class_end(pattern: str, start: int) -> int:
    position = start + 1
    while pattern[position] != "]" or position == start + 1:
        position += 2 if pattern[position] == "\\" else 1

    return position


def _group_end(pattern: str, start: int) -> int:
    depth, position = 0, start
    while True:
        sign = pattern[position]
        if sign == "\\":
            position += 1
        elif sign == "[":
            position = _class_end(pattern, position)
        elif sign in "()":
            depth += 1 if sign == "(" else -1
            if depth == 0:
                return position

        position += 1


def _demanded_by_sequence(pattern: str) -> tuple[str, ...]:
    found: list[tuple[str, ...]] = []
    run = ""
    position = 0
    while position < len(pattern):
        piece, literal, group = _atom(pattern, position)
        position += len(piece)
        quantifier = _quantifier(pattern, position)
        position += len(quantifier)
        optional = quantifier[:1] in {"?", "*"} or quantifier.startswith("{0")
        if literal and not quantifier:
            run += literal
            continue

        found.append((run,))
        run = ""
        if not optional and literal:
            found.append((literal,))
        elif not optional and group is not None:
            found.append(demanded(group))

    best = max((*found, (run,)), key=_worth)
    return best if _worth(best) else ()


def _worth(literals: tuple[str, ...]) -> float:
    """Long and few is best; too short a literal tells nothing."""
    least = min((len(literal.encode()) for literal in literals), default=0)
    return least / len(literals) ** 0.5 if least >= _LEAST else 0.0


def _atom(pattern: str, position: int) -> tuple[str, str, str | None]:
    """The piece at a position: its text, the literal it stands for, the inside if it is a plain group."""
    sign = pattern[position]
    if sign == "\\":
        piece = pattern[position : position + 2]
        return piece, piece[1] if piece[1] in _LITERAL_ESCAPES else "", None

    if sign == "[":
        return pattern[position : _class_end(pattern, position) + 1], "", None

    if sign == "(":
        piece = pattern[position : _group_end(pattern, position) + 1]
        return piece, "", piece[3:-1] if piece.startswith("(?:") else None if piece[1] == "?" else piece[1:-1]

    return sign, "" if sign in ".^$" else sign, None


def _quantifier(pattern: str, position: int) -> str:
    if position >= len(pattern):
        return ""

    if pattern[position] in "?*+":
        return pattern[position]

    return pattern[position : pattern.index("}", position) + 1] if pattern[position] == "{" else ""
