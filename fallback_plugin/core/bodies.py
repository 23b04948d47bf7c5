"""Tolerant reading of response bodies: whatever came, bounded, never an exception.

Bodies arrive as decoded JSON, JSON text, JSON inside prose ("Error code: 429 - {...}"), JSON inside JSON, a
Python repr, an event stream, an HTML page or a bare sentence, often cut by whoever logged them. Everything
here looks at no more than `MAX_CHARS` characters and uses patterns that can't backtrack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import cast

MAX_CHARS = 16 * 1024
"""Characters of foreign text that are looked at (issue B)."""

_MAX_STARTS = 3
_DECODER = json.JSONDecoder(strict=False)
_JSON_START = re.compile(r"\{|\[(?=\s{0,8}[\[{\"])")
_LAX_FIELD = re.compile(
    r"""["']([A-Za-z_@][A-Za-z0-9_\-]{0,40})["']\s{0,4}:\s{0,4}(?:"([^"]{0,400})|'([^']{0,400})|(-?\d{1,15}(?:\.\d{1,9})?))""",
)
_TITLE = re.compile(r"<title[^<>]{0,80}>([^<]{0,300})", re.IGNORECASE)
_HEADING = re.compile(r"<h[12][^<>]{0,200}>([^<]{0,300})", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,400}>")
_HTML_MARKS = ("<!doctype html", "<html", "<head", "<title", "<body")


def clip(text: str | bytes | bytearray) -> str:
    """The first `MAX_CHARS` characters of a text in any encoding."""
    if isinstance(text, str):
        return text[:MAX_CHARS]

    return bytes(text[:MAX_CHARS]).decode("utf-8", "replace")


def words(text: str) -> frozenset[str]:
    """The blank-separated words of a table."""
    return frozenset(text.split())


def squeeze(text: str) -> str:
    """Lower case, straight quotes, single blanks: the form in which texts are matched."""
    return " ".join(text.lower().replace("\u2019", "'").replace("\u2018", "'").split())


def read_text(text: str) -> tuple[list[object], str]:
    """Splits a text into the JSON values found in it and what is left to read as a sentence.

    Args:
        text: any text; cut JSON yields a plain object of the fields that can still be recognised.

    Returns:
        (values, sentence): the JSON values in order, and the words around them.
    """
    text = clip(text).strip()
    if is_html(text):
        return [], html_words(text)

    if text[:1] == '"':
        return _quoted(text)

    values: list[object] = []
    rest: list[str] = []
    position = 0
    for start, end, value in _embedded(text):
        values.append(value)
        rest.append(text[position:start])
        position = end

    rest.append(text[position:])
    words = " ".join(rest)
    if fields := lax_fields(words):
        values.append(fields)
        words = words[: max(words.find("{"), 0)]

    return values, words.strip()


def _quoted(text: str) -> tuple[list[object], str]:
    try:
        value = cast("object", json.loads(text, strict=False))
    except (ValueError, RecursionError):
        return [], text.strip('"')

    return [value], ""


def _embedded(text: str) -> Iterator[tuple[int, int, object]]:
    position = 0
    for _ in range(_MAX_STARTS):
        found = _JSON_START.search(text, position)
        if found is None:
            return

        start = found.start()
        try:
            value, end = cast("tuple[object, int]", _DECODER.raw_decode(text, start))
        except (ValueError, RecursionError):
            position = start + 1
            continue

        if value:
            yield start, end, value

        position = end


def lax_fields(text: str) -> dict[str, object]:
    """Fields of a cut or Python-flavoured object, flat; the first of each name wins, in the order seen."""
    fields: dict[str, object] = {}
    if ":" not in text or ("{" not in text and "['" not in text):
        return fields

    for found in _LAX_FIELD.finditer(text):
        name, double, single, number = found.groups()
        value = double if double is not None else single if single is not None else _number(number)
        fields.setdefault(name, value)
        if len(fields) >= 40:
            break

    return fields


def _number(text: str) -> float | int:
    return float(text) if "." in text else int(text)


def is_html(text: str) -> bool:
    """Whether a text is a web page rather than a message or data."""
    head = text[:600].lower()
    return head.startswith("<") and any(mark in head for mark in _HTML_MARKS)


def html_words(text: str) -> str:
    """The title, headings and first words of a page; scripts and styles stay behind with the rest."""
    parts = [found.strip() for found in _TITLE.findall(text)[:1] + _HEADING.findall(text)[:3]]
    if any(parts):
        return " . ".join(part for part in parts if part)

    return _TAG.sub(" ", text[:2000])[:600]
