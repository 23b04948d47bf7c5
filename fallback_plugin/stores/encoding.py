"""Values as JSON text: every store keeps the same text, so that a value reads the same from each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from fallback_plugin.stores.base import Json


def encode(value: Json) -> str:
    """The value as JSON text in ASCII.

    Raises:
        TypeError: it holds what JSON doesn't know.
        ValueError: it holds itself, or a number that is none.
    """
    return json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":"))


def decode(text: str | bytes) -> dict[str, Any]:
    """The value of a text that `encode` made."""
    return json.loads(text)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))

    raise TypeError(f"a stored value must be JSON, not {type(value).__name__}")
