"""`fallback-plugin bridge` as a process: its stdout is the protocol's alone, its log the user's alone, its end the host's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fallback_plugin.hosts.opencode.bridge_log import LOG_BYTES, LOG_NAME
from fallback_plugin.testing.opencode_plugged import SAME_CODE

PATIENCE = 20
NOISY = """
import os, subprocess, sys
sys.argv = ["fallback-plugin", "bridge"]
from fallback_plugin.cli import main
from fallback_plugin.hosts.opencode.bridge import Bridge

pong = Bridge._pong
async def noisy(self, params):
    print("noise", flush=True)
    os.write(1, b"noise\\n")
    subprocess.run(["echo", "noise"], check=True)
    return await pong(self, params)

Bridge._pong = noisy
main()
"""
LOGGING = """
import logging, sys
sys.argv = ["fallback-plugin", "bridge"]
from fallback_plugin.cli import main
from fallback_plugin.hosts.opencode.bridge import Bridge

pong = Bridge._pong
async def talkative(self, params):
    for _ in range(params["lines"]):
        logging.getLogger("fallback_plugin").info("x" * 10_000)
    return await pong(self, params)

Bridge._pong = talkative
main()
"""
LISTING = """
import sys
sys.argv = ["fallback-plugin", "bridge"]
import anyio
from fallback_plugin.cli import main

run = anyio.run
def patched(work):
    async def modules(params):
        return {"modules": [name for name, module in sys.modules.items() if module and "." not in name]}

    work.__self__._peer._answered["ping"] = modules
    return run(work)

anyio.run = patched
main()
"""
BROKEN = """
import sys
sys.argv = ["fallback-plugin", "bridge"]
from fallback_plugin.cli import main
from fallback_plugin.hosts.opencode.bridge import Bridge

async def fail(self):
    raise RuntimeError("the secret of a prompt")

Bridge.run = fail
main()
"""


class Process:
    """A bridge whose host the test is."""

    def __init__(self, home, *arguments, umask=0o022):
        environment = {"FALLBACK_PLUGIN_HOME": home, "HOME": home, "XDG_CONFIG_HOME": home, **SAME_CODE}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {name: str(value) for name, value in environment.items()},
            umask=umask,
        )

    def ping(self, number=1, **params):
        self.say({"id": number, "method": "ping", "params": params})
        return self.hear()

    def say(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self):
        return json.loads(self.process.stdout.readline())

    def end(self):
        """The host ends; what was still said, and the exit status."""
        self.process.stdin.close()
        rest = self.process.stdout.read()
        self.process.stdout.close()
        return rest, self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path):
    processes = []

    def start(*arguments, **options):
        processes.append(Process(tmp_path / "home", *(arguments or ("-m", "fallback_plugin", "bridge")), **options))
        return processes[-1]

    yield start
    for each in processes:
        each.process.kill()
        each.process.wait()
        for pipe in (each.process.stdin, each.process.stdout):
            pipe.close()


def mode_of(path):
    return path.stat().st_mode & 0o777


PONG = {"jsonrpc": "2.0", "id": 1, "result": {"projects": 0}}


def test_it_answers_and_ends_with_its_host(start):
    bridge = start()

    assert bridge.ping() == PONG
    assert bridge.end() == (b"", 0)


def test_what_prints_does_not_print_into_the_protocol(start):
    bridge = start("-c", NOISY)

    assert bridge.ping() == PONG
    assert bridge.ping(2)["id"] == 2
    assert bridge.end() == (b"", 0)


def test_its_log_is_for_the_user_alone_also_after_it_was_rotated_and_if_it_was_there(start, tmp_path):
    log = tmp_path / "home" / LOG_NAME
    log.parent.mkdir()
    log.touch(mode=0o644)
    log.chmod(0o644)
    bridge = start("-c", LOGGING, umask=0)
    bridge.ping(lines=LOG_BYTES // 10_000 + 5)
    bridge.end()

    logs = sorted(log.parent.glob(f"{LOG_NAME}*"))
    assert [path.name for path in logs] == [LOG_NAME, f"{LOG_NAME}.1"]
    assert [mode_of(path) for path in logs] == [0o600, 0o600]


def test_without_a_place_for_its_log_it_works(start, tmp_path):
    (tmp_path / "home").write_text("a file")

    assert start().ping() == PONG


def test_an_interrupt_is_the_hosts(start):
    bridge = start()
    bridge.ping()
    bridge.process.send_signal(signal.SIGINT)

    assert bridge.ping() == PONG
    assert bridge.end() == (b"", 0)


def test_a_bridge_that_fails_ends_though_its_host_lives_and_says_where_but_not_what(start, tmp_path):
    bridge = start("-c", BROKEN)

    assert bridge.process.wait(PATIENCE) == 1
    text = (tmp_path / "home" / LOG_NAME).read_text()
    assert "the bridge has failed: RuntimeError" in text
    assert "secret" not in text


def test_it_brings_nothing_that_only_people_need(start):
    loaded = start("-c", LISTING).ping()["result"]["modules"]

    assert "httpx" in loaded
    assert {"typer", "click", "rich", "pygments", "redis", "trio", "httpcore"} & set(loaded) == set()


def test_its_memory_at_rest_is_bounded(start):
    bridge = start()
    bridge.ping()
    resident = Path(f"/proc/{bridge.process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]

    assert int(resident) < 70_000, "kB; 49,000 with CPython 3.11 on Linux"
