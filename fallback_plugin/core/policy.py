"""What the configuration allows for one agent, as plain values that decisions read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from fallback_plugin.core.failure import Kind, Scope

DEFAULT_RETRY_STATUSES = frozenset({401, 402, 408, 429, 500, 502, 503, 504, 529})
"""Statuses that fall back unless the user says otherwise (issue A; the TypeScript plugin's plus 408, 529)."""

TextMatcher = Callable[[str], bool]
"""Says whether a user's pattern occurs in an error text; compiled with RE2 by the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRule:
    """A user's own rule: every condition given must hold; what it sets overrides the built-in tables.

    Attributes:
        provider: provider id to match, compared without case.
        status: HTTP status to match.
        code: provider error code or type to match, compared without case.
        text: matcher over the error text.
        kind: the kind to set.
        scope: the scope to set.
        cooldown_seconds: how long the route stays out.
    """

    provider: str | None = None
    status: int | None = None
    code: str | None = None
    text: TextMatcher | None = None
    kind: Kind | None = None
    scope: Scope | None = None
    cooldown_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierRules:
    """The user's additions to the classifier's tables.

    Attributes:
        retry_on_errors: statuses that fall back; a default status left out of it does not.
        retryable_patterns: matchers over error text; a hit falls back.
        error_rules: tried in order before the built-in tables, first match wins.
        content_policy_falls_back: whether a refused content goes to the next model.
        overflow_falls_back: whether a context overflow goes to the next model (a larger window is named).
    """

    retry_on_errors: frozenset[int] = DEFAULT_RETRY_STATUSES
    retryable_patterns: tuple[TextMatcher, ...] = ()
    error_rules: tuple[ErrorRule, ...] = ()
    content_policy_falls_back: bool = False
    overflow_falls_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The limits and the chain that hold for one agent.

    Attributes:
        primary: the agent's own model, or the host's default; None where the host names neither.
        chain: routes ("provider/model") in order; empty where no fallback is configured.
        enabled: False leaves every turn alone.
        max_fallback_attempts: hops per turn.
        cooldown_seconds: how long a failed route is skipped when nobody said longer.
        timeout_seconds: wait for the first token; 0 waits for ever.
        stall_timeout_seconds: silence between tokens; 0 waits for ever.
        self_abort_window_seconds: how long after our abort an abort error counts as its echo.
        on_unattributed_abort: what an abort means that is neither ours nor known to be the user's.
        host_retries_before_fallback: the host's own retries that are let pass first.
        min_hop_interval_seconds: least time between two hops of one session.
        notify_on_fallback: whether the user gets a toast.
        overflow_route: the larger-window route for a context overflow, if one is named.
        classifier: the user's additions to the classifier.
    """

    primary: str | None = None
    chain: tuple[str, ...] = ()
    enabled: bool = True
    max_fallback_attempts: int = 10
    cooldown_seconds: float = 60.0
    timeout_seconds: float = 30.0
    stall_timeout_seconds: float = 120.0
    self_abort_window_seconds: float = 2.0
    on_unattributed_abort: Literal["advance", "stop"] = "advance"
    host_retries_before_fallback: int = 0
    min_hop_interval_seconds: float = 0.25
    notify_on_fallback: bool = True
    overflow_route: str | None = None
    classifier: ClassifierRules = field(default_factory=ClassifierRules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decisions go by, besides the session's own state.

    Attributes:
        default: the policy of every agent that has none of its own.
        agents: policies by agent.
        outages: what the fleet knows to be out: scope key → monotonic seconds until when (`core.health`).
        guesses: those of its keys that are out by our own guess, and asked where nothing else is left.
    """

    default: Policy = field(default_factory=Policy)
    agents: Mapping[str, Policy] = field(default_factory=lambda: MappingProxyType({}))
    outages: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    guesses: frozenset[str] = frozenset()

    def policy(self, agent: str | None, lineage: tuple[str, ...] = ()) -> Policy:
        """The policy of `agent`; names are compared as written, then without case (K31).

        Args:
            agent: the agent's name.
            lineage: for a subagent, whose chain it inherits if it has none of its own: nearest first (X15).
        """
        own = self._named(agent)
        if own is not None and own.chain:
            return own

        for ancestor in lineage:
            named = self._named(ancestor)
            if named is not None and named.chain:
                return replace(own or self.default, chain=named.chain)

        return own or self.default

    def _named(self, agent: str | None) -> Policy | None:
        return None if agent is None else self.agents.get(agent) or self.agents.get(agent.lower())
