"""HTTP statuses, given, quoted in bodies and spoken in text."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NOT_A_COUNT = r"(?! (?:rows|lines|tokens|times|items|files|requests|records|words|dollars)\b)"
_STATUS_TEXT = re.compile(
    r"(?:\bhttp(?:/[\d.]{1,3})?(?: (?:status|error))?(?: code)?|\bstatus(?:[ _]?code)?|\bstatuscode|\bcode"
    r"|\berror(?: code)?|\bapi error|\b(?:returned|received|got)(?: an?)?)"
    rf"[\"']?\s{{0,2}}(?:is|was)?[:=(\[ ]{{0,3}}[\"']?([45]\d\d)(?![\d.,]?\d){_NOT_A_COUNT}"
    rf"|^[\"'(\[]{{0,2}}([45]\d\d)(?=[\])\"':, -]|$){_NOT_A_COUNT}"
    r"|[\[(]([45]\d\d)[\])]"
    r"|\b(?:error|failed|response|request|exception): ([45]\d\d) "
    r"|\b([45]\d\d) (?:too many|bad gateway|bad request|service unavail|internal server|gateway time|unauthorized"
    r"|forbidden|payment req|not found|request time|unprocessable)"
)
_REASON_PHRASES: tuple[tuple[str, int], ...] = (
    ("too many requests", 429),
    ("bad gateway", 502),
    ("service unavailable", 503),
    ("gateway timeout", 504),
    ("gateway time-out", 504),
    ("internal server error", 500),
    ("payment required", 402),
)
_TELLING = frozenset({401, 402, 403, 404, 408, 410, 413, 422, 429, 498, 499, 503, 504, 529})


def status_in_text(text: str) -> int | None:
    """An HTTP status named as such in error text; numbers that merely occur are not one (K24).

    Args:
        text: squeezed error text.

    Returns:
        The first status of 400 to 599, or None.
    """
    found = _STATUS_TEXT.search(text)
    if found is not None:
        return int(next(group for group in found.groups() if group))

    head = text[:200]
    for phrase, status in _REASON_PHRASES:
        if phrase in head:
            return status

    return None


def telling_status(outer: int | None, inner: Iterable[int], text: str) -> int | None:
    """The status that says most: wrappers answer 200, 400 or 5xx for anything and quote the real one.

    Args:
        outer: the status of the response itself.
        inner: statuses found in the body, innermost last.
        text: squeezed error text.

    Returns:
        A status of 400 to 599, or what the response had, or None.
    """
    if outer is not None and outer >= 400 and outer not in {400, 500, 502}:
        return outer

    quoted = list(inner)
    named = status_in_text(text)
    telling = [status for status in (named, *quoted) if status in _TELLING]
    if telling:
        return telling[-1]

    if outer is not None and outer >= 400:
        return 400 if outer >= 500 and 400 in quoted else outer

    return quoted[-1] if quoted else named
