"""The same ordeal for everybody: two hundred turns, three requests of ten failing, without a plugin and with several.

Each goes through it on a real server of its own, and meets the same first failure in the same turn. A turn that is not
answered within the patience is stopped as a person would stop it, and counts as lost. Other plugins come from npm, into
the user's cache directory, with the settings that serve them best here: every model in their chain, the first retry
enough, the shortest patience that they have. They get no way out of this machine.

    python tests/bench/ordeal.py --turns 200 --seed 1 --only nobody ours
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import platformdirs

from fallback_plugin.testing.opencode import OpenCodeServer, find_opencode
from fallback_plugin.testing.opencode_package import install_package
from fallback_plugin.testing.opencode_plugged import PluggedOpenCode
from fallback_plugin.testing.opencode_scene import Scene, SceneNames
from fallback_plugin.testing.ordeal import AGENT, ROUTES, Ordeal, ordeal_config
from fallback_plugin.testing.ordeal_account import LOST, Account, side_by_side
from fallback_plugin.testing.ordeal_run import Trial
from fallback_plugin.testing.provider import FaultyProvider

PACKAGE = Path(__file__).parent.parent / "e2e" / "opencode"
PEERS = platformdirs.user_cache_path("fallback-plugin") / "peers"
NPM_SECONDS = 300
WARM_UP_SECONDS = 60.0
LIMITS = {"timeout_seconds": 1, "cooldown_seconds": 0.5}
QUIET = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "DO_NOT_TRACK": "1",
    "OMO_DISABLE_POSTHOG": "1",
    "OMO_SEND_ANONYMOUS_TELEMETRY": "0",
}
REMOTE_TOOLS = ["websearch", "context7", "grep_app", "gh_grep"]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another plugin: its npm package, the agent whose chain it knows, and its settings file."""

    package: str
    version: str
    agent: str
    path: str
    settings: Mapping[str, object]

    @property
    def directory(self) -> Path:
        return PEERS / f"{self.package}-{self.version}"

    @property
    def entry(self) -> Path:
        return self.directory / "node_modules" / self.package / "dist" / "index.js"


PEER_PLUGINS = {
    "oh-my-opencode-slim": Peer(
        package="oh-my-opencode-slim",
        version="2.2.24",
        agent="orchestrator",
        path="../home/.config/opencode/oh-my-opencode-slim.json",
        settings={
            "autoUpdate": False,
            "disabled_mcps": REMOTE_TOOLS,
            "agents": {"orchestrator": {"model": list(ROUTES)}},
            "fallback": {"enabled": True, "maxRetries": 0, "retryDelayMs": 0},
        },
    ),
    "oh-my-openagent": Peer(
        package="oh-my-openagent",
        version="4.19.4",
        agent="Sisyphus - ultraworker",
        path="../home/.omo/omo.jsonc",
        settings={
            "[opencode]": {
                "telemetry": False,
                "auto_update": False,
                "disabled_mcps": REMOTE_TOOLS,
                "agents": {"sisyphus": {"model": ROUTES[0], "fallback_models": list(ROUTES[1:])}},
                "runtime_fallback": {
                    "enabled": True,
                    "retry_on_errors": [401, 402, 403, 404, 408, 429, 500, 502, 503, 504, 529],
                    "max_fallback_attempts": 10,
                    "restore_primary_after_cooldown": True,
                    **LIMITS,
                },
            },
            # Its own migration would rename fallback_models to what its fallback does not read.
            "_migrations": ["2026-07-opencode-config-unification", "2026-08-reasoning-unification"],
        },
    ),
}


def nobody(binary, config):
    return OpenCodeServer(binary, config=config), AGENT


def ours(binary, config):
    settings = {"agents": {AGENT: {"fallback_models": list(ROUTES), "stall_timeout_seconds": 1, **LIMITS}}}
    return PluggedOpenCode(binary, config=config, settings=settings), AGENT


def peer(plugin):
    def make(binary, config):
        fetch(plugin)
        config = {**config, "model": ROUTES[0], "plugin": [plugin.entry.as_uri()]}
        # An own configuration directory, where the host would else wait for its types from the network.
        files = {".opencode/README.md": "", plugin.path: json.dumps(plugin.settings)}
        return OpenCodeServer(binary, config=config, files=files, environment=QUIET), plugin.agent

    return make


CONTESTANTS = {"nobody": nobody, "ours": ours, **{name: peer(plugin) for name, plugin in PEER_PLUGINS.items()}}


class MissingPluginError(Exception):
    """A plugin that can't be had here."""


def fetch(plugin):
    """Install a peer where it is not yet."""
    if plugin.entry.is_file():
        return

    npm = shutil.which("npm")
    if npm is None:
        raise MissingPluginError("there is no npm")

    plugin.directory.mkdir(parents=True, exist_ok=True)
    (plugin.directory / "package.json").write_text("{}")
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", f"{plugin.package}@{plugin.version}"]
    done = subprocess.run(
        command, cwd=plugin.directory, capture_output=True, text=True, timeout=NPM_SECONDS, check=False
    )
    if done.returncode:
        raise MissingPluginError(f"npm has not got it: {done.stderr.strip()[:200]}")


@dataclass(kw_only=True)
class Bench:
    ordeal: Ordeal
    patience: float
    binary: Path
    verbose: bool
    accounts: dict[str, Account] = field(default_factory=dict)

    async def run(self, name):
        with FaultyProvider() as provider:
            server, agent = CONTESTANTS[name](self.binary, ordeal_config(provider.base_url))
            async with server, Scene.open(server, provider, SceneNames(AGENT)) as scene:
                # More than a turn's patience, where a plugin looks around first.
                await scene.warm_up(agent, timeout=WARM_UP_SECONDS)
                trial = Trial(
                    scene=scene,
                    agent=agent,
                    project=server.project,
                    ordeal=self.ordeal,
                    patience=self.patience,
                    on_turn=lambda turn: self.tell(name, turn),
                )
                self.accounts[name] = await trial.run()

    def tell(self, name, turn):
        if self.verbose and turn.outcome in LOST:
            print(f"{name}, turn {turn.turn}, {turn.outcome} after {turn.seconds:.1f} s:", *turn.fates, sep="\n    ")


async def main(arguments):
    if (missing := await install_package(PACKAGE, patience=NPM_SECONDS)) is not None:
        sys.exit(missing)

    bench = Bench(
        ordeal=Ordeal(seed=arguments.seed, length=arguments.turns),
        patience=arguments.patience,
        verbose=arguments.verbose,
        binary=find_opencode([PACKAGE / "node_modules"]),
    )
    print(
        f"seed {arguments.seed}, {arguments.turns} turns, 30 % of the requests fail, patience {arguments.patience:g} s"
    )
    for name in arguments.only:
        began = time.monotonic()
        try:
            await bench.run(name)
        except MissingPluginError as reason:
            print(f"{name}: left out, {reason}")
        else:
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)

    print(side_by_side(bench.accounts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The same ordeal without a plugin, with ours and with others.")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=8.0)
    parser.add_argument("--verbose", action="store_true", help="tell what became of the requests of each lost turn")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    anyio.run(main, parser.parse_args())
