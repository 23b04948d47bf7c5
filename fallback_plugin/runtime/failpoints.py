"""Failpoints: where the crash tests kill this process, between every two steps of a hop.

    FALLBACK_PLUGIN_FAILPOINT=claimed fallback-plugin attach …

Points, in the order of a hop: claimed, aborted, dispatching, dispatched, confirmed.
"""

from __future__ import annotations

import os
import signal

POINTS = ("claimed", "aborted", "dispatching", "dispatched", "confirmed")
VARIABLE = "FALLBACK_PLUGIN_FAILPOINT"
_chosen = os.environ.get(VARIABLE)


def reach(point: str) -> None:
    """End this process as kill -9 would, if it was started to die here."""
    if point == _chosen:
        os.kill(os.getpid(), signal.SIGKILL)
