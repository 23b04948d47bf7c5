"""Checkpoints of an unfinished answer, so that a crash loses seconds of it and not all.

A checkpoint is written when there was activity since the last one *and* the content differs from it: the transcript
of a run may stand still while tools work, and identical multi-megabyte writes once cost 300 ms per tool call (K-W9).
After a while of activity without a change it is written all the same, should the stored copy have been harmed.

    activity since the last write   content        last write        checkpoint   row
    ------------------------------  -------------  ----------------  -----------  ----
    no                              any            any               no           W08
    yes                             other, or the  any               yes          W07
                                    last failed
    yes                             same           less than forced  no           K-W9
    yes                             same           forced or more    yes          K-W9
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio

from fallback_plugin.errors import StoreError

logger = logging.getLogger("fallback_plugin")

INTERVAL = 15.0
"""Seconds between two looks (W31)."""
FORCED = 300.0
"""Seconds of activity after which an unchanged content is written again (K-W9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The last checkpoint.

    Attributes:
        at: when it was written, or when the work began.
        activity: the activity counter then.
        fingerprint: of its content; None where there is none, or where it is not known to have arrived.
    """

    at: float
    activity: int = 0
    fingerprint: str | None = None


def fingerprint(content: Any) -> str:
    """A short digest of a JSON value.

    Raises:
        TypeError: it is not JSON.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_due(last: Written, activity: int, content: str, now: float, forced: float = FORCED) -> bool:
    """Whether a checkpoint is to be written, by the module's table.

    Args:
        last: the last one.
        activity: the activity counter now.
        content: the fingerprint of what would be written.
        now: seconds.
        forced: seconds after which an unchanged content is written again.
    """
    if activity == last.activity:
        return False

    return content != last.fingerprint or now - last.at >= forced


class Checkpointer:
    """The worker that writes checkpoints while an answer streams in.

    Run it in a task group, `touch` it with every sign of activity; `stop` it and leave the group before the final
    write, so that no checkpoint comes after it (W13).

    Args:
        content: gives what is to be written: a JSON value.
        write: writes it; False when it was refused, because the work belongs to somebody else now.
        refused: called once when that happens; the worker ends.
        interval: seconds between two looks.
        forced: seconds after which an unchanged content is written again.
    """

    def __init__(
        self,
        content: Callable[[], Any],
        write: Callable[[Any], Awaitable[bool]],
        *,
        refused: Callable[[], None] = lambda: None,
        interval: float = INTERVAL,
        forced: float = FORCED,
    ) -> None:
        self._content = content
        self._write = write
        self._refused = refused
        self._interval = interval
        self._forced = forced
        self._activity = 0
        self._stopped = anyio.Event()
        self._warned = False

    def touch(self) -> None:
        """Count a sign of activity."""
        self._activity += 1

    def stop(self) -> None:
        """Ask the worker to end; it does so at once, or after the write that is under way (W09)."""
        self._stopped.set()

    async def run(self) -> None:
        """Write checkpoints until stopped or refused."""
        last = Written(at=anyio.current_time())
        while True:
            with anyio.move_on_after(self._interval):
                await self._stopped.wait()

            if self._stopped.is_set():
                return

            looked = await self._look(last)
            if looked is None:
                self._refused()
                return

            last = looked

    async def _look(self, last: Written) -> Written | None:
        # Read before the content: what comes in meanwhile counts for the next look.
        activity, now = self._activity, anyio.current_time()
        if activity == last.activity:
            return last

        try:
            content = self._content()
            digest = fingerprint(content)
            if not is_due(last, activity, digest, now, self._forced):
                return last

            accepted = await self._write(content)
        except (StoreError, TypeError, ValueError) as error:
            self._warn(error)
            return Written(at=last.at, activity=last.activity)

        return Written(at=now, activity=activity, fingerprint=digest) if accepted else None

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            logger.warning("checkpoint not written: %s", type(error).__name__)
            self._warned = True
