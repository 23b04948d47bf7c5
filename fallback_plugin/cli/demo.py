"""`fallback-plugin demo`: what the plugin does, seen on a real host with a provider that really fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import anyio
import typer

from fallback_plugin.cli.timeline import Timeline, open_console
from fallback_plugin.errors import HostError
from fallback_plugin.testing.chronicle import Chronicle
from fallback_plugin.testing.opencode_binary import find_opencode
from fallback_plugin.testing.opencode_package import install_package, is_installed
from fallback_plugin.testing.provider import FaultyProvider
from fallback_plugin.testing.stages import loopback_stage, opencode_stage
from fallback_plugin.testing.story import ROUTES, Stage, perform

EXIT_WRONG_OUTCOME = 1
EXIT_NO_SERVER = 3
EXIT_INTERRUPTED = 130
INSTALL_PATIENCE = 30.0
"""Seconds for `npm ci`, which fetches some 100 MB; with the story it has to fit into a minute."""
STORY_PATIENCE = 60.0


class DemoHost(StrEnum):
    """Where the demonstration runs."""

    AUTO = "auto"
    OPENCODE = "opencode"
    LOOPBACK = "loopback"


def demo_command(
    host: Annotated[
        DemoHost, typer.Option("--host", help="The real OpenCode, a small host in this process, or what there is.")
    ] = DemoHost.AUTO,
    npm: Annotated[
        Path | None,
        typer.Option("--npm", help="A directory whose package-lock.json pins opencode-ai; installed if need be."),
    ] = None,
) -> None:
    """Play four turns against a provider that answers 429, cuts its stream and runs out; check how they end.

    Exit code 0: every turn ended as it must. 1: one did not. 3: there is no OpenCode where it was asked for.
    """
    timeline = Timeline(console=open_console())
    demonstration = Demonstration(host=host, npm=npm, timeline=timeline)
    raise typer.Exit(anyio.run(demonstration.run))


class _NoStage(Exception):  # noqa: N818 - names the condition
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One run of the story.

    Attributes:
        host: where.
        npm: the package directory that pins OpenCode.
        timeline: how it is shown.
    """

    host: DemoHost
    npm: Path | None
    timeline: Timeline

    async def run(self) -> int:
        """Play, and return the exit code."""
        codes: list[int] = []
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(_cancel_on_signal, scope)
                codes.append(await self._play())

            tasks.cancel_scope.cancel()

        if codes:
            return codes[0]

        self.timeline.say("\ninterrupted")
        return EXIT_INTERRUPTED

    async def _play(self) -> int:
        code = EXIT_WRONG_OUTCOME
        try:
            with anyio.fail_after(INSTALL_PATIENCE + STORY_PATIENCE):
                code = await self._tell_story()
        except* (HostError, TimeoutError) as failures:
            for failure in failures.exceptions:
                self.timeline.say(f"the demonstration broke off: {failure}")

        return code

    async def _tell_story(self) -> int:
        async with FaultyProvider() as provider, AsyncExitStack() as stack:
            chronicle = Chronicle(provider=provider, routes=ROUTES, tell=self.timeline.tell)
            try:
                stage = await self._open_stage(chronicle, stack)
            except _NoStage as reason:
                self.timeline.say(f"no OpenCode: {reason}")
                return EXIT_NO_SERVER

            self.timeline.say(f"On {stage.name}, with a provider at {provider.base_url} that fails as real ones do.")
            reports = await perform(stage, chronicle, self.timeline.begin_turn)

        self.timeline.summarize(reports)
        if all(report.is_right for report in reports):
            self.timeline.say("Every turn ended as it must.")
            return 0

        self.timeline.say("Not every turn ended as it must.")
        return EXIT_WRONG_OUTCOME

    async def _open_stage(self, chronicle: Chronicle, stack: AsyncExitStack) -> Stage:
        if self.host is DemoHost.LOOPBACK:
            return await stack.enter_async_context(loopback_stage(chronicle))

        try:
            binary = await self._find_binary()
            return await stack.enter_async_context(opencode_stage(binary, chronicle))
        except (_NoStage, HostError, OSError, subprocess.CalledProcessError) as error:
            if self.host is DemoHost.OPENCODE:
                raise _NoStage(str(error)) from error

            self.timeline.say(f"Not on the real OpenCode: {error}.")

        return await stack.enter_async_context(loopback_stage(chronicle))

    async def _find_binary(self) -> Path:
        directories: list[Path] = []
        if self.npm is not None and "FALLBACK_PLUGIN_OPENCODE" not in os.environ:
            package = self.npm.resolve()
            if not is_installed(package) and shutil.which("npm"):
                self.timeline.say("Installing the real OpenCode with npm, once …")

            reason = await install_package(package, patience=INSTALL_PATIENCE)
            if reason is not None:
                raise _NoStage(reason)

            directories.append(package / "node_modules")

        return find_opencode(directories)


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            # A second signal must not end us before the server that we started has ended.
            scope.cancel()
