"""From the failure to the first request at the fallback: the plugin beside the floor, in turn, on the real server.

The floor is a bare script with no plugin in it. On the first sign of a failure that allows it, it does the least that
works on the real server: after a retry it aborts, waits for the idle and prompts in place; after a terminal error it
prompts in place at the message.updated that carries the error. The plugin is a `fallback-plugin attach` process, then
the plugin that the server itself has loaded, both as their users run them and without a chain for the floor's agent.
Measured is the time from the end of the provider's failing response to the arrival of the first request at the
fallback. Goal (issues A and D): median of 20 at most 1.25 times the floor.

    python tests/bench/hop.py --runs 20
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import anyio

from fallback_plugin.testing.faults import Answer, Fail
from fallback_plugin.testing.opencode import PROVIDER, OpenCodeServer, find_opencode, opencode_config
from fallback_plugin.testing.opencode_package import install_package
from fallback_plugin.testing.opencode_plugged import PluggedOpenCode
from fallback_plugin.testing.opencode_scene import Scene, SceneNames, route
from fallback_plugin.testing.provider import FaultyProvider

FAILURES = {"retry (429)": Fail(429), "terminal (402)": Fail(402)}
FLOOR = SceneNames("floor")
PACKAGE = Path(__file__).parent.parent / "e2e" / "opencode"
NPM_SECONDS = 300
_LIMIT_SECONDS = 20


async def _one(server, provider, names, failure):
    primary, second, _ = names.models
    provider.script(primary, failure)
    provider.script(second, Answer())
    failed, answered = len(provider.requests_of(primary)), len(provider.requests_of(second))

    with anyio.fail_after(_LIMIT_SECONDS):
        async with server.client() as client, client.stream("GET", "/event", timeout=None) as stream:
            lines = stream.aiter_lines()
            session = (await client.post("/session", json={})).json()["id"]
            model = {"providerID": PROVIDER, "modelID": primary}
            prompt = {"agent": names.bare_agent, "model": model, "parts": [{"type": "text", "text": "say hi"}]}
            await client.post(f"/session/{session}/prompt_async", json=prompt)
            await _carry_on(client, lines, session, names)
            await provider.wait_for(second, answered + 1)
            await _follow_until(lines, session, _idle)

    return provider.requests_of(second)[answered].arrived - provider.requests_of(primary)[failed].ended


async def _carry_on(client, lines, session, names):
    created = await _follow_until(lines, session, _user_message)
    failed = await _follow_until(lines, session, lambda event: _retry(event) or _error(event))
    if _retry(failed):
        await client.post(f"/session/{session}/abort")
        await _follow_until(lines, session, _idle)

    message = created["properties"]["info"]["id"]
    model = {"providerID": PROVIDER, "modelID": names.models[1]}
    dispatch = {"messageID": message, "agent": names.bare_agent, "model": model, "parts": []}
    await client.post(f"/session/{session}/prompt_async", json=dispatch)


async def _follow_until(lines, session, accept):
    async for line in lines:
        if not line.startswith("data:"):
            continue

        event = json.loads(line[5:])
        if event["properties"].get("sessionID") == session and accept(event):
            return event

    raise RuntimeError("the event stream has ended")


def _user_message(event):
    return event["type"] == "message.updated" and event["properties"]["info"]["role"] == "user"


def _retry(event):
    return event["type"] == "session.status" and event["properties"]["status"]["type"] == "retry"


def _error(event):
    return event["type"] == "message.updated" and bool(event["properties"]["info"].get("error"))


def _idle(event):
    return event["type"] == "session.idle"


async def plugin(scene, provider, *, failure):
    """Let the plugin carry one failing turn on; the seconds it took."""
    provider.script(scene.primary, failure)
    provider.script(scene.second, Answer())
    failed, answered = len(provider.requests_of(scene.primary)), len(provider.requests_of(scene.second))
    conversation = await scene.conversation()
    await conversation.prompt("say hi")
    await provider.wait_for(scene.second, answered + 1)
    await conversation.wait_until_idle(quiet=0.3)
    return provider.requests_of(scene.second)[answered].arrived - provider.requests_of(scene.primary)[failed].ended


async def main(runs):
    if (missing := await install_package(PACKAGE, patience=NPM_SECONDS)) is not None:
        sys.exit(missing)

    binary = find_opencode([PACKAGE / "node_modules"])
    with FaultyProvider() as provider:
        await beside(binary, provider, runs)
        await inside(binary, provider, runs)


async def beside(binary, provider, runs):
    carried = SceneNames("plugin")
    with tempfile.TemporaryDirectory() as directory:
        async with OpenCodeServer(binary, config=config_of(provider, carried)) as server:
            await warm_up(server, provider)
            with attached(server.url, Path(directory), carried) as counted:
                await compare("attach", server, provider, [carried] * 2 * runs)
            print(f"host HTTP calls of the plugin per hop: {counted() / (2 * runs):.2f} (at most 4)")


async def inside(binary, provider, runs):
    # Other models for each run: a prompt to one that is known to be out would not fail.
    scenes = [SceneNames(f"plugin{number}") for number in range(2 * runs)]
    chains = {names.agent: {"fallback_models": [route(model) for model in names.models]} for names in scenes}
    settings = {"store": "memory://", "agents": chains}
    async with PluggedOpenCode(binary, config=config_of(provider, *scenes), settings=settings) as server:
        await warm_up(server, provider)
        await compare("inside", server, provider, scenes)


def config_of(provider, *scenes):
    every = (FLOOR, *scenes)
    agents = [agent for names in every for agent in names.agents]
    return opencode_config(
        provider.base_url, agents=agents, models=[model for names in every for model in names.models]
    )


async def warm_up(server, provider):
    async with Scene.open(server, provider, FLOOR) as scene:
        await scene.warm_up()


async def compare(title, server, provider, scenes):
    unused = iter(scenes)
    for name, failure in FAILURES.items():
        floors, plugins = [], []
        for names in islice(unused, len(scenes) // len(FAILURES)):
            floors.append(await _one(server, provider, FLOOR, failure))
            async with Scene.open(server, provider, names) as scene:
                plugins.append(await plugin(scene, provider, failure=failure))

        ratio = statistics.median(plugins) / statistics.median(floors)
        figures = f"floor {_summary(floors)}, plugin {_summary(plugins)}"
        print(f"{title}, {name}: {figures}, ratio of medians {ratio:.2f} (goal 1.25)", flush=True)


def _summary(seconds):
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"{middle * 1000:.0f} ms ({low * 1000:.0f}-{high * 1000:.0f})"


class attached:  # noqa: N801 - used as a function
    """A `fallback-plugin attach` process for the length of a block; gives a function for its calls since ready."""

    def __init__(self, url, directory, names):
        file = directory / "opencode-fallback.json"
        agents = {names.agent: {"fallback_models": [route(model) for model in names.models]}}
        file.write_text(json.dumps({"agents": agents}))
        self._command = [
            sys.executable,
            "-m",
            "fallback_plugin",
            "attach",
            "--json",
            "--url",
            url,
            "--config",
            str(file),
        ]
        # A store of its own: what other runs have learnt would change the chain.
        self._variables = {**os.environ, "FALLBACK_PLUGIN_HOME": str(directory)}
        self._calls = 0

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, env=self._variables)
        assert json.loads(self._process.stdout.readline())["ready"]
        return lambda: self._calls

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        output, _ = self._process.communicate(timeout=20)
        last = json.loads(output.strip().splitlines()[-1])
        # GET /doc, /config and /session/status at the start are no part of any hop.
        self._calls = last["calls"] - 3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The time of a hop beside its floor, on the real server.")
    parser.add_argument("--runs", type=int, default=20)
    anyio.run(main, parser.parse_args().runs)
