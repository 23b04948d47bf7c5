"""FallbackState: rows O21-O26, the cases of fallback-state.test.ts, and what a provider's word adds to them."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.state import (
    MAX_ATTEMPTS,
    NO_MODELS,
    FallbackPlan,
    FallbackState,
    NoPlan,
    adopt_model,
    begin_turn,
    commit_fallback,
    create_state,
    earliest_return,
    is_cooling,
    is_provider_cooling,
    plan_fallback,
    prepare_fallback,
    record_failure,
    recover_to_original,
    restore_state,
    scope_key,
    snapshot_state,
)

PRIMARY = "one/primary"
A, B, C = "two/a", "three/b", "four/c"
CHAIN = (A, B, C)
NOW = 1000.0
COOLDOWN = 60.0


def quota(scope=Scope.PROVIDER, retry_at=None, kind=Kind.QUOTA_EXHAUSTED):
    return Failure(kind=kind, scope=scope, should_fallback=True, retry_at=retry_at)


def planned(state, chain=CHAIN, now=NOW, **limits):
    plan = plan_fallback(state, chain, now, **limits)
    assert isinstance(plan, FallbackPlan), plan
    return plan


def refused(state, chain=CHAIN, now=NOW, **limits):
    reason = plan_fallback(state, chain, now, **limits)
    assert isinstance(reason, NoPlan), reason
    return reason


def moved(state, chain=CHAIN, now=NOW, failure=None):
    after, committed = commit_fallback(state, planned(state, chain, now), now, failure)
    assert committed
    return after


def test_a_new_state_is_on_its_original_model():
    state = create_state(PRIMARY)

    assert state == FallbackState(original_model=PRIMARY, current_model=PRIMARY)
    assert state.fallback_index == -1
    assert dict(state.failed_models) == {}
    assert state.attempt_count == 0
    assert state.pending_fallback_model is None
    assert state.generation == 0
    assert state.tried == frozenset()
    assert dict(state.cooling) == {}


def test_a_state_is_frozen():
    state = create_state(PRIMARY)
    with pytest.raises(FrozenInstanceError):
        state.current_model = A  # type: ignore[misc]
    with pytest.raises(TypeError):
        state.failed_models[A] = NOW  # type: ignore[index]


# ── O21: cooldown ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("failed_ago", "cooldown", "cools"),
    [
        pytest.param(0.0, 60.0, True, id="just now"),
        pytest.param(30.0, 60.0, True, id="within the window"),
        pytest.param(59.999, 60.0, True, id="a millisecond before the end"),
        pytest.param(60.0, 60.0, False, id="the exact end is available"),
        pytest.param(3600.0, 60.0, False, id="long ago"),
        pytest.param(0.0, 0.0, False, id="zero never cools"),
        pytest.param(0.0, -5.0, False, id="negative never cools"),
        pytest.param(-1.0, 0.0, True, id="a failure of the future cools until then"),
    ],
)
def test_o21_cooldown_boundaries(failed_ago, cooldown, cools):
    state = replace(create_state(PRIMARY), failed_models={A: NOW - failed_ago})

    assert is_cooling(state, A, NOW, cooldown) is cools


def test_o21_a_model_that_never_failed_does_not_cool():
    assert is_cooling(create_state(PRIMARY), A, NOW, COOLDOWN) is False


@pytest.mark.parametrize(("at", "cools"), [(NOW + 499.9, True), (NOW + 500.0, False), (NOW + 501.0, False)])
def test_o21_a_providers_word_holds_beside_the_cooldown(at, cools):
    state = record_failure(create_state(PRIMARY), A, NOW, quota(Scope.MODEL, retry_at=NOW + 500))

    assert is_cooling(state, A, at, 0.0) is cools


# ── O22: the next candidate ──────────────────────────────────────────────────────────────────────────────────


def test_o22_an_empty_chain_has_no_candidate():
    assert refused(create_state(PRIMARY), chain=()) == NoPlan(error=NO_MODELS)


def test_o22_the_first_model_behind_the_index():
    state = create_state(PRIMARY)
    assert planned(state).new_model == A
    assert planned(state).new_index == 0

    on_a = replace(state, current_model=A, fallback_index=0)
    assert planned(on_a).new_model == B
    assert planned(on_a).new_index == 1


def test_o22_a_cooling_model_is_skipped():
    state = replace(create_state(PRIMARY), failed_models={A: NOW - 1})

    assert planned(state).new_model == B


def test_o22_a_model_whose_cooldown_is_over_is_not_skipped():
    state = replace(create_state(PRIMARY), failed_models={A: NOW - COOLDOWN})

    assert planned(state).new_model == A


def test_o22_all_cooling_is_no_candidate():
    state = replace(create_state(PRIMARY), failed_models=dict.fromkeys(CHAIN, NOW - 1))

    assert refused(state) == NoPlan(error=NO_MODELS)


def test_o22_the_end_of_the_chain_is_no_candidate():
    assert refused(replace(create_state(PRIMARY), current_model=C, fallback_index=2)) == NoPlan(error=NO_MODELS)


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        pytest.param((PRIMARY, A), (A, 1), id="the current model first"),
        pytest.param((PRIMARY, PRIMARY, B), (B, 2), id="duplicates of the current model"),
        pytest.param((PRIMARY,), None, id="only the current model"),
        pytest.param((PRIMARY, PRIMARY), None, id="only duplicates of it"),
    ],
)
def test_o22_the_current_model_is_never_its_own_fallback(chain, expected):
    plan = plan_fallback(create_state(PRIMARY), chain, NOW)

    found = (plan.new_model, plan.new_index) if isinstance(plan, FallbackPlan) else None
    assert found == expected


def test_o22_current_and_cooling_together_leave_nothing():
    state = replace(create_state(PRIMARY), failed_models={A: NOW})

    assert refused(state, chain=(PRIMARY, A)) == NoPlan(error=NO_MODELS)


def test_o22_a_model_tried_in_this_turn_is_out_whatever_its_cooldown():
    state = replace(create_state(PRIMARY), tried=frozenset({A}))

    assert planned(state, cooldown_seconds=0.0).new_model == B


# ── O23: planning changes nothing; the limit comes first ─────────────────────────────────────────────────────


def test_o23_a_plan_names_the_move_and_what_it_saw():
    state = replace(create_state(PRIMARY), generation=7)
    before = snapshot_state(state)

    plan = planned(state)

    assert plan == FallbackPlan(failed_model=PRIMARY, new_model=A, new_index=0, generation=7)
    assert snapshot_state(state) == before
    assert planned(state) == plan


@pytest.mark.parametrize("attempts", [2, 3])
def test_o23_the_limit_is_checked_before_the_chain(attempts):
    state = replace(create_state(PRIMARY), attempt_count=attempts)

    assert refused(state, max_attempts=2) == NoPlan(error=MAX_ATTEMPTS, max_attempts_reached=True)
    assert refused(state, chain=(), max_attempts=2).max_attempts_reached


def test_o23_the_attempt_below_the_limit_is_allowed():
    state = replace(create_state(PRIMARY), attempt_count=1)

    after, plan = prepare_fallback(state, CHAIN, NOW, max_attempts=2)

    assert isinstance(plan, FallbackPlan)
    assert after.attempt_count == 2
    assert refused(after, max_attempts=2).max_attempts_reached


def test_o23_a_limit_of_zero_allows_nothing():
    assert refused(create_state(PRIMARY), max_attempts=0).max_attempts_reached


# ── O24: commit is a compare-and-set ─────────────────────────────────────────────────────────────────────────


def test_o24_commit_makes_the_move():
    state = replace(create_state(PRIMARY), pending_fallback_model=B)

    after, committed = commit_fallback(state, planned(state), NOW)

    assert committed
    assert after.current_model == A
    assert after.fallback_index == 0
    assert after.attempt_count == 1
    assert dict(after.failed_models) == {PRIMARY: NOW}
    assert after.tried == {PRIMARY}
    assert after.pending_fallback_model is None
    assert after.generation == state.generation + 1
    assert after.original_model == PRIMARY


def test_o24_a_plan_commits_once():
    state = create_state(PRIMARY)
    plan = planned(state)
    first, _ = commit_fallback(state, plan, NOW)

    second, committed = commit_fallback(first, plan, NOW + 1)

    assert not committed
    assert second is first


def test_o24_stale_commit_is_refused():
    state = create_state(PRIMARY)
    stale = planned(state)
    newer = moved(moved(state))

    after, committed = commit_fallback(newer, stale, NOW + 1)

    assert not committed
    assert after is newer
    assert newer.current_model == B


def test_o24_a_plan_of_an_older_generation_is_refused_on_the_same_model():
    state = create_state(PRIMARY)
    plan = planned(state)
    later = begin_turn(state, PRIMARY)

    after, committed = commit_fallback(later, plan, NOW)

    assert not committed
    assert after is later


def test_o24_plan_and_commit_walk_the_chain():
    state = create_state(PRIMARY)
    seen = []
    for second in range(3):
        state = moved(state, now=NOW + second)
        seen.append((state.current_model, state.fallback_index, state.attempt_count))

    assert seen == [(A, 0, 1), (B, 1, 2), (C, 2, 3)]
    assert dict(state.failed_models) == {PRIMARY: NOW, A: NOW + 1, B: NOW + 2}
    assert refused(state) == NoPlan(error=NO_MODELS)


def test_o24_prepare_marks_the_new_model_as_pending():
    state = create_state(PRIMARY)

    after, plan = prepare_fallback(state, CHAIN, NOW)

    assert isinstance(plan, FallbackPlan)
    assert after.pending_fallback_model == A
    assert replace(after, pending_fallback_model=None) == commit_fallback(state, plan, NOW)[0]
    assert after.failed_models[PRIMARY] == NOW


# ── O25: back to the original ────────────────────────────────────────────────────────────────────────────────


def test_o25_on_the_original_there_is_nothing_to_recover():
    state = create_state(PRIMARY)

    assert recover_to_original(state, NOW) == (state, False)


@pytest.mark.parametrize(("later", "recovers"), [(0.0, False), (59.999, False), (60.0, True), (600.0, True)])
def test_o25_recovery_waits_for_the_cooldown(later, recovers):
    state, _ = prepare_fallback(create_state(PRIMARY), CHAIN, NOW)

    after, recovered = recover_to_original(state, NOW + later, cooldown_seconds=COOLDOWN)

    assert recovered is recovers
    if not recovers:
        assert after is state
        return

    assert after.current_model == PRIMARY
    assert after.fallback_index == -1
    assert after.attempt_count == 0
    assert after.pending_fallback_model is None
    assert after.failed_models == state.failed_models


def test_o25_recovery_waits_for_the_providers_word():
    state = moved(create_state(PRIMARY), failure=quota(Scope.MODEL, retry_at=NOW + 3600))

    assert recover_to_original(state, NOW + 3599)[1] is False
    assert recover_to_original(state, NOW + 3600)[1] is True


# ── O26: a failed plan changes nothing; snapshots ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("chain", "attempts"),
    [pytest.param((), 0, id="no models"), pytest.param((PRIMARY,), 0, id="itself"), pytest.param(CHAIN, 10, id="max")],
)
def test_o26_a_failed_prepare_leaves_the_state(chain, attempts):
    state = replace(create_state(PRIMARY), attempt_count=attempts)
    before = json.dumps(snapshot_state(state))

    after, reason = prepare_fallback(state, chain, NOW)

    assert isinstance(reason, NoPlan)
    assert after is state
    assert json.dumps(snapshot_state(after)) == before


MODELS = st.sampled_from([PRIMARY, *CHAIN, "five/d/with/slashes"])
TIMES = st.floats(min_value=0, max_value=1e6, allow_nan=False)
STATES = st.builds(
    FallbackState,
    original_model=MODELS,
    current_model=MODELS,
    fallback_index=st.integers(-1, 4),
    failed_models=st.dictionaries(MODELS, TIMES, max_size=4),
    attempt_count=st.integers(0, 12),
    pending_fallback_model=st.none() | MODELS,
    generation=st.integers(0, 100),
    tried=st.frozensets(MODELS, max_size=4),
    cooling=st.dictionaries(MODELS | st.sampled_from(["one", "two"]), TIMES, max_size=4),
)


@given(STATES)
def test_o26_a_snapshot_round_trips_through_json(state):
    assert restore_state(json.loads(json.dumps(snapshot_state(state)))) == state


def test_o26_restoring_reverts_a_move():
    state = create_state(PRIMARY)
    snapshot = snapshot_state(state)
    after, _ = prepare_fallback(state, CHAIN, NOW)

    assert after != state
    assert restore_state(snapshot) == state


@given(state=STATES, chain=st.lists(MODELS, max_size=5).map(tuple), now=TIMES, limit=st.integers(0, 12))
def test_whatever_the_state_a_move_is_bounded_and_never_repeats_a_model(state, chain, now, limit):
    before = snapshot_state(state)
    after, plan = prepare_fallback(state, chain, now, max_attempts=limit)

    assert snapshot_state(state) == before
    if isinstance(plan, NoPlan):
        assert after is state
        return

    assert state.attempt_count < limit
    assert after.current_model == chain[after.fallback_index]
    assert after.current_model != state.current_model
    assert after.current_model not in state.tried
    assert state.current_model in after.tried
    assert after.generation == state.generation + 1


# ── Beyond the seed: scopes, turns, other people's moves ─────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        (Scope.MODEL, "open/a/b"),
        (Scope.UPSTREAM, "open/a/b"),
        (Scope.PROVIDER, "open"),
        (Scope.CREDENTIAL, "open"),
    ],
)
def test_scope_key(scope, key):
    assert scope_key("open/a/b", scope) == key


@pytest.mark.parametrize("scope", [Scope.PROVIDER, Scope.CREDENTIAL])
def test_a_providers_quota_puts_its_other_routes_last_not_out(scope):
    chain = ("one/small", A, B)
    state = record_failure(create_state(PRIMARY), PRIMARY, NOW, quota(scope, retry_at=NOW + 3600))

    assert planned(state, chain).new_model == A
    state = moved(state, chain)
    state = moved(state, chain)
    assert state.current_model == B

    last = planned(state, chain)
    assert (last.new_model, last.new_index) == ("one/small", 0)
    state = moved(state, chain)
    assert refused(state, chain) == NoPlan(error=NO_MODELS)


def test_a_quota_of_the_model_leaves_the_providers_other_routes_in_place():
    chain = ("one/small", A)
    state = record_failure(create_state(PRIMARY), PRIMARY, NOW, quota(Scope.MODEL, retry_at=NOW + 3600))

    assert planned(state, chain).new_model == "one/small"


def test_a_quota_without_a_time_holds_the_provider_for_a_minute():
    state = record_failure(create_state(PRIMARY), PRIMARY, NOW, quota())

    assert is_provider_cooling(state, "one/other", NOW + 59.9)
    assert not is_provider_cooling(state, "one/other", NOW + 60.0)
    assert not is_provider_cooling(state, A, NOW)


def test_an_aborted_run_teaches_nothing_about_the_provider():
    state = record_failure(create_state(PRIMARY), PRIMARY, NOW, quota(kind=Kind.ABORTED))

    assert dict(state.cooling) == {}
    assert PRIMARY in state.tried


@pytest.mark.parametrize("second", [NOW + 100, NOW + 5000])
def test_the_longer_of_two_words_holds(second):
    state = record_failure(create_state(PRIMARY), PRIMARY, NOW, quota(retry_at=NOW + 3600))
    state = record_failure(state, "one/other", NOW + 1, quota(retry_at=second))

    assert state.cooling["one"] == max(NOW + 3600, second)


def test_a_retry_time_of_the_past_is_no_word():
    state = record_failure(create_state(PRIMARY), A, NOW, quota(Scope.MODEL, retry_at=NOW - 1))

    assert dict(state.cooling) == {}


def test_words_that_are_over_are_forgotten():
    state = replace(create_state(PRIMARY), cooling={"old": NOW - 1, "now": NOW, "later": NOW + 1})

    assert set(record_failure(state, A, NOW, quota(Scope.MODEL)).cooling) == {"later"}


def test_a_first_turn_is_a_new_state():
    assert begin_turn(None, A) == create_state(A)


def test_a_new_turn_has_tried_nothing_and_keeps_what_is_known_to_be_out():
    failed = moved(create_state(PRIMARY), failure=quota(retry_at=NOW + 3600))

    state = begin_turn(failed, PRIMARY)

    assert state.current_model == PRIMARY
    assert state.fallback_index == -1
    assert state.attempt_count == 0
    assert state.tried == frozenset()
    assert state.failed_models == failed.failed_models
    assert state.cooling == failed.cooling
    assert state.generation == failed.generation + 1


def test_a_turn_on_the_last_used_fallback_keeps_the_original():
    on_a = moved(create_state(PRIMARY))

    assert begin_turn(on_a, A).original_model == PRIMARY
    assert begin_turn(on_a, A).current_model == A


def test_a_turn_on_any_other_model_is_the_users_choice():
    on_a = moved(create_state(PRIMARY))

    assert begin_turn(on_a, "six/picked").original_model == "six/picked"


def test_an_adopted_model_has_its_place_in_the_chain():
    state = replace(create_state(PRIMARY), pending_fallback_model=A)

    adopted = adopt_model(state, B, CHAIN)

    assert adopted.current_model == B
    assert adopted.fallback_index == 1
    assert adopted.pending_fallback_model is None
    assert adopted.generation == state.generation + 1
    assert adopted.original_model == PRIMARY


def test_an_adopted_model_from_outside_the_chain_starts_it():
    assert adopt_model(moved(create_state(PRIMARY)), "six/other", CHAIN).fallback_index == -1


def test_an_adoption_makes_an_older_plan_stale():
    state = create_state(PRIMARY)
    plan = planned(state)

    assert commit_fallback(adopt_model(state, PRIMARY, CHAIN), plan, NOW)[1] is False


@pytest.mark.parametrize(
    ("failed", "cooling", "expected"),
    [
        pytest.param({}, {}, NOW, id="nobody failed"),
        pytest.param({PRIMARY: NOW, A: NOW - 50, B: NOW}, {}, NOW + 10, id="the first cooldown to end"),
        pytest.param({PRIMARY: NOW, A: NOW - 90, B: NOW}, {}, NOW, id="one is back already"),
        pytest.param(
            {PRIMARY: NOW, A: NOW, B: NOW},
            {PRIMARY: NOW + 500, "two": NOW + 300, B: NOW + 400},
            NOW + 300,
            id="providers' words are later",
        ),
        pytest.param({PRIMARY: NOW, A: NOW, B: NOW}, {"one": NOW + 9, "two": NOW + 8}, NOW + 60, id="cooldowns later"),
    ],
)
def test_earliest_return(failed, cooling, expected):
    state = replace(create_state(PRIMARY), failed_models=failed, cooling=cooling)

    assert earliest_return(state, (A, B), NOW, COOLDOWN) == expected
