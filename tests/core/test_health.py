"""Health: cooling, probing, doubling (design.md, rule 6; X09, K-H10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.health import (
    LONGEST_COOLDOWN,
    PROBE_SECONDS,
    WITNESSES_KEPT,
    Health,
    Outage,
    claim_probe,
    from_json,
    health_of,
    is_out,
    key_of,
    record_outage,
    to_json,
    told_by,
)

NOW, WALL = 50.0, 1_000_000.0


def failure(kind=Kind.RATE_LIMIT, scope=Scope.MODEL, retry_at=None):
    return Failure(kind=kind, scope=scope, should_fallback=True, retry_at=retry_at)


def failed(times, *, kind=Kind.RATE_LIMIT):
    """The outage after `times` failures, each when the one before was over."""
    outage, wall = None, WALL
    for _ in range(times):
        outage = record_outage(outage, failure(kind), now=NOW, now_wall=wall)
        wall = outage.until_wall
    return outage, wall


@pytest.mark.parametrize(
    ("kind", "scope", "key"),
    [
        (Kind.RATE_LIMIT, Scope.MODEL, "openai/gpt"),
        (Kind.QUOTA_EXHAUSTED, Scope.PROVIDER, "openai"),
        (Kind.AUTH, Scope.CREDENTIAL, "openai"),
        (Kind.OVERLOADED, Scope.UPSTREAM, "openai/gpt"),
        (Kind.ABORTED, Scope.MODEL, None),
        (Kind.BAD_REQUEST, Scope.MODEL, None),
        (Kind.CONTEXT_OVERFLOW, Scope.MODEL, None),
        (Kind.CONTENT_POLICY, Scope.MODEL, None),
    ],
)
def test_a_failure_speaks_of_its_scope_or_of_nothing(kind, scope, key):
    assert key_of("openai/gpt", failure(kind, scope)) == key


@pytest.mark.parametrize(
    ("kind", "lasts"),
    [
        (Kind.SERVER_ERROR, False),
        (Kind.OVERLOADED, False),
        (Kind.TIMEOUT, False),
        (Kind.NETWORK, False),
        (Kind.EMPTY, False),
        (Kind.RATE_LIMIT, False),
        (Kind.QUOTA_EXHAUSTED, True),
        (Kind.AUTH, True),
        (Kind.MISSING_API_KEY, True),
        (Kind.MODEL_NOT_FOUND, True),
    ],
)
def test_what_may_be_over_by_now_is_a_guess_until_the_provider_names_a_time(kind, lasts):
    guessed, _ = failed(1, kind=kind)
    assert guessed.lasts is lasts

    told = record_outage(guessed, failure(kind, retry_at=NOW + 5), now=NOW, now_wall=WALL + 1)
    assert told.lasts
    assert record_outage(told, failure(kind), now=NOW, now_wall=WALL + 2).lasts, "its word still holds"
    over = record_outage(told, failure(kind), now=NOW, now_wall=told.until_wall)
    assert over.lasts is lasts, "its word is over"
    assert from_json(to_json(told)) == told


@pytest.mark.parametrize(("times", "seconds"), [(1, 60), (2, 120), (3, 240), (6, 1920), (7, 3600), (30, 3600)])
def test_without_a_word_it_is_60_s_doubled_up_to_an_hour(times, seconds):
    outage, _ = failed(times)
    earlier, began = failed(times - 1)
    assert outage.until_wall - (began if earlier else WALL) == seconds
    assert outage.failures == times


def test_a_word_of_its_own_holds_even_if_it_is_shorter():
    outage = record_outage(None, failure(retry_at=NOW + 7), now=NOW, now_wall=WALL)
    assert outage.until_wall == WALL + 7


def test_a_quota_is_not_believed_to_be_back_in_seconds():
    outage = record_outage(None, failure(Kind.QUOTA_EXHAUSTED, retry_at=NOW + 7), now=NOW, now_wall=WALL)
    assert outage.until_wall == WALL + 60


def test_failures_that_were_under_way_double_nothing():
    first = record_outage(None, failure(), now=NOW, now_wall=WALL)
    again = record_outage(first, failure(), now=NOW + 1, now_wall=WALL + 1)
    assert again == first
    longer = record_outage(first, failure(retry_at=NOW + 600), now=NOW + 1, now_wall=WALL + 1)
    assert longer.until_wall == WALL + 600
    assert longer.failures == 1


def test_one_caller_probes_and_the_others_wait_for_its_verdict():
    outage, due = failed(1)
    assert health_of(outage, due - 1) is Health.COOLING
    assert claim_probe(outage, "one", due - 1) is None
    assert health_of(outage, due) is Health.DUE
    probing = claim_probe(outage, "one", due)
    assert health_of(probing, due) is Health.PROBING
    assert claim_probe(probing, "other", due + 1) is None
    assert is_out(probing, due + 1, "other")
    assert not is_out(probing, due + 1, "one")


def test_a_prober_that_died_is_followed_by_another():
    outage, due = failed(1)
    probing = claim_probe(outage, "one", due)
    late = due + PROBE_SECONDS
    assert health_of(probing, late) is Health.DUE
    assert claim_probe(probing, "other", late).prober == "other"


def test_a_failed_probe_doubles_and_ends_the_probe():
    outage, due = failed(1)
    probing = claim_probe(outage, "one", due)
    again = record_outage(probing, failure(), now=NOW, now_wall=due + 1)
    assert again.until_wall == due + 1 + 120
    assert again.prober is None


def test_nothing_known_is_healthy():
    assert health_of(None, WALL) is Health.HEALTHY
    assert not is_out(None, WALL)


@given(
    st.builds(
        Outage,
        until_wall=st.floats(0, 1e12),
        failures=st.integers(1, 99),
        kind=st.sampled_from(Kind),
        prober=st.none() | st.text(),
        probe_until_wall=st.floats(0, 1e12),
        routes=st.lists(st.text(), max_size=3).map(tuple),
    )
)
def test_json_gives_the_outage_back(outage):
    assert from_json(to_json(outage)) == outage


def test_the_last_routes_that_told_of_an_outage_are_remembered_once_each():
    outage, _ = failed(1)
    for route in ("one/a", "one/b", "one/a"):
        outage = told_by(outage, route)
    assert outage.routes == ("one/b", "one/a")

    for number in range(WITNESSES_KEPT):
        outage = told_by(outage, f"one/{number}")
    assert outage.routes == tuple(f"one/{number}" for number in range(WITNESSES_KEPT))


@given(st.lists(st.tuples(st.sampled_from(Kind), st.none() | st.floats(-1e5, 1e5), st.floats(0, 1e4)), max_size=20))
def test_an_outage_never_ends_before_it_began_nor_grows_without_a_word(story):
    outage, wall = None, WALL
    for kind, hint, pause in story:
        wall += pause
        retry_at = None if hint is None else NOW + hint
        outage = record_outage(outage, failure(kind, retry_at=retry_at), now=NOW, now_wall=wall)
        assert outage.until_wall >= wall
        assert outage.until_wall <= max(wall + LONGEST_COOLDOWN, wall + (hint or 0), WALL + 2e5 + wall - WALL)
