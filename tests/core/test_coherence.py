"""The truth table of cached records, rows H01-H08 and K-H4, cell by cell."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.core.coherence import Baseline, Current, Verdict, decide, follow_write, rebaseline

ENTRY = Baseline(signature="s", session_id="A", revision=3)
CURRENT = Current(session_id="A", signature="s", revision=3)


def entry(**changes):
    return Baseline(**{"signature": "s", "session_id": "A", "revision": 3, **changes})


def current(**changes):
    return Current(**{"signature": "s", "session_id": "A", "revision": 3, **changes})


@pytest.mark.parametrize(
    ("cached", "asked", "verdict"),
    [
        pytest.param(None, current(), Verdict.BUILD, id="nothing cached"),
        pytest.param(entry(), current(signature="t"), Verdict.BUILD, id="other configuration"),
        pytest.param(entry(), current(signature="t", revision=9, entry_ended=True), Verdict.BUILD, id="and written"),
        pytest.param(entry(pending=True), current(revision=9, entry_ended=True), Verdict.REUSE, id="being built"),
        pytest.param(entry(guarded=False), current(revision=9), Verdict.REUSE, id="unguarded"),
        pytest.param(entry(), current(entry_ended=True), Verdict.DROP, id="ended"),
        pytest.param(entry(), current(session_id="B", entry_ended=True), Verdict.DROP, id="ended, other session"),
        pytest.param(entry(), current(session_id="B", revision=9), Verdict.REUSE, id="other session"),
        pytest.param(entry(), current(), Verdict.REUSE, id="same revision"),
        pytest.param(entry(), current(revision=4), Verdict.DROP, id="other revision"),
        pytest.param(entry(), current(revision=2), Verdict.DROP, id="older revision"),
        pytest.param(entry(), current(revision=None), Verdict.REUSE, id="record unknown"),
        pytest.param(entry(revision=None), current(), Verdict.REUSE, id="baseline unknown"),
        pytest.param(entry(session_id=None), current(revision=4), Verdict.DROP, id="session unknown"),
        pytest.param(entry(session_id=None), current(), Verdict.REUSE, id="session unknown, same revision"),
    ],
)
def test_h08_the_table(cached, asked, verdict):
    assert decide(cached, asked) is verdict


@pytest.mark.parametrize(
    ("cached_id", "cached_revision", "asked_revision", "ended"),
    list(product((None, "A", "B"), (None, 1, 2), (None, 1, 2), (False, True))),
)
def test_h08_dropped_only_after_a_known_write_to_the_same_session_or_its_end(
    cached_id, cached_revision, asked_revision, ended
):
    cached = entry(session_id=cached_id, revision=cached_revision)
    asked = current(session_id="A", revision=asked_revision, entry_ended=ended)

    known = cached_revision is not None and asked_revision is not None
    written = cached_id in (None, "A") and known and cached_revision != asked_revision
    assert decide(cached, asked) is (Verdict.DROP if written or ended else Verdict.REUSE)


def test_h01_another_session_under_the_same_key_reuses_and_changes_nothing():
    assert decide(ENTRY, current(session_id="B", revision=50)) is Verdict.REUSE
    assert rebaseline(ENTRY, "B", 50) is ENTRY


def test_h02_five_own_turns_reuse_five_times():
    cached = ENTRY
    for revision in range(4, 9):
        cached = follow_write(cached, "A", revision)
        assert decide(cached, current(revision=revision)) is Verdict.REUSE


def test_h03_a_foreign_write_after_our_own_drops():
    cached = follow_write(ENTRY, "A", 4)
    assert decide(cached, current(revision=5)) is Verdict.DROP


def test_h04_another_sessions_write_leaves_count_and_id():
    assert rebaseline(ENTRY, "B", 8) == ENTRY
    assert follow_write(ENTRY, "B", 4) == ENTRY


def test_h05_the_same_sessions_write_stores_its_revision():
    assert rebaseline(ENTRY, "A", 8) == entry(revision=8)


@pytest.mark.parametrize("cached", [entry(guarded=False), entry(pending=True)], ids=["unguarded", "being built"])
def test_h06_unguarded_and_pending_entries_stay_as_they_are(cached):
    assert decide(cached, current(revision=99)) is Verdict.REUSE
    assert rebaseline(cached, "A", 99) is cached


def test_h07_an_entry_of_no_known_session_is_guarded_and_stays_of_none():
    cached = entry(session_id=None)
    assert decide(cached, current(revision=4)) is Verdict.DROP

    moved = rebaseline(cached, "A", 4)
    assert moved == entry(session_id=None, revision=4)
    assert decide(moved, current(revision=4)) is Verdict.REUSE


def test_h10_a_revision_that_could_not_be_read_leaves_the_entry():
    assert rebaseline(ENTRY, "A", None) is ENTRY


def test_k_h4_an_entry_of_an_ended_session_is_dropped_whatever_is_asked_for():
    for session_id in ("A", "B"):
        assert decide(ENTRY, current(session_id=session_id, entry_ended=True)) is Verdict.DROP


def test_k_h2_a_foreign_write_between_two_own_ones_is_not_hidden():
    cached = follow_write(ENTRY, "A", 4)
    cached = follow_write(cached, "A", 6)
    cached = follow_write(cached, "A", 7)

    assert cached.revision == 4
    assert decide(cached, current(revision=7)) is Verdict.DROP


@given(st.lists(st.sampled_from(["own", "foreign"]), max_size=30))
def test_k_h1_an_entry_is_dropped_exactly_when_somebody_else_wrote(writers):
    cached, revision = ENTRY, 3
    for writer in writers:
        revision += 1
        if writer == "own":
            cached = follow_write(cached, "A", revision)

    expected = Verdict.DROP if "foreign" in writers else Verdict.REUSE
    assert decide(cached, current(revision=revision)) is expected
