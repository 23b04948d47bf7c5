"""Issue C, durable turns: kill -9 of `attach` between every two steps of a hop, on the real server.

The process dies at a failpoint; another one is started on the same store. However far the first had come, the turn ends
answered once, with one user message, and no tool has run twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import anyio
import pytest

from fallback_plugin.runtime.failpoints import POINTS, VARIABLE
from fallback_plugin.testing.faults import Answer, CallTool, Fail, Hang, SlowAnswer, rate_limited
from fallback_plugin.testing.opencode_scene import route

FAILURES = {"retry": rate_limited(retry_after=3600), "terminal": Fail(402), "hang": Hang()}


@pytest.fixture
def file(scene, tmp_path):
    chain = [route(scene.second), route(scene.third)]
    path = tmp_path / "opencode-fallback.json"
    path.write_text(json.dumps({"fallback_models": chain, "timeout_seconds": 2}))
    return path


@pytest.fixture
def attach(launch, opencode, file, tmp_path):
    """Starts the plugin beside the host, to die at a failpoint where one is named."""
    return lambda failpoint=None: started(launch, opencode.url, file, tmp_path, failpoint)


def started(launch, url, file, home, failpoint):
    variables = {**os.environ, "FALLBACK_PLUGIN_HOME": str(home), VARIABLE: failpoint or ""}
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
    process = launch(command, stdout=subprocess.PIPE, env=variables)
    while not json.loads(process.stdout.readline()).get("ready"):
        pass

    return process


def end(process):
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)


async def died(process):
    with anyio.fail_after(20):
        while process.poll() is None:
            await anyio.sleep(0.02)

    process.communicate()
    assert process.returncode == -signal.SIGKILL


# A run that dies by itself is not aborted.
CASES = [(name, point) for name in FAILURES for point in POINTS if (name, point) != ("terminal", "aborted")]


@pytest.mark.parametrize(("failure", "failpoint"), CASES)
async def test_a_turn_outlives_the_process(scene, provider, attach, failpoint, failure):
    provider.script(scene.primary, FAILURES[failure])
    provider.script(scene.second, SlowAnswer("from second", chunks=4, delay=0.1))
    conversation = await scene.conversation()
    first = attach(failpoint)
    await conversation.prompt("say hi")
    await died(first)

    second = attach()
    assert await conversation.wait_until_answered(timeout=40) == ["from second"]
    await conversation.wait_until_idle(quiet=1.0)
    end(second)

    assert await conversation.answers() == ["from second"]
    assert len(await conversation.user_messages()) == 1
    assert len(provider.requests_of(scene.second)) == 1
    assert provider.requests_of(scene.third) == []


async def test_a_tool_that_ran_before_the_crash_runs_no_second_time(scene, provider, opencode, attach):
    trace = opencode.project / f"{scene.agent}-crash.txt"
    command = {"command": f"echo run >> {trace}; echo done", "description": "trace"}
    provider.script(scene.primary, CallTool("bash", command), rate_limited())
    provider.script(scene.second, Answer("the tool said done"))
    conversation = await scene.conversation()
    first = attach("aborted")
    await conversation.prompt("run the tool")
    await died(first)

    second = attach()
    await conversation.wait_until_answered(timeout=40)
    end(second)

    assert trace.read_text() == "run\n"
    [request] = provider.requests_of(scene.second)
    assert request.roles == ("system", "user", "assistant", "tool")


@pytest.mark.parametrize("moment", ["the child streams", "the child has answered"])
async def test_a_parent_that_waits_for_its_subagent_outlives_the_process(scene, provider, attach, moment):
    primary, second, _ = scene.names.worker_models
    call = {"description": "work", "prompt": "do the work", "subagent_type": scene.names.worker}
    provider.script(scene.primary, CallTool("task", call), Answer("the parent is done"))
    provider.script(primary, rate_limited(retry_after=3600))
    provider.script(second, SlowAnswer("the real answer", chunks=4, delay=0.4))
    conversation = await scene.conversation()
    first = attach()
    await conversation.prompt("delegate")
    await provider.wait_for(second)
    await anyio.sleep(0.5)
    first.kill()
    await died(first)
    await provider.wait_for(second, ended=moment == "the child has answered")

    again = attach()
    assert await conversation.wait_until_answered(timeout=40) == ["the parent is done"]
    await conversation.wait_until_idle(quiet=1.0)
    end(again)

    [_, request] = provider.requests_of(scene.primary)
    assert request.roles == ("system", "user", "assistant", "tool")
    assert "the real answer" in request.texts("tool")[0]
    assert len(provider.requests_of(second)) == 1
    assert len(await conversation.user_messages()) == 1
