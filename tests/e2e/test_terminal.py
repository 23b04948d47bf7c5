"""The OpenCode TUI in a terminal, as a user has it before them.

FALLBACK_PLUGIN_RECORDING names a file for the recording that README shows (`make recording`).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fallback_plugin.testing.faults import Answer, SlowAnswer, rate_limited
from fallback_plugin.testing.opencode import OpenCodeAgent, opencode_config
from fallback_plugin.testing.opencode_plugged import SAME_CODE, plugin_files
from fallback_plugin.testing.opencode_terminal import OpenCodeTerminal
from fallback_plugin.testing.opencode_workspace import Workspace

# A cold TUI on a busy machine: seconds for its start, and as many for its first turn.
pytestmark = pytest.mark.timeout(300)
FIRST_TURN = 90
TURN = 30


@pytest.fixture
def terminal_of(opencode_binary):
    """Opens the TUI in a workspace, with the agent `coder`."""
    return lambda workspace: OpenCodeTerminal(opencode_binary, workspace, arguments=["--agent", "coder"], rows=26)


@pytest.fixture
def workspace_of(provider):
    """Lays out a workspace whose agent `coder` has some models, the first its own and the others its chain."""

    def lay_out(*models, **more):
        model, *chain = [f"fake/{name}" for name in models]
        agents = [OpenCodeAgent(name="coder", model=model, fallback_models=tuple(chain))]
        return Workspace(opencode_config(provider.base_url, agents=agents, models=models), **more)

    return lay_out


@pytest.fixture
def plugin():
    """What a workspace needs to have the plugin loaded."""
    return {"files": plugin_files(), "environment": SAME_CODE}


def keep(recording):
    """Save a recording where one is asked for."""
    if path := os.environ.get("FALLBACK_PLUGIN_RECORDING"):
        recording.save(Path(path), title="OpenCode with fallback-plugin")


async def test_a_prompt_is_answered(terminal_of, workspace_of, provider):
    provider.script("plain", Answer("hello from the model"))
    with workspace_of("plain") as workspace:
        async with terminal_of(workspace) as terminal:
            assert "Coder · plain" in terminal.text
            await terminal.prompt("say hi")
            await terminal.wait_for("hello from the model", timeout=FIRST_TURN)

            assert "say hi" in terminal.text
            (request,) = provider.requests_of("plain")
            assert request.texts("user") == ["say hi"]

            await terminal.press("ctrl+c")
            assert await terminal.wait_for_exit() == 0


async def test_the_fallback_answers_and_a_toast_says_so(terminal_of, workspace_of, plugin, provider):
    provider.script("primary", Answer("It adds up orders, in total()."), rate_limited())
    provider.script("second", SlowAnswer("Done: it is order_total() now, in three files.", first_token_after=1.0))
    with workspace_of("primary", "second", "third", **plugin) as workspace:
        async with terminal_of(workspace) as terminal:
            await terminal.prompt("What does this project do?")
            await terminal.wait_for("It adds up orders, in total().", timeout=FIRST_TURN)
            await terminal.wait_for("Coder · primary · ", timeout=TURN)

            begin = terminal.elapsed
            await terminal.prompt("Rename total() to order_total()", pause=0.03)
            await terminal.wait_for("fake/primary → fake/second (rate limit)", timeout=TURN)
            await terminal.wait_for("Done: it is order_total() now, in three files.", timeout=TURN)
            await terminal.wait_for("Coder · second · ", timeout=TURN)
            await terminal.wait_until_gone("esc interrupt", timeout=TURN)
            keep(terminal.recording.since(begin))

            assert "Rate limit reached" not in terminal.text
            assert terminal.text.count("Rename total() to order_total()") == 1
            assert len(provider.requests_of("primary")) == 2
            (request,) = provider.requests_of("second")
            assert request.roles == ("system", "user", "assistant", "user")
            assert request.texts("user") == ["What does this project do?", "Rename total() to order_total()"]
