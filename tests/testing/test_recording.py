"""Recordings of terminals: asciinema casts, and pictures that play."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import pytest

from fallback_plugin.testing.recording import Recording
from fallback_plugin.testing.recording_svg import render_svg

SVG = "{http://www.w3.org/2000/svg}"


def recording(*writes, columns=20, rows=3):
    return Recording(columns=columns, rows=rows, writes=[(at, text.encode()) for at, text in writes])


def texts(group, defs):
    """The words of one frame, top to bottom."""
    used = [use.get("href").removeprefix("#") for use in group.iter(f"{SVG}use")]
    return ["".join(text.text for text in defs[name].iter(f"{SVG}text")) for name in used]


def frames(svg):
    root = ET.fromstring(svg)
    defs = {group.get("id"): group for group in root.find(f"{SVG}defs")}
    return [texts(group, defs) for group in root.iter(f"{SVG}g") if group.get("class") == "f"]


def begins(svg):
    """When each frame begins, in seconds."""
    length = float(re.search(r"animation:k0 ([\d.]+)s", svg)[1])
    return [float(share) / 100 * length for share in re.findall(r"([\d.]+)%\{visibility:visible\}", svg)]


def test_a_cast_is_what_asciinema_writes(tmp_path):
    path = tmp_path / "it.cast"
    recording((0.1234, "a\x1b[1m"), (1.5, "b")).save(path, title="Two letters")

    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"version": 2, "width": 20, "height": 3, "title": "Two letters"},
        [0.123, "o", "a\x1b[1m"],
        [1.5, "o", "b"],
    ]
    assert Recording.load(path) == recording((0.123, "a\x1b[1m"), (1.5, "b"))


def test_a_cast_of_asciinema_is_read(tmp_path):
    path = tmp_path / "it.cast"
    lines = [{"version": 2, "width": 80, "height": 24, "env": {"TERM": "x"}}, [0.5, "i", "typed"], [1, "o", "said"]]
    path.write_text("\n".join(map(json.dumps, lines)))

    assert Recording.load(path) == recording((1.0, "said"), columns=80, rows=24)


@pytest.mark.parametrize("text", ['{"version": 1, "width": 1, "height": 1}', "[]", ""])
def test_something_else_is_refused(tmp_path, text):
    path = tmp_path / "it.cast"
    path.write_text(text)
    with pytest.raises(ValueError, match="no asciinema cast of version 2"):
        Recording.load(path)


def test_a_later_begin_keeps_what_was_there():
    assert recording((0.5, "a"), (2.0, "b"), (3.0, "c")).since(2.0) == recording((0.0, "a"), (0.0, "b"), (1.0, "c"))


def test_a_frame_for_each_change():
    svg = render_svg(recording((0, "one"), (1.0, "\r\ntwo <&>"), (2.0, ""), (2.5, "\x1b[2J\x1b[Hthree")))

    assert frames(svg) == [["one"], ["one", "two <&>"], ["three"]]
    assert begins(svg) == pytest.approx([0.0, 1.0, 2.5], abs=0.01)


def test_changes_in_quick_succession_are_one_frame():
    svg = render_svg(recording((0, "a"), (0.05, "b"), (0.1, "c"), (0.5, "d")), step=0.2)

    assert frames(svg) == [["abc"], ["abcd"]]


def test_long_pauses_are_shortened():
    svg = render_svg(recording((5, "a"), (6, "b"), (100, "c"), (101, "d")), longest_pause=2.0)

    assert begins(svg) == pytest.approx([0.0, 1.0, 3.0, 4.0], abs=0.01)


def test_lines_are_drawn_once():
    svg = render_svg(recording((0, "same"), (1, "\r\nother"), (2, "\r\nsame")))

    assert frames(svg) == [["same"], ["same", "other"], ["same", "other", "same"]]
    assert svg.count(">same</text>") == 1


def test_without_motion_the_last_picture_stays():
    svg = render_svg(recording((0, "first"), (1, " last")))

    assert ".f{visibility:hidden}" in svg
    assert "#f1{visibility:visible}" in svg
    assert "#f0{visibility" not in svg


def test_words_keep_their_place_colours_and_boxes():
    svg = render_svg(recording((0, "\x1b[?25l  \x1b[38;2;1;2;3;48;2;4;5;6mink ██┃\x1b[0m")))
    root = ET.fromstring(svg)

    text = next(root.iter(f"{SVG}text"))
    assert (text.get("x"), text.get("textLength"), text.text) == ("16.8", "25.2", "ink")
    paper, block, bar = root.find(f"{SVG}defs").iter(f"{SVG}rect")
    assert (paper.get("x"), paper.get("width"), paper.get("height")) == ("16.8", "58.8", "18")
    assert (block.get("x"), block.get("width")) == ("50.4", "16.8")
    assert float(bar.get("width")) < 2
    assert f".{text.get('class')}{{fill:#010203}}" in svg
    assert f".{paper.get('class')}{{fill:#040506}}" in svg


def test_directories_of_the_machine_are_left_out_and_all_else_keeps_its_place():
    shown = [render_svg(recording((0, f"a {text} b/c"))) for text in ("/tmp/x-1/y", " " * 10, "/not/that/")]

    assert shown[0] == shown[1] != shown[2]
    assert frames(shown[0]) == [["a            b/c"]]


def test_nothing_recorded():
    with pytest.raises(ValueError, match="nothing was recorded"):
        render_svg(recording())
