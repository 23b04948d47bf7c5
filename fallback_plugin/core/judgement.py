"""Which rule speaks: evidence in, a verdict out.

Evidence is weighed from the most to the least telling:

1. an abort, which is nobody's failure;
2. a firm provider code or error name (`error_codes`), innermost first, then one spoken in the text;
3. a numeric code of the provider's own dialect;
4. a limit that headers prove (a used-up window);
5. error text (`error_phrases`), which refines what a loose code or a status leaves open;
6. a loose code or name;
7. the HTTP status.

Windows and numbers then correct the kind: a quota over a minute is a throttle, a throttle over a day a quota, a
request larger than the whole bucket will never fit it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from fallback_plugin.core.code_row import CodeRow
from fallback_plugin.core.error_codes import CODE_ROWS
from fallback_plugin.core.error_numbers import NUMBER_ROWS, STATUS_ROWS, NumberRow
from fallback_plugin.core.error_phrases import PHRASES
from fallback_plugin.core.evidence import Evidence
from fallback_plugin.core.failure import Kind, Scope
from fallback_plugin.core.phrase import (
    DAY_WINDOW,
    INPUT_SIDE,
    MINUTE_WINDOW,
    OUTPUT_SIDE,
    REQUESTED_OVER_LIMIT,
    PhraseRow,
)

LONG_THROTTLE_SECONDS = 3 * 3600.0
"""A throttle that lasts longer than this is a used-up plan (Copilot: 2 h is a rate limit, 51 h is not)."""

_LIMITS = frozenset({Kind.RATE_LIMIT, Kind.QUOTA_EXHAUSTED, Kind.OVERLOADED})
_NUMBER = re.compile(r"\b(?:code|errno|error)\W{1,4}(\d{3,6})\b|[(\[](\d{4,6})[)\]]")
_FIRST_PERSON = re.compile(r"(?:i|i've|i'll|i'm|let me|let's|sure|here is|here's|here are|okay|now i)[ ,!]")
_FOLD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the rules make of the evidence.

    Attributes:
        kind: what it is.
        reason: the rule that decided.
        falls_back: what the rule says about falling back; None leaves it to the kind.
        scope: what the rule says about the reach; None leaves it to the kind.
        soft_window: whether a named minute window would make it a throttle.
        known: whether anything spoke at all.
    """

    kind: Kind
    reason: str
    falls_back: bool | None = None
    scope: Scope | None = None
    soft_window: bool = False
    known: bool = True


_NO_SIGN = Verdict(kind=Kind.BAD_REQUEST, reason="no known sign of a failure", falls_back=False, known=False)


def judge(evidence: Evidence) -> Verdict:
    """The verdict of the built-in tables, corrected by the windows and numbers named beside it."""
    return _corrected(_judge(evidence), evidence)


def folded(code: str) -> str:
    """A code without case and separators."""
    return _FOLD.sub("", code.lower())


def _stem(bare: str) -> str:
    for tail in ("error", "exception"):
        if bare.endswith(tail) and len(bare) > len(tail) + 3:
            return bare[: -len(tail)]

    return bare


_Entry = tuple[CodeRow, str]
"""A row and the code in it that was met, spelt as the table spells it: safe to show."""


def _code_index() -> Mapping[str, _Entry]:
    index: dict[str, _Entry] = {}
    for row in CODE_ROWS:
        for code in row.codes.split():
            index.setdefault(folded(code), (row, code))
            index.setdefault(_stem(folded(code)), (row, code))

    return MappingProxyType(index)


def _number_index() -> Mapping[str, tuple[NumberRow, ...]]:
    index: dict[str, tuple[NumberRow, ...]] = {}
    for row in NUMBER_ROWS:
        for number in row.codes:
            index[number] = (*index.get(number, ()), row)

    return MappingProxyType(index)


_CODES = _code_index()
_NUMBERS = _number_index()
_STATUSES: Mapping[int, Kind] = MappingProxyType({status: row.kind for row in STATUS_ROWS for status in row.statuses})


def _judge(evidence: Evidence) -> Verdict:
    if evidence.aborted:
        return Verdict(kind=Kind.ABORTED, reason="flag isAbort")

    if not evidence.structured and _FIRST_PERSON.match(evidence.text):
        return _NO_SIGN

    codes = (*reversed(evidence.codes), *reversed(evidence.spoken), *evidence.names)
    entries = [entry for code in codes if (entry := _entry(code)) is not None]
    for entry in entries:
        if entry[0].firm:
            return _from_code(entry)

    number = _from_number(evidence)
    if number is not None:
        return number

    used_up = _from_gauge(evidence)
    phrase = _from_phrase(evidence)
    loose = _loose(entries, evidence)
    if used_up is not None and (phrase is None or phrase.kind in _LIMITS):
        return used_up

    return phrase or loose or _from_status(evidence)


def _entry(code: str) -> _Entry | None:
    bare = folded(code)
    entry = _CODES.get(bare) or _CODES.get(_stem(bare))
    if entry is None and "." in code:
        outer, _, inner = code.rpartition(".")
        return _entry(outer) or _CODES.get(folded(inner))

    return entry


def _from_code(entry: _Entry) -> Verdict:
    row, code = entry
    return Verdict(kind=row.kind, reason=f"code {code}: {_named(row.kind)}", falls_back=row.falls_back, scope=row.scope)


def _named(kind: Kind) -> str:
    return kind.value.replace("_", " ")


def _loose(entries: list[_Entry], evidence: Evidence) -> Verdict | None:
    """What a loose code says, unless the status contradicts the emptiest of them (a bad request under a 429)."""
    status_kind = _STATUSES.get(evidence.status) if evidence.status is not None else None
    telling = [entry for entry in entries if entry[0].kind not in {Kind.BAD_REQUEST, Kind.SERVER_ERROR}]
    if telling:
        missing = telling[0][0].kind is Kind.MODEL_NOT_FOUND
        contradicted = missing and status_kind not in {None, Kind.MODEL_NOT_FOUND, Kind.BAD_REQUEST}
        return None if contradicted else _from_code(telling[0])

    if not entries:
        return None

    kind = entries[0][0].kind
    agreed = status_kind in {None, kind} or evidence.status in {400, 500, 502}
    if not agreed or (kind is Kind.SERVER_ERROR and evidence.status == 400):
        return None

    return _from_code(entries[0])


def _from_number(evidence: Evidence) -> Verdict | None:
    numbers = [code for code in reversed(evidence.codes) if code.isascii() and code.isdigit()]
    if any(mark in evidence.text for mark in ("code", "error", "errno", "(", "[")):
        numbers += [one or two for one, two in _NUMBER.findall(evidence.text)[:8]]

    rows = [(number, row) for number in numbers for row in _NUMBERS.get(number, ())]
    spoken = [pair for pair in rows if any(name in evidence.provider for name in pair[1].family)]
    quoted = [pair for pair in rows if pair[1].anywhere or any(name in evidence.text for name in pair[1].family)]
    for number, row in (*spoken, *quoted):
        reason = f"code {number}: {_named(row.kind)}"
        return Verdict(kind=row.kind, reason=reason, falls_back=row.falls_back, scope=row.scope)

    return None


def _from_gauge(evidence: Evidence) -> Verdict | None:
    """Headers that prove a used-up plan (pi #4172; docs.claude.com unified limits; Cerebras per-day limits)."""
    if evidence.status != 429:
        return None

    for name, value in evidence.headers.items():
        if name.startswith("x-codex-") and name.endswith("-used-percent") and _at_least(value, 100):
            return Verdict(kind=Kind.QUOTA_EXHAUSTED, reason="header: a Codex window is 100 % used")

        if name.startswith("anthropic-ratelimit-unified") and name.endswith("-status") and value == "rejected":
            return Verdict(kind=Kind.QUOTA_EXHAUSTED, reason="header: the Claude plan's window is used up")

        if "remaining" in name and name.endswith(("-day", "-month", "-week")) and not _at_least(value, 1):
            return Verdict(kind=Kind.QUOTA_EXHAUSTED, reason="header: nothing remains of a daily or longer window")

    return None


def _at_least(value: str, least: float) -> bool:
    try:
        return float(value[:20]) >= least
    except ValueError:
        return False


def _from_phrase(evidence: Evidence) -> Verdict | None:
    whole = f"{evidence.words} ; {evidence.text}" if evidence.words else evidence.text
    if not whole:
        return None

    for row in PHRASES:
        if row.weak and not evidence.structured:
            continue
        if evidence.status in row.not_statuses:
            continue
        if row.providers and not any(name in evidence.provider for name in row.providers):
            continue
        if row.wordings.found_in(whole):
            return _said(row, evidence)

    return None


def _said(row: PhraseRow, evidence: Evidence) -> Verdict:
    falls_back = row.falls_back
    if row.kind is Kind.CONTENT_POLICY and falls_back is None and OUTPUT_SIDE.found_in(evidence.text):
        falls_back = True if not INPUT_SIDE.found_in(evidence.text) else None

    return Verdict(
        kind=row.kind, reason=f"text: {row.label}", falls_back=falls_back, scope=row.scope, soft_window=row.soft_window
    )


def _from_status(evidence: Evidence) -> Verdict:
    if evidence.status is None and evidence.retryable:
        return Verdict(kind=Kind.SERVER_ERROR, reason="the host calls it retryable")

    if evidence.status is None:
        return _NO_SIGN

    kind, reason = status_kind(evidence.status)
    return Verdict(kind=kind, reason=reason)


def status_kind(status: int) -> tuple[Kind, str]:
    """What a bare status means, and that in words."""
    kind = _STATUSES.get(status)
    if kind is None:
        kind = Kind.SERVER_ERROR if 500 <= status <= 599 else Kind.BAD_REQUEST

    return kind, f"HTTP {status}: {_named(kind)}" if 100 <= status <= 599 else "an unknown status"


def _corrected(verdict: Verdict, evidence: Evidence) -> Verdict:
    """Numbers and windows named beside the error outweigh its name."""
    whole = f"{evidence.words} ; {evidence.text}"
    if verdict.kind is Kind.RATE_LIMIT:
        over = REQUESTED_OVER_LIMIT.search(evidence.text)
        if over is not None and int(over.group(2)) > int(over.group(1)):
            return replace(
                verdict,
                kind=Kind.CONTEXT_OVERFLOW,
                falls_back=True,
                reason="text: the request is larger than the whole rate bucket",
            )

        if DAY_WINDOW.found_in(whole) and not MINUTE_WINDOW.found_in(whole):
            return replace(verdict, kind=Kind.QUOTA_EXHAUSTED, reason=f"{verdict.reason}, over a day or more")

    if verdict.soft_window and MINUTE_WINDOW.found_in(whole) and not DAY_WINDOW.found_in(whole):
        return replace(verdict, kind=Kind.RATE_LIMIT, reason=f"{verdict.reason}, over a minute or less")

    return verdict


def with_delay(verdict: Verdict, delay: float | None, evidence: Evidence) -> Verdict:
    """Corrects a verdict by how long the failure is going to last."""
    if delay is None:
        return verdict

    if verdict.kind is Kind.RATE_LIMIT and delay > LONG_THROTTLE_SECONDS:
        return replace(verdict, kind=Kind.QUOTA_EXHAUSTED, reason=f"{verdict.reason}, for hours")

    if verdict.soft_window and verdict.kind is Kind.QUOTA_EXHAUSTED and delay <= 60 and _is_google(evidence):
        whole = f"{evidence.words} ; {evidence.text}"
        if not DAY_WINDOW.found_in(whole):
            return replace(verdict, kind=Kind.RATE_LIMIT, reason=f"{verdict.reason}, back within a minute")

    return verdict


def _is_google(evidence: Evidence) -> bool:
    return any(name in evidence.provider for name in ("google", "gemini", "vertex")) or "resourceexhausted" in {
        folded(code) for code in evidence.codes
    }
