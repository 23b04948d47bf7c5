"""The classifier's rules that a configuration file holds."""

from __future__ import annotations

from pathlib import Path

import typer

from fallback_plugin.config.load import ConfigSource
from fallback_plugin.config.rules import to_rules
from fallback_plugin.core.classify import DEFAULT_RULES
from fallback_plugin.core.policy import ClassifierRules
from fallback_plugin.errors import ConfigurationError

EXIT_BAD_CONFIGURATION = 2


def configured_rules(config: Path | None) -> ClassifierRules:
    """The rules for agents without rules of their own; the built-in ones where no file is named.

    Raises:
        typer.Exit: the file can't be used; standard error says why.
    """
    if config is None:
        return DEFAULT_RULES

    try:
        loaded = ConfigSource(directory=Path(), config=config).load()
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_BAD_CONFIGURATION) from None

    return to_rules(loaded.settings).default.classifier
