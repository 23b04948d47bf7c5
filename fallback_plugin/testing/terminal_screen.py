"""What a terminal shows: the bytes of a program in, lines of text and styled cells out.

The emulation is pyte's. Three things of today's terminals are not in it and are done here:

- Sequences that pyte would misread are kept from it: strings to the terminal (DCS, APC, OSC beyond titles)
  would be drawn as text, `CSI > 4 ; 1 m` (a keyboard mode) would underline everything from there on.
- Synchronized output (mode 2026): nothing between its begin and end shows until the end has come, so that nobody
  reads half a frame.
- The alternate screen (mode 1049), and the cursor saved by `CSI s`.

pyte is imported when a screen is made: whoever only writes or reads recordings needs none.
"""

from __future__ import annotations

import codecs
import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyte

_SEQUENCE = re.compile(
    r"""\x1b(?:
        [PX^_] [^\x1b]* \x1b\\                 # strings to the terminal
      | \] [^\x07\x1b]* (?: \x07 | \x1b\\ )    # titles, colours
      | \[ [0-?]* [ -/]* [@-~]                 # control sequences
      | [ -/]+ [0-~]                           # character sets
      | [0-OQ-WYZ\\`-~]                        # two characters
    )""",
    re.VERBOSE,
)
_KNOWN = re.compile(
    r"\x1b (?: \[ [0-9;]* [@-~] | \[\? [0-9;]* [hlJK] | \] [012] ; .* | [^\[\]PX^_].* )", re.VERBOSE | re.DOTALL
)
_SYNCHRONIZED = "\x1b[?2026h"
_SYNCHRONIZED_END = "\x1b[?2026l"
_ALTERNATE = "\x1b[?1049h"
_ALTERNATE_END = "\x1b[?1049l"
_REPLACED = {"\x1b[s": "\x1b7", "\x1b[u": "\x1b8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How one character looks."""

    foreground: str = ""
    """`rrggbb`, a name of pyte's ("red", "brightblue"), or empty for the terminal's own."""
    background: str = ""
    bold: bool = False
    italic: bool = False
    underline: bool = False
    strike: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbours of one line that look alike."""

    text: str
    style: Style


class TerminalScreen:
    """The screen of a terminal.

    Args:
        columns: its width in characters.
        rows: its height in lines.
        reply: takes what the terminal says to the program, such as where the cursor is.
    """

    def __init__(self, columns: int, rows: int, *, reply: Callable[[str], None] | None = None) -> None:
        self._screen, self._stream = _emulate(columns, rows, reply or _ignore)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._held: list[str] | None = None
        self._main: Any = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The text of each line, without the blanks at its end."""
        return tuple(line.rstrip() for line in self._screen.display)

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines)

    @property
    def title(self) -> str:
        """The window's title."""
        return self._screen.title

    @property
    def cursor(self) -> tuple[int, int] | None:
        """Column and row of the cursor, from 0; None while it is hidden."""
        cursor = self._screen.cursor
        return None if cursor.hidden else (min(cursor.x, self._screen.columns - 1), cursor.y)

    def runs(self) -> tuple[tuple[Run, ...], ...]:
        """Give each line as runs of characters that look alike, the blanks at its end included."""
        rows = range(self._screen.lines)
        return tuple(tuple(_runs(self._screen.buffer[row], self._screen.columns)) for row in rows)

    def feed(self, data: bytes) -> None:
        """Show what a program has written, cut anywhere.

        Args:
            data: its bytes, text in UTF-8.
        """
        text = self._rest + self._decoder.decode(data)
        position = 0
        while (escape := text.find("\x1b", position)) >= 0:
            self._show(text[position:escape])
            position = escape
            found = _SEQUENCE.match(text, position)
            if found is None:
                break

            self._obey(found.group())
            position = found.end()
        else:
            self._show(text[position:])
            position = len(text)

        self._rest = text[position:]

    def _obey(self, sequence: str) -> None:
        if sequence == _SYNCHRONIZED:
            self._held = [] if self._held is None else self._held
        elif sequence == _SYNCHRONIZED_END:
            held, self._held = self._held or [], None
            self._stream.feed("".join(held))
        elif sequence in (_ALTERNATE, _ALTERNATE_END):
            self._switch(alternate=sequence == _ALTERNATE)
        elif _KNOWN.fullmatch(sequence):
            self._show(_REPLACED.get(sequence, sequence))

    def _show(self, text: str) -> None:
        if self._held is not None:
            self._held.append(text)
        elif text:
            self._stream.feed(text)

    def _switch(self, *, alternate: bool) -> None:
        buffer = self._screen.buffer
        if alternate:
            self._main = copy.deepcopy(dict(buffer))
            self._stream.feed("\x1b7\x1b[2J\x1b[H")
        elif self._main is not None:
            buffer.clear()
            buffer.update(self._main)
            self._main = None
            self._stream.feed("\x1b8")


def _emulate(columns: int, rows: int, reply: Callable[[str], None]) -> tuple[pyte.Screen, pyte.Stream]:
    import pyte  # noqa: PLC0415 - only tests need it

    screen = pyte.Screen(columns, rows)
    # The way that pyte offers to be answered.
    screen.write_process_input = reply  # pyright: ignore[reportAttributeAccessIssue]
    return screen, pyte.Stream(screen)


def _ignore(said: str) -> None:
    pass


def _runs(line: Any, columns: int) -> Iterator[Run]:
    text, style = "", Style()
    for column in range(columns):
        cell = line[column]
        this = _style(cell)
        if text and this != style:
            yield Run(text, style)
            text = ""

        style = this
        text += cell.data

    yield Run(text, style)


def _style(cell: Any) -> Style:
    foreground, background = _colour(cell.fg), _colour(cell.bg)
    if cell.reverse:
        foreground, background = background or "black", foreground or "white"

    return Style(
        foreground=foreground,
        background=background,
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        strike=cell.strikethrough,
    )


def _colour(name: str) -> str:
    return "" if name == "default" else name
