"""`fallback-plugin attach`: carry the failing turns of a running OpenCode server on."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from fallback_plugin.config.load import ConfigSource, LoadedConfig
from fallback_plugin.config.watch import watch_config
from fallback_plugin.core.actions import Announce
from fallback_plugin.errors import ConfigurationError, HostError
from fallback_plugin.hosts.opencode.attachment import Attachment, check_server
from fallback_plugin.hosts.opencode.client import OpenCodeClient, check_url
from fallback_plugin.hosts.opencode.rules import rules_maker
from fallback_plugin.runtime.observe import as_record, describe
from fallback_plugin.stores.degrading import DegradingStore
from fallback_plugin.stores.notices import StoreNotice
from fallback_plugin.stores.url import default_url, open_store

EXIT_BAD_CONFIGURATION = 2
EXIT_NO_SERVER = 3
PASSWORD_VARIABLE = "OPENCODE_SERVER_PASSWORD"  # noqa: S105 - the variable's name
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


def attach_command(
    url: Annotated[str, typer.Option("--url", help="The server.")] = "http://127.0.0.1:4096",
    config: Annotated[Path | None, typer.Option("--config", help="The configuration file.")] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", help="The project; the directory the server was started in if not given."),
    ] = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a server that is not there yet.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Carry the failing turns of a running `opencode serve` on to the next model, until SIGINT or SIGTERM.

    The password, where the server has one, is read from OPENCODE_SERVER_PASSWORD.
    """
    output = Output(as_json=as_json)
    source = ConfigSource(directory=directory or Path(), config=config)
    try:
        loaded = source.load()
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_BAD_CONFIGURATION) from None

    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)

    if (wrong := check_url(url)) is not None:
        typer.echo(wrong, err=True)
        raise typer.Exit(EXIT_NO_SERVER)

    session = _Session(url=url, directory=directory, source=source, loaded=loaded, wait=wait, output=output)
    raise typer.Exit(anyio.run(session.run))


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Lines for a person, or JSON lines for a machine, on standard output."""

    as_json: bool

    def say(self, text: str, **fields: Any) -> None:
        """One line about the attachment itself."""
        self._write(text, {"notice": "attachment", "text": text, **fields})

    def notice(self, notice: Announce, now: float) -> None:
        """One line about a turn."""
        self._write(f"{notice.session_id}  {describe(notice, now)}", as_record(notice, now))

    def _write(self, text: str, record: dict[str, Any]) -> None:
        at = datetime.now().astimezone()
        if self.as_json:
            text = json.dumps({"at": at.isoformat(timespec="milliseconds"), **record})
        else:
            text = f"{at:%H:%M:%S}  {text}"

        # Whoever read our lines may be gone; the turns are not.
        try:
            sys.stdout.write(_encodable(text, sys.stdout.encoding) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            _write_to_nobody()
        except OSError:
            return


def _encodable(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _write_to_nobody() -> None:
    """What Python holds back of a broken pipe would fail once more at the end, and change the exit code."""
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    url: str
    directory: Path | None
    source: ConfigSource
    loaded: LoadedConfig
    wait: bool
    output: Output

    async def run(self) -> int:
        """Attach, run, and return the exit code."""
        client = OpenCodeClient(
            self.url,
            password=os.environ.get(PASSWORD_VARIABLE) or None,
            directory=str(self.directory.resolve()) if self.directory else None,
        )
        stop = anyio.Event()
        code = EXIT_NO_SERVER
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop_on_signal, stop)
                code = await self._attach(client, stop)
                tasks.cancel_scope.cancel()
        finally:
            # A further signal must not turn an end in good order into a death.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            await client.close()

        return code

    async def _attach(self, client: OpenCodeClient, stop: anyio.Event) -> int:
        if not await self._find_server(client, stop):
            return 0 if stop.is_set() else EXIT_NO_SERVER

        try:
            store = DegradingStore(open_store(self.loaded.settings.store or default_url()), self._say_store)
            await store.open()
        except ConfigurationError as error:
            typer.echo(str(error), err=True)
            return EXIT_BAD_CONFIGURATION

        attachment = Attachment(
            client,
            rules_maker(self.loaded.settings, _warn),
            store=store,
            observer=self.output.notice,
            on_line=self.output.say,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, attachment)
            await attachment.run(stop, on_ready=self._say_ready)
            tasks.cancel_scope.cancel()

        counts = ", ".join(f"{count} {what}" for what, count in sorted(attachment.counts.items()))
        self.output.say(f"detached ({counts})", counts=dict(attachment.counts), calls=client.calls)
        return 0

    async def _find_server(self, client: OpenCodeClient, stop: anyio.Event) -> bool:
        pause = FIRST_PAUSE
        while not stop.is_set():
            try:
                await check_server(client)
            except HostError as error:
                typer.echo(str(error), err=True)
                if not self.wait:
                    return False
            else:
                return True

            with anyio.move_on_after(pause):
                await stop.wait()
            pause = min(pause * 2, LONGEST_PAUSE)

        return False

    async def _watch(self, attachment: Attachment) -> None:
        async def on_change(loaded: LoadedConfig) -> None:
            attachment.reload(rules_maker(loaded.settings, _warn))
            self.output.say(f"configuration reloaded from {loaded.path or 'the defaults'}")

        async def on_error(error: ConfigurationError) -> None:
            typer.echo(f"{error}\nthe last good configuration stays in force", err=True)

        await watch_config(self.source, on_change, on_error, current=self.loaded)

    def _say_store(self, notice: StoreNotice) -> None:
        self.output.say(notice.text)

    def _say_ready(self) -> None:
        path = self.loaded.path
        self.output.say(
            f"attached to {self.url} ({path or 'no configuration file'})",
            ready=True,
            url=self.url,
            config=str(path) if path else None,
        )


def _warn(warning: str) -> None:
    typer.echo(f"warning: {warning}", err=True)


async def _stop_on_signal(stop: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        # A further signal changes nothing: the end is under way, and bounded.
        async for _ in signals:
            stop.set()
