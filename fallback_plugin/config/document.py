"""The text of a configuration file: read whole, decoded, with the place of whatever is wrong in it."""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fallback_plugin.config.faults import shown
from fallback_plugin.config.positions import json_places, line_and_column, plain_json, toml_places
from fallback_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from fallback_plugin.config.positions import KeyPath, Places

MAX_BYTES = 1024 * 1024
"""Largest file that is read; a thousand agents with chains take a tenth of it."""

_MAX_DIGITS = 100
_JSON_EXPECTED = {
    "Expecting property name enclosed in double quotes": "a key in double quotes",
    "Expecting value": "a value",
    "Expecting ',' delimiter": '"," or a closing bracket',
    "Expecting ':' delimiter": '":" after the key',
    "Extra data": "the end of the file",
}
_MANY_DIGITS = re.compile(rf"[0-9_]{{{_MAX_DIGITS},}}+")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


@dataclass(slots=True, kw_only=True)
class Document:
    """A text that knows its name and where things stand in it.

    Attributes:
        name: the file's name in errors.
        text: what it holds.
        is_toml: TOML, else JSON with or without comments and trailing commas.
        has_repeated_keys: found by `decode`; where they are, `places` knows.
    """

    name: str
    text: str
    is_toml: bool = False
    has_repeated_keys: bool = False
    _places: Places | None = None

    def decode(self) -> object:
        """The value of the text.

        Raises:
            ConfigurationError: it is empty or breaks the rules of its format.
        """
        if not self.text.strip():
            raise ConfigurationError(self.say(0, "", "the file is empty; {} in JSON says the defaults"))

        try:
            return tomllib.loads(self.text) if self.is_toml else self._decode_json()
        except json.JSONDecodeError as error:
            fault = self.say(error.pos, "", _json_fault(self.text, error))
        except tomllib.TOMLDecodeError as error:
            fault = self._toml_fault(str(error))
        except RecursionError:
            fault = self.say(0, "", "nested too deeply")
        except ValueError:
            digits = _MANY_DIGITS.search(self.text)
            start = digits.start() if digits else 0
            fault = self.say(start, "", "a number or date that can't be read")

        raise ConfigurationError(fault)

    def _decode_json(self) -> object:
        def gather(pairs: list[tuple[str, object]]) -> dict[str, object]:
            gathered = dict(pairs)
            self.has_repeated_keys |= len(gathered) < len(pairs)
            return gathered

        return json.loads(plain_json(self.text), object_pairs_hook=gather, parse_int=_whole_number)

    def _toml_fault(self, message: str) -> str:
        place = _TOML_PLACE.search(message)
        reason = _lower_first(message[: place.start()] if place else message)
        if place and place[1]:
            return f"{self.name}:{place[1]}:{place[2]}: {reason}"

        return self.say(len(self.text.rstrip()), "", reason)

    def places(self) -> Places:
        """The places of keys and values; looked up once, when something is wrong."""
        if self._places is None:
            self._places = toml_places(self.text) if self.is_toml else json_places(self.text)

        return self._places

    def offset(self, path: KeyPath, *, at_key: bool) -> tuple[int, KeyPath]:
        """Where `path` stands, and how much of it the text holds: a single route stands for a list."""
        known = self.places().keys if at_key else self.places().values
        while path and path not in known:
            path = path[:-1]

        return known.get(path, 0), path

    def say(self, offset: int, path: str, text: str) -> str:
        """`text` with the place in front: `file:line:column: key.path: text`."""
        line, column = line_and_column(self.text, offset)
        return f"{self.name}:{line}:{column}: {path + ': ' if path else ''}{text}"


def read_text(path: Path) -> str:
    """The text of a regular file, without a byte order mark.

    Raises:
        ConfigurationError: it can't be read, is larger than `MAX_BYTES` or not in UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{path}: expected a regular file")

        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigurationError(f"{path}: can't be read: {reason}") from None

    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"{path}: larger than {MAX_BYTES} bytes")

    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        line, column = line_and_column(before, len(before))
        raise ConfigurationError(f"{path}:{line}:{column}: expected text in UTF-8") from None


def _whole_number(digits: str) -> float:
    # The interpreter refuses thousands of digits by an exception without a position; the schema has one.
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _json_fault(text: str, error: json.JSONDecodeError) -> str:
    if text.startswith("/*", error.pos):
        return "a comment that is not closed"

    expected = _JSON_EXPECTED.get(error.msg)
    if expected is None:
        return error.msg[0].lower() + error.msg[1:].removesuffix(" at")

    found = shown(text[error.pos]) if error.pos < len(text.rstrip()) else "the end of the file"
    return f"expected {expected}, found {found}"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
