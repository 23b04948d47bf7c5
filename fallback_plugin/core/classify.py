"""What failed, how far it reaches, and when to come back.

Evidence is weighed from the most to the least telling:

1. the user's own rules (`error_rules`);
2. aborts, which are nobody's failure;
3. a firm provider code or error name (`error_codes`);
4. limits that headers prove (a used-up window);
5. error text (`error_phrases`), which refines what a loose code or a status leaves open;
6. a loose code or name;
7. the HTTP status.

Windows and numbers then correct the kind: a quota over a minute is a throttle, a throttle over a day a quota, a
request larger than the whole bucket will never fit it. Whether to fall back follows from the kind, then from the
user's statuses, patterns and switches. Nothing here raises, whatever was passed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from fallback_plugin.core.durations import MAX_DELAY
from fallback_plugin.core.error_codes import CODE_ROWS, NUMBER_ROWS, STATUS_ROWS, CodeRow, NumberRow
from fallback_plugin.core.error_phrases import (
    DAY_WINDOW,
    INPUT_SIDE,
    MINUTE_WINDOW,
    OUTPUT_SIDE,
    PHRASES,
    REQUESTED_OVER_LIMIT,
    THIS_MODEL,
    PhraseRow,
)
from fallback_plugin.core.evidence import Evidence, gather
from fallback_plugin.core.failure import Facts, Failure, Kind, Scope
from fallback_plugin.core.hints import retry_delay
from fallback_plugin.core.policy import DEFAULT_RETRY_STATUSES, ClassifierRules, ErrorRule

DEFAULT_RULES = ClassifierRules()
"""The rules of somebody who has configured nothing."""

LONG_THROTTLE_SECONDS = 3 * 3600.0
"""A throttle that lasts longer than this is a used-up plan (Copilot: 2 h is a rate limit, 51 h is not)."""

STAYS = frozenset({Kind.BAD_REQUEST, Kind.CONTENT_POLICY, Kind.CONTEXT_OVERFLOW, Kind.ABORTED})
"""Kinds that don't fall back by default (issue B)."""

_SWITCHED = frozenset({Kind.CONTENT_POLICY, Kind.CONTEXT_OVERFLOW, Kind.ABORTED})
_LIMITS = frozenset({Kind.RATE_LIMIT, Kind.QUOTA_EXHAUSTED, Kind.OVERLOADED})
_SCOPES: Mapping[Kind, Scope] = MappingProxyType(
    {
        Kind.QUOTA_EXHAUSTED: Scope.PROVIDER,
        Kind.AUTH: Scope.CREDENTIAL,
        Kind.MISSING_API_KEY: Scope.CREDENTIAL,
    }
)
_AGGREGATORS = (
    "openrouter", "opencode", "zen", "vercel", "gateway", "litellm", "portkey", "requesty", "router", "new-api", "one-api",
    "proxy", "helicone", "huggingface", "kilo", "aihubmix", "nano-gpt", "poe", "cloudflare", "unify", "eden", "copilot-proxy",
)  # fmt: skip
_UPSTREAM_TEXT = re.compile(
    r"provider returned error|error from provider|temporarily rate-limited upstream|upstream (?:request|provider|service|error)|from upstream"
)
_NUMBER = re.compile(r"\b(?:code|errno|error)\W{1,4}(\d{3,6})\b|[(\[](\d{4,6})[)\]]")
_FIRST_PERSON = re.compile(r"(?:i|i've|i'll|i'm|let me|let's|sure|here is|here's|here are|okay|now i|we)[ ,]")
_KEY_LIMIT = re.compile(r"key (?:total |monthly |weekly |daily )?(?:limit|budget|quota)")
_FOLD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    kind: Kind
    reason: str
    falls_back: bool | None = None
    scope: Scope | None = None
    soft_window: bool = False
    cooldown: float | None = None
    ruled: bool = False


def classify(facts: Facts, *, now: float, rules: ClassifierRules = DEFAULT_RULES) -> Failure:
    """Says what a failure is, how far it reaches, whether another model may help, and when to come back.

    Use it on everything that a host or provider reports as an error; never on what a model wrote.

    Args:
        facts: the failure as it was said. Absolute times in it are read against `facts.observed_at_wall`.
        now: monotonic seconds; `retry_at` of the result is on this clock.
        rules: the user's additions.

    Returns:
        The failure. `retry_at` is at least `now` and at most 31 days later, or None if nobody said.
    """
    try:
        return _classify(facts, now=now, rules=rules)
    except Exception:  # noqa: BLE001 - foreign objects may raise anything from anywhere; a failure stays a failure
        return _unreadable(facts)


def _classify(facts: Facts, *, now: float, rules: ClassifierRules) -> Failure:
    evidence = gather(facts)
    wall = facts.observed_at_wall
    verdict = _corrected(_judge(evidence), evidence)
    delay = retry_delay(
        evidence,
        wall=wall,
        host_retry_at_wall=facts.host_retry_at_wall,
        gauges=verdict.kind in _LIMITS,
        daily=verdict.kind is Kind.QUOTA_EXHAUSTED,
    )
    verdict = _by_delay(verdict, delay, evidence)
    verdict = _overruled(verdict, evidence, rules.error_rules)
    if verdict.cooldown is not None:
        delay = min(max(verdict.cooldown, 0.0), MAX_DELAY)

    falls_back, reason = _falls_back(verdict, evidence, rules)
    return Failure(
        kind=verdict.kind,
        scope=_scope(verdict, evidence),
        should_fallback=falls_back,
        retry_at=None if delay is None or verdict.kind is Kind.ABORTED else now + delay,
        reason=reason,
    )


def _unreadable(facts: object) -> Failure:
    status = getattr(facts, "status", None) if isinstance(facts, Facts) else None
    kind, reason = _status_kind(status) if isinstance(status, int) else (Kind.BAD_REQUEST, "unreadable error")
    return Failure(
        kind=kind,
        scope=_SCOPES.get(kind, Scope.MODEL),
        should_fallback=isinstance(status, int) and kind not in STAYS and kind is not Kind.BAD_REQUEST,
        reason=f"{reason} (the error could not be read)",
    )


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────


def _folded(code: str) -> str:
    return _FOLD.sub("", code.lower())


def _stem(folded: str) -> str:
    for tail in ("error", "exception"):
        if folded.endswith(tail) and len(folded) > len(tail) + 3:
            return folded[: -len(tail)]

    return folded


def _code_index() -> Mapping[str, CodeRow]:
    index: dict[str, CodeRow] = {}
    for row in CODE_ROWS:
        for code in row.codes.split():
            index.setdefault(_folded(code), row)
            index.setdefault(_stem(_folded(code)), row)

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


def _judge(evidence: Evidence) -> _Verdict:
    if evidence.aborted:
        return _Verdict(kind=Kind.ABORTED, reason="flag isAbort")

    if not evidence.structured and _FIRST_PERSON.match(evidence.text):
        return _from_status(evidence)

    found = [
        row for code in (*reversed(evidence.codes), *reversed(evidence.spoken)) if (row := _code_row(code)) is not None
    ]
    named = [row for name in evidence.names if (row := _code_row(name)) is not None]
    for row in (*found, *named):
        if row.firm or row.kind is Kind.ABORTED:
            return _from_code(row)

    number = _from_number(evidence)
    if number is not None:
        return number

    used_up = _from_gauge(evidence)
    phrase = _from_phrase(evidence)
    loose = _loose(found, named, evidence)
    if used_up is not None and (phrase is None or phrase.kind in _LIMITS):
        return used_up

    return phrase or loose or _from_status(evidence)


def _code_row(code: str) -> CodeRow | None:
    folded = _folded(code)
    row = _CODES.get(folded) or _CODES.get(_stem(folded))
    if row is None and "." in code:
        return _code_row(code.rpartition(".")[0]) or _CODES.get(_folded(code.rpartition(".")[2]))

    return row


def _from_code(row: CodeRow) -> _Verdict:
    named = row.kind.value.replace("_", " ")
    return _Verdict(
        kind=row.kind, reason=f"provider code: {named} [{row.source}]", falls_back=row.falls_back, scope=row.scope
    )


def _loose(found: list[CodeRow], named: list[CodeRow], evidence: Evidence) -> _Verdict | None:
    """A loose code decides unless the status contradicts the emptiest of them (bad request under a 429)."""
    rows = [row for row in (*found, *named) if not row.firm]
    telling = [row for row in rows if row.kind not in {Kind.BAD_REQUEST, Kind.SERVER_ERROR}]
    status_kind = _STATUSES.get(evidence.status) if evidence.status is not None else None
    if telling:
        row = telling[0]
        if row.kind is Kind.MODEL_NOT_FOUND and status_kind not in {None, Kind.MODEL_NOT_FOUND, Kind.BAD_REQUEST}:
            return None

        return _from_code(row)

    if rows and (status_kind is None or status_kind is rows[0].kind or evidence.status in {400, 500, 502}):
        row = rows[0]
        if row.kind is Kind.SERVER_ERROR and evidence.status == 400:
            return None

        return _from_code(row)

    return None


def _from_number(evidence: Evidence) -> _Verdict | None:
    numbers = [code for code in reversed(evidence.codes) if code.isascii() and code.isdigit()]
    if any(mark in evidence.text for mark in ("code", "error", "errno", "(", "[")):
        numbers += [one or two for one, two in _NUMBER.findall(evidence.text[:4000])[:8]]

    for number in numbers:
        for row in _NUMBERS.get(number, ()):
            speaks = any(name in evidence.provider for name in row.family)
            if speaks or row.anywhere or any(name in evidence.text[:2000] for name in row.family):
                named = row.kind.value.replace("_", " ")
                return _Verdict(
                    kind=row.kind,
                    reason=f"provider code {number}: {named} [{row.source}]",
                    falls_back=row.falls_back,
                    scope=row.scope,
                )

    return None


def _from_gauge(evidence: Evidence) -> _Verdict | None:
    """Headers that prove a used-up plan (pi #4172; docs.claude.com unified limits; Cerebras per-day limits)."""
    if evidence.status != 429:
        return None

    for name, value in evidence.headers.items():
        if name.startswith("x-codex-") and name.endswith("-used-percent") and _at_least(value, 100):
            return _Verdict(kind=Kind.QUOTA_EXHAUSTED, reason="header: a Codex window is 100 % used")

        if name.startswith("anthropic-ratelimit-unified") and name.endswith("-status") and value == "rejected":
            return _Verdict(kind=Kind.QUOTA_EXHAUSTED, reason="header: the Claude plan's window is used up")

        if "remaining" in name and name.endswith(("-day", "-month", "-week")) and not _at_least(value, 1):
            return _Verdict(kind=Kind.QUOTA_EXHAUSTED, reason="header: nothing remains of a daily or longer window")

    return None


def _at_least(value: str, least: float) -> bool:
    try:
        return float(value[:20]) >= least
    except ValueError:
        return False


def _from_phrase(evidence: Evidence) -> _Verdict | None:
    whole = f"{evidence.words} ; {evidence.text}" if evidence.words else evidence.text
    if not whole:
        return None

    for row in PHRASES:
        if row.weak and not evidence.structured:
            continue
        if evidence.status in row.not_statuses or not any(mark in whole for mark in row.marks):
            continue
        if row.providers and not any(name in evidence.provider for name in row.providers):
            continue
        if row.pattern.search(whole) is not None:
            return _said(row, evidence)

    return None


def _said(row: PhraseRow, evidence: Evidence) -> _Verdict:
    falls_back = row.falls_back
    if row.kind is Kind.CONTENT_POLICY and falls_back is None and OUTPUT_SIDE.search(evidence.text) is not None:
        falls_back = True if INPUT_SIDE.search(evidence.text) is None else None

    return _Verdict(
        kind=row.kind, reason=f"text: {row.label}", falls_back=falls_back, scope=row.scope, soft_window=row.soft_window
    )


def _from_status(evidence: Evidence) -> _Verdict:
    if evidence.status is None:
        return _Verdict(kind=Kind.BAD_REQUEST, reason="no known sign of a failure", falls_back=False)

    kind, reason = _status_kind(evidence.status)
    return _Verdict(kind=kind, reason=reason)


def _status_kind(status: int) -> tuple[Kind, str]:
    kind = _STATUSES.get(status)
    if kind is None:
        kind = Kind.SERVER_ERROR if 500 <= status <= 599 else Kind.BAD_REQUEST

    return kind, f"HTTP {status}: {kind.value.replace('_', ' ')}" if 100 <= status <= 599 else "an unknown status"


# ── corrections ──────────────────────────────────────────────────────────────────────────────────────────────


def _corrected(verdict: _Verdict, evidence: Evidence) -> _Verdict:
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

        if DAY_WINDOW.search(whole) is not None and MINUTE_WINDOW.search(whole) is None:
            return replace(verdict, kind=Kind.QUOTA_EXHAUSTED, reason=f"{verdict.reason}, over a day or more")

    if verdict.soft_window and MINUTE_WINDOW.search(whole) is not None and DAY_WINDOW.search(whole) is None:
        return replace(verdict, kind=Kind.RATE_LIMIT, reason=f"{verdict.reason}, over a minute or less")

    return verdict


def _by_delay(verdict: _Verdict, delay: float | None, evidence: Evidence) -> _Verdict:
    if delay is None:
        return verdict

    if verdict.kind is Kind.RATE_LIMIT and delay > LONG_THROTTLE_SECONDS:
        return replace(verdict, kind=Kind.QUOTA_EXHAUSTED, reason=f"{verdict.reason}, for hours")

    if verdict.soft_window and verdict.kind is Kind.QUOTA_EXHAUSTED and delay <= 60 and _is_google(evidence):
        whole = f"{evidence.words} ; {evidence.text}"
        if DAY_WINDOW.search(whole) is None:
            return replace(verdict, kind=Kind.RATE_LIMIT, reason=f"{verdict.reason}, back within a minute")

    return verdict


def _is_google(evidence: Evidence) -> bool:
    return any(name in evidence.provider for name in ("google", "gemini", "vertex")) or "resourceexhausted" in {
        _folded(code) for code in evidence.codes
    }


def _overruled(verdict: _Verdict, evidence: Evidence, error_rules: tuple[ErrorRule, ...]) -> _Verdict:
    for number, rule in enumerate(error_rules, start=1):
        if not _applies(rule, evidence):
            continue

        kind = rule.kind or verdict.kind
        return replace(
            verdict,
            kind=kind,
            scope=rule.scope or (verdict.scope if rule.kind is None else None),
            falls_back=verdict.falls_back if rule.kind is None else None,
            cooldown=rule.cooldown_seconds,
            ruled=rule.kind is not None,
            reason=f"your error rule {number}" + ("" if rule.kind else f", {verdict.reason}"),
        )

    return verdict


def _applies(rule: ErrorRule, evidence: Evidence) -> bool:
    if rule.provider is not None and rule.provider.lower() != evidence.provider:
        return False

    if rule.status is not None and rule.status not in {evidence.status, evidence.outer_status}:
        return False

    if rule.code is not None and rule.code.lower() not in {code.lower() for code in evidence.codes}:
        return False

    return rule.text is None or rule.text(evidence.text)


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────


def _falls_back(verdict: _Verdict, evidence: Evidence, rules: ClassifierRules) -> tuple[bool, str]:
    if verdict.kind is Kind.ABORTED:
        return False, verdict.reason

    if verdict.ruled:
        return _by_kind(verdict, rules), verdict.reason

    if any(matches(evidence.text) for matches in rules.retryable_patterns):
        return True, f"{verdict.reason}; your retryable_error_patterns match"

    status = evidence.outer_status if evidence.outer_status not in {None, 200} else evidence.status
    if status in DEFAULT_RETRY_STATUSES and status not in rules.retry_on_errors:
        return False, f"{verdict.reason}; your retry_on_errors leaves {status} out"

    added = status in rules.retry_on_errors and status not in DEFAULT_RETRY_STATUSES
    if added and verdict.kind not in _SWITCHED:
        return True, f"{verdict.reason}; your retry_on_errors lists {status}"

    return _by_kind(verdict, rules), verdict.reason


def _by_kind(verdict: _Verdict, rules: ClassifierRules) -> bool:
    if verdict.kind is Kind.CONTENT_POLICY and rules.content_policy_falls_back:
        return True

    if verdict.kind is Kind.CONTEXT_OVERFLOW and rules.overflow_falls_back:
        return True

    return verdict.kind not in STAYS if verdict.falls_back is None else verdict.falls_back


def _scope(verdict: _Verdict, evidence: Evidence) -> Scope:
    if verdict.scope is not None:
        return verdict.scope

    if verdict.kind is Kind.ABORTED:
        return Scope.MODEL

    if _is_upstream(evidence):
        return Scope.UPSTREAM

    if verdict.kind is Kind.QUOTA_EXHAUSTED:
        whole = f"{evidence.words} ; {evidence.text}"
        if _KEY_LIMIT.search(whole) is not None:
            return Scope.CREDENTIAL

        return Scope.MODEL if THIS_MODEL.search(whole) is not None else Scope.PROVIDER

    return _SCOPES.get(verdict.kind, Scope.MODEL)


def _is_upstream(evidence: Evidence) -> bool:
    if not any(name in evidence.provider for name in _AGGREGATORS):
        return False

    return (
        evidence.upstream
        or _UPSTREAM_TEXT.search(evidence.text) is not None
        or any(_folded(code) in {"aiapicallerror", "providererror", "upstreamerror"} for code in evidence.codes)
    )
