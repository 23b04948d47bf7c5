"""Issue C, Degrade: a store that breaks doesn't take a turn with it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from fallback_plugin.stores.sqlite import SqliteStore
from fallback_plugin.testing.faults import Answer, rate_limited
from fallback_plugin.testing.opencode_scene import route


@pytest.fixture
def attach(launch, opencode, tmp_path):
    """Starts the plugin beside the host."""
    return lambda settings: started(launch, opencode.url, tmp_path, settings)


def started(launch, url, directory, settings):
    file = directory / "opencode-fallback.json"
    file.write_text(json.dumps(settings))
    command = [
        sys.executable,
        "-m",
        "fallback_plugin",
        "attach",
        "--json",
        "--wait",
        "--url",
        url,
        "--config",
        str(file),
    ]
    variables = {**os.environ, "FALLBACK_PLUGIN_HOME": str(directory)}
    return launch(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables)


@pytest.fixture
def chain(scene):
    return {"fallback_models": [route(scene.second), route(scene.third)]}


@pytest.mark.parametrize("store", ["redis://127.0.0.1:1/0", "sqlite:///proc/nowhere/state.db"])
async def test_a_store_that_is_not_there_is_said_once_and_the_turn_goes_on(scene, provider, attach, chain, store):
    provider.script(scene.primary, rate_limited())
    provider.script(scene.second, Answer("from second"))
    conversation = await scene.conversation()
    process = attach({**chain, "store": store})
    lines = []
    while not lines or not lines[-1].get("ready"):
        lines.append(json.loads(process.stdout.readline()))

    await conversation.prompt("say hi")
    await conversation.wait_until_answered()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    lines += [json.loads(line) for line in output.splitlines()]

    assert process.returncode == 0
    assert await conversation.answers() == ["from second"]
    assert len([line for line in lines if "shared store is out" in line["text"]]) == 1


async def test_a_store_of_a_newer_version_is_refused(attach, chain, tmp_path):
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    await store.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    process = attach(chain)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 2
    assert "newer" in errors
