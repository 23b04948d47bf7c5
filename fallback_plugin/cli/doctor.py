"""`fallback-plugin doctor`: everything from the configuration to a round trip, and how to mend what is broken."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shlex
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import anyio
import typer

from fallback_plugin import __version__
from fallback_plugin.cli.attach import PASSWORD_VARIABLE, encodable
from fallback_plugin.config.load import ConfigSource, LoadedConfig
from fallback_plugin.config.rules import to_rules
from fallback_plugin.config.schema import Settings
from fallback_plugin.errors import ConfigurationError, HostError, StoreError
from fallback_plugin.hosts.opencode.attachment import check_server
from fallback_plugin.hosts.opencode.bridge_log import log_path
from fallback_plugin.hosts.opencode.client import OpenCodeClient, check_url
from fallback_plugin.hosts.opencode.diagnosis import check_environment, check_opencode, check_plugin
from fallback_plugin.hosts.opencode.finding import Finding, Grade
from fallback_plugin.stores.base import Store
from fallback_plugin.stores.sqlite import SqliteStore
from fallback_plugin.stores.sqlite_file import SIDE_FILES
from fallback_plugin.stores.url import HOME_VARIABLE, default_url, open_store

EXIT_BROKEN = 1
STORE_PATIENCE = 10.0
"""Seconds for a store to open, be written and read."""
LOG_LINES, LOG_BYTES = 5, 64 * 1024
LOG_AGE = timedelta(days=1)
"""Older warnings are of no interest: what caused them shows in the other checks, or is gone."""
_KIND = "doctor"
_BAD_LEVELS = ("warning", "error", "critical")


def doctor_command(
    directory: Annotated[
        Path, typer.Option("--directory", exists=True, file_okay=False, help="The project, where OpenCode is started.")
    ] = Path(),
    url: Annotated[str | None, typer.Option("--url", help="A running server to ask as well.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Check configuration, store, plugin file, a round trip and OpenCode, and say how to mend what is broken.

    The password, where the server has one, is read from OPENCODE_SERVER_PASSWORD.
    """
    raise typer.Exit(anyio.run(_report, directory.absolute(), url, as_json))


async def _report(directory: Path, url: str | None, as_json: bool) -> int:  # noqa: FBT001 - by anyio.run
    grades: list[Grade] = []
    async for finding in _examine(directory, url):
        grades.append(finding.grade)
        for line in [json.dumps(asdict(finding))] if as_json else _lines(finding):
            typer.echo(encodable(line, sys.stdout.encoding))

    broken, doubtful = grades.count(Grade.FAIL), grades.count(Grade.WARN)
    if not as_json:
        typer.echo(f"{broken} broken, {doubtful} doubtful" if broken or doubtful else "Everything works.")

    return EXIT_BROKEN if broken else 0


def _lines(finding: Finding) -> list[str]:
    first, *others = finding.text.splitlines()
    indented = [f"{'':20}{line}" for line in others]
    remedy = [f"{'':20}→ {finding.remedy}"] if finding.remedy else []
    return [f"{finding.grade:<5} {finding.check:<13} {first}", *indented, *remedy]


async def _examine(directory: Path, url: str | None) -> AsyncIterator[Finding]:
    text = f"{platform.python_version()} ({sys.executable}), fallback-plugin {__version__}"
    yield Finding(check="python", grade=Grade.OK, text=text)
    loaded, findings = _check_configuration(directory)
    for finding in (*findings, *await check_store(loaded.settings.store or default_url()), *check_environment()):
        yield finding

    for finding in await check_plugin(directory, is_needed=url is None):
        yield finding

    yield await check_opencode()
    if url is not None:
        yield await _check_server(url)

    for finding in _check_log(log_path()):
        yield finding


def _check_configuration(directory: Path) -> tuple[LoadedConfig, list[Finding]]:
    def found(grade: Grade, text: str, remedy: str = "") -> Finding:
        return Finding(check="configuration", grade=grade, text=text, remedy=remedy)

    try:
        loaded = ConfigSource(directory=directory).load()
    except ConfigurationError as error:
        remedy = "correct it: the chains in it are not in force"
        return LoadedConfig(settings=Settings()), [found(Grade.FAIL, str(error), remedy)]

    findings = [found(Grade.OK, f"{loaded.path or 'no file: the defaults'} in force")]
    findings += [found(Grade.WARN, warning, "correct the file") for warning in loaded.warnings]
    rules = to_rules(loaded.settings)
    chains = [policy for policy in (rules.default, *rules.agents.values()) if policy.enabled and policy.chain]
    if not loaded.settings.enabled:
        findings.append(found(Grade.WARN, '"enabled" is false: every turn is left alone', "set it to true"))
    elif not chains:
        text = "no chain: nothing falls back, unless OpenCode's own configuration has chains"
        where = loaded.path or directory / ".opencode" / "opencode-fallback.jsonc"
        findings.append(found(Grade.WARN, text, f'put your models into "fallback_models" in {where}'))

    return loaded, findings


async def check_store(url: str) -> list[Finding]:
    """Open a store, write to it and read it back.

    Args:
        url: see `open_store`; it is not repeated, since it may hold a password.
    """
    remedy = f'correct "store" in the configuration, or the place that it names; {HOME_VARIABLE} names another'
    try:
        store = open_store(url)
        try:
            with anyio.fail_after(STORE_PATIENCE):
                works = await _writes_and_reads(store)
        finally:
            await store.close()
    except (ConfigurationError, StoreError) as error:
        return [Finding(check="store", grade=Grade.FAIL, text=str(error), remedy=remedy)]
    except TimeoutError:
        text = f"it did not answer within {STORE_PATIENCE:g} s"
        return [Finding(check="store", grade=Grade.FAIL, text=text, remedy=remedy)]

    name = str(store.path) if isinstance(store, SqliteStore) else url.partition("://")[0]
    if not works:
        return [Finding(check="store", grade=Grade.FAIL, text=f"{name}: not read as written", remedy=remedy)]

    return [Finding(check="store", grade=Grade.OK, text=f"{name}: opened, written, read"), *_side_findings(store)]


async def _writes_and_reads(store: Store) -> bool:
    key, value = secrets.token_hex(8), {"written": True}
    await store.open()
    await store.put(_KIND, key, value)
    record = await store.get(_KIND, key)
    await store.delete(_KIND, key)
    return record is not None and record.value == value


def _side_findings(store: Store) -> list[Finding]:
    if not isinstance(store, SqliteStore):
        return []

    warnings = [Finding(check="store", grade=Grade.WARN, text=warning) for warning in store.warnings]
    files = [store.path.with_name(store.path.name + suffix) for suffix in SIDE_FILES]
    return warnings + [finding for file in files for finding in _check_mode("store", file)]


def _check_mode(check: str, file: Path) -> list[Finding]:
    # Windows has rights of another kind.
    if os.name != "posix" or not file.exists():
        return []

    mode = stat.S_IMODE(file.stat().st_mode)
    if not mode & 0o077:
        return []

    text = f"{file} is open to others (mode {mode:04o})"
    return [Finding(check=check, grade=Grade.FAIL, text=text, remedy=f"chmod 600 {shlex.quote(str(file))}")]


async def _check_server(url: str) -> Finding:
    remedy = "start it: `opencode serve --port 4096`; a password goes into OPENCODE_SERVER_PASSWORD"
    if (wrong := check_url(url)) is not None:
        return Finding(check="server", grade=Grade.FAIL, text=wrong, remedy=remedy)

    client = OpenCodeClient(url, password=os.environ.get(PASSWORD_VARIABLE) or None)
    try:
        await check_server(client)
    except HostError as error:
        return Finding(check="server", grade=Grade.FAIL, text=str(error), remedy=remedy)
    finally:
        await client.close()

    return Finding(check="server", grade=Grade.OK, text=f"{url} offers what is needed")


def _check_log(path: Path) -> list[Finding]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        text = f"{path} can't be read: {error.strerror}"
        return [Finding(check="log", grade=Grade.WARN, text=text, remedy="check its owner and mode")]

    since = datetime.now().astimezone() - LOG_AGE
    bad = [said for line in lines if (said := _warning_in(line, since))]
    findings = _check_mode("log", path)
    if bad:
        text = "\n".join([f"{len(bad)} warnings of the last day in {path}", *bad[-LOG_LINES:]])
        findings.append(Finding(check="log", grade=Grade.WARN, text=text, remedy="read on there"))

    return findings


def _warning_in(line: str, since: datetime) -> str | None:
    """Time and text of a line of the bridge that is a warning or worse, and not older than `since`."""
    try:
        record = json.loads(line)
        at = datetime.fromisoformat(record["at"])
        is_wanted = record["level"] in _BAD_LEVELS and at >= since
        return f"{at:%Y-%m-%d %H:%M:%S}  {record['text']}" if is_wanted else None
    except (ValueError, TypeError, KeyError, RecursionError):
        # The first line read is half a line.
        return None
