"""A user's patterns: RE2, so that no text makes one slow.

RE2 knows no look-around and no back-references. Letters match without case, as in the TypeScript plugin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import re2 as _untyped_re2  # pyright: ignore[reportMissingTypeStubs] - it ships none

MAX_PATTERN_LENGTH = 1000
"""Longest pattern, in characters: bounds what one pattern may cost to compile."""

_MAX_PIECE_LENGTH = 8

_re2 = cast("Any", _untyped_re2)


class _Compiled(Protocol):
    def search(self, text: str, /) -> object: ...


@dataclass(frozen=True, slots=True)
class UserPattern:
    """A compiled pattern; call it with an error text. Two of the same source are equal."""

    source: str
    _compiled: _Compiled = field(repr=False, compare=False)

    def __call__(self, text: str) -> bool:
        # JSON may smuggle in half a surrogate pair, which UTF-8 and so RE2 can't hold.
        return self._compiled.search(text.encode("utf-8", "replace").decode()) is not None


def user_pattern(source: str) -> UserPattern:
    """Compile `source`.

    Raises:
        ValueError: RE2 refuses it; the text says why, in RE2's words.
    """
    options = _re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    try:
        compiled = _re2.compile(source, options)
    except _re2.error as error:
        raise ValueError(_reason(error.args)) from None

    return UserPattern(source, compiled)


def _reason(arguments: tuple[object, ...]) -> str:
    """RE2's own words, which end in the offending piece; a long piece may be the whole pattern."""
    said = arguments[0] if arguments else b""
    words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    reason, _, piece = words.partition(": ")
    return f"{reason}: {piece}" if 0 < len(piece) <= _MAX_PIECE_LENGTH and piece.isprintable() else reason
