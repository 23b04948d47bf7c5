"""What the plugin inside OpenCode costs: the wait of a prompt, a long answer, memory.

    python tests/bench/bridge.py

A bridge of its own, driven over its pipes as plugin.js drives it: the added time of chat.message on the good path
(goal p50 3 ms, p99 15 ms), its processor time for an answer of 5,000 tokens (as plugin.js passes them on, four a second
and part; and as if it passed on every one), its resident memory (goal 60 MB).
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

PROMPTS, TOKENS = 1_000, 5_000
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

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_megabytes(self):
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def tokens(self, count):
        """Processor seconds for so many tokens of one answer."""
        before = self.cpu_seconds()
        event = {"type": "message.part.delta", "properties": {"sessionID": "s", "messageID": "m", "partID": "p"}}
        for number in range(count):
            self.tell("event", {"event": {"id": f"evt_{number}", **event}})

        self.prompt(10**6 + count)
        return self.cpu_seconds() - before


def main():
    with tempfile.TemporaryDirectory() as home:
        bridge = BridgeProcess(home)
        waits = sorted(bridge.prompt(number) for number in range(PROMPTS))
        print(f"chat.message, {PROMPTS} prompts: p50 {statistics.median(waits) * 1e3:.2f} ms (goal 3), ", end="")
        print(f"p99 {waits[int(PROMPTS * 0.99)] * 1e3:.2f} ms (goal 15)")
        passed_on = 4 * 50 + 1
        print(f"processor time for an answer of {TOKENS} tokens in 50 s: {bridge.tokens(passed_on):.3f} s, ", end="")
        print(f"{bridge.tokens(TOKENS):.3f} s if every token were passed on")
        print(f"resident memory: {bridge.resident_megabytes():.1f} MB (goal 60)")
        bridge.process.stdin.close()
        bridge.process.wait(timeout=10)


if __name__ == "__main__":
    main()
