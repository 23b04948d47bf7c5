"""What the plugin inside OpenCode costs: the wait of a prompt, a long answer, memory.

    python tests/bench/bridge.py

In the real host: the time that the hook chat.message takes on the good path (goal p50 3 ms, p99 15 ms), and what the
bridge has used afterwards (goal 60 MB). Then a bridge of its own, driven over its pipes as plugin.js drives it: the
same wait without the host, its processor time for an answer of 5,000 tokens (as plugin.js passes them on, four a
second and part; and as if it passed on every one), its resident memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from fallback_plugin.hosts.opencode.installation import PLUGIN_NAME, plugin_text
from fallback_plugin.testing.faults import Answer
from fallback_plugin.testing.opencode import find_opencode, opencode_config
from fallback_plugin.testing.opencode_package import install_package
from fallback_plugin.testing.opencode_plugged import BRIDGE, PluggedOpenCode
from fallback_plugin.testing.opencode_scene import Scene, SceneNames, route
from fallback_plugin.testing.provider import FaultyProvider

PACKAGE = Path(__file__).parent.parent / "e2e" / "opencode"
NPM_SECONDS = 300
PROMPTS_IN_HOST, PROMPTS, TOKENS = 200, 1_000, 5_000
STOPWATCH = """
import { appendFileSync } from "node:fs"
export const Timed = async (input) => {
  const hooks = await Untimed(input)
  const timed = async (...values) => {
    const begun = performance.now()
    await hooks["chat.message"](...values)
    appendFileSync(FILE, `${performance.now() - begun}\\n`)
  }
  return { ...hooks, "chat.message": timed }
}
"""
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


def show_waits(title, waits):
    ordered = sorted(waits)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    print(f"chat.message, {title}, {len(ordered)} prompts: p50 {p50:.2f} ms (goal 3), p99 {p99:.2f} ms (goal 15)")


async def in_host():
    if (missing := await install_package(PACKAGE, patience=NPM_SECONDS)) is not None:
        sys.exit(missing)

    names = SceneNames("timed")
    with tempfile.TemporaryDirectory() as directory, FaultyProvider() as provider:
        times = Path(directory) / "times"
        plugin = plugin_text(list(BRIDGE)).replace("export const FallbackPlugin", "const Untimed")
        files = {f".opencode/plugin/{PLUGIN_NAME}": plugin + STOPWATCH.replace("FILE", json.dumps(str(times)))}
        settings = {"agents": {names.agent: {"fallback_models": [route(model) for model in names.models]}}}
        config = opencode_config(provider.base_url, agents=names.agents, models=names.models)
        binary = find_opencode([PACKAGE / "node_modules"])
        async with PluggedOpenCode(binary, config=config, settings=settings, files=files) as server:
            async with Scene.open(server, provider, names) as scene:
                provider.script(scene.primary, Answer())
                for number in range(PROMPTS_IN_HOST + 1):
                    if number % 20 == 0:
                        conversation = await scene.conversation()
                    await conversation.prompt("say hi")
                    await conversation.wait_until_answered(prompts=number % 20 + 1)

            # The first prompt comes while Python starts.
            show_waits("in the host", [float(line) for line in times.read_text().split()][1:])
            [bridge] = server.bridges()
            used = f"{cpu_seconds(bridge):.1f} s of processor time, {resident_megabytes(bridge):.1f} MB (goal 60)"
            print(f"the bridge after {PROMPTS_IN_HOST} turns: {used}")


def over_pipes():
    with tempfile.TemporaryDirectory() as home:
        bridge = BridgeProcess(home)
        show_waits("over pipes", [bridge.prompt(number) * 1e3 for number in range(PROMPTS)])
        passed_on = 4 * 50 + 1
        print(f"processor time for an answer of {TOKENS} tokens in 50 s: {bridge.tokens(passed_on):.3f} s, ", end="")
        print(f"{bridge.tokens(TOKENS):.3f} s if every token were passed on")
        print(f"resident memory: {resident_megabytes(bridge.process.pid):.1f} MB (goal 60)")
        bridge.process.stdin.close()
        bridge.process.wait(timeout=10)


if __name__ == "__main__":
    anyio.run(in_host)
    over_pipes()
