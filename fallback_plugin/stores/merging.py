"""Of two values that were written apart, in an outage of the store, which goes on.

| kind         | what goes on                                                                                      |
|--------------|---------------------------------------------------------------------------------------------------|
| health       | the later deadline: a provider that somebody has seen fail is not asked too early                 |
| turn         | the newer one with the advances of both; an older intent whose advance it doesn't know stays: an |
|              | intent is never lost (K-W3)                                                                       |
| conversation | the higher generation, of equal ones the newer: a late attempt's writing is stale                 |
| any other    | the newer one, by the writers' clocks                                                             |

A value goes on over a deletion that was made apart from it, except that a newer deletion drops what is neither a turn
nor a conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fallback_plugin.stores.base import Json

Merge = Callable[[Json, Json], Json]
"""Given the older and the newer value, by the writers' clocks: the one that goes on."""

LASTING = frozenset({"turn", "conversation"})
"""Kinds whose records hold a user's message: no deletion that was made apart drops them."""


def merge_health(older: Json, newer: Json) -> Json:
    return older if older.get("until_wall", 0.0) > newer.get("until_wall", 0.0) else newer


def merge_turn(older: Json, newer: Json) -> Json:
    known = list(newer.get("advances", ()))
    advances = [*(advance for advance in older.get("advances", ()) if advance not in known), *known]
    intended = older.get("advances", ())[-1:]
    goes_on = older if older.get("intent") and intended and intended[0] not in known else newer
    return {**goes_on, "advances": advances}


def merge_conversation(older: Json, newer: Json) -> Json:
    return older if older.get("generation", 0) > newer.get("generation", 0) else newer


MERGES: Mapping[str, Merge] = MappingProxyType(
    {"health": merge_health, "turn": merge_turn, "conversation": merge_conversation}
)


def merge(kind: str, older: Json, newer: Json) -> Json:
    """The value that goes on, by the table above."""
    rule = MERGES.get(kind)
    return rule(older, newer) if rule else newer
