"""What the plugin inside OpenCode costs: the wait of a prompt, a long answer, memory.

    python tests/bench/bridge.py

In the real host: the time from a prompt to the provider's first request, with the plugin and without it, in turn (goal
for what it adds, which is its hook chat.message: p50 3 ms, p99 15 ms), and what the bridge has used afterwards (goal
60 MB). Then a bridge of its own, driven over its pipes as plugin.js drives it: that hook's wait without the host, the
processor time for an answer of 5,000 tokens (as plugin.js passes them on, four a second and part; and as if it passed
on every one), its resident memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from fallback_plugin.testing.opencode import OpenCodeServer, find_opencode, opencode_config
from fallback_plugin.testing.opencode_package import install_package
from fallback_plugin.testing.opencode_plugged import PluggedOpenCode
from fallback_plugin.testing.opencode_scene import Scene, SceneNames, route
from fallback_plugin.testing.provider import FaultyProvider

PACKAGE = Path(__file__).parent.parent / "e2e" / "opencode"
NPM_SECONDS = 300
PROMPTS_IN_HOST, TURNS_OF_ONE, PROMPTS, TOKENS = 200, 20, 1_000, 5_000
CONFIG = {"model": "one/a", "agent": {"coder": {"model": "one/a", "fallback_models": ["two/b"]}}}


class BridgeProcess:
    """A bridge, its pipes, and the answers that a host would give."""

    def __init__(self, home):
        command = [sys.executable, "-m", "fallback_plugin", "bridge"]
        environment = {**os.environ, "FALLBACK_PLUGIN_HOME": home}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.project = home
        self.tell("project.opened", {"config": CONFIG})
        self.read_until(lambda message: message.get("method") == "log" and "ready" in message["params"]["message"])

    def tell(self, method, params, number=None):
        message = {"jsonrpc": "2.0", "method": method, "params": {"directory": self.project, **params}}
        if number is not None:
            message["id"] = number

        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def read_until(self, accept):
        for line in self.process.stdout:
            message = json.loads(line)
            if message.get("method") == "http":
                result = {"status": 200, "headers": {"content-type": "application/json"}, "body": "{}"}
                answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
                self.process.stdin.write(json.dumps(answer) + "\n")
                self.process.stdin.flush()
            elif accept(message):
                return

    def prompt(self, number):
        model = {"providerID": "one", "modelID": "a"}
        params = {"sessionID": f"s{number}", "agent": "coder", "model": model, "picked": False}
        begun = time.perf_counter()
        self.tell("chat.message", params, number)
        self.read_until(lambda message: message.get("id") == number)
        return time.perf_counter() - begun

    def tokens(self, count):
        """Processor seconds for so many tokens of one answer."""
        before = cpu_seconds(self.process.pid)
        event = {"type": "message.part.delta", "properties": {"sessionID": "s", "messageID": "m", "partID": "p"}}
        for number in range(count):
            self.tell("event", {"event": {"id": f"evt_{number}", **event}})

        self.prompt(10**6 + count)
        return cpu_seconds(self.process.pid) - before


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def percentiles(waits):
    ordered = sorted(waits)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.99)]


async def in_host():
    if (missing := await install_package(PACKAGE, patience=NPM_SECONDS)) is not None:
        sys.exit(missing)

    binary, names = find_opencode([PACKAGE / "node_modules"]), (SceneNames("bare"), SceneNames("plugged"))
    settings = {"agents": {names[1].agent: {"fallback_models": [route(model) for model in names[1].models]}}}
    with FaultyProvider() as provider:
        configs = [opencode_config(provider.base_url, agents=each.agents, models=each.models) for each in names]
        bare = OpenCodeServer(binary, config=configs[0])
        plugged = PluggedOpenCode(binary, config=configs[1], settings=settings)
        async with bare, plugged, AsyncExitStack() as stack:
            scenes = [
                await stack.enter_async_context(Scene.open(server, provider, each))
                for server, each in zip((bare, plugged), names, strict=True)
            ]
            without, inside = await compare(provider, scenes)
            [bridge] = plugged.bridges()
            used = f"{cpu_seconds(bridge):.1f} s of processor time, {resident_megabytes(bridge):.1f} MB (goal 60)"

    print(f"from a prompt to the provider, {PROMPTS_IN_HOST} each: ", end="")
    print(
        f"without the plugin p50 {without[0]:.1f}, p99 {without[1]:.1f} ms, with it {inside[0]:.1f}, {inside[1]:.1f} ms"
    )
    print(f"added: p50 {inside[0] - without[0]:.1f} ms (goal 3), p99 {inside[1] - without[1]:.1f} ms (goal 15)")
    print(f"the bridge after {PROMPTS_IN_HOST} turns: {used}")


async def compare(provider, scenes):
    """Percentiles of the milliseconds from a prompt to its request, of each scene, in turn."""
    waits = [[], []]
    conversations = [None, None]
    # The first prompts come while everything starts.
    for number in range(-TURNS_OF_ONE, PROMPTS_IN_HOST):
        for which, scene in enumerate(scenes):
            turn = number % TURNS_OF_ONE
            if turn == 0:
                conversations[which] = await scene.conversation()
            asked, begun = len(provider.requests_of(scene.primary)), time.monotonic()
            await conversations[which].prompt("say hi")
            await provider.wait_for(scene.primary, asked + 1)
            if number >= 0:
                waits[which].append((provider.requests_of(scene.primary)[asked].arrived - begun) * 1e3)
            await conversations[which].wait_until_answered(prompts=turn + 1)
            # What follows an answer is to be over.
            await anyio.sleep(0.05)

    return [percentiles(each) for each in waits]


def over_pipes():
    with tempfile.TemporaryDirectory() as home:
        bridge = BridgeProcess(home)
        p50, p99 = percentiles([bridge.prompt(number) * 1e3 for number in range(PROMPTS)])
        print(f"chat.message over pipes alone, {PROMPTS} prompts: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        passed_on = 4 * 50 + 1
        print(f"processor time for an answer of {TOKENS} tokens in 50 s: {bridge.tokens(passed_on):.3f} s, ", end="")
        print(f"{bridge.tokens(TOKENS):.3f} s if every token were passed on")
        print(f"resident memory: {resident_megabytes(bridge.process.pid):.1f} MB (goal 60)")
        bridge.process.stdin.close()
        bridge.process.wait(timeout=10)


if __name__ == "__main__":
    anyio.run(in_host)
    over_pipes()
