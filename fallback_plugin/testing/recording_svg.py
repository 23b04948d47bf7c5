"""A recorded terminal as a picture that plays: one SVG file with CSS animation, no script, for a README.

    python -m fallback_plugin.testing.recording_svg session.cast session.svg

The recording is played to an emulated screen, which is looked at a few times a second. Lines that recur are drawn
once and used again; characters that draw boxes and bars become rectangles, since fonts leave gaps between lines.
Who asked for less motion sees the last picture. Directories of the machine that it was recorded on are left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from types import MappingProxyType
from xml.sax.saxutils import escape

from fallback_plugin.testing.recording import Recording
from fallback_plugin.testing.terminal_screen import Run, Style, TerminalScreen

_WIDTH, _HEIGHT, _FONT = 8.4, 18.0, 14
_MARGIN = 12
_INK, _PAPER = "eeeeee", "0a0a0a"
_COLOURS = MappingProxyType(
    {
        "black": "000000", "red": "cd3131", "green": "0dbc79", "brown": "e5e510",
        "blue": "2472c8", "magenta": "bc3fbc", "cyan": "11a8cd", "white": "e5e5e5",
        "brightblack": "666666", "brightred": "f14c4c", "brightgreen": "23d18b", "brightbrown": "f5f543",
        "brightblue": "3b8eea", "brightmagenta": "d670d6", "brightcyan": "29b8db", "brightwhite": "ffffff",
    }
)  # fmt: skip
# Left, top, width and height in parts of a cell.
_BARS = MappingProxyType(
    {
        "█": (0, 0, 1, 1),
        "▀": (0, 0, 1, 0.5),
        "▄": (0, 0.5, 1, 0.5),
        "┃": (0.4, 0, 0.2, 1),
        "╹": (0.4, 0, 0.2, 0.5),
        "■": (0.15, 0.3, 0.7, 0.4),
        "⬝": (0.35, 0.45, 0.3, 0.15),
    }
)
_STYLE = (
    "text{font:%dpx ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    "white-space:pre;dominant-baseline:central}"
    ".f{visibility:hidden}"
)
_DIRECTORY = re.compile(r"(?<!\S)/(?:tmp|home|root|Users|var)/\S+")
_HIDDEN, _VISIBLE = "{visibility:hidden}", "{visibility:visible}"
_CALM = "@media(prefers-reduced-motion:reduce){.f{animation:none!important}}"

Line = tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """What the screen shows from some second on."""

    at: float
    lines: tuple[Line, ...]
    cursor: tuple[int, int] | None


def render_svg(recording: Recording, *, step: float = 0.2, longest_pause: float = 2.0, hold: float = 4.0) -> str:
    """Draw a recording.

    Args:
        recording: what was written to the terminal.
        step: seconds between two looks at the screen.
        longest_pause: seconds for which nothing may happen; longer pauses are shortened to it.
        hold: seconds for which the last picture stays.

    Returns:
        The SVG document.

    Raises:
        ValueError: the recording is empty.
    """
    frames = _without_pauses(list(_frames(recording, step)), longest_pause)
    if not frames:
        raise ValueError("nothing was recorded")

    drawing = _Drawing()
    pictures = [drawing.frame(number, frame) for number, frame in enumerate(frames)]
    width, height = recording.columns * _WIDTH + 2 * _MARGIN, recording.rows * _HEIGHT + 2 * _MARGIN
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}">',
            f"<style>{_STYLE % _FONT}{drawing.classes}{_animation(frames, hold)}{_CALM}</style>",
            f'<rect width="100%" height="100%" rx="8" fill="#{_PAPER}"/>',
            f"<defs>{drawing.lines}</defs>",
            f'<g transform="translate({_MARGIN} {_MARGIN})">',
            *pictures,
            "</g>",
            "</svg>\n",
        )
    )


def _frames(recording: Recording, step: float) -> Iterator[Frame]:
    screen = TerminalScreen(recording.columns, recording.rows)
    shown: Frame | None = None
    for _, group in groupby(recording.writes, key=lambda write: int(write[0] / step)):
        writes = list(group)
        for _, data in writes:
            screen.feed(data)

        frame = Frame(writes[-1][0], tuple(_without_directories(line) for line in screen.runs()), screen.cursor)
        if shown is None or (frame.lines, frame.cursor) != (shown.lines, shown.cursor):
            shown = frame
            yield frame


def _without_directories(line: Line) -> Line:
    return tuple(replace(run, text=_DIRECTORY.sub(lambda found: " " * len(found[0]), run.text)) for run in line)


def _without_pauses(frames: Sequence[Frame], longest: float) -> list[Frame]:
    cut = frames[0].at if frames else 0.0
    shortened = [Frame(0.0, frame.lines, frame.cursor) for frame in frames[:1]]
    for before, frame in pairwise(frames):
        cut += max(0.0, frame.at - before.at - longest)
        shortened.append(Frame(frame.at - cut, frame.lines, frame.cursor))

    return shortened


def _animation(frames: Sequence[Frame], hold: float) -> str:
    whole = frames[-1].at + hold
    edges = [100 * frame.at / whole for frame in frames] + [100.0]
    rules = [
        f"@keyframes k{number}{{{_keyframes(begin, end)}}}"
        f"#f{number}{{animation:k{number} {whole:.2f}s step-end infinite}}"
        for number, (begin, end) in enumerate(pairwise(edges))
    ]

    return "".join((*rules, f"#f{len(frames) - 1}{_VISIBLE}"))


def _keyframes(begin: float, end: float) -> str:
    before = f"0%{_HIDDEN}" if begin else ""
    after = f"{end:.3f}%{_HIDDEN}" if end < 100 else ""
    return f"{before}{begin:.3f}%{_VISIBLE}{after}"


class _Drawing:
    """The lines and styles that the frames share."""

    def __init__(self) -> None:
        self._lines: dict[Line, str] = {}
        self._classes: dict[str, str] = {}
        self._drawn: list[str] = []

    @property
    def lines(self) -> str:
        return "\n".join(self._drawn)

    @property
    def classes(self) -> str:
        return "".join(f".{name}{{{rule}}}" for rule, name in self._classes.items())

    def frame(self, number: int, frame: Frame) -> str:
        uses = [
            f'<use href="#{name}" y="{_n(row * _HEIGHT)}"/>'
            for row, line in enumerate(frame.lines)
            if (name := self._line(line))
        ]
        if frame.cursor:
            column, row = frame.cursor
            place = f'x="{_n(column * _WIDTH)}" y="{_n(row * _HEIGHT)}" width="{_n(_WIDTH)}" height="{_n(_HEIGHT)}"'
            uses.append(f'<rect {place} fill="#{_INK}" fill-opacity=".6"/>')

        return f'<g class="f" id="f{number}">{"".join(uses)}</g>'

    def _line(self, line: Line) -> str:
        if line not in self._lines:
            drawn = "".join(self._elements(line))
            self._lines[line] = f"l{len(self._drawn)}" if drawn else ""
            if drawn:
                self._drawn.append(f'<g id="{self._lines[line]}">{drawn}</g>')

        return self._lines[line]

    def _elements(self, line: Line) -> Iterator[str]:
        column, inks = 0, list[str]()
        for run in line:
            paper = _hex(run.style.background, _PAPER)
            if paper != _PAPER:
                yield _rect(column, (0, 0, 1, 1), len(run.text), self._class(f"fill:#{paper}"))

            inks.extend(self._ink(column, run))
            column += len(run.text)

        yield from inks

    def _ink(self, column: int, run: Run) -> Iterator[str]:
        fill = self._class(f"fill:#{_hex(run.style.foreground, _INK)}{_weight(run.style)}")
        for bar, group in groupby(run.text, key=lambda character: character if character in _BARS else ""):
            text = "".join(group)
            if bar:
                yield from _bars(column, bar, len(text), fill)
            elif words := text.strip():
                yield _text(column + text.index(words[0]), words, fill)

            column += len(text)

    def _class(self, rule: str) -> str:
        return self._classes.setdefault(rule, f"c{len(self._classes)}")


def _bars(column: int, bar: str, count: int, fill: str) -> Iterator[str]:
    box = _BARS[bar]
    if box[2] == 1:
        yield _rect(column, box, count, fill)
        return

    for place in range(column, column + count):
        yield _rect(place, box, 1, fill)


def _rect(column: int, box: tuple[float, float, float, float], count: int, fill: str) -> str:
    left, top, width, height = box
    x, y = (column + left) * _WIDTH, top * _HEIGHT
    size = f'width="{_n(count * width * _WIDTH)}" height="{_n(height * _HEIGHT)}"'
    return f'<rect class="{fill}" x="{_n(x)}" y="{_n(y)}" {size}/>'


def _text(column: int, text: str, fill: str) -> str:
    # Any font keeps to the grid when it is told how wide the text is.
    length = f'textLength="{_n(len(text) * _WIDTH)}"' if len(text) > 1 else ""
    return f'<text class="{fill}" x="{_n(column * _WIDTH)}" y="{_n(_HEIGHT / 2)}" {length}>{escape(text)}</text>'


def _weight(style: Style) -> str:
    lines = [name for name, on in (("underline", style.underline), ("line-through", style.strike)) if on]
    return "".join(
        (
            ";font-weight:bold" if style.bold else "",
            ";font-style:italic" if style.italic else "",
            f";text-decoration:{' '.join(lines)}" if lines else "",
        )
    )


def _hex(name: str, default: str) -> str:
    return _COLOURS.get(name, name) or default


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


if __name__ == "__main__":
    source, target = (Path(argument) for argument in sys.argv[1:])
    target.write_text(render_svg(Recording.load(source)), encoding="utf-8")
