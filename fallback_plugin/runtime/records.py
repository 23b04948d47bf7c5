"""The records of all sessions that a plugin knows, and which of them have an advance in flight."""

from __future__ import annotations

from dataclasses import replace

import anyio

from fallback_plugin.core.record import HOP_PHASES, RESTING_PHASES, Session

SWEEP_PERIOD = 300.0
SESSION_AGE = 12 * 3600.0
"""Seconds of rest after which a session's record is dropped; 30 min lost live ones (K28, omo #6579)."""
SESSION_COUNT = 250_000
"""Records kept at most; the ones longest at rest go first."""


class Records:
    """One record per session; nothing of a session is kept anywhere else, so that it goes in one step (X13).

    Attributes:
        sessions: the records, by session id.
        retry_in_flight: ids of the sessions with a hop under way.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.retry_in_flight: set[str] = set()
        self._touched: dict[str, float] = {}
        self._renamed: dict[str, str] = {}
        self._settled = anyio.Event()

    def put(self, session: Session, now: float) -> None:
        """Keep a session's new record."""
        self.sessions[session.session_id] = session
        self._touched[session.session_id] = now
        self._mark(session.session_id, in_flight=session.phase in HOP_PHASES)

    def resolve(self, session_id: str) -> str:
        """The id that a session goes by now."""
        return self._renamed.get(session_id, session_id)

    def rename(self, old: str, new: str) -> None:
        """A session goes by another id from now on; what is still told of the old one is meant for it (K-W7)."""
        known = self.sessions.pop(old, None)
        touched = self._touched.pop(old, 0.0)
        self._mark(old, in_flight=False)
        for former in [former for former, name in self._renamed.items() if name == old]:
            self._renamed[former] = new
        self._renamed[old] = new
        if known is not None:
            self.put(replace(known, session_id=new), touched)

    def drop(self, session_id: str) -> None:
        """Forget a session."""
        for former in [former for former, name in self._renamed.items() if name == session_id]:
            del self._renamed[former]
        self.sessions.pop(session_id, None)
        self._touched.pop(session_id, None)
        self._mark(session_id, in_flight=False)

    def at_work(self) -> list[str]:
        """Ids of the sessions that are not at rest."""
        return [key for key, session in self.sessions.items() if session.phase not in RESTING_PHASES]

    def _mark(self, session_id: str, *, in_flight: bool) -> None:
        if in_flight:
            self.retry_in_flight.add(session_id)
        elif session_id in self.retry_in_flight:
            self.retry_in_flight.discard(session_id)
            self._settled.set()

    async def drain(self, patience: float) -> bool:
        """Wait until no advance is in flight; whether none is left after `patience` seconds."""
        with anyio.move_on_after(patience):
            while self.retry_in_flight:
                self._settled = anyio.Event()
                await self._settled.wait()

        return not self.retry_in_flight

    def sweep(self, now: float) -> int:
        """Drop the records of sessions long at rest, and the oldest of too many (S21, X13); how many."""
        resting = [
            (touched, session_id)
            for session_id, touched in self._touched.items()
            if self.sessions[session_id].phase in RESTING_PHASES
        ]
        surplus = len(self.sessions) - SESSION_COUNT
        dropped = 0
        for touched, session_id in sorted(resting):
            if now - touched < SESSION_AGE and dropped >= surplus:
                break

            self.drop(session_id)
            dropped += 1

        return dropped

    async def keep_swept(self) -> None:
        """Sweep now and then until cancelled."""
        while True:
            await anyio.sleep(SWEEP_PERIOD)
            self.sweep(anyio.current_time())
