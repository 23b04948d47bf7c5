"""What a process builds from sessions' records, kept until somebody else writes to them.

The rules are `core.coherence`. Here they meet the store: its answer is read first, and judged in one step with the
entry that is cached *then*, with no wait in between (H09). What is dropped or evicted is torn down by a task of its
own, so that nobody who asks for something else waits for it (H12, K-H3).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from fallback_plugin.core.coherence import Baseline, Current, Verdict, decide, follow_write
from fallback_plugin.errors import FallbackPluginError, StoreError
from fallback_plugin.stores.base import Record, Store

logger = logging.getLogger("fallback_plugin")

CAPACITY = 128
"""Values kept at most (H11)."""
IDLE_TTL = 3600.0
"""Seconds without use after which a value goes (H11)."""

Value = TypeVar("Value")


@dataclass(slots=True, kw_only=True)
class _Slot(Generic[Value]):
    """What is cached under a key; without a value while it is being built."""

    baseline: Baseline
    used_at: float
    value: Value | None = None
    holds: int = 0
    built: anyio.Event = field(default_factory=anyio.Event)


class Hold(Generic[Value]):
    """A cached value in use. It is neither evicted nor torn down meanwhile.

    Attributes:
        value: the value.
        reused: whether it was cached; a reused one was reset, unless the hold is nested (H13).
    """

    def __init__(self, value: Value, *, reused: bool, wrote: Callable[[Record], None]) -> None:
        self.value = value
        self.reused = reused
        self.wrote = wrote
        """Report an own write of the session's record, at once; or the next look takes it for somebody else's."""


class RecordCache(Generic[Value]):
    """A cache of values built from records of one kind.

    Use it as an async context manager, and each value within a hold:

        async with cache.hold("chat-7", session_id, build) as held:
            await held.value.run()
            held.wrote(await store.put(...))

    Args:
        store: where the records are.
        kind: their kind.
        teardown: ends a value that is no longer cached.
        reset: clears a reused value's fields of the last turn; not called in nested holds (H13).
        capacity: values kept at most; those in use count, and stay.
        idle_ttl: seconds without use after which a value goes.
    """

    def __init__(
        self,
        store: Store,
        kind: str,
        *,
        teardown: Callable[[Value], Awaitable[None]],
        reset: Callable[[Value], None] = lambda value: None,
        capacity: int = CAPACITY,
        idle_ttl: float = IDLE_TTL,
    ) -> None:
        self._store = store
        self._kind = kind
        self._teardown = teardown
        self._reset = reset
        self._capacity = capacity
        self._idle_ttl = idle_ttl
        self._slots: OrderedDict[str, _Slot[Value]] = OrderedDict()
        self._tasks: TaskGroup | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._tasks.start_soon(self._sweep)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

        await self._stack.__aexit__(kind, error, trace)
        self._tasks = None
        with anyio.CancelScope(shield=True):
            for slot in self._slots.values():
                await self._tear_down(slot)

        self._slots.clear()

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: object) -> bool:
        return key in self._slots

    @asynccontextmanager
    async def hold(
        self, key: str, session_id: str, build: Callable[[Record | None], Awaitable[Value]], *, signature: str = ""
    ) -> AsyncGenerator[Hold[Value]]:
        """Use the value under a key, cached or built.

        Own writes that the hold is told of don't count as somebody else's, however it ends (K-H1, K-H2).

        Args:
            key: the session key, under which several sessions may follow each other.
            session_id: the one that is active.
            build: makes the value from the session's record.
            signature: the configuration in force; a value of another one is rebuilt.

        Raises:
            FallbackPluginError: the cache is not running.
        """
        slot, value, reused = await self._slot_for(key, session_id, signature, build)
        if slot.holds == 1:
            # In nested turns the fields of the turn and the clock of inactivity are the outer one's (H13).
            slot.used_at = anyio.current_time()
            if reused:
                self._reset(value)

        def wrote(record: Record) -> None:
            slot.baseline = follow_write(slot.baseline, session_id, record.revision)

        try:
            yield Hold(value, reused=reused, wrote=wrote)
        finally:
            slot.holds -= 1
            self._let_go(key, slot)

    async def _slot_for(
        self, key: str, session_id: str, signature: str, build: Callable[[Record | None], Awaitable[Value]]
    ) -> tuple[_Slot[Value], Value, bool]:
        """The slot, held, its value, and whether that was cached."""
        while True:
            seen = self._slots.get(key)
            baseline = seen.baseline if seen else None
            record, current, same_id = await self._read(baseline, session_id, signature)
            slot = self._slots.get(key)
            if slot is not seen or (slot and slot.baseline != baseline):
                continue

            if slot is not None and same_id:
                # A rotation: the entry's session goes by the new id now.
                slot.baseline = replace(slot.baseline, session_id=session_id)

            if slot is None or decide(slot.baseline, current) is not Verdict.REUSE:
                return *await self._build(key, record, current, build), False

            if slot.value is None:
                await slot.built.wait()
                continue

            self._slots.move_to_end(key)
            slot.holds += 1
            return slot, slot.value, True

    async def _read(
        self, baseline: Baseline | None, session_id: str, signature: str
    ) -> tuple[Record | None, Current, bool]:
        """The session's record, what it says, and whether it is the entry's; what can't be read is unknown (H08)."""
        record = of_entry = None
        entry_id = baseline.session_id if baseline else None
        try:
            record = await self._store.get(self._kind, session_id)
            if entry_id is not None:
                of_entry = record if entry_id == session_id else await self._store.get(self._kind, entry_id)
        except StoreError as error:
            logger.warning("a session's record can't be read: %s", type(error).__name__)

        ended = of_entry is not None and of_entry.value is not None and bool(of_entry.value.get("ended"))
        same_id = of_entry is not None and record is not None and of_entry.key == record.key
        revision = record.revision if record else None
        return (
            record,
            Current(session_id=session_id, signature=signature, revision=revision, entry_ended=ended),
            same_id,
        )

    async def _build(
        self, key: str, record: Record | None, current: Current, build: Callable[[Record | None], Awaitable[Value]]
    ) -> tuple[_Slot[Value], Value]:
        baseline = Baseline(
            signature=current.signature, session_id=current.session_id, revision=current.revision, pending=True
        )
        slot = _Slot[Value](baseline=baseline, used_at=anyio.current_time())
        self._discard(key)
        self._slots[key] = slot
        try:
            value = slot.value = await build(record)
        except BaseException:
            if self._slots.get(key) is slot:
                del self._slots[key]

            raise
        finally:
            slot.baseline = replace(slot.baseline, pending=False)
            slot.built.set()

        slot.holds = 1
        self._evict()
        return slot, value

    def _let_go(self, key: str, slot: _Slot[Value]) -> None:
        slot.used_at = anyio.current_time()
        if self._slots.get(key) is slot:
            self._evict()
        elif slot.holds == 0:
            # Dropped while in use: its last user ends it.
            self._start_teardown(slot)

    def _discard(self, key: str) -> None:
        slot = self._slots.pop(key, None)
        if slot is not None and slot.holds == 0:
            self._start_teardown(slot)

    def _evict(self) -> None:
        surplus = len(self._slots) - self._capacity
        for key in [key for key, slot in self._slots.items() if _is_idle(slot)][: max(0, surplus)]:
            self._discard(key)

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(self._idle_ttl / 12)
            now = anyio.current_time()
            for key, slot in list(self._slots.items()):
                if _is_idle(slot) and now - slot.used_at >= self._idle_ttl:
                    self._discard(key)

    def _start_teardown(self, slot: _Slot[Value]) -> None:
        if self._tasks is None:
            raise FallbackPluginError("RecordCache is not running; use it as an async context manager")

        self._tasks.start_soon(self._tear_down, slot)

    async def _tear_down(self, slot: _Slot[Value]) -> None:
        if slot.value is None:
            return

        with anyio.CancelScope(shield=True):
            try:
                await self._teardown(slot.value)
            except Exception as error:  # noqa: BLE001 - the end of one value must not end the cache
                logger.warning("a cached value was not torn down: %s", type(error).__name__)


def _is_idle(slot: _Slot[Any]) -> bool:
    return slot.holds == 0 and slot.value is not None
