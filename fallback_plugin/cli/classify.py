"""`fallback-plugin classify`: error facts in as JSON lines, failures out as JSON lines."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import typer

from fallback_plugin.cli.classifier_rules import configured_rules
from fallback_plugin.core.classify import DEFAULT_RULES, classify
from fallback_plugin.core.failure import Facts, Failure
from fallback_plugin.core.policy import ClassifierRules

EXIT_BAD_LINE = 1


def classify_command(
    config: Annotated[Path | None, typer.Option("--config", help="A configuration with rules of your own.")] = None,
) -> None:
    """Classify errors: a JSON object a line on standard input, a JSON object a line on standard output.

    Keys, any of which may be missing or null: provider, http_status, headers, body, host_error_name, message.
    """
    rules = configured_rules(config)
    lines = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace")
    raise typer.Exit(classify_lines(lines, sys.stdout, rules=rules))


def classify_lines(
    stdin: Iterable[str], stdout: TextIO, *, rules: ClassifierRules = DEFAULT_RULES, wall: float | None = None
) -> int:
    """Answers each line with what it is; a bad one with `{"error": …}`, and goes on.

    Args:
        stdin: lines of JSON; blank ones are passed over.
        stdout: where the answers go, one a line, each flushed.
        rules: the user's additions to the tables.
        wall: epoch seconds against which absolute times are read; now if not given.

    Returns:
        The exit code: 1 if a line was bad, else 0.
    """
    code = 0
    for line in stdin:
        if not line.strip():
            continue

        try:
            record = answer(facts_from(line, wall=time.time() if wall is None else wall), rules)
        except ValueError as error:
            record = {"error": str(error)}
            code = EXIT_BAD_LINE

        stdout.write(json.dumps(record, ensure_ascii=True) + "\n")
        stdout.flush()

    return code


def answer(facts: Facts, rules: ClassifierRules) -> dict[str, Any]:
    """One classified failure as the plain record that `classify` prints."""
    return as_record(classify(facts, now=0.0, rules=rules))


def as_record(failure: Failure) -> dict[str, Any]:
    """A failure classified at monotonic zero as a plain record; `retry_after_s` counts from now."""
    return {
        "kind": failure.kind.value,
        "scope": failure.scope.value,
        "should_fallback": failure.should_fallback,
        "retry_after_s": failure.retry_at,
        "reason": failure.reason,
    }


def facts_from(line: str, *, wall: float) -> Facts:
    """Reads one line.

    Args:
        line: a JSON object.
        wall: epoch seconds of now.

    Returns:
        The facts. A number in quotes is a status too, and texts of a wrong type are left out.

    Raises:
        ValueError: the line is no JSON object, or a value can't be meant; the text says which.
    """
    try:
        record = cast("object", json.loads(line))
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None

    if not isinstance(record, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - the caller's one kind of bad line

    fields = cast("dict[str, object]", record)
    return Facts(
        provider=_text(fields, "provider"),
        status=_status(fields.get("http_status")),
        headers=_headers(fields.get("headers")),
        body=fields.get("body"),
        name=_text(fields, "host_error_name"),
        message=_text(fields, "message"),
        observed_at_wall=wall,
    )


def _text(fields: Mapping[str, object], key: str) -> str | None:
    value = fields.get(key)
    if value is None or isinstance(value, str):
        return value

    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)

    return str(value)


def _status(value: object) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[:9])
    if isinstance(value, float) and value.is_integer():
        value = int(value)

    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value

    raise ValueError("http_status: expected a number")


def _headers(value: object) -> dict[str, str]:
    """Headers as an object, or as a list of pairs as some hosts keep them."""
    if value is None:
        return {}

    pairs: object = list(cast("dict[object, object]", value).items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        raise ValueError("headers: expected an object")  # noqa: TRY004 - the caller's one kind of bad line

    headers: dict[str, str] = {}
    for pair in cast("list[object]", pairs):
        match pair:
            case (str() as name, str() | int() | float() as content):
                headers[name] = str(content)
            case (str() as name, [str() as content]):
                headers[name] = content
            case _:
                continue

    return headers
