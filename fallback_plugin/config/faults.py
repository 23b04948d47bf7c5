"""Words for what is wrong in a configuration: where, what was expected, what was found, and the fix.

What was found is shown only where it is short and can't be a credential: such a file is easily the place
into which somebody pastes a key by mistake, and its errors end up in logs and bug reports.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fallback_plugin.config.schema import known_keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

    from fallback_plugin.config.positions import KeyPath

MAX_SHOWN_LENGTH = 60
_HUGE = 10**15
_SHORTEST_START = 4

_CREDENTIAL = re.compile(
    r"""
      (?<![a-z0-9])(?:sk|pk|rk|gsk|hf|ghp|gho|ghs|ghu|github_pat|glpat|xox[a-z]|nvapi|r8)[-_]
    | (?<![a-z0-9])(?:AIza|AKIA|eyJ)
    | \b(?:bearer|basic|api[-_]?key|token|secret|password)\b
    | (?=[a-z0-9]*[0-9])(?=[a-z0-9]*[a-z])[a-z0-9]{20}
    | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}- | ://[^/@\s]+@
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SIMPLE_KEY = re.compile(r"[A-Za-z_$][\w$-]*", re.ASCII)

_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than_equal": "a number of at most {le:g}",
    "string_type": "text",
    "string_unicode": "text in whole Unicode characters",
    "string_too_short": "text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "model_type": "an object",
    "dict_type": "an object",
}
"""What pydantic's error types mean to the author of a file; our own types bring their words along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong in a file; its words are made when they are asked for, as few of many are shown.

    Attributes:
        path: where.
        at_key: whether the key is wrong rather than its value.
        error: pydantic's; None for a key that is written twice.
    """

    path: KeyPath
    at_key: bool = False
    error: ErrorDetails | None = None

    @property
    def text(self) -> str:
        """What is wrong, without the place."""
        return _words(self.error) if self.error else "the key is written twice; keep one of them"


def shown(value: object) -> str:
    """`value` as an error may show it: as written if short and harmless, else its type."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)

    if isinstance(value, str):
        return _shown_text(value)

    if isinstance(value, int):
        return str(value) if abs(value) < _HUGE else "a huge number"

    if isinstance(value, float):
        return repr(value)

    if isinstance(value, list | tuple):
        return "a list"

    return "an object" if isinstance(value, dict) else "a date or time"


def _shown_text(text: str) -> str:
    if len(text) > MAX_SHOWN_LENGTH or _CREDENTIAL.search(text):
        return f"text of {len(text)} characters"

    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in quoted)


def key_path(path: Iterable[str | int]) -> str:
    """`path` in words: `agents.build.fallback_models[1]`, `agents."my agent".enabled`."""
    words = ""
    for part in path:
        if isinstance(part, int):
            words += f"[{part}]"
        elif len(part) <= MAX_SHOWN_LENGTH and _SIMPLE_KEY.fullmatch(part) and not _CREDENTIAL.search(part):
            words += f".{part}"
        else:
            words += f".{_shown_text(part)}"

    return words.removeprefix(".")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The word of `known` that was probably meant: as if case and `-`, `_` did not count."""
    by_shape, shape = {_shape(each): each for each in known}, _shape(word)
    starts = [each for each in by_shape if len(shape) >= _SHORTEST_START and each.startswith(shape)]
    matches = starts or difflib.get_close_matches(shape, by_shape, n=1, cutoff=0.6)
    return by_shape[matches[0]] if matches else None


def _shape(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")


def fault_of(error: ErrorDetails) -> Fault:
    """One of pydantic's errors with its place in the file."""
    if _is_wrong_key(error):
        return Fault(path=error["loc"][:-1], at_key=True, error=error)

    return Fault(path=error["loc"], at_key=error["type"] == "extra_forbidden", error=error)


def _is_wrong_key(error: ErrorDetails) -> bool:
    # pydantic marks the wrong name of an agent by a last step that no file holds.
    return len(error["loc"]) == 3 and error["loc"][-1] == "[key]" and error["type"] != "extra_forbidden"


def _words(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(error["loc"])

    if kind in ("literal_error", "enum"):
        return _choice(str(context["expected"]), error["input"])

    expected = _EXPECTED[kind].format(**context) if kind in _EXPECTED else error["msg"]
    return f"expected {expected}" if kind == "rule" else _expected(expected, error["input"])


def _expected(expected: str, found: object) -> str:
    return f"expected {expected}, found {shown(found)}"


def _unknown_key(path: KeyPath) -> str:
    key, known = str(path[-1]), known_keys(path[:-1])
    near = nearest(key, known)
    fix = f'did you mean "{near}"?' if near else f"known keys are {', '.join(known)}"
    return f"unknown key {_shown_text(key)}; {fix}"


def _choice(expected: str, found: object) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    near = nearest(found, choices) if isinstance(found, str) else None
    fix = f'; did you mean "{near}"?' if near else ""
    words = ", ".join(f'"{choice}"' for choice in choices)
    return f"expected one of {words}, found {shown(found)}{fix}"
