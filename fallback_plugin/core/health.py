"""Health: what is known about a route, a provider or a credential, for everybody.

    healthy ──failure──► cooling until T ──T has come, one caller claims the probe──► probing
       ▲                    ▲                                                          │  │
       │                    └────────────────failure: T doubled────────────────────────┘  │
       └──────────────────────────────────────success─────────────────────────────────────┘

A failure's own word (Retry-After, a reset time) sets T; without one it is 60 s, doubled for each consecutive failure
up to an hour (design.md, rule 6; K-H10). A quota is not believed to be back sooner than that: providers say "retry in
20 s" beside a weekly limit. While one caller probes, the others go on as if it were cooling, until its verdict comes or
its time is over. Only a success resets the doubling.

A T that is our own guess, after a failure that may be over by now (a server error, a timeout), keeps a route from being
preferred, not from being asked at all: where nothing else is left, it is asked before the user is told that it is over.

Times are epoch seconds: the entries are shared by processes and outlive them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fallback_plugin.core.failure import Failure, Kind
from fallback_plugin.core.state import scope_key

FIRST_COOLDOWN = 60.0
LONGEST_COOLDOWN = 3600.0
PROBE_SECONDS = 60.0
"""Seconds that a probe may take before another caller may try."""
WITNESSES_KEPT = 16
"""Routes remembered of those whose failures told of one outage; a chain is shorter."""

_SAYS_NOTHING = frozenset({Kind.ABORTED, Kind.BAD_REQUEST, Kind.CONTENT_POLICY, Kind.CONTEXT_OVERFLOW})
"""Kinds that tell nothing about the health of a route."""
_LASTS = frozenset({Kind.QUOTA_EXHAUSTED, Kind.AUTH, Kind.MISSING_API_KEY, Kind.MODEL_NOT_FOUND})
"""Kinds that are not over in a moment, though nobody says when."""


class Health(StrEnum):
    """How a route, provider or credential stands."""

    HEALTHY = "healthy"
    COOLING = "cooling"
    PROBING = "probing"
    DUE = "due"
    """Its time has come, and nobody probes it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What is known of one scope key that has failed.

    Attributes:
        until_wall: when it may be asked again.
        failures: consecutive failures.
        kind: of the last failure.
        prober: who may ask it now.
        probe_until_wall: until when.
        routes: the routes whose failures told of it, the last one last.
        said: whether the provider itself named a time.
    """

    until_wall: float
    failures: int = 1
    kind: Kind = Kind.RATE_LIMIT
    prober: str | None = None
    probe_until_wall: float = 0.0
    routes: tuple[str, ...] = ()
    said: bool = False

    @property
    def lasts(self) -> bool:
        """Whether to ask now is known to be in vain; if not, its time is a guess that may be wrong."""
        return self.said or self.kind in _LASTS


def key_of(route: str, failure: Failure) -> str | None:
    """The scope key that `failure` of `route` speaks of; None if it says nothing about health."""
    return None if failure.kind in _SAYS_NOTHING else scope_key(route, failure.scope)


def record_outage(
    known: Outage | None, failure: Failure, *, now: float, now_wall: float, cooldown: float = FIRST_COOLDOWN
) -> Outage:
    """The outage after one more failure.

    Failures that were under way when the first became known tell the same outage again: they extend it to their own
    word, but double nothing.

    Args:
        known: what was known.
        failure: the failure; its `retry_at` is read against `now`.
        now: monotonic seconds.
        now_wall: epoch seconds at the same moment.
        cooldown: seconds for the first failure without a word of its own.
    """
    hinted = None if failure.retry_at is None else now_wall + max(0.0, failure.retry_at - now)
    if known is not None and known.prober is None and now_wall < known.until_wall:
        until = max(known.until_wall, hinted or 0.0)
        return replace(known, until_wall=until, kind=failure.kind, said=known.said or hinted is not None)

    failures = 1 if known is None else known.failures + 1
    own = now_wall + min(cooldown * 2 ** min(failures - 1, 16), LONGEST_COOLDOWN)
    until = own if hinted is None else hinted
    if failure.kind is Kind.QUOTA_EXHAUSTED:
        until = max(until, own)

    return Outage(until_wall=until, failures=failures, kind=failure.kind, said=hinted is not None)


def told_by(outage: Outage, route: str) -> Outage:
    """The outage with `route` as the last one whose failure told of it."""
    others = [other for other in outage.routes if other != route]
    return replace(outage, routes=(*others, route)[-WITNESSES_KEPT:])


def health_of(outage: Outage | None, now_wall: float) -> Health:
    """How a scope key stands now."""
    if outage is None:
        return Health.HEALTHY

    if now_wall < outage.until_wall:
        return Health.COOLING

    if outage.prober is not None and now_wall < outage.probe_until_wall:
        return Health.PROBING

    return Health.DUE


def claim_probe(outage: Outage, prober: str, now_wall: float) -> Outage | None:
    """The outage with `prober` as the one caller that may ask; None if it is not due."""
    if health_of(outage, now_wall) is not Health.DUE:
        return None

    return replace(outage, prober=prober, probe_until_wall=now_wall + PROBE_SECONDS)


def is_out(outage: Outage | None, now_wall: float, caller: str | None = None) -> bool:
    """Whether `caller` must not ask: it cools, or somebody else probes it."""
    if outage is None:
        return False

    health = health_of(outage, now_wall)
    return health is Health.COOLING or (health is Health.PROBING and outage.prober != caller)


def to_json(outage: Outage) -> dict[str, Any]:
    """The outage as it is stored."""
    return {
        "until_wall": outage.until_wall,
        "failures": outage.failures,
        "kind": outage.kind.value,
        "prober": outage.prober,
        "probe_until_wall": outage.probe_until_wall,
        "routes": list(outage.routes),
        "said": outage.said,
    }


def from_json(value: Mapping[str, Any]) -> Outage:
    """The outage that `to_json` gave."""
    values: dict[str, Any] = {**value, "kind": Kind(value["kind"]), "routes": tuple(value["routes"])}
    return Outage(**values)
