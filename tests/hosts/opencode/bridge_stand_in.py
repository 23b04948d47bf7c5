"""A bridge that misbehaves as its arguments say, and notes what it is told in a file.

Usage: bridge_stand_in.py NOTES MANNER
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path

notes, manner = sys.argv[1:]


def note(message):
    with Path(notes).open("a", encoding="utf-8") as file:
        file.write(json.dumps(message) + "\n")


def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


note({"born": os.getpid(), "at": time.time(), "safe_path": sys.flags.safe_path})
if manner == "ends":
    sys.exit(3)

if manner == "babbles":
    sys.stdout.write("no JSON-RPC\n" * 1000)
    sys.stdout.flush()

if manner == "endless":
    while True:
        sys.stdout.write("x" * 1_000_000)

if manner == "deaf":
    host = select.poll()
    host.register(sys.stdin, 0)
    host.poll()
    sys.exit()

if manner == "odd":
    for odd in (
        {},
        {"id": 99, "result": {}},
        {"method": "log"},
        {"method": "log", "params": 3},
        {"method": "x", "id": 1},
    ):
        say(odd)
    for params in (
        {},
        3,
        None,
        {"path": "http://["},
        {"path": "/x", "timeout": -1},
        {"path": "/x", "method": "NO SUCH"},
    ):
        say({"id": 2, "method": "http", "params": params})

if manner == "asks":
    say({"method": "log", "params": {"level": "info", "message": "hello"}})
    for number, path in enumerate(("/session/status", "/hang"), start=10):
        say(
            {
                "id": number,
                "method": "http",
                "params": {"method": "GET", "path": path, "timeout": 100, "headers": {"x-a": "b"}},
            }
        )

ANSWERS = {
    "routes": {"result": {"model": {"providerID": "two", "modelID": "org/b"}}},
    "dates": {"result": {"created": 1_700_000_000_123}},
    "misdates": {"result": {"created": "yesterday"}},
    "keeps": {"result": {}},
    "refuses": {"error": {"code": -32000, "message": "KeyError"}},
    "text": {"result": {"model": "two/b"}},
    "half": {"result": {"model": {"providerID": "two"}}},
    "empty": {"result": {"model": {"providerID": "", "modelID": ""}}},
    "null": {"result": None},
}

for line in sys.stdin:
    message = json.loads(line)
    note(message)
    if "id" in message and "method" in message and manner in ANSWERS:
        say({"id": message["id"], **ANSWERS[manner]})

note({"ended": os.getpid()})
