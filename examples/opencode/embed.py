"""FallbackPlugin in a program of your own, offline: `python examples/opencode/embed.py`.

Your host is whatever keeps sessions and asks models. It needs four calls (`fallback_plugin.Host`: abort, dispatch,
inspect, show) and hands the plugin its events. Here it is the small one that the package brings for testing,
with two providers on loopback, one of which answers 429.
"""

from __future__ import annotations

import anyio

from fallback_plugin import FallbackPlugin, Policy, Rules
from fallback_plugin.core.actions import Announce
from fallback_plugin.runtime.observe import describe
from fallback_plugin.testing.faults import Answer, rate_limited
from fallback_plugin.testing.loopback_host import LoopbackHost
from fallback_plugin.testing.provider import FaultyProvider

RULES = Rules(default=Policy(chain=("north/large", "south/medium"), timeout_seconds=20.0))


def observe(notice: Announce, now: float) -> None:
    """Called with every notice; must not block."""
    print(f"  {describe(notice, now)}")


async def main() -> None:
    async with FaultyProvider() as north, FaultyProvider() as south:
        north.script("large", rate_limited(retry_after=3 * 3600))
        south.script("medium", Answer("Good morning."))
        providers = {"north": north.base_url, "south": south.base_url}
        async with (
            LoopbackHost(providers, agents={"coder": "north/large"}) as host,
            FallbackPlugin(host, RULES, observer=observe) as plugin,
        ):
            # Every event of the host, in order; handling one never blocks and never raises.
            host.subscribe(plugin.handle)

            session_id = host.open_session()
            host.prompt(session_id, "Say good morning.", agent="coder")
            await host.wait_until_quiet(session_id)

            # The answer that the dead model had begun is there too, empty.
            for role, text in host.history(session_id):
                if text:
                    print(f"{role}: {text}")


if __name__ == "__main__":
    anyio.run(main)
