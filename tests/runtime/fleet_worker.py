"""One process of a fleet, for test_fleet.py: fed with the same failures as its peers; prints what it dispatched.

python fleet_worker.py STORE_URL SESSIONS
"""

from __future__ import annotations

import json
import sys

import anyio

from fallback_plugin.core.events import (
    AssistantMessage,
    MessageUpdated,
    SessionIdled,
    SessionStatusChanged,
    UserMessage,
)
from fallback_plugin.core.failure import Facts
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.runtime.plugin import FallbackPlugin
from fallback_plugin.stores.url import open_store
from fallback_plugin.testing.scripted_host import ScriptedHost

CHAIN = ("two/a", "three/b")


def events(session_id):
    """A turn whose model is throttled, as the host tells it."""
    user = UserMessage(message_id=f"{session_id}-u", created_wall=1.0, agent="build", route="one/primary")
    slot = AssistantMessage(message_id=f"{session_id}-m", parent_id=user.message_id, route="one/primary", agent="build")
    return [
        MessageUpdated(session_id=session_id, message=user),
        MessageUpdated(session_id=session_id, message=slot),
        SessionStatusChanged(
            session_id=session_id, status="retry", attempt=1, facts=Facts(message="Rate limit reached")
        ),
        SessionIdled(session_id=session_id),
    ]


async def main(url, sessions):
    host = ScriptedHost()
    store = open_store(url)
    async with FallbackPlugin(host, Rules(default=Policy(chain=CHAIN)), store=store) as plugin:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.readline)
        for number in range(sessions):
            for event in events(f"ses_{number}"):
                plugin.handle(event)
            await anyio.lowlevel.checkpoint()

        with anyio.move_on_after(60):
            while any(session.phase == "ending" for session in plugin.sessions.values()):
                await anyio.sleep(0.05)

    sys.stdout.write(json.dumps([[turn.session_id, turn.route] for turn in host.turns]) + "\n")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
