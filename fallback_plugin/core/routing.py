"""Which model a prompt goes to, where the host lets us say so before it asks.

A prompt asks for a route: the agent's own, or one that somebody picked. If that route is known to be out, the prompt
goes to the first route of the chain that is not; no request is wasted on the dead one (design.md, rule 7). Four rules:

1. A dispatch of ours, and any other resumption of a message that is there already, goes where it was sent.
2. A model picked by hand for this prompt is tried as picked. Hosts name a model in every prompt, so that the name alone
   says little: picked by hand is what is neither the agent's own model nor the one that the session, or the agent's
   last prompt, asked for. From the next prompt on it is guarded like any other.
3. A session that is away from its own model returns to it with the first prompt after that model's time has come.
4. Where every route is out, the prompt goes where it was meant to go: what then fails is announced as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from fallback_plugin.core.actions import Announce, NoticeType
from fallback_plugin.core.events import PromptRouted
from fallback_plugin.core.failure import Failure, Scope
from fallback_plugin.core.policy import Policy
from fallback_plugin.core.record import RESTING_PHASES, Session, Step
from fallback_plugin.core.state import FallbackState, create_state

LONG_AGO = -1e9
"""When a route failed of which this session only knows that it is out: too long ago to keep it cooling by itself."""


class Standing(StrEnum):
    """How a route stands for a prompt."""

    FREE = "free"
    PROVIDER_OUT = "provider out"
    """Its provider or credential is out by another route's word: asked when nothing else is left."""
    OUT = "out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt that the host is about to send.

    Attributes:
        session_id: whose.
        route: "provider/model" that it will ask.
        agent: the agent that will answer.
        named: whether the prompt itself names that route.
        message_id: the user message that the prompt resumes, or gives itself; None for one that was typed.
    """

    session_id: str
    route: str
    agent: str | None = None
    named: bool = False
    message_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChoice:
    """Where a prompt goes.

    Attributes:
        wanted: where it would go if nothing were out.
        route: where it goes.
    """

    wanted: str
    route: str


def choose_route(
    session: Session | None,
    prompt: Prompt,
    policy: Policy,
    standing_of: Callable[[str], Standing],
    *,
    usual: str | None = None,
) -> RouteChoice:
    """Choose the route of one prompt.

    Args:
        session: what is known of its session.
        prompt: the prompt.
        policy: the agent's.
        standing_of: how a route stands now.
        usual: the route that the agent's last prompt asked for, in whatever session.
    """
    as_asked = RouteChoice(wanted=prompt.route, route=prompt.route)
    if not policy.enabled or not policy.chain or _resumes(session, prompt):
        return as_asked

    state = session.state if session else None
    wanted = _wanted(state, prompt)
    if wanted == prompt.route and _is_picked(state, prompt, policy, usual):
        return as_asked

    if standing_of(wanted) is Standing.FREE:
        return RouteChoice(wanted=wanted, route=wanted)

    others = [route for route in policy.chain if route != wanted]
    for standing in (Standing.FREE, Standing.PROVIDER_OUT):
        route = next((route for route in others if standing_of(route) is standing), None)
        if route is not None:
            return RouteChoice(wanted=wanted, route=route)

    return as_asked


def _resumes(session: Session | None, prompt: Prompt) -> bool:
    if prompt.message_id is None:
        return False

    # The first prompt of a subagent brings its id along; a session of which nothing is known may be resumed by others.
    is_first = session is not None and session.turn is None and session.parent_id is not None
    return not is_first


def _wanted(state: FallbackState | None, prompt: Prompt) -> str:
    """A host that goes on with its last-used model goes on with our fallback: what was wanted is the original."""
    if state is None or prompt.route != state.current_model:
        return prompt.route

    return state.original_model


def _is_picked(state: FallbackState | None, prompt: Prompt, policy: Policy, usual: str | None) -> bool:
    known = {policy.primary, usual, state.original_model if state else None}
    return prompt.named and prompt.route not in known


def on_prompt_routed(session: Session, event: PromptRouted, now: float) -> Step:
    """A prompt was sent past the route that it wanted: the session is away from that route until it answers again."""
    state = session.state or create_state(event.wanted)
    told = state.current_model == event.route and state.original_model == event.wanted
    notice = Announce(
        session_id=session.session_id,
        notice=NoticeType.SKIPPED,
        route=event.wanted,
        next_route=event.route,
        failure=Failure(
            kind=event.kind,
            scope=Scope.MODEL,
            should_fallback=True,
            retry_at=event.returns_at,
            reason="known to be out",
        ),
        toast=not told,
    )
    # The state of a turn under way is that turn's.
    if session.phase not in RESTING_PHASES:
        return Step(session=session, actions=(notice,))

    away = FallbackState(
        original_model=event.wanted,
        current_model=event.route,
        failed_models={event.wanted: LONG_AGO, **state.failed_models},
        generation=state.generation,
        cooling=state.cooling,
    )
    return Step(session=replace(session, state=away), actions=(notice,))
