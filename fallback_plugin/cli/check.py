"""`fallback-plugin check`: which configuration is in force, and who falls back to what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fallback_plugin.config.load import ConfigSource, LoadedConfig
from fallback_plugin.config.rules import to_rules
from fallback_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from fallback_plugin.core.policy import Policy

EXIT_BAD_CONFIGURATION = 2


def check_command(
    config: Annotated[Path | None, typer.Option("--config", help="The file to check.")] = None,
    directory: Annotated[
        Path, typer.Option("--directory", help="The project whose configuration is looked for.")
    ] = Path(),
) -> None:
    """Say which configuration file is in force and the chain of each agent, or what is wrong with it."""
    try:
        loaded = ConfigSource(config=config, directory=directory).load()
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_BAD_CONFIGURATION) from None

    for line in _description(loaded):
        typer.echo(line)

    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _description(loaded: LoadedConfig) -> list[str]:
    rules = to_rules(loaded.settings)
    policies = {name: rules.agents[name] for name in sorted(loaded.settings.agents)}
    width = max(map(len, (*policies, _EVERYBODY)))
    return [
        f"{loaded.path} is in force" if loaded.path else "no configuration file: the defaults are in force",
        *(f"  {name:<{width}}  {_chain(policy)}" for name, policy in policies.items()),
        f"  {_EVERYBODY:<{width}}  {_chain(rules.default)}",
        "An agent without a chain of its own here may have one in the host's own configuration.",
    ]


_EVERYBODY = "(any other)"


def _chain(policy: Policy) -> str:
    if not policy.enabled:
        return "disabled"

    return " → ".join(policy.chain) or "no fallback"
