"""What the host's own configuration says about its agents.

The host passes unknown keys through, so a chain may stand beside an agent's model there, as
`agent.<name>.fallback_models` or `agent.<name>.options.fallback_models` (S17, S19; opencode-host.md). That
file is the host's: what can't be used in it is left out with a warning and is never an error here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

from fallback_plugin.config.faults import key_path, shown
from fallback_plugin.config.schema import is_route


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAgent:
    """One agent of the host.

    Attributes:
        model: the route it is configured with, if any.
        fallback_models: its chain in the host's configuration, without repeats.
    """

    model: str | None = None
    fallback_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What was read.

    Attributes:
        agents: by the host's name of the agent.
        default_model: the route of agents without one of their own.
        warnings: what was left out and why, one line each.
    """

    agents: Mapping[str, HostAgent] = field(default_factory=lambda: MappingProxyType({}))
    default_model: str | None = None
    warnings: tuple[str, ...] = ()


def read_host_config(config: object) -> HostConfig:
    """Read the decoded answer of `GET /config`. Never raises, whatever it holds.

    Args:
        config: the JSON value; agents stand under `agents`, else under `agent` (S17).
    """
    if not isinstance(config, Mapping):
        return HostConfig(warnings=(f"host configuration: expected an object, found {shown(config)}",))

    root = cast("Mapping[str, object]", config)
    warnings: list[str] = []
    section = next((key for key in ("agents", "agent") if isinstance(root.get(key), Mapping)), None)
    entries = cast("Mapping[object, object]", root[section] if section else {})
    agents: dict[str, HostAgent] = {}
    for name, entry in entries.items():
        path = (section or "", str(name))
        if isinstance(entry, Mapping):
            agents[str(name)] = _agent(cast("Mapping[str, object]", entry), path, warnings)
        elif entry is not None:
            warnings.append(_left_out(path, "an object", entry))

    return HostConfig(
        agents=MappingProxyType(agents),
        default_model=_model(root, (), warnings),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _agent(entry: Mapping[str, object], path: tuple[str, ...], warnings: list[str]) -> HostAgent:
    chain = _chain(entry.get("fallback_models"), (*path, "fallback_models"), warnings)
    options = entry.get("options")
    if not chain and isinstance(options, Mapping):
        nested = cast("Mapping[str, object]", options).get("fallback_models")
        chain = _chain(nested, (*path, "options", "fallback_models"), warnings)

    return HostAgent(model=_model(entry, path, warnings), fallback_models=chain)


def _model(entry: Mapping[str, object], path: tuple[str, ...], warnings: list[str]) -> str | None:
    model = entry.get("model")
    if isinstance(model, str) and is_route(model):
        return model

    if model is not None:
        warnings.append(_left_out((*path, "model"), '"provider/model"', model))

    return None


def _chain(value: object, path: tuple[str, ...], warnings: list[str]) -> tuple[str, ...]:
    if value is None or value == "":
        return ()

    if isinstance(value, str):
        value = [value]

    if not isinstance(value, list):
        warnings.append(_left_out(path, '"provider/model" or a list of them', value))
        return ()

    routes: dict[str, None] = {}
    for index, entry in enumerate(cast("list[object]", value)):
        if isinstance(entry, str) and is_route(entry):
            routes[entry] = None
        else:
            warnings.append(_left_out((*path, index), '"provider/model"', entry))

    return tuple(routes)


def _left_out(path: tuple[str | int, ...], expected: str, found: object) -> str:
    return f"host configuration: {key_path(path)}: expected {expected}, found {shown(found)}; left out"
