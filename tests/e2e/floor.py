"""How fast a turn can be carried on at all: the floor beside which the plugin's own time is measured.

A bare script with no plugin in it. On the first sign of a failure that allows it, it does the least that works on the
real server: after a retry it aborts, waits for the idle and prompts in place; after a terminal error it prompts in
place at the message.updated that carries the error. Measured is the time from the end of the provider's failing
response to the arrival of the first request at the fallback.

    python tests/e2e/floor.py --runs 20
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import anyio

from fallback_plugin.testing.faults import Answer, Fail
from fallback_plugin.testing.opencode import PROVIDER, OpenCodeServer, find_opencode, opencode_config
from fallback_plugin.testing.opencode_scene import Scene, SceneNames
from fallback_plugin.testing.provider import FaultyProvider

FAILURES = {"retry (429)": Fail(429), "terminal (402)": Fail(402)}
_LIMIT_SECONDS = 20


async def floor(server, provider, names, *, failure, runs=20):
    """Carry `runs` failing turns on, one after the other, as fast as the host allows.

    Args:
        server: a running OpenCodeServer that knows the names.
        provider: its FaultyProvider.
        names: the SceneNames to use.
        failure: what the primary does.
        runs: how many turns.

    Returns:
        The seconds of each run.
    """
    return [await _one(server, provider, names, failure) for _ in range(runs)]


async def _one(server, provider, names, failure):
    primary, second, _ = names.models
    provider.script(primary, failure)
    provider.script(second, Answer())
    failed, answered = len(provider.requests_of(primary)), len(provider.requests_of(second))

    with anyio.fail_after(_LIMIT_SECONDS):
        async with server.client() as client, client.stream("GET", "/event", timeout=None) as stream:
            lines = stream.aiter_lines()
            session = (await client.post("/session", json={})).json()["id"]
            prompt = {"agent": names.agent, "parts": [{"type": "text", "text": "say hi"}]}
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
    dispatch = {"messageID": message, "agent": names.agent, "model": model, "parts": []}
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


async def main(runs):
    names = SceneNames("floor")
    binary = find_opencode([Path(__file__).parent / "opencode" / "node_modules"])
    with FaultyProvider() as provider:
        config = opencode_config(provider.base_url, agents=names.agents, models=names.models)
        async with OpenCodeServer(binary, config=config) as server:
            async with Scene.open(server, provider, names) as scene:
                warm = await scene.conversation(agent=names.bare_agent)
                await warm.prompt("warm up")
                await warm.wait_until_answered()

            for name, failure in FAILURES.items():
                times = sorted(await floor(server, provider, names, failure=failure, runs=runs))
                print(
                    f"{name}: median {statistics.median(times) * 1000:.0f} ms, "
                    f"fastest {times[0] * 1000:.0f} ms, slowest {times[-1] * 1000:.0f} ms, {runs} runs"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The floor of carrying a failing turn on, on the real server.")
    parser.add_argument("--runs", type=int, default=20)
    anyio.run(main, parser.parse_args().runs)
