"""From a configuration file and the host's agents to the policies that decisions read.

The chain of an agent (issue A; S19):

    1. `agents.<name>.fallback_models` of this file, if not empty
    2. else `fallback_models` of the agent in the host's configuration, if not empty
    3. else the global `fallback_models`
    4. else none

To a chain of its own (1, 2) the agent's configured model is prepended when absent: the primary counts among
the routes of the turn. Names match as written, then without case (K31).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from fallback_plugin.config.host_agents import HostAgent
from fallback_plugin.config.patterns import user_pattern
from fallback_plugin.config.schema import AgentSettings, ErrorRuleSettings, Limits, Settings
from fallback_plugin.core.policy import ClassifierRules, ErrorRule, Policy, Rules

if TYPE_CHECKING:
    from collections.abc import Mapping

_NO_AGENTS: Mapping[str, HostAgent] = MappingProxyType({})
_Entry = TypeVar("_Entry")


def to_rules(
    settings: Settings,
    host_agents: Mapping[str, HostAgent] = _NO_AGENTS,
    host_default_model: str | None = None,
) -> Rules:
    """The policies in force.

    Args:
        settings: the file.
        host_agents: the host's agents by name; see `read_host_config`.
        host_default_model: the route of an agent that the host gives none of its own.
    """
    agents: dict[str, Policy] = {}
    for name in dict.fromkeys((*settings.agents, *host_agents)):
        own = _named(settings.agents, name) or AgentSettings()
        host = _named(host_agents, name) or HostAgent()
        primary = host.model or host_default_model
        chain = own.fallback_models or host.fallback_models
        if chain:
            chain = _with_primary(chain, primary)

        agents[name] = _policy(settings, own, chain or settings.fallback_models, primary)

    # `Rules.policy` looks a name up as written, then in lower case.
    for name in tuple(agents):
        agents.setdefault(name.lower(), agents[name])

    default = _policy(settings, AgentSettings(), settings.fallback_models, host_default_model)
    return Rules(default=default, agents=MappingProxyType(agents))


def _named(entries: Mapping[str, _Entry], name: str) -> _Entry | None:
    if name in entries:
        return entries[name]

    return next((entry for key, entry in entries.items() if key.lower() == name.lower()), None)


def _with_primary(chain: tuple[str, ...], primary: str | None) -> tuple[str, ...]:
    return chain if primary is None or primary in chain else (primary, *chain)


def _policy(settings: Settings, own: AgentSettings, chain: tuple[str, ...], primary: str | None) -> Policy:
    limits = _in_force(settings, own)
    return Policy(
        primary=primary,
        chain=chain,
        enabled=limits.enabled,
        max_fallback_attempts=limits.max_fallback_attempts,
        cooldown_seconds=limits.cooldown_seconds,
        timeout_seconds=limits.timeout_seconds,
        stall_timeout_seconds=limits.stall_timeout_seconds,
        self_abort_window_seconds=limits.self_abort_window_seconds,
        on_unattributed_abort=limits.on_unattributed_abort,
        host_retries_before_fallback=limits.host_retries_before_fallback,
        min_hop_interval_seconds=limits.min_hop_interval_seconds,
        notify_on_fallback=limits.notify_on_fallback,
        overflow_route=limits.overflow_route,
        classifier=ClassifierRules(
            retry_on_errors=limits.retry_on_errors,
            retryable_patterns=tuple(map(user_pattern, limits.retryable_error_patterns)),
            error_rules=tuple(map(_error_rule, limits.error_rules)),
            content_policy_falls_back=limits.content_policy_fallback,
            overflow_falls_back=limits.overflow_route is not None,
        ),
    )


def _in_force(settings: Settings, own: AgentSettings) -> Limits:
    written = {name: getattr(own, name) for name in own.model_fields_set}
    return settings.model_copy(update=written)


def _error_rule(rule: ErrorRuleSettings) -> ErrorRule:
    return ErrorRule(
        provider=rule.provider,
        status=rule.status,
        code=rule.code,
        text=user_pattern(rule.text) if rule.text is not None else None,
        kind=rule.kind,
        scope=rule.scope,
        cooldown_seconds=rule.cooldown_seconds,
    )
