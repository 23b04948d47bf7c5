"""Carry an agent's turn on to the next model when its provider fails."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fallback_plugin.core.failure import Facts, Failure, Kind, Scope
    from fallback_plugin.core.policy import Policy, Rules
    from fallback_plugin.core.state import FallbackState
    from fallback_plugin.errors import (
        ChainExhausted,
        ConfigurationError,
        FallbackPluginError,
        HostError,
        StoreError,
    )
    from fallback_plugin.runtime.host import Host
    from fallback_plugin.runtime.plugin import FallbackPlugin
    from fallback_plugin.runtime.turn import Turns

__version__ = "0.1.0"

_HOMES = {
    "ChainExhausted": "errors",
    "ConfigurationError": "errors",
    "Facts": "core.failure",
    "Failure": "core.failure",
    "FallbackPlugin": "runtime.plugin",
    "FallbackPluginError": "errors",
    "FallbackState": "core.state",
    "Host": "runtime.host",
    "HostError": "errors",
    "Kind": "core.failure",
    "Policy": "core.policy",
    "Rules": "core.policy",
    "Scope": "core.failure",
    "StoreError": "errors",
    "Turns": "runtime.turn",
}

__all__ = [
    "ChainExhausted",
    "ConfigurationError",
    "Facts",
    "Failure",
    "FallbackPlugin",
    "FallbackPluginError",
    "FallbackState",
    "Host",
    "HostError",
    "Kind",
    "Policy",
    "Rules",
    "Scope",
    "StoreError",
    "Turns",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)

    return getattr(import_module(f"{__name__}.{home}"), name)
