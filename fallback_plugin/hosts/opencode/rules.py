"""From our configuration and the host's to the policies in force."""

from __future__ import annotations

from collections.abc import Callable

from fallback_plugin.config.host_agents import read_host_config
from fallback_plugin.config.rules import to_rules
from fallback_plugin.config.schema import Settings
from fallback_plugin.core.policy import Rules

RulesMaker = Callable[[object], Rules]
"""Makes the policies out of the host's own configuration, the JSON of its GET /config."""


def rules_maker(settings: Settings, on_warning: Callable[[str], None]) -> RulesMaker:
    """The maker for one configuration of ours.

    Args:
        settings: our configuration.
        on_warning: called with a line for what can't be used in the host's.
    """

    def make(host_config: object) -> Rules:
        host = read_host_config(host_config)
        for warning in host.warnings:
            on_warning(warning)

        return to_rules(settings, host.agents, host.default_model)

    return make
