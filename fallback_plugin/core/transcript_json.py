"""Tolerant reading of decoded JSON of any shape, and text that every JSON writer can encode."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NoReturn, cast

from fallback_plugin.core.transcript import Change, Note

Tally = Counter[tuple[Change, str]]
"""What was changed and how often, while a report grows."""

_TYPE_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,48}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def notes_of(tally: Tally) -> tuple[Note, ...]:
    """The report of a tally, in a fixed order."""
    return tuple(
        Note(change=change, what=what, count=count) for (change, what), count in sorted(tally.items()) if count
    )


def mapping_of(value: object) -> Mapping[str, object]:
    """The value if it is an object, else an empty one."""
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def items_of(value: object) -> Sequence[object]:
    """The value if it is an array, else an empty one."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return cast("Sequence[object]", value)

    return ()


def string_of(value: object) -> str:
    """The value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def first_of(source: Mapping[str, object], *names: str) -> object:
    """The value of the first of some keys that is there; shapes are written in camelCase and in snake_case."""
    for name in names:
        if source.get(name) is not None:
            return source[name]

    return None


def note_block(tally: Tally, kind: object) -> None:
    """Notes a block that can't be carried over; a type that doesn't look like one could be somebody's words."""
    name = kind if isinstance(kind, str) and _TYPE_NAME.fullmatch(kind) else "unknown"
    tally[Change.DROPPED, f"block:{name}"] += 1


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs, which a cut stream leaves and no request can carry, replaced."""
    if not _SURROGATE.search(text):
        return text

    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def dump(value: object) -> str:
    """JSON text of a decoded value; an empty object for what JSON can't say."""
    try:
        return encodable(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return "{}"


def load(text: str) -> object:
    """The value of strict JSON text (no NaN, no cut ends), None where it isn't that."""
    try:
        return cast("object", json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def load_object(text: str) -> dict[str, object] | None:
    """The object that a JSON text says, None if it says anything else."""
    value = load(text)
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def object_text(text: str) -> str:
    """JSON text of one object that holds what was given.

    An object is kept as it was written. Anything else, such as the arguments of a call whose stream was cut, is kept
    as a string under "invalid_arguments", because every provider wants an object.
    """
    if not text.strip():
        return "{}"

    value = load_object(text)
    if value is None:
        return dump({"invalid_arguments": text})

    # An escape in the text can hide half a pair that only the decoded value shows.
    decoded = json.dumps(value, ensure_ascii=False)
    clean = encodable(decoded)
    return text if clean == decoded and encodable(text) == text else clean
