"""FallbackState: where one session stands in its chain, and how it moves.

A move is made in two steps so that two handlers of one failure can't both make it. `plan_fallback` looks
and changes nothing. `commit_fallback` is a compare-and-set: it moves only a state that is still on the model
and the generation that the plan saw. `prepare_fallback` is both at once and marks the new model as pending.

Models are routes, "provider/model". Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from fallback_plugin.core.failure import Failure, Kind, Scope

NO_MODELS = "No available fallback models"
MAX_ATTEMPTS = "maxAttemptsReached"

_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackState:
    """One session's place in its chain (design.md, Words; seed rows O21-O26).

    Attributes:
        original_model: the model that the user or the agent asked for.
        current_model: the model that runs, or is about to.
        fallback_index: place of the current model in the chain, -1 for the original.
        failed_models: model → when it failed.
        attempt_count: hops of the current turn.
        pending_fallback_model: the model that a hop has claimed and that has not been seen to run.
        generation: number of the attempt; grows with every hop and every turn.
        tried: models that failed within the current turn; never asked twice in one turn.
        cooling: scope key (see `scope_key`) → until when a provider's word keeps it out.
    """

    original_model: str
    current_model: str
    fallback_index: int = -1
    failed_models: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    attempt_count: int = 0
    pending_fallback_model: str | None = None
    generation: int = 0
    tried: frozenset[str] = frozenset()
    cooling: Mapping[str, float] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackPlan:
    """A move that was possible when it was planned."""

    failed_model: str
    new_model: str
    new_index: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPlan:
    """Why there is no move.

    Attributes:
        error: `NO_MODELS` or `MAX_ATTEMPTS`.
        max_attempts_reached: whether the limit, not the chain, ended it.
    """

    error: str
    max_attempts_reached: bool = False


def create_state(original_model: str) -> FallbackState:
    """The state of a session whose model has not failed."""
    return FallbackState(original_model=original_model, current_model=original_model)


def scope_key(model: str, scope: Scope) -> str:
    """The key under which a failure of `model` with `scope` is remembered in `cooling`."""
    if scope in (Scope.PROVIDER, Scope.CREDENTIAL):
        return model.partition("/")[0]

    return model


def is_cooling(state: FallbackState, model: str, now: float, cooldown_seconds: float) -> bool:
    """Whether `model` itself is out.

    The exact end of the cooldown is available again, and a cooldown of 0 or less never cools (O21); a
    provider's own word, where there is one, holds beside the cooldown.
    """
    failed_at = state.failed_models.get(model)
    if failed_at is not None and now - failed_at < cooldown_seconds:
        return True

    return state.cooling.get(model, now) > now


def is_provider_cooling(state: FallbackState, model: str, now: float) -> bool:
    """Whether the provider or credential behind `model` is out (a quota of the account)."""
    return state.cooling.get(scope_key(model, Scope.PROVIDER), now) > now


def plan_fallback(
    state: FallbackState,
    chain: tuple[str, ...],
    now: float,
    *,
    cooldown_seconds: float = 60.0,
    max_attempts: int = 10,
) -> FallbackPlan | NoPlan:
    """The next move, without making it (O22, O23).

    The limit is checked first, then the first model behind the current index that is neither current nor
    cooling nor tried in this turn. Models whose provider is out come last: they are asked only when nothing
    else is left, for an account's quota may have been a model's after all.

    Args:
        state: where the session stands.
        chain: routes in order.
        now: monotonic seconds.
        cooldown_seconds: how long a failed model is skipped.
        max_attempts: hops allowed in one turn.
    """
    if state.attempt_count >= max_attempts:
        return NoPlan(error=MAX_ATTEMPTS, max_attempts_reached=True)

    index = _next_index(state, chain, now, cooldown_seconds)
    if index is None:
        return NoPlan(error=NO_MODELS)

    return FallbackPlan(
        failed_model=state.current_model,
        new_model=chain[index],
        new_index=index,
        generation=state.generation,
    )


def _next_index(state: FallbackState, chain: tuple[str, ...], now: float, cooldown_seconds: float) -> int | None:
    open_indexes = list(_open_indexes(state, chain, now, cooldown_seconds))
    behind = (i for i in open_indexes if i > state.fallback_index)
    healthy = next((i for i in behind if not is_provider_cooling(state, chain[i], now)), None)
    if healthy is not None:
        return healthy

    last_resort = (i for i in open_indexes if is_provider_cooling(state, chain[i], now))
    return next(last_resort, None)


def _open_indexes(state: FallbackState, chain: tuple[str, ...], now: float, cooldown_seconds: float) -> Iterator[int]:
    for index, model in enumerate(chain):
        if model == state.current_model or model in state.tried:
            continue

        if not is_cooling(state, model, now, cooldown_seconds):
            yield index


def commit_fallback(
    state: FallbackState, plan: FallbackPlan, now: float, failure: Failure | None = None
) -> tuple[FallbackState, bool]:
    """Make the planned move if the state is still where the plan saw it (O24).

    Returns:
        The new state and True; or the state unchanged and False for a stale or repeated plan.
    """
    if state.current_model != plan.failed_model or state.generation != plan.generation:
        return state, False

    moved = replace(
        record_failure(state, plan.failed_model, now, failure),
        current_model=plan.new_model,
        fallback_index=plan.new_index,
        attempt_count=state.attempt_count + 1,
        pending_fallback_model=None,
        generation=state.generation + 1,
    )
    return moved, True


def prepare_fallback(
    state: FallbackState,
    chain: tuple[str, ...],
    now: float,
    *,
    cooldown_seconds: float = 60.0,
    max_attempts: int = 10,
    failure: Failure | None = None,
) -> tuple[FallbackState, FallbackPlan | NoPlan]:
    """Plan and commit in one step; the new model is pending until it is seen to run (O24).

    Returns:
        The new state and its plan; or the state unchanged (O26) and the reason why there is none.
    """
    plan = plan_fallback(state, chain, now, cooldown_seconds=cooldown_seconds, max_attempts=max_attempts)
    if isinstance(plan, NoPlan):
        return state, plan

    moved, _ = commit_fallback(state, plan, now, failure)
    return replace(moved, pending_fallback_model=plan.new_model), plan


def record_failure(state: FallbackState, model: str, now: float, failure: Failure | None = None) -> FallbackState:
    """Remember that `model` failed, and for how long its provider says that it is out."""
    failed_models = {**state.failed_models, model: now}
    tried = state.tried | {model}
    if failure is None:
        return replace(state, failed_models=failed_models, tried=tried)

    cooling = {key: until for key, until in state.cooling.items() if until > now}
    key = scope_key(model, failure.scope)
    if failure.retry_at is not None and failure.retry_at > now:
        cooling[key] = max(failure.retry_at, cooling.get(key, 0.0))
    elif key != model and failure.kind is not Kind.ABORTED:
        cooling[key] = max(now + 60.0, cooling.get(key, 0.0))

    return replace(state, failed_models=failed_models, tried=tried, cooling=cooling)


def recover_to_original(
    state: FallbackState, now: float, *, cooldown_seconds: float = 60.0
) -> tuple[FallbackState, bool]:
    """Go back to the original model once it may be asked again (O25)."""
    if state.current_model == state.original_model:
        return state, False

    if is_cooling(state, state.original_model, now, cooldown_seconds):
        return state, False

    return replace(
        state,
        current_model=state.original_model,
        fallback_index=-1,
        attempt_count=0,
        pending_fallback_model=None,
    ), True


def begin_turn(state: FallbackState | None, model: str) -> FallbackState:
    """The state at the start of a turn on `model`: nothing tried yet, what is known to be out kept.

    A turn on a fallback that the host goes on using (its last-used model) does not make that fallback the
    original (K20); any other model is the user's own choice.
    """
    if state is None:
        return create_state(model)

    keeps_original = model in (state.original_model, state.current_model)
    return FallbackState(
        original_model=state.original_model if keeps_original else model,
        current_model=model,
        failed_models=state.failed_models,
        generation=state.generation + 1,
        cooling=state.cooling,
    )


def adopt_model(state: FallbackState, model: str, chain: tuple[str, ...]) -> FallbackState:
    """Follow a move that somebody else made, such as a second process on the same host."""
    index = chain.index(model) if model in chain else -1
    return replace(
        state,
        current_model=model,
        fallback_index=index,
        pending_fallback_model=None,
        generation=state.generation + 1,
    )


def earliest_return(state: FallbackState, chain: tuple[str, ...], now: float, cooldown_seconds: float) -> float | None:
    """Monotonic seconds at which the first model of the chain, or the original, may be asked again."""
    returns = [_returns_at(state, model, now, cooldown_seconds) for model in {state.original_model, *chain}]
    return min(returns, default=None)


def _returns_at(state: FallbackState, model: str, now: float, cooldown_seconds: float) -> float:
    failed_at = state.failed_models.get(model)
    until = now if failed_at is None else failed_at + cooldown_seconds
    provider = scope_key(model, Scope.PROVIDER)
    return max(now, until, state.cooling.get(model, now), state.cooling.get(provider, now))


def snapshot_state(state: FallbackState) -> dict[str, Any]:
    """The state as plain JSON values; `restore_state` gives it back (O26)."""
    return {
        "original_model": state.original_model,
        "current_model": state.current_model,
        "fallback_index": state.fallback_index,
        "failed_models": dict(state.failed_models),
        "attempt_count": state.attempt_count,
        "pending_fallback_model": state.pending_fallback_model,
        "generation": state.generation,
        "tried": sorted(state.tried),
        "cooling": dict(state.cooling),
    }


def restore_state(snapshot: Mapping[str, Any]) -> FallbackState:
    """The state that `snapshot_state` wrote."""
    values: dict[str, Any] = {**snapshot, "tried": frozenset(snapshot["tried"])}
    return FallbackState(**values)
