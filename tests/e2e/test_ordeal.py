"""Many turns of one session, three requests of ten failing in every known way: nothing lost or done twice."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.testing.opencode import OpenCodeServer
from fallback_plugin.testing.opencode_plugged import PluggedOpenCode
from fallback_plugin.testing.opencode_scene import Scene, SceneNames
from fallback_plugin.testing.ordeal import AGENT, ROUTES, Ordeal, ordeal_config
from fallback_plugin.testing.ordeal_account import Outcome
from fallback_plugin.testing.ordeal_run import Trial

LIMITS = {"timeout_seconds": 1.0, "stall_timeout_seconds": 1.0, "cooldown_seconds": 0.5}
PATIENCE = 30.0
"""Seconds after which a turn counts as stuck: every model of the chain may be silent in each of three steps."""


@asynccontextmanager
async def attached_server(binary, config, attached):
    """The plugin beside the host, over HTTP."""
    rules = Rules(agents={AGENT: Policy(chain=ROUTES, **LIMITS)})
    async with OpenCodeServer(binary, config=config) as server:
        async with attached(server.url, rules):
            yield server


@asynccontextmanager
async def plugged_server(binary, config, attached):
    """The plugin inside the host, which has loaded it."""
    settings = {"agents": {AGENT: {"fallback_models": list(ROUTES), **LIMITS}}}
    async with PluggedOpenCode(binary, config=config, settings=settings) as server:
        yield server


@pytest.mark.timeout(420)
@pytest.mark.parametrize(("put_in", "length"), [(attached_server, 50), (plugged_server, 200)], ids=["attach", "plugin"])
async def test_all_turns_are_answered_or_cleanly_exhausted(opencode_binary, provider, attached_to, put_in, length):
    ordeal = Ordeal(seed=1, length=length, failing=0.3)
    config = ordeal_config(provider.base_url)
    async with put_in(opencode_binary, config, attached_to) as server:
        async with Scene.open(server, provider, SceneNames(AGENT)) as scene:
            await scene.warm_up()
            trial = Trial(scene=scene, project=server.project, ordeal=ordeal, patience=PATIENCE)
            account = await trial.run()

    assert len(account.turns) == length
    assert account.lost == ()
    assert [turn for turn in account.turns if turn.alarms != (turn.outcome is Outcome.EXHAUSTED)] == []
    assert account.doubled == []
    assert account.missing == []
    assert account.repeated == []
    # It was an ordeal, and few turns found no model at all: a quarter of the failures name a time, and are believed.
    assert sum(turn.requests for turn in account.turns) > 1.75 * length
    assert account.count(Outcome.ANSWERED) >= 0.75 * length
