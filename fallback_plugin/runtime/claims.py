"""Claims: the right of one process in the fleet to make an advance, and the intent that outlives it.

An advance is named by the turn and the model that failed in it: a model is asked once per turn, so that name never
comes twice. To claim one is to hold the session's lease and to have written the advance into the session's record by
compare-and-set. Both happen before the failed run is touched. The record holds the intent, from which the next process
finishes the hop if this one dies: its lease is taken over when it has run out.

A store that can't be used doesn't stop a turn: the claim is then granted, and the idempotent dispatch keeps a second
process harmless.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from fallback_plugin.core.record import Session
from fallback_plugin.core.snapshot import restore_session, snapshot_session
from fallback_plugin.errors import StoreError
from fallback_plugin.runtime.failpoints import reach
from fallback_plugin.stores.base import Json, Lease, Record, Store

logger = logging.getLogger("fallback_plugin")

KIND = "turn"
LEASE_SECONDS = 5.0
"""Seconds after which a dead process's hop may be taken over."""
INTENT_SECONDS = 3600.0
"""Seconds after which nobody waits for an unfinished hop any more: a turn that wakes up a day later surprises."""
PENDING, MADE = "pending", "made"
ADVANCES_KEPT = 32


@dataclass(slots=True)
class _Claim:
    generation: int
    decided: anyio.Event = field(default_factory=anyio.Event)
    granted: bool = False
    lease: Lease | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Claims:
    """The claims of one process.

    Args:
        store: where the fleet keeps leases and intents.
        owner: this process's name.
        on_lost: called with session id and generation when an advance is somebody else's.
        place: where the host's sessions live; only unfinished hops of that place are taken over.
        wall_clock: epoch seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        owner: str,
        on_lost: Callable[[str, int], None],
        place: str = "",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._owner = owner
        self._on_lost = on_lost
        self._place = place
        self._wall_clock = wall_clock
        self._claims: dict[str, _Claim] = {}

    def begin(self, session: Session, tasks: TaskGroup) -> None:
        """Claim the session's hop in the background; `granted` waits for the verdict."""
        self._drop(session.session_id)
        claim = _Claim(generation=session.generation)
        self._claims[session.session_id] = claim
        tasks.start_soon(self._run, session, claim)

    async def granted(self, session_id: str, generation: int) -> bool:
        """Whether the hop of that generation is ours to carry out."""
        claim = self._claims.get(session_id)
        if claim is None or claim.generation != generation:
            return False

        await claim.decided.wait()
        return claim.granted

    def end(self, session_id: str, tasks: TaskGroup) -> None:
        """The hop is over: what is left is to say so in the record, and to give the lease back."""
        claim = self._drop(session_id)
        if claim is not None and claim.granted and claim.lease is not None:
            tasks.start_soon(self._settle, session_id, claim.lease)

    async def rename(self, old: str, new: str) -> None:
        """A session goes by another id: its claim, its lease and its intent follow, and both ids lead to them (X07)."""
        claim = self._claims.pop(old, None)
        if claim is not None:
            self._claims[new] = claim

        try:
            await self._store.alias(old, new)
            await self._store.alias(f"turn:{old}", f"turn:{new}")
        except StoreError as error:
            logger.warning("a session's new id is not recorded: %s", error)

    def _drop(self, session_id: str) -> _Claim | None:
        claim = self._claims.pop(session_id, None)
        if claim is not None:
            claim.scope.cancel()

        return claim

    async def _run(self, session: Session, claim: _Claim) -> None:
        try:
            claim.granted = await self._claim(session, claim)
        except StoreError as error:
            logger.warning("advances are not coordinated for now: %s", error)
            claim.granted = True

        claim.decided.set()
        if not claim.granted:
            self._on_lost(session.session_id, claim.generation)
            return

        reach("claimed")
        if claim.lease is not None:
            with claim.scope:
                await self._keep(session.session_id, claim)

    async def _claim(self, session: Session, claim: _Claim) -> bool:
        session_id = session.session_id
        lease = await self._acquire(session_id)
        if lease is None:
            return False

        claim.lease = lease
        record = await self._store.get(KIND, session_id)
        advance = _advance_of(session)
        if _is_made(record, advance):
            await self._store.release(lease)
            return False

        value = {
            "stage": PENDING,
            "owner": self._owner,
            "place": self._place,
            "at_wall": self._wall_clock(),
            "advances": [*_advances(record), advance][-ADVANCES_KEPT:],
            "intent": snapshot_session(session),
        }
        written = await self._store.put(KIND, session_id, value, expected=record.revision if record else 0)
        if written is None:
            await self._store.release(lease)

        return written is not None

    async def _acquire(self, session_id: str) -> Lease | None:
        return await self._store.acquire(f"turn:{session_id}", self._owner, LEASE_SECONDS, now_wall=self._wall_clock())

    async def _keep(self, session_id: str, claim: _Claim) -> None:
        """Refresh the lease while the hop goes on; a refusal is obeyed (K-A7)."""
        while claim.lease is not None:
            await anyio.sleep(LEASE_SECONDS / 4)
            try:
                claim.lease = await self._store.refresh(claim.lease, LEASE_SECONDS, now_wall=self._wall_clock())
            except StoreError:
                continue

        claim.granted = False
        self._on_lost(session_id, claim.generation)

    async def _settle(self, session_id: str, lease: Lease) -> None:
        reach("confirmed")
        with anyio.CancelScope(shield=True):
            try:
                record = await self._store.get(KIND, session_id)
                if record is not None and record.value is not None and record.value.get("owner") == self._owner:
                    made = {**record.value, "stage": MADE, "intent": None}
                    await self._store.put(KIND, session_id, made, expected=record.revision)

                await self._store.release(lease)
            except StoreError as error:
                logger.warning("a hop's end is not recorded: %s", error)

    async def forget(self, session_id: str) -> None:
        """The session was deleted."""
        self._drop(session_id)
        try:
            await self._store.delete(KIND, session_id)
            await self._store.force_release(f"turn:{session_id}")
        except StoreError as error:
            logger.warning("a deleted session stays recorded: %s", error)

    async def pending(self) -> list[Session]:
        """Hops that a process left unfinished and that nobody holds: this process's to carry on now.

        What can't be read is left where it is: an intent is never dropped unread (K-W3).
        """
        try:
            records = await self._store.scan(KIND)
            return [session for record in records if (session := await self._take_over(record))]
        except StoreError as error:
            logger.warning("unfinished hops are not known: %s", error)
            return []

    async def _take_over(self, record: Record) -> Session | None:
        value = record.value
        if value is None or value.get("stage") != PENDING or not value.get("intent"):
            return None

        too_old = self._wall_clock() - float(value.get("at_wall", 0.0)) > INTENT_SECONDS
        if too_old or value.get("place", "") != self._place:
            return None

        if await self._store.holder(f"turn:{record.key}", now_wall=self._wall_clock()) is not None:
            return None

        try:
            return restore_session(value["intent"])
        except (KeyError, TypeError, ValueError):
            logger.warning("the unfinished hop of session %s can't be read", record.key)
            return None


def is_finished(record: Record, before_wall: float) -> bool:
    """Whether a record speaks of hops that were all carried out before a time."""
    value: Json = record.value or {}
    return value.get("stage") == MADE and float(value.get("at_wall", before_wall)) < before_wall


def _advance_of(session: Session) -> list[str]:
    hop = session.hop
    return [hop.user_message_id, hop.plan.failed_model] if hop else []


def _advances(record: Record | None) -> list[list[str]]:
    value: Json = (record.value if record else None) or {}
    return list(value.get("advances", []))


def _is_made(record: Record | None, advance: list[str]) -> bool:
    """Whether somebody has carried this advance out; a pending one whose lease we got was left unfinished."""
    value: Json = (record.value if record else None) or {}
    return advance in _advances(record) and value.get("stage") == MADE
