"""Which session a call of the task tool has started, where the host has lost the name."""

from __future__ import annotations

from itertools import permutations

import pytest

from fallback_plugin.hosts.opencode.events import parse_event
from fallback_plugin.hosts.opencode.task_calls import CHILDREN_KEPT, TaskCalls, name_children, title_of

BOSS = "ses_boss"
NOW = 1_795_247_222.0


def created(child, description="look", parent=BOSS):
    info = {"id": child, "parentID": parent, "title": f"{description} (@explore subagent)"}
    return {"type": "session.created", "properties": {"sessionID": child, "info": info}}


def part(part_id, description="look", *, status="running", child=None, tool="task"):
    asked = {"description": description, "subagent_type": "explore", "prompt": "go"} if status != "pending" else {}
    metadata = {"sessionId": child} if child else {}
    state = {"status": status, "input": asked, "metadata": metadata}
    return {"id": part_id, "messageID": "m1", "sessionID": BOSS, "type": "tool", "tool": tool, "state": state}


def updated(*arguments, **options):
    return {"type": "message.part.updated", "properties": {"part": part(*arguments, **options)}}


def children_of(*told):
    """Which sessions the parts are said to have started, in the order of the events."""
    calls = TaskCalls()
    events = [calls.complete(parse_event(raw, NOW), raw) for raw in told]
    return [event.child_id for event, raw in zip(events, told, strict=True) if raw["type"] == "message.part.updated"]


def test_a_call_that_lost_the_name_of_its_session_is_known_by_the_title():
    assert children_of(created("ses_1"), updated("t1", status="pending"), updated("t1")) == [None, "ses_1"]


def test_a_name_that_the_host_gives_counts():
    told = (created("ses_1"), created("ses_2"), updated("t1", child="ses_2"), updated("t2"))
    assert children_of(*told) == ["ses_2", "ses_1"]


@pytest.mark.parametrize("order", list(permutations(["one", "two", "three"])))
def test_calls_side_by_side_are_told_apart(order):
    sessions = [created(f"ses_{name}", name) for name in ("one", "two", "three")]
    assert children_of(*sessions, *(updated(f"t_{name}", name) for name in order)) == [f"ses_{name}" for name in order]


def test_equal_calls_are_taken_in_their_order_and_none_twice():
    told = (created("ses_1"), created("ses_2"), updated("t1"), updated("t2"), updated("t3"))
    assert children_of(*told) == ["ses_1", "ses_2", None]


@pytest.mark.parametrize(
    "told",
    [
        (updated("t1"),),
        (created("ses_1", "another"), updated("t1")),
        (created("ses_1", parent="ses_0"), updated("t1")),
        (created("ses_1"), updated("t1", tool="bash")),
        (created("ses_1"), updated("t1", status="completed")),
        (created("ses_1"), updated("t1", description=None)),
    ],
    ids=["none was made", "another title", "another parent", "another tool", "over", "no description"],
)
def test_what_does_not_fit_stays_unknown(told):
    assert children_of(*told) == [None]


def test_sessions_that_no_call_has_started_are_forgotten():
    calls = TaskCalls()
    for number in range(CHILDREN_KEPT + 1):
        raw = created(f"ses_{number}", str(number))
        calls.complete(parse_event(raw, NOW), raw)

    first, last = updated("t1", "0"), updated("t2", str(CHILDREN_KEPT))
    assert calls.complete(parse_event(first, NOW), first).child_id is None
    assert calls.complete(parse_event(last, NOW), last).child_id == f"ses_{CHILDREN_KEPT}"


# ── in a history ─────────────────────────────────────────────────────────────────────────────────────────────────


def session(child, at, description="look"):
    return {"id": child, "title": f"{description} (@explore subagent)", "time": {"created": at}}


def named(history):
    return [each["state"]["metadata"].get("sessionId") for message in history for each in message["parts"]]


async def test_calls_at_work_in_a_history_get_the_newest_sessions_of_their_titles(server, client):
    listed = [session("ses_4", 4), session("ses_3", 3), session("ses_2", 2, "other"), session("ses_1", 1)]
    server.on("GET", f"/session/{BOSS}/children", listed)
    history = [{"parts": [part("t0", status="error"), part("t1")]}, {"parts": [part("t2"), part("t3", "other")]}]
    await name_children(client, BOSS, history)

    assert named(history) == [None, "ses_3", "ses_4", "ses_2"]


async def test_a_session_that_another_part_names_is_not_given_away(server, client):
    server.on("GET", f"/session/{BOSS}/children", [session("ses_1", 1), session("ses_2", 2)])
    history = [{"parts": [part("t1"), part("t2", child="ses_2")]}]
    await name_children(client, BOSS, history)

    assert named(history) == ["ses_1", "ses_2"]


@pytest.mark.parametrize("answer", [404, 500, [], {}, [{"title": 7, "time": 3}, None]])
async def test_a_history_stays_as_it_is_where_the_server_does_not_help(server, client, answer):
    server.on("GET", f"/session/{BOSS}/children", answer)
    history = [{"parts": [part("t1")]}]
    await name_children(client, BOSS, history)

    assert named(history) == [None]


@pytest.mark.parametrize(
    "parts", [[part("t1", child="ses_1")], [part("t1", status="completed")], [part("t1", tool="bash")]]
)
async def test_nobody_is_asked_where_nothing_is_missing(server, client, parts):
    await name_children(client, BOSS, [{"parts": parts}])

    assert server.requests == []


@pytest.mark.parametrize(
    "broken", [{}, {"tool": "task"}, {"tool": "task", "state": 7}, {"tool": "task", "state": {"input": []}}]
)
def test_what_is_no_call_has_no_title(broken):
    assert title_of(broken) is None
