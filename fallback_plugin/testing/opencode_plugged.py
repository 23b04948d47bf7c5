"""The real OpenCode server with the plugin inside, as `fallback-plugin install` puts it there.

async with PluggedOpenCode(binary, config=config) as server:
await server.configure({"agents": {"coder": {"fallback_models": ["fake/b"]}}})
...
await server.wait_for_record(lambda record: record.get("notice") == "recovered")
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio

import fallback_plugin
from fallback_plugin.hosts.opencode.bridge_log import LOG_NAME
from fallback_plugin.hosts.opencode.installation import PLUGIN_NAME, plugin_text
from fallback_plugin.runtime.health import KIND as HEALTH
from fallback_plugin.stores.sqlite import SqliteStore
from fallback_plugin.stores.url import FILE_NAME
from fallback_plugin.testing.opencode import OpenCodeServer

BRIDGE = (sys.executable, "-m", "fallback_plugin", "bridge")
SAME_CODE = MappingProxyType({"PYTHONPATH": str(Path(fallback_plugin.__file__).parents[1])})
"""The environment in which a bridge is of this very package, not of one that is installed too."""
_SETTINGS = ".opencode/opencode-fallback.jsonc"
_STATE = "fallback-plugin-state"


def plugin_files(command: tuple[str, ...] = BRIDGE) -> dict[str, str]:
    """The files of a project that has the plugin: path inside the project → text.

    Args:
        command: what starts the bridge.
    """
    return {f".opencode/plugin/{PLUGIN_NAME}": plugin_text(list(command))}


class PluggedOpenCode(OpenCodeServer):
    """`opencode serve` in a project that has the plugin.

    Args:
        binary: the OpenCode binary.
        config: what opencode.json holds.
        settings: what the plugin's configuration holds; its store is one of this server alone.
        command: what starts the bridge.
        options: what else `OpenCodeServer` takes.
    """

    def __init__(
        self,
        binary: Path,
        *,
        config: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        command: tuple[str, ...] = BRIDGE,
        **options: Any,
    ) -> None:
        environment = {"FALLBACK_PLUGIN_HOME": f"../{_STATE}", **SAME_CODE, **options.pop("environment", {})}
        files = {**plugin_files(command), _SETTINGS: json.dumps(settings or {}), **options.pop("files", {})}
        super().__init__(binary, config=config, environment=environment, files=files, **options)
        self._read = 0
        self._records: list[dict[str, Any]] = []

    @property
    def log(self) -> Path:
        """What the bridge has written."""
        return self.project.parent / _STATE / LOG_NAME

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of the log."""
        try:
            text = self.log.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []

        # Whoever waits for a line asks fifty times a second.
        if len(text) != self._read:
            self._read, self._records = len(text), [json.loads(line) for line in text.splitlines()]

        return list(self._records)

    async def configure(self, settings: Mapping[str, Any]) -> None:
        """Put other settings in force, as a user does who saves the file, and let nobody be known to be out.

        Args:
            settings: what the configuration file is to hold; the store is read at the start only.
        """
        await self.wait_for_record(lambda record: bool(record.get("ready")))
        await self._forget_outages()
        path = anyio.Path(self.project / _SETTINGS)
        if json.loads(await path.read_text(encoding="utf-8")) == settings:
            return

        seen = len(self.records)
        draft = path.with_suffix(".draft")
        await draft.write_text(json.dumps(settings), encoding="utf-8")
        await draft.replace(path)
        await self.wait_for_record(lambda record: bool(record.get("reloaded")), since=seen)

    async def _forget_outages(self) -> None:
        store = SqliteStore(self.log.with_name(FILE_NAME))
        await store.open()
        try:
            for record in await store.scan(HEALTH):
                await store.delete(HEALTH, record.key)
        finally:
            await store.close()

    async def wait_for_record(
        self,
        accept: Callable[[Mapping[str, Any]], bool],
        *,
        since: int = 0,
        timeout: float = 20.0,  # noqa: ASYNC109 - a time limit is this call's very contract
    ) -> dict[str, Any]:
        """Wait for a line of the log.

        Args:
            accept: says whether it is the one.
            since: how many lines to pass over.
            timeout: seconds.

        Raises:
            TimeoutError: it did not come; shows the last lines.
        """
        with anyio.move_on_after(timeout):
            while True:
                for record in self.records[since:]:
                    if accept(record):
                        return record

                await anyio.sleep(0.02)

        raise TimeoutError(f"not in the log within {timeout} s: {self.records[-10:]}; {self.output[-500:]}")

    def bridges(self) -> list[int]:
        """Process ids of the bridges that have written to the log, oldest first."""
        return list(dict.fromkeys(record["pid"] for record in self.records))
