"""`fallback-plugin explain`: what one error is and what the plugin would do about it, for a person."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, cast

import typer

from fallback_plugin.cli.classifier_rules import configured_rules
from fallback_plugin.cli.classify import facts_from
from fallback_plugin.core.classify import DEFAULT_RULES, classify
from fallback_plugin.core.failure import Facts, Failure, Kind, Scope
from fallback_plugin.core.policy import ClassifierRules

_MEANINGS = {
    Kind.RATE_LIMIT: "Too many requests or tokens in a short time.",
    Kind.QUOTA_EXHAUSTED: "A quota, plan or purse is used up.",
    Kind.OVERLOADED: "The provider has no capacity at the moment.",
    Kind.SERVER_ERROR: "The provider failed.",
    Kind.TIMEOUT: "It took too long.",
    Kind.NETWORK: "The connection failed.",
    Kind.AUTH: "The credential was refused.",
    Kind.MISSING_API_KEY: "No API key is set.",
    Kind.MODEL_NOT_FOUND: "The model doesn't exist, is retired or is not open to this account.",
    Kind.CONTEXT_OVERFLOW: "The request is larger than the model or its bucket takes.",
    Kind.CONTENT_POLICY: "The content was refused.",
    Kind.BAD_REQUEST: "The request itself is at fault, or this is no error that is known.",
    Kind.TRUNCATED: "The answer was cut off.",
    Kind.EMPTY: "The answer was empty.",
    Kind.ABORTED: "The request was called off.",
}
_REACHES = {
    Scope.MODEL: "this model",
    Scope.PROVIDER: "every model of this provider account",
    Scope.CREDENTIAL: "everything that uses this credential",
    Scope.UPSTREAM: "this model's upstream at the aggregator",
}
_FACT_KEYS = frozenset({"provider", "http_status", "headers", "body", "host_error_name"})
_PIECES = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def explain_command(
    error: Annotated[str, typer.Argument(help="The text or JSON of an error, or - to read it.")],
    config: Annotated[Path | None, typer.Option("--config", help="A configuration with rules of your own.")] = None,
    provider: Annotated[str | None, typer.Option("--provider", help="The provider it came from.")] = None,
) -> None:
    """Say what an error is, whether the plugin would fall back, for how long, and by which rule."""
    text = sys.stdin.read() if error == "-" else error
    typer.echo(explain_text(text, rules=configured_rules(config), provider=provider))


def explain_text(
    text: str,
    *,
    rules: ClassifierRules = DEFAULT_RULES,
    provider: str | None = None,
    wall: float | None = None,
) -> str:
    """What an error is, in a few lines for a person.

    Args:
        text: the error's text, the JSON of a body, or a record as `classify` takes it.
        rules: the user's additions to the tables.
        provider: the provider's id if known.
        wall: epoch seconds against which absolute times are read; now if not given.

    Returns:
        Lines without a final newline. The error itself is not repeated.
    """
    facts = _facts(text, provider=provider, wall=time.time() if wall is None else wall)
    return "\n".join(_lines(classify(facts, now=0.0, rules=rules)))


def _lines(failure: Failure) -> list[str]:
    kind = failure.kind.value.replace("_", " ")
    doing = "falls back to the next model" if failure.should_fallback else "does not fall back"
    lines = [
        f"{kind}: {_MEANINGS[failure.kind]}",
        f"The plugin {doing}.",
    ]
    if failure.should_fallback:
        lines.append(f"It concerns {_REACHES[failure.scope]}, {_period(failure.retry_at)}.")

    return [*lines, f"Rule: {failure.reason}."]


def _period(delay: float | None) -> str:
    return "until the configured cooldown has passed" if delay is None else f"for the next {_length(delay)}"


def _length(delay: float) -> str:
    left = max(round(delay), 1)
    pieces: list[str] = []
    for unit, size in _PIECES:
        count, left = divmod(left, size)
        if count:
            pieces.append(f"{count} {unit}")

    return " ".join(pieces[:2])


def _facts(text: str, *, provider: str | None, wall: float) -> Facts:
    try:
        value = cast("object", json.loads(text))
    except (ValueError, RecursionError):
        value = None

    if isinstance(value, dict) and _FACT_KEYS & cast("dict[str, object]", value).keys():
        record = cast("dict[str, object]", value)
        try:
            return facts_from(json.dumps({**record, "provider": record.get("provider") or provider}), wall=wall)
        except ValueError:
            return Facts(provider=provider, body=record, observed_at_wall=wall)

    return Facts(provider=provider, body=text, observed_at_wall=wall)
