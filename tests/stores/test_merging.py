"""Of two values that were written apart, which goes on: the table of `stores.merging`."""

from __future__ import annotations

import pytest

from fallback_plugin.stores.merging import merge

INTENT = {"session": "s"}


def turn(*advances, stage="made", **more):
    return {"stage": stage, "advances": [list(advance) for advance in advances], "intent": None, **more}


def pending(*advances):
    return {**turn(*advances, stage="pending"), "intent": INTENT}


@pytest.mark.parametrize(
    ("kind", "older", "newer", "goes_on"),
    [
        ("health", {"until_wall": 9.0}, {"until_wall": 5.0}, {"until_wall": 9.0}),
        ("health", {"until_wall": 5.0}, {"until_wall": 9.0}, {"until_wall": 9.0}),
        ("health", {"until_wall": 5.0, "a": 1}, {"until_wall": 5.0, "a": 2}, {"until_wall": 5.0, "a": 2}),
        ("health", {}, {"until_wall": 1.0}, {"until_wall": 1.0}),
        # An intent whose advance nobody else knows is not lost, whoever wrote last.
        ("turn", pending(("m1", "a")), turn(("m0", "a")), pending(("m1", "a"), ("m0", "a"))),
        # One that somebody else has carried out is over.
        ("turn", pending(("m1", "a")), turn(("m1", "a")), turn(("m1", "a"))),
        ("turn", pending(("m1", "a")), pending(("m1", "a"), ("m1", "b")), pending(("m1", "a"), ("m1", "b"))),
        ("turn", turn(("m1", "a")), pending(("m2", "a")), pending(("m1", "a"), ("m2", "a"))),
        ("turn", {}, pending(("m1", "a")), pending(("m1", "a"))),
        ("conversation", {"generation": 3, "a": 1}, {"generation": 2, "a": 2}, {"generation": 3, "a": 1}),
        ("conversation", {"generation": 2, "a": 1}, {"generation": 2, "a": 2}, {"generation": 2, "a": 2}),
        ("conversation", {"a": 1}, {"generation": 1}, {"generation": 1}),
        ("any", {"a": 9}, {"a": 1}, {"a": 1}),
    ],
)
def test_what_goes_on(kind, older, newer, goes_on):
    assert merge(kind, older, newer) == goes_on


@pytest.mark.parametrize("kind", ["health", "turn", "conversation", "any"])
def test_a_value_merged_with_itself_is_itself(kind):
    value = pending(("m1", "a")) | {"until_wall": 1.0, "generation": 1}
    assert merge(kind, value, value) == value
