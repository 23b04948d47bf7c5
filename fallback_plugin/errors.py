"""Errors, by whose fault they are.

FallbackPluginError
├── ConfigurationError   the user's file: says file, line, key, what was expected and the fix
├── InstallationError    a place that can't be written, or a file there that is not ours
├── HostError            the host is down, refuses or breaks its contract
│   ├── HostUnavailable  nobody answers; trying again may help
│   └── HostRefused      the host answered and said no
├── StoreError           the store is broken; the plugin degrades to memory
└── ChainExhausted       every model of a chain has failed
"""

from __future__ import annotations


class FallbackPluginError(Exception):
    """Root of every error that this package raises."""


class ConfigurationError(FallbackPluginError):
    """A configuration that can't be used; the text names file, line, key and the fix."""


class InstallationError(FallbackPluginError):
    """Installing or uninstalling is not possible; the text names the path. Nothing was changed."""


class HostError(FallbackPluginError):
    """The agent host failed or broke its contract."""


class HostUnavailable(HostError):  # noqa: N818 - names the condition, as httpx does
    """The host can't be reached; a later try may succeed."""


class HostRefused(HostError):  # noqa: N818
    """The host answered and refused.

    Attributes:
        status: the HTTP status of the refusal, None where there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ChainExhausted(FallbackPluginError):  # noqa: N818
    """Every model of the chain has failed; says what failed with what and when the earliest comes back."""


class StoreError(FallbackPluginError):
    """The shared store can't be used; state is kept in this process meanwhile."""
