"""One process of a fleet that asks a provider itself, for test_dead_provider.py; prints which routes have answered.

    python dead_provider_worker.py STORE_URL PROVIDER_URL SESSIONS

Each line on standard input is a round: "SECONDS" spreads the start of the sessions over that time.
"""

from __future__ import annotations

import json
import sys

import anyio
import httpx

from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.runtime.turn import Turns
from fallback_plugin.stores.url import open_store

RULES = Rules(default=Policy(chain=("other/alive",)))


async def ask(client, route):
    response = await client.post(
        "/chat/completions", json={"model": route.partition("/")[2], "messages": [{"role": "user", "content": "hi"}]}
    )
    response.raise_for_status()


async def turn(turns, client, session_id, pause, answered):
    await anyio.sleep(pause)
    attempts = turns.begin(session_id, agent=None, route="one/dead")
    while attempt := await attempts.next_attempt():
        try:
            await ask(client, attempt.route)
        except httpx.HTTPStatusError as error:
            await attempt.failed(error)
        else:
            await attempt.answered()
            answered.append(attempt.route)
            return


async def main(store, provider, sessions):
    async with Turns(RULES, store=open_store(store)) as turns, httpx.AsyncClient(base_url=provider) as client:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            answered = []
            async with anyio.create_task_group() as tasks:
                for number in range(sessions):
                    pause = float(line) * number / sessions
                    tasks.start_soon(turn, turns, client, f"ses_{number}", pause, answered)
            sys.stdout.write(json.dumps(answered) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
