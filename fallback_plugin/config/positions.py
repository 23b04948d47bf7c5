"""Where a key or a value stands in a configuration text.

The decoders (`json`, `tomllib`) give values without positions, so a wrong value is looked up here, by its
path, in a second look at the text. Both scanners are tolerant: on a text that the decoder refused they give
what they could read and never raise. They look no deeper than `MAX_DEPTH`; nothing of the schema is below.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KeyPath = tuple[str | int, ...]
"""Keys and list indexes from the root of a file: `("agents", "build", "fallback_models", 1)`."""

MAX_DEPTH = 64
"""Deepest level looked at; the schema has five."""

_JSON_TOKEN = re.compile(
    r"""
      (?P<comment> //[^\r\n]*+ | /\*(?:[^*]++|\*(?!/))*+(?:\*/)? )
    | (?P<string>  "(?:[^"\\]++|\\.)*+(?:"|\\?\Z) )
    | (?P<mark>    [{}\[\],:] )
    | (?P<bare>    [^\s{}\[\],:"/]++ | / )
    """,
    re.VERBOSE | re.DOTALL,
)
_NO_VALUE_BEFORE = frozenset("{[,:")

_TOML_BLANK = re.compile(r"(?:\s++|\#[^\n]*+)*+")
_TOML_STRING = re.compile(
    r"""
      "{3}(?:[^"\\]++|\\.|"{1,2}(?!"))*+"{0,5}
    | '{3}(?:[^']++|'{1,2}(?!'))*+'{0,5}
    | "(?:[^"\\\n]++|\\.)*+"?
    | '[^'\n]*+'?
    """,
    re.VERBOSE | re.DOTALL,
)
_TOML_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TOML_BARE_VALUE = re.compile(r"[^,\]}\n#]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Offsets of what a file holds.

    Attributes:
        keys: offset of each key; of each list item, its value.
        values: offset at which each value starts.
        repeated: keys written again in one JSON object, with the offset of the later one.
    """

    keys: Mapping[KeyPath, int]
    values: Mapping[KeyPath, int]
    repeated: tuple[tuple[KeyPath, int], ...] = ()


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Line and column of `offset`, both from 1; the column counts characters."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def plain_json(text: str) -> str:
    """`text` with comments and trailing commas blanked out, every other character at its old offset.

    The offsets are why this is not left to a library: one that cuts them out moves every later position.
    """
    characters = list(text)
    before, comma = "{", -1
    for token in _JSON_TOKEN.finditer(text):
        found = token[0]

        if token["comment"]:
            closed = found.startswith("//") or (len(found) > 3 and found.endswith("*/"))
            if closed:
                characters[token.start() : token.end()] = re.sub(r"[^\r\n]", " ", found)

            continue

        if found in ("}", "]") and comma >= 0:
            characters[comma] = " "

        comma = token.start() if found == "," and before not in _NO_VALUE_BEFORE else -1
        before = found

    return "".join(characters)


@dataclass(slots=True, kw_only=True)
class _Container:
    path: KeyPath
    is_object: bool
    index: int = 0
    key: str | None = None

    def child(self) -> KeyPath:
        return (*self.path, (self.key or "") if self.is_object else self.index)


def json_places(text: str) -> Places:
    """Positions in a JSON or JSONC text.

    A key that is written twice stands where it was written last, as the decoder takes the last value.
    """
    keys: dict[KeyPath, int] = {}
    values: dict[KeyPath, int] = {}
    repeated: list[tuple[KeyPath, int]] = []
    stack: list[_Container] = []
    for token in _json_tokens(text):
        found, top = token[0], stack[-1] if stack else None

        if len(stack) > MAX_DEPTH:
            break

        if found in ("}", "]"):
            del stack[-1:]
        elif found == "," and top:
            top.index, top.key = top.index + 1, None
        elif token["string"] and top and top.is_object and top.key is None:
            top.key = _json_key(found)
            if top.child() in keys:
                repeated.append((top.child(), token.start()))

            keys[top.child()] = token.start()
        elif found not in (",", ":"):
            path = top.child() if top else ()
            values[path] = token.start()
            if top and not top.is_object:
                keys[path] = token.start()

            if found in ("{", "["):
                stack.append(_Container(path=path, is_object=found == "{"))

    return Places(keys=keys, values=values, repeated=tuple(repeated))


def _json_tokens(text: str) -> Iterator[re.Match[str]]:
    return (token for token in _JSON_TOKEN.finditer(text) if not token["comment"])


def _json_key(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        return token.strip('"')


def toml_places(text: str) -> Places:
    """Positions in a TOML text, through headers, dotted keys, inline tables and lists of tables."""
    scanner = _TomlScanner(text=text)
    scanner.scan()
    return Places(keys=scanner.keys, values=scanner.values)


@dataclass(slots=True, kw_only=True)
class _TomlScanner:
    text: str
    at: int = 0
    keys: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])
    values: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])
    tables: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])

    def scan(self) -> None:
        table: KeyPath = ()
        self.values[()] = 0
        while self._skip_blank():
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._pair(table, depth=len(table))

    def _skip_blank(self) -> bool:
        blank = _TOML_BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at
        return self.at < len(self.text)

    def _take(self, mark: str) -> bool:
        self._skip_blank()
        if not self.text.startswith(mark, self.at):
            return False

        self.at += len(mark)
        return True

    def _header(self) -> KeyPath:
        opening = self.at
        is_list = self._take("[[") or not self._take("[")
        path: KeyPath = ()
        parts = self._key_parts()
        for number, (part, start) in enumerate(parts):
            path = (*path, part)
            self.keys.setdefault(path, start)
            self.values.setdefault(path, start)
            if is_list and number == len(parts) - 1:
                self.tables[path] = self.tables.get(path, 0) + 1

            if path in self.tables:
                path = (*path, self.tables[path] - 1)
                self.keys.setdefault(path, start)

        self.values.setdefault(path, opening)
        self._take("]]" if is_list else "]")
        return path

    def _pair(self, table: KeyPath, *, depth: int) -> None:
        path = table
        for part, start in self._key_parts():
            path = (*path, part)
            self.keys.setdefault(path, start)
            self.values.setdefault(path, start)

        if path == table:
            # Nothing that a key starts with: step over it, so that the scan always gets on.
            self.at += 1
        elif self._take("="):
            self._value(path, depth=depth)

    def _key_parts(self) -> list[tuple[str, int]]:
        parts: list[tuple[str, int]] = []
        while len(parts) < MAX_DEPTH and self._skip_blank():
            start = self.at
            token = _TOML_BARE_KEY.match(self.text, start) or _TOML_STRING.match(self.text, start)
            if not token:
                break

            self.at = token.end()
            parts.append((_toml_key(token[0]), start))
            if not self._take("."):
                break

        return parts

    def _value(self, path: KeyPath, *, depth: int) -> None:
        if not self._skip_blank():
            return

        self.values[path] = self.at
        if depth > MAX_DEPTH:
            self.at = len(self.text)
        elif self._take("["):
            self._list(path, depth=depth)
        elif self._take("{"):
            while self._skip_blank() and not self._take("}"):
                self._pair(path, depth=depth + 1)
                self._take(",")
        elif token := _TOML_STRING.match(self.text, self.at) or _TOML_BARE_VALUE.match(self.text, self.at):
            self.at = token.end()

    def _list(self, path: KeyPath, *, depth: int) -> None:
        index = 0
        while self._skip_blank() and not self._take("]"):
            start = self.at
            self.keys[*path, index] = start
            self._value((*path, index), depth=depth + 1)
            index += 1
            if not self._take(",") and self.at == start:
                self.at += 1


def _toml_key(token: str) -> str:
    if token[0] not in "\"'":
        return token

    try:
        return str(tomllib.loads(f"key = {token}")["key"])
    except ValueError:
        return token.strip("\"'")
