"""Issue C, health for everybody: 4 processes of 50 sessions run into a dead provider, over real HTTP and a real store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fallback_plugin.testing.faults import Answer, rate_limited
from fallback_plugin.testing.provider import FaultyProvider

WORKER = Path(__file__).parent / "dead_provider_worker.py"
PROCESSES, SESSIONS = 4, 50
OUT_SECONDS = 8


@pytest.fixture
def provider():
    with FaultyProvider() as running:
        running.script("dead", rate_limited(retry_after=OUT_SECONDS))
        running.script("alive", Answer())
        yield running


@pytest.fixture
def fleet(provider, tmp_path):
    command = [sys.executable, str(WORKER), f"sqlite://{tmp_path}/state.db", provider.base_url, str(SESSIONS)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"

    yield workers
    for worker in workers:
        worker.stdin.close()
        worker.wait(timeout=20)
        worker.stdout.close()


def play(fleet, spread):
    """One round: every session of every process; the routes that have answered."""
    for worker in fleet:
        worker.stdin.write(f"{spread}\n")
        worker.stdin.flush()
    return [route for worker in fleet for route in json.loads(worker.stdout.readline())]


def test_a_dead_provider_is_asked_by_those_in_flight_and_then_once_per_probe(fleet, provider):
    assert play(fleet, 3.0) == ["other/alive"] * (PROCESSES * SESSIONS)

    asked = provider.requests_of("dead")
    known = asked[0].ended + 1.0
    assert [request for request in asked if request.arrived > known] == []
    assert len(asked) < PROCESSES * SESSIONS / 2

    time.sleep(max(0.0, asked[-1].ended + OUT_SECONDS + 1.0 - time.monotonic()))
    assert play(fleet, 0.0) == ["other/alive"] * (PROCESSES * SESSIONS)
    assert len(provider.requests_of("dead")) == len(asked) + 1
