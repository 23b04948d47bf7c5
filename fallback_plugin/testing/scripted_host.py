"""A host of the plugin that does what a test says: records every call, and raises, waits or refuses on demand.

    host = ScriptedHost()
    host.script("abort", HostUnavailable("no answer"), Hang())
    host.script("dispatch", Refuse("no such model"))
    async with FallbackPlugin(host, rules) as plugin:
        plugin.handle(event)
        await settle()
    assert host.routes == ["two/a"]

A call takes the next step of its script; when there is none left, it succeeds. The host says nothing by itself:
events are the test's to hand to the plugin.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import anyio

from fallback_plugin.core.actions import DispatchTurn, Removal, SpliceResult
from fallback_plugin.core.events import DispatchReturned, SessionInspected
from fallback_plugin.core.family_events import ResultSpliced
from fallback_plugin.runtime.host import Toast

CallName = Literal["abort", "dispatch", "discard", "inspect", "splice", "show"]


@dataclass(frozen=True, slots=True)
class Hang:
    """The call never returns."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The call takes its time, then does the next step.

    Attributes:
        seconds: how long.
        then: what it does after that; it succeeds if None.
    """

    seconds: float
    then: Step | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """A dispatch comes back as refused; any other call succeeds."""

    reason: str = "refused by the script"


@dataclass(frozen=True, slots=True)
class NotReached:
    """A dispatch comes back as unavailable; any other call succeeds."""

    reason: str = "not reached, by the script"


@dataclass(frozen=True, slots=True)
class Replay:
    """A dispatch was accepted as a new message; any other call succeeds.

    Attributes:
        dropped_parts: the types of parts that were left out.
    """

    dropped_parts: tuple[str, ...] = ()


Step = Exception | Hang | Wait | Refuse | NotReached | Replay | None
"""What one call does: raise the exception, or as the class says; None succeeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCall:
    """One call that the plugin made.

    Attributes:
        name: abort, dispatch, discard, inspect, splice or show.
        at: the event loop's seconds when it was made.
        session_id: whom it was about; empty for show.
        turn: what was dispatched.
        toast: what was shown.
        removals: what was discarded.
        splice: what was put into the history.
    """

    name: CallName
    at: float
    session_id: str = ""
    turn: DispatchTurn | None = None
    toast: Toast | None = None
    removals: tuple[Removal, ...] = ()
    splice: SpliceResult | None = None


class ScriptedHost:
    """A `fallback_plugin.runtime.host.Host` for tests.

    Attributes:
        calls: every call, in order, those that failed too.
        pictures: what an inspection says, by session id; a session that is not in it is unknown to the host.
    """

    def __init__(self) -> None:
        self.calls: list[HostCall] = []
        self.pictures: dict[str, SessionInspected] = {}
        self._scripts: defaultdict[CallName, deque[Step]] = defaultdict(deque)

    def script(self, name: CallName, *steps: Step) -> None:
        """Say what the next calls of one name do, one step for each call; added to what is left of earlier ones."""
        self._scripts[name].extend(steps)

    def made(self, name: CallName) -> list[HostCall]:
        """The calls of one name, in order."""
        return [call for call in self.calls if call.name == name]

    @property
    def turns(self) -> list[DispatchTurn]:
        """What was dispatched, in order."""
        return [call.turn for call in self.calls if call.turn is not None]

    @property
    def routes(self) -> list[str]:
        """The routes that were dispatched to, in order."""
        return [turn.route for turn in self.turns]

    @property
    def toasts(self) -> list[Toast]:
        """What was shown, in order."""
        return [call.toast for call in self.calls if call.toast is not None]

    async def abort(self, session_id: str) -> None:
        """Record the call and do as the script says."""
        self.calls.append(HostCall(name="abort", at=anyio.current_time(), session_id=session_id))
        await self._perform("abort")

    async def dispatch(self, turn: DispatchTurn) -> DispatchReturned:
        """Record the call and do as the script says; without a word in the script it is accepted."""
        call = HostCall(name="dispatch", at=anyio.current_time(), session_id=turn.session_id, turn=turn)
        self.calls.append(call)
        match await self._perform("dispatch"):
            case Refuse(reason):
                outcome, text = "refused", reason
            case NotReached(reason):
                outcome, text = "unavailable", reason
            case Replay(dropped):
                return _returned(turn, "accepted", replayed=True, dropped_parts=dropped)
            case _:
                outcome, text = "accepted", ""

        return _returned(turn, outcome, text)

    async def discard(self, session_id: str, removals: Sequence[Removal]) -> None:
        """Record the call and do as the script says."""
        call = HostCall(name="discard", at=anyio.current_time(), session_id=session_id, removals=tuple(removals))
        self.calls.append(call)
        await self._perform("discard")

    async def inspect(self, session_id: str) -> SessionInspected:
        """Record the call and do as the script says; the answer is the session's entry in `pictures`."""
        self.calls.append(HostCall(name="inspect", at=anyio.current_time(), session_id=session_id))
        await self._perform("inspect")
        return self.pictures.get(session_id) or SessionInspected(session_id=session_id, found=False)

    async def splice(self, action: SpliceResult) -> ResultSpliced:
        """Record the call and do as the script says; without a word in the script it is done."""
        call = HostCall(name="splice", at=anyio.current_time(), session_id=action.session_id, splice=action)
        self.calls.append(call)
        await self._perform("splice")
        return ResultSpliced(session_id=action.session_id, child_id=action.child_id, outcome="done")

    async def show(self, toast: Toast) -> None:
        """Record the call and do as the script says."""
        self.calls.append(HostCall(name="show", at=anyio.current_time(), toast=toast))
        await self._perform("show")

    async def _perform(self, name: CallName) -> Step:
        script = self._scripts[name]
        step = script.popleft() if script else None
        while isinstance(step, Wait):
            await anyio.sleep(step.seconds)
            step = step.then

        if isinstance(step, Hang):
            await anyio.sleep_forever()

        if isinstance(step, Exception):
            raise step

        return step


def _returned(
    turn: DispatchTurn,
    outcome: Literal["accepted", "refused", "unavailable"],
    reason: str = "",
    *,
    replayed: bool = False,
    dropped_parts: tuple[str, ...] = (),
) -> DispatchReturned:
    return DispatchReturned(
        session_id=turn.session_id,
        generation=turn.generation,
        outcome=outcome,
        reason=reason,
        replayed=replayed,
        dropped_parts=dropped_parts,
    )
