"""What one failure says about itself, gathered from wherever it hides.

A body is walked breadth first, so that the error object of the outer layer is read before padding deeper down
costs the budget. Strings that hold JSON are unwrapped up to five layers deep (OpenRouter's `metadata.raw`,
Gemini CLI's `error.message`, gateways that quote their upstream). Only fields that carry error words are taken
as text: prompts, generations and request echoes are never read.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

from fallback_plugin.core.bodies import MAX_CHARS, clip, read_text, squeeze, words
from fallback_plugin.core.failure import Facts
from fallback_plugin.core.statuses import telling_status

MAX_LAYERS = 5
"""Layers of JSON inside JSON text that are unwrapped (issue B)."""

_MAX_NODES = 400
_MAX_CHILDREN = 48
_MAX_PAIRS = 4096

_TEXT_FIELDS = words(
    "message msg error errors errormessage errormsg errmsg detail details description errordescription title raw body"
    " responsebody responsetext text cause hint statusmsg statusmessage statustext reason info explanation failedreason"
    " usermessage localizedmessage errorinfo data result response upstreamerror providererror lasterror"
)
_CODE_FIELDS = words(
    "code type status reason errorcode errcode errno errortype errtype name kind error statuscode httpcode"
    " httpstatuscode rawstatuscode httpstatus quotaid subcode innercode limittype limitname ratelimittype"
    " xerrorcode errorname category basecode ret retcode providercode upstreamcode syscall"
) | {"__type", "type_"}
_STATUS_FIELDS = words(
    "code status statuscode httpcode httpstatuscode rawstatuscode httpstatus errorcode upstreamstatus"
)
_HEADER_FIELDS = words("headers httpheaders responseheaders")
_CLOSED_FIELDS = words(
    "messages input prompt choices content contents request requestbody requestbodyvalues failedgeneration tools parts"
    " usage failedargs arguments output candidates userid requestid query variables env"
)
_KNOWN_FIELDS = _TEXT_FIELDS | _CODE_FIELDS | _HEADER_FIELDS
_HINT_WORDS = ("retry", "reset", "wait", "delay", "cooldown", "estimatedtime", "renew", "unlock", "available", "until")
_UPSTREAM_FIELDS = words("providername upstreamprovider upstreamerror providererror upstreamstatus")
_WORD_EDGE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_CODE_SHAPE = re.compile(r"[A-Za-z0-9_.:@#/\- ]{1,100}\Z")
_SPOKEN_CODE = re.compile(
    r"\b(?:[A-Z][A-Za-z0-9]{3,60}(?:Error|Exception)|[A-Za-z]{2,24}(?:_[A-Za-z]{2,24}){1,5}|E[A-Z]{4,16})\b"
)
_HOST_RETRY_NAMES = ("session.status retry", "session.status.retry", "session.status")
_MAX_FIELDS = 48
_MAX_CLOSE = 1400
_HEAD = 700
_TAIL = 160
_MAX_WINDOWS = 4
_TELLING_WORDS = (
    *("quota", "rate limit", "usage limit", "balance", "credits", "exceeded", "exhausted", "too many", "余额"),
    *("context length", "context window", "too long", "上下文", "overloaded", "capacity", "unavailable"),
    *("api key", "timed out", "does not exist", "not found", "status code"),
)
"""Words whose surroundings are read even in the middle of a long text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the rules look at.

    Attributes:
        provider: provider id in lower case, "" if unknown.
        status: the HTTP status that tells most, from the response, the body or the text.
        outer_status: the status of the response itself; None if the host gave none.
        codes: provider codes and types as given, innermost last.
        spoken: words of the text that are shaped like codes ("insufficient_quota", "ThrottlingException").
        names: error names of the host or SDK.
        headers: lower-case names; those of the response before those quoted in the body.
        text: the error text, squeezed (see `bodies.squeeze`) and of a long one the telling parts.
        sentence: the error text as it was given, for the user's own patterns.
        words: codes and names spelt as words, for rules that read both.
        hints: (folded field name, value, holder) of fields that may say when to come back; fields with an
            equal holder stood side by side.
        structured: whether anything but loose text was given.
        upstream: whether an aggregator quotes the provider behind it.
        aborted: whether an isAbort flag was set.
        retryable: whether the host holds that trying again helps.
    """

    provider: str = ""
    status: int | None = None
    outer_status: int | None = None
    codes: tuple[str, ...] = ()
    spoken: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    text: str = ""
    sentence: str = ""
    words: str = ""
    hints: tuple[tuple[str, object, int], ...] = ()
    structured: bool = False
    upstream: bool = False
    aborted: bool = False
    retryable: bool = False


def gather(facts: Facts) -> Evidence:
    """Reads everything a failure says, tolerantly and in bounded time.

    Args:
        facts: as a host or provider said them.

    Returns:
        The evidence that rules are tried on.
    """
    heap = _Heap()
    heap.take_headers(facts.headers)
    heap.walk(facts.body)
    heap.walk(facts.message)
    names = (facts.name,) if isinstance(facts.name, str) and facts.name.strip() else ()
    sentence = heap.sentence()
    spoken = tuple(islice((found.group() for found in _SPOKEN_CODE.finditer(sentence[:4000])), 16))
    text = excerpt(squeeze(sentence))
    outer = facts.status if isinstance(facts.status, int) and not isinstance(facts.status, bool) else None
    status = telling_status(outer, heap.statuses, text)
    return Evidence(
        provider=facts.provider.lower() if isinstance(facts.provider, str) else "",
        status=status,
        outer_status=outer,
        codes=tuple(heap.codes),
        spoken=spoken,
        names=tuple(name[:120] for name in names),
        headers=heap.headers,
        text=text,
        sentence=sentence,
        words=" ; ".join(spell(code) for code in (*heap.codes, *(name[:120] for name in names))),
        hints=tuple(heap.hints),
        structured=outer is not None or bool(names) or heap.structured,
        upstream=heap.upstream,
        aborted=heap.aborted,
        retryable=heap.retryable or any(name in _HOST_RETRY_NAMES for name in names),
    )


def excerpt(text: str) -> str:
    """Of a long text the beginning, the end and what stands around words that errors use.

    An error message is short; a long one quotes a page, a prompt or a trace, and reading all of that as
    closely as a message would cost milliseconds and find chance words.
    """
    if len(text) <= _MAX_CLOSE:
        return text

    middle = text[_HEAD:-_TAIL]
    starts = (middle.find(word) for word in _TELLING_WORDS)
    around = sorted({max(start - 60, 0) // 60 * 60 for start in starts if start >= 0})[:_MAX_WINDOWS]
    return " … ".join([text[:_HEAD], *(middle[start : start + 180] for start in around), text[-_TAIL:]])


def fold(name: str) -> str:
    """A field or header name without case and separators: "retry-after", "retryAfter" → "retryafter"."""
    return name[:80].lower().replace("_", "").replace("-", "").replace(" ", "")


def spell(code: str) -> str:
    """A code as words: "FreeUsageLimitError" → "free usage limit error"."""
    return " ".join(part for part in _WORD_EDGE.split(code) if part).lower()


class _Heap:
    """The growing pile of evidence during one walk; lives inside `gather` only."""

    __slots__ = (
        "aborted",
        "budget",
        "codes",
        "headers",
        "hints",
        "nodes",
        "retryable",
        "statuses",
        "structured",
        "texts",
        "upstream",
    )

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.codes: list[str] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.hints: list[tuple[str, object, int]] = []
        self.structured = False
        self.upstream = False
        self.aborted = False
        self.retryable = False
        self.nodes = 0
        self.budget = MAX_CHARS

    def sentence(self) -> str:
        return " \n ".join(dict.fromkeys(self.texts))[:MAX_CHARS]

    def walk(self, root: object) -> None:
        queue: deque[tuple[object, int]] = deque([(root, 0)])
        while queue and self.nodes < _MAX_NODES:
            value, layer = queue.popleft()
            self.nodes += 1
            if isinstance(value, (str, bytes, bytearray)):
                self._take_text(value, layer, queue)
            elif isinstance(value, dict):
                self._take_object(cast("dict[object, object]", value), layer, queue)
            elif isinstance(value, (list, tuple)):
                queue.extend((item, layer) for item in cast("list[object]", value)[:_MAX_CHILDREN])

    def take_headers(self, headers: object) -> None:
        if not isinstance(headers, Mapping):
            return

        for name, value in list(cast("Mapping[object, object]", headers).items())[:128]:
            if isinstance(name, str) and isinstance(value, (str, int, float)):
                self.headers.setdefault(name[:100].lower(), str(value)[:200])

    def _take_text(self, text: str | bytes | bytearray, layer: int, queue: deque[tuple[object, int]]) -> None:
        text = clip(text)[: self.budget]
        self.budget -= len(text)
        if layer >= MAX_LAYERS or not any(mark in text for mark in '{["<'):
            self.texts.append(text)
            return

        values, sentence = read_text(text)
        self.texts.append(sentence)
        self.structured = self.structured or any(isinstance(value, dict) for value in values)
        queue.extend((value, layer + 1) for value in values)

    def _take_object(self, value: dict[object, object], layer: int, queue: deque[tuple[object, int]]) -> None:
        self.structured = self.structured or bool(value)
        for key, item in _fields(value):
            name = fold(key)
            if name in _HEADER_FIELDS:
                self.take_headers(item)
            elif name in _CLOSED_FIELDS:
                continue
            elif isinstance(item, (str, int, float)):
                self._take_field(name, item, layer, id(value), queue)
            elif isinstance(item, (dict, list, tuple)):
                queue.append((cast("object", item), layer))

    def _take_field(
        self, name: str, item: str | float, layer: int, holder: int, queue: deque[tuple[object, int]]
    ) -> None:
        if isinstance(item, bool):
            self.aborted = self.aborted or (item and name == "isabort")
            self.retryable = self.retryable or (item and name in {"isretryable", "retryable"})
            return

        if name in _UPSTREAM_FIELDS or (name == "raw" and item):
            self.upstream = True
        if any(word in name for word in _HINT_WORDS):
            self.hints.append((name, item, holder))
        if name in _CODE_FIELDS:
            self._take_code(name, item)
        if isinstance(item, str) and name in _TEXT_FIELDS and item:
            queue.append((item, layer))

    def _take_code(self, name: str, item: str | float) -> None:
        code = str(item).strip()
        if code.isascii() and code.isdigit() and len(code) == 3 and code[0] in "45" and name in _STATUS_FIELDS:
            self.statuses.append(int(code))
        elif code and len(code) <= 100 and code.count(" ") <= 3 and _CODE_SHAPE.match(code):
            self.codes.append(code)


def _fields(value: dict[object, object]) -> Iterable[tuple[str, object]]:
    """The fields of an object; of a huge one those with a name that matters first."""
    if len(value) <= _MAX_FIELDS:
        return [(key, item) for key, item in value.items() if isinstance(key, str)]

    pairs = [(key, item) for key, item in islice(value.items(), _MAX_PAIRS) if isinstance(key, str)]
    return [pair for pair in pairs if pair[0].lower() in _KNOWN_FIELDS][:_MAX_FIELDS] + pairs[:8]
