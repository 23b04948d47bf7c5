"""What failed, how far it reaches, and when to come back.

`judgement` says which rule speaks, `hints` when to come back. What is left is the user's: `error_rules` come
before the tables, `retryable_error_patterns` and added statuses make a failure fall back, a default status left
out of `retry_on_errors` stays. Content policy, context overflow and aborts have switches of their own and are
not moved by statuses. Nothing here raises, whatever was passed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from fallback_plugin.core.durations import MAX_DELAY
from fallback_plugin.core.evidence import Evidence, gather
from fallback_plugin.core.failure import Facts, Failure, Kind, Scope
from fallback_plugin.core.hints import retry_delay
from fallback_plugin.core.judgement import Verdict, folded, judge, status_kind, with_delay
from fallback_plugin.core.phrase import THIS_MODEL
from fallback_plugin.core.policy import DEFAULT_RETRY_STATUSES, ClassifierRules, ErrorRule

DEFAULT_RULES = ClassifierRules()
"""The rules of somebody who has configured nothing."""

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
    "openrouter",
    "opencode",
    "zen",
    "vercel",
    "gateway",
    "litellm",
    "portkey",
    "requesty",
    "router",
    "new-api",
    "one-api",
    "proxy",
    "helicone",
    "huggingface",
    "kilo",
    "aihubmix",
    "nano-gpt",
    "poe",
    "cloudflare",
    "unify",
    "eden",
    "copilot-proxy",
)
_UPSTREAM_TEXT = re.compile(
    r"provider returned error|error from provider|temporarily rate-limited upstream"
    r"|upstream (?:request|provider|service|error)|from upstream"
)
_KEY_LIMIT = re.compile(r"key (?:total |monthly |weekly |daily )?(?:limit|budget|quota)")


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
    verdict = judge(evidence)
    delay = retry_delay(
        evidence,
        wall=facts.observed_at_wall,
        host_retry_at_wall=facts.host_retry_at_wall,
        gauges=verdict.kind in _LIMITS,
        daily=verdict.kind is Kind.QUOTA_EXHAUSTED,
    )
    verdict = with_delay(verdict, delay, evidence)
    number, rule = _own_rule(evidence, rules.error_rules)
    if rule is not None:
        verdict = _overruled(verdict, rule, number)
        delay = _cooldown(rule, delay)

    comes_back = verdict.kind is not Kind.ABORTED and (verdict.known or rule is not None)
    falls_back, reason = _falls_back(verdict, evidence, rules, decided=rule is not None and rule.kind is not None)
    return Failure(
        kind=verdict.kind,
        scope=_scope(verdict, evidence),
        should_fallback=falls_back,
        retry_at=None if delay is None or not comes_back else now + delay,
        reason=reason,
    )


def _unreadable(facts: object) -> Failure:
    status = getattr(facts, "status", None) if isinstance(facts, Facts) else None
    kind, reason = status_kind(status) if isinstance(status, int) else (Kind.BAD_REQUEST, "unreadable error")
    return Failure(
        kind=kind,
        scope=_SCOPES.get(kind, Scope.MODEL),
        should_fallback=isinstance(status, int) and kind not in STAYS and kind is not Kind.BAD_REQUEST,
        reason=f"{reason} (the error could not be read)",
    )


def _own_rule(evidence: Evidence, error_rules: tuple[ErrorRule, ...]) -> tuple[int, ErrorRule | None]:
    for number, rule in enumerate(error_rules, start=1):
        if _applies(rule, evidence):
            return number, rule

    return 0, None


def _overruled(verdict: Verdict, rule: ErrorRule, number: int) -> Verdict:
    if rule.kind is None:
        return replace(verdict, scope=rule.scope or verdict.scope, reason=f"your error rule {number}; {verdict.reason}")

    return Verdict(kind=rule.kind, scope=rule.scope, reason=f"your error rule {number}")


def _cooldown(rule: ErrorRule, delay: float | None) -> float | None:
    if rule.cooldown_seconds is None:
        return delay

    return min(max(rule.cooldown_seconds, 0.0), MAX_DELAY)


def _applies(rule: ErrorRule, evidence: Evidence) -> bool:
    if rule.provider is not None and rule.provider.lower() != evidence.provider:
        return False

    if rule.status is not None and rule.status not in {evidence.status, evidence.outer_status}:
        return False

    if rule.code is not None and rule.code.lower() not in {code.lower() for code in evidence.codes}:
        return False

    return rule.text is None or rule.text(evidence.sentence)


def _falls_back(verdict: Verdict, evidence: Evidence, rules: ClassifierRules, *, decided: bool) -> tuple[bool, str]:
    if verdict.kind is Kind.ABORTED:
        return False, verdict.reason

    if decided:
        return _by_kind(verdict, rules), verdict.reason

    if any(matches(evidence.sentence) for matches in rules.retryable_patterns):
        return True, f"{verdict.reason}; your retryable_error_patterns match"

    status = evidence.outer_status if evidence.outer_status not in {None, 200} else evidence.status
    if status in DEFAULT_RETRY_STATUSES and status not in rules.retry_on_errors:
        return False, f"{verdict.reason}; your retry_on_errors leaves {status} out"

    added = status in rules.retry_on_errors and status not in DEFAULT_RETRY_STATUSES
    if added and verdict.kind not in _SWITCHED:
        return True, f"{verdict.reason}; your retry_on_errors lists {status}"

    return _by_kind(verdict, rules), verdict.reason


def _by_kind(verdict: Verdict, rules: ClassifierRules) -> bool:
    if verdict.kind is Kind.CONTENT_POLICY and rules.content_policy_falls_back:
        return True

    if verdict.kind is Kind.CONTEXT_OVERFLOW and rules.overflow_falls_back:
        return True

    return verdict.kind not in STAYS if verdict.falls_back is None else verdict.falls_back


def _scope(verdict: Verdict, evidence: Evidence) -> Scope:
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

        return Scope.MODEL if THIS_MODEL.found_in(whole) else Scope.PROVIDER

    return _SCOPES.get(verdict.kind, Scope.MODEL)


def _is_upstream(evidence: Evidence) -> bool:
    if not any(name in evidence.provider for name in _AGGREGATORS):
        return False

    return (
        evidence.upstream
        or _UPSTREAM_TEXT.search(evidence.text) is not None
        or any(folded(code) in {"aiapicallerror", "providererror", "upstreamerror"} for code in evidence.codes)
    )
