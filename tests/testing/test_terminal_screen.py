"""What a terminal shows of what today's programs write."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.testing.terminal_screen import Run, Style, TerminalScreen

# As a TUI of today begins: questions, modes, the alternate screen, then frames.
SESSION = (
    b"shell$ \x1b[?2031h\x1b]10;?\x07\x1b]11;?\x07\x1b[>0q\x1b[?25l\x1b[s\x1b[6n\x1bP+q4d73\x1b\\\x1b[?1016$p"
    b"\x1b[?u\x1b]99;i=x:p=?;\x1b\\\x1b]66;w=1; \x1b\\\x1b[u\x1b[?1049h\x1b[>4;1m\x1b[?1000h\x1b]0;The title\x07"
    b"\x1b[?2026h\x1b[2;1H\x1b[38;2;10;20;30m\x1b[48;2;1;2;3m\xe2\x94\x83 gr\xc3\xbc\xc3\x9fe\x1b[0m"
    b"\x1b[3;1H\x1b[1mbold\x1b[0m \x1b[3;7mturned\x1b[0m\x1b[?2026l\x1b[3;3H\x1b[?25h"
)


def fed(*pieces, columns=30, rows=4):
    screen = TerminalScreen(columns, rows)
    for piece in pieces:
        screen.feed(piece)
    return screen


def seen(screen):
    return screen.lines, screen.runs(), screen.cursor, screen.title


def test_what_is_no_text_is_not_shown():
    screen = fed(SESSION)

    assert screen.lines == ("", "┃ grüße", "bold turned", "")
    assert screen.title == "The title"
    assert screen.cursor == (2, 2)


def test_styles():
    runs = fed(SESSION).runs()

    coloured = Style(foreground="0a141e", background="010203")
    assert runs[1] == (Run("┃ grüße", coloured), Run(" " * 23, Style()))
    assert runs[2][:3] == (
        Run("bold", Style(bold=True)),
        Run(" ", Style()),
        Run("turned", Style(foreground="black", background="white", italic=True)),
    )
    assert runs[0] == (Run(" " * 30, Style()),)


@given(cuts=st.lists(st.integers(0, len(SESSION)), max_size=6).map(sorted))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts):
    edges = [0, *cuts, len(SESSION)]
    pieces = [SESSION[begin:end] for begin, end in pairwise(edges)]

    assert seen(fed(*pieces)) == seen(fed(SESSION))


def test_half_a_frame_is_not_shown():
    screen = fed(b"before\x1b[?2026h\x1b[1;1Hafter")
    assert screen.text.strip() == "before"

    screen.feed(b"wards\x1b[?2026l")
    assert screen.text.strip() == "afterwards"


def test_the_alternate_screen_gives_the_first_one_back():
    screen = fed(b"shell$ ", b"\x1b[?1049h", b"\x1b[Hprogram")
    assert screen.text.strip() == "program"

    screen.feed(b"\x1b[?1049lnext")
    assert screen.text.strip() == "shell$ next"


def test_the_cursor_is_reported():
    said = []
    screen = TerminalScreen(10, 3, reply=said.append)
    screen.feed(b"\x1b[2;4H\x1b[6n")

    assert said == ["\x1b[2;4R"]


@pytest.mark.parametrize("sequence", [b"\x1b[?25l", b"\x1b[?2026h\x1b[?25l\x1b[?2026l"])
def test_a_hidden_cursor(sequence):
    assert fed(b"x").cursor == (1, 0)
    assert fed(b"x", sequence).cursor is None


def test_the_cursor_stays_on_the_screen():
    assert fed(b"0123456789", columns=10).cursor == (9, 0)
