"""Events per second on one core, and memory per session at rest.

A turn with 100,000 deltas, in the shape of the recordings, goes through the whole path of an event as `attach` reads it
from the stream: JSON text, parsing at the border, the session machine. The cost per event must not grow with the length
of the history: the same turn is measured after none and after 400 earlier turns of its session.

    python tests/bench/events.py
"""

from __future__ import annotations

import gc
import json
import os
import time
from itertools import count
from pathlib import Path

import anyio

from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.hosts.opencode.attachment import Attachment
from fallback_plugin.hosts.opencode.client import OpenCodeClient

RECORDING = Path(__file__).parent.parent / "data" / "recordings" / "ok.json"
DELTAS = 100_000
SESSIONS = 100_000
RULES = Rules(default=Policy(chain=("fake/b", "fake/c")))
_numbers = count(1)


def turn(recorded, session, deltas):
    """The events of the recorded turn, as JSON texts of their own, with `deltas` tokens."""
    number = next(_numbers)
    texts = []
    for event in recorded:
        text = json.dumps({key: event[key] for key in ("id", "type", "properties")})
        text = text.replace(event["properties"].get("sessionID", "none"), session)
        text = text.replace('"msg_', f'"msg_{number:08d}').replace('"evt_', f'"evt_{number:08d}')
        text = text.replace('"created": 1795247190997', f'"created": {1795247190997 + number}')
        if event["type"] == "message.part.delta" and deltas:
            texts += [text.replace('"evt_', f'"evt_{token}_') for token in range(deltas)]
            deltas = 0
        else:
            texts.append(text)

    return texts


def read_all(attachment, texts):
    begun = time.perf_counter()
    for text in texts:
        attachment.read(text)

    return time.perf_counter() - begun


async def main():
    recorded = [event for event in json.loads(RECORDING.read_text())["events"] if "sessionID" in event["properties"]]
    attachment = Attachment(OpenCodeClient("http://127.0.0.1:9"), lambda config: RULES)
    attachment.plugin.reload(RULES)
    async with attachment.plugin:
        fresh = turn(recorded, "ses_fresh", DELTAS)
        first = read_all(attachment, fresh)
        for _ in range(400):
            read_all(attachment, turn(recorded, "ses_old", 50))
        late = read_all(attachment, turn(recorded, "ses_old", DELTAS))
        print(f"deltas per second: {DELTAS / first:,.0f} (goal 100,000)")
        print(f"after 400 earlier turns: {DELTAS / late:,.0f}, cost per event {late / first:.2f} times (goal 1)")
        parsing = time.perf_counter()
        for text in fresh:
            json.loads(text)
        parsing = time.perf_counter() - parsing
        print(f"of that, decoding JSON alone: {DELTAS / parsing:,.0f} per second")
        memory(attachment, recorded)


def memory(attachment, recorded):
    gc.collect()
    before, already = resident(), len(attachment.plugin.sessions)
    for number in range(SESSIONS):
        read_all(attachment, turn(recorded, f"ses_{number:024d}", 1))

    gc.collect()
    at_rest = sum(session.phase == "idle" for session in attachment.plugin.sessions.values())
    per_session = (resident() - before) / (len(attachment.plugin.sessions) - already)
    print(f"memory per session at {at_rest:,} at rest: {per_session:,.0f} bytes resident (goal 2,048)")


def resident():
    """Resident memory of this process in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    anyio.run(main)
