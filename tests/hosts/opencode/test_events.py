"""OpenCode's events as core values: what is read of each, what is malformed, and what is passed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback_plugin.core.events import (
    AssistantMessage,
    InspectedMessage,
    MessageRemoved,
    MessageUpdated,
    PartDeltaReceived,
    PartType,
    PartUpdated,
    SessionCompacted,
    SessionCreated,
    SessionDeleted,
    SessionErrored,
    SessionIdled,
    SessionStatusChanged,
    ToolExecuted,
    UserMessage,
)
from fallback_plugin.core.failure import Facts
from fallback_plugin.hosts.opencode.events import (
    _PARSERS,
    MalformedEvent,
    parse_error,
    parse_event,
    parse_history,
    parse_message,
    parse_status,
)

NOW = 1_795_247_222.0
SES = "ses_1"
RECORDINGS = sorted((Path(__file__).parents[2] / "data" / "recordings").glob("*.json"))


def event(kind, **properties):
    return {"id": "evt_1", "type": kind, "properties": properties}


def user_info(**fields):
    return {
        "id": "u1",
        "sessionID": SES,
        "role": "user",
        "time": {"created": 1_795_247_222_179},
        "agent": "build",
        "model": {"providerID": "fake", "modelID": "org/primary"},
        **fields,
    }


def assistant_info(**fields):
    return {
        "id": "m1",
        "sessionID": SES,
        "role": "assistant",
        "parentID": "u1",
        "providerID": "fake",
        "modelID": "primary",
        "agent": "build",
        "mode": "build",
        "time": {"created": 1_795_247_222_200},
        **fields,
    }


API_ERROR = {
    "name": "APIError",
    "data": {
        "message": "Insufficient Balance",
        "statusCode": 402,
        "isRetryable": False,
        "responseHeaders": {"content-type": "application/json"},
        "responseBody": '{"error":{"message":"Insufficient Balance"}}',
    },
}
API_FACTS = Facts(
    status=402,
    headers={"content-type": "application/json"},
    body='{"error":{"message":"Insufficient Balance"}}',
    name="APIError",
    message="Insufficient Balance",
    observed_at_wall=NOW,
)
PRIMARY_ANSWER = AssistantMessage(message_id="m1", parent_id="u1", route="fake/primary", agent="build")

PARSED = [
    (
        event("message.updated", sessionID=SES, info=user_info()),
        MessageUpdated(
            session_id=SES,
            message=UserMessage(
                message_id="u1", created_wall=1_795_247_222.179, agent="build", route="fake/org/primary"
            ),
        ),
    ),
    (
        event("message.updated", info=user_info(system="Be terse.", tools={"bash": False}, format={"type": "text"})),
        MessageUpdated(
            session_id=SES,
            message=UserMessage(
                message_id="u1",
                created_wall=1_795_247_222.179,
                agent="build",
                route="fake/org/primary",
                carried={"system": "Be terse.", "tools": {"bash": False}, "format": {"type": "text"}},
            ),
        ),
    ),
    (
        event("message.updated", sessionID=SES, info={"role": "user", "id": "u1"}),
        MessageUpdated(session_id=SES, message=UserMessage(message_id="u1", created_wall=0.0)),
    ),
    (
        event("message.updated", sessionID=SES, info=assistant_info()),
        MessageUpdated(session_id=SES, message=PRIMARY_ANSWER),
    ),
    (
        event(
            "message.updated",
            sessionID=SES,
            info=assistant_info(finish="stop", time={"created": 1, "completed": 2}, mode="compaction"),
        ),
        MessageUpdated(
            session_id=SES,
            message=AssistantMessage(
                message_id="m1",
                parent_id="u1",
                route="fake/primary",
                agent="build",
                finish="stop",
                completed=True,
                compaction=True,
            ),
        ),
    ),
    (event("message.updated", sessionID=SES, info={"role": "system", "id": "x"}), None),
    (
        event(
            "message.part.updated",
            sessionID=SES,
            part={"id": "p1", "messageID": "m1", "type": "text", "text": "hello", "sessionID": SES},
        ),
        PartUpdated(
            session_id=SES, message_id="m1", part_id="p1", part_type=PartType.TEXT, has_content=True, tool_status=None
        ),
    ),
    (
        event("message.part.updated", part={"id": "p1", "messageID": "m1", "type": "reasoning", "sessionID": SES}),
        PartUpdated(session_id=SES, message_id="m1", part_id="p1", part_type=PartType.REASONING),
    ),
    *[
        (
            event(
                "message.part.updated",
                sessionID=SES,
                part={"id": "t1", "messageID": "m1", "type": "tool", "state": {"status": status}},
            ),
            PartUpdated(session_id=SES, message_id="m1", part_id="t1", part_type=PartType.TOOL, tool_status=status),
        )
        for status in ("pending", "running", "completed", "error")
    ],
    (
        event(
            "message.part.updated",
            sessionID=SES,
            part={"id": "t1", "messageID": "m1", "type": "tool", "state": {"status": "new"}},
        ),
        PartUpdated(session_id=SES, message_id="m1", part_id="t1", part_type=PartType.TOOL),
    ),
    *[
        (
            event("message.part.updated", sessionID=SES, part={"id": "p1", "messageID": "m1", "type": kind}),
            PartUpdated(session_id=SES, message_id="m1", part_id="p1", part_type=part_type),
        )
        for kind, part_type in [
            ("compaction", PartType.COMPACTION),
            ("step-finish", PartType.OTHER),
            ("x", PartType.OTHER),
        ]
    ],
    (
        event("message.part.delta", sessionID=SES, messageID="m1", partID="p1", field="text", delta="hi"),
        PartDeltaReceived(session_id=SES, message_id="m1", part_id="p1"),
    ),
    (
        event("message.removed", sessionID=SES, messageID="m1"),
        MessageRemoved(session_id=SES, message_id="m1"),
    ),
    (event("session.error", sessionID=SES, error=API_ERROR), SessionErrored(session_id=SES, facts=API_FACTS)),
    (event("session.error", error=API_ERROR), None),
    (
        event("session.status", sessionID=SES, status={"type": "busy"}),
        SessionStatusChanged(session_id=SES, status="busy"),
    ),
    (
        event("session.status", sessionID=SES, status={"type": "idle"}),
        SessionStatusChanged(session_id=SES, status="idle"),
    ),
    (event("session.status", sessionID=SES, status={"type": "new one"}), None),
    (
        event(
            "session.status",
            sessionID=SES,
            status={"type": "retry", "attempt": 1, "message": "Rate limit reached", "next": (NOW + 2) * 1000},
        ),
        SessionStatusChanged(
            session_id=SES,
            status="retry",
            attempt=1,
            facts=Facts(message="Rate limit reached", observed_at_wall=NOW),
        ),
    ),
    (event("session.idle", sessionID=SES), SessionIdled(session_id=SES)),
    (event("session.compacted", sessionID=SES), SessionCompacted(session_id=SES)),
    (event("session.created", sessionID=SES, info={"id": SES}), SessionCreated(session_id=SES)),
    (
        event("session.created", info={"id": SES, "parentID": "ses_0"}),
        SessionCreated(session_id=SES, parent_id="ses_0"),
    ),
    (event("session.deleted", info={"id": SES}), SessionDeleted(session_id=SES)),
    (event("tool.executed", sessionID=SES, tool="bash", callID="c1"), ToolExecuted(session_id=SES)),
]


@pytest.mark.parametrize(("raw", "parsed"), PARSED, ids=[f"{raw['type']} {n}" for n, (raw, _) in enumerate(PARSED)])
def test_each_type_is_read(raw, parsed):
    assert parse_event(raw, NOW) == parsed


def test_the_table_above_has_every_type():
    assert {raw["type"] for raw, _ in PARSED} == set(_PARSERS)


MALFORMED = [
    None,
    "text",
    7,
    [],
    [event("session.idle", sessionID=SES)],
    *[{"type": kind} for kind in _PARSERS],
    *[{"type": kind, "properties": None} for kind in _PARSERS],
    *[{"type": kind, "properties": []} for kind in _PARSERS],
    *[event(kind) for kind in _PARSERS if kind != "session.error"],
    event("message.updated", sessionID=SES, info="x"),
    event("message.updated", info={"role": "user", "id": "u1"}),
    event("message.updated", sessionID=SES, info={"role": "user"}),
    event("message.updated", sessionID=SES, info={"role": "assistant", "id": 7}),
    event("message.updated", sessionID=SES, info={"role": "assistant", "id": ""}),
    event("message.part.updated", sessionID=SES, part=None),
    event("message.part.updated", sessionID=SES, part={"id": "p1", "messageID": "m1"}),
    event("message.part.updated", sessionID=SES, part={"id": "p1", "type": "text"}),
    event("message.part.updated", sessionID=SES, part={"messageID": "m1", "type": "text"}),
    event("message.part.updated", part={"id": "p1", "messageID": "m1", "type": "text"}),
    event("message.part.delta", sessionID=SES, messageID="m1"),
    event("message.part.delta", sessionID=SES, partID="p1"),
    event("message.removed", sessionID=SES),
    event("session.status", sessionID=SES, status="busy"),
    event("session.status", status={"type": "busy"}),
    event("session.idle", sessionID=5),
    event("session.deleted", info={}),
    event("session.created", info={"id": None}),
]


@pytest.mark.parametrize("raw", MALFORMED, ids=lambda raw: json.dumps(raw)[:70])
def test_a_known_type_in_an_unknown_shape_is_malformed(raw):
    with pytest.raises(MalformedEvent):
        parse_event(raw, NOW)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"type": None},
        {"type": ["session.idle"]},
        {"type": {}},
        event("server.connected"),
        event("server.heartbeat"),
        event("file.edited", file="x"),
        event("session.updated", sessionID=SES, info={"id": SES}),
    ],
    ids=json.dumps,
)
def test_an_unknown_type_is_passed_over(raw):
    assert parse_event(raw, NOW) is None


# Valid JSON all of them: a server's bug must cost one event, not the connection.
ODD = [
    event(
        "message.part.updated",
        sessionID=SES,
        part={"id": "p", "messageID": "m", "type": "tool", "state": {"status": []}},
    ),
    event(
        "message.part.updated",
        sessionID=SES,
        part={"id": "p", "messageID": "m", "type": "tool", "state": {"status": {}}},
    ),
    event("session.status", sessionID=SES, status={"type": "retry", "attempt": 1e999, "next": 1e999}),
    event("session.status", sessionID=SES, status={"type": "retry", "attempt": float("nan"), "next": float("nan")}),
    event("session.status", sessionID=SES, status={"type": "retry", "attempt": -(10**400), "next": 10**400}),
    event("session.status", sessionID=SES, status={"type": ["retry"]}),
    event("session.error", sessionID=SES, error={"data": {"statusCode": 1e999}}),
    event("session.error", sessionID=SES, error={"data": {"statusCode": float("nan")}}),
    event("session.error", sessionID=SES, error=[1, 2]),
    event("session.error", sessionID=SES, error=None),
    event("message.updated", sessionID=SES, info=user_info(time={"created": 10**400})),
    event("message.updated", sessionID=SES, info=user_info(model=[], agent={}, time=[])),
    event("message.updated", sessionID=SES, info=assistant_info(error=[], time=3, finish={}, mode=[])),
    event("message.updated", sessionID=SES, info=assistant_info(error="boom")),
    event("message.updated", sessionID=SES, info=assistant_info(error={"data": "x", "name": 3})),
    event("message.updated", sessionID=SES, info={"role": [], "id": "x"}),
]


@pytest.mark.parametrize("raw", ODD, ids=lambda raw: json.dumps(raw)[:90])
def test_odd_values_where_nothing_hangs_on_them_raise_nothing_but_malformed(raw):
    try:
        parsed = parse_event(raw, NOW)
    except MalformedEvent:
        return

    assert parsed is None or parsed.session_id == SES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["sessionID", "messageID", "partID", "info", "part", "id", "role", "type", "status", "state", "attempt", "next", "error",
     "data", "statusCode", "responseHeaders", "message", "time", "created", "completed", "model", "providerID", "modelID",
     "parentID", "finish", "mode", "text", "system", "tools"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["user", "assistant", "retry", "busy", "idle", "tool", "text", "running", SES, "m1", "compaction", ""]
)
NEAR = st.recursive(
    WORDS | JSON,
    lambda inner: st.dictionaries(KEYS, inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=25,
)


@settings(max_examples=400, deadline=None)
@given(raw=JSON | st.fixed_dictionaries({"type": st.sampled_from(sorted(_PARSERS)), "properties": NEAR}))
def test_any_json_is_an_event_or_nothing_or_malformed(raw):
    try:
        parsed = parse_event(raw, NOW)
    except MalformedEvent:
        return

    assert parsed is None or isinstance(parsed.session_id, str)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_value_in_place_of_a_right_one_is_read_or_malformed(data):
    raw = json.loads(json.dumps(data.draw(st.sampled_from([raw for raw, _ in PARSED]))))
    holder, key = data.draw(st.sampled_from(list(_places(raw["properties"]))))
    holder[key] = data.draw(NEAR)
    try:
        parsed = parse_event(raw, NOW)
    except MalformedEvent:
        return

    assert parsed is None or (isinstance(parsed.session_id, str) and parsed.session_id)


def _places(value):
    for key, inner in value.items():
        yield value, key
        if isinstance(inner, dict):
            yield from _places(inner)


@settings(max_examples=200, deadline=None)
@given(messages=st.lists(st.fixed_dictionaries({"info": NEAR, "parts": NEAR}), max_size=3) | JSON | NEAR)
def test_any_json_is_a_history_or_malformed(messages):
    try:
        newest, answers = parse_history(messages, NOW)
    except MalformedEvent:
        return

    assert newest is None or isinstance(newest, UserMessage)
    assert all(isinstance(found, InspectedMessage) for found in answers)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_every_recorded_event_and_history_is_read(path):
    recording = json.loads(path.read_text())
    read = [parse_event(raw, NOW) for raw in recording["events"]]
    newest, _ = parse_history(recording["messages"], NOW)

    assert sum(parsed is not None for parsed in read) > 5
    assert newest is not None


def test_the_recordings_are_there():
    assert len(RECORDINGS) == 25


# ── the host's next try: its own backoff, or the provider's Retry-After ──────────────────────────────────────────


@pytest.mark.parametrize(
    ("attempt", "wait", "is_hint"),
    [
        (1, 2.0, False),
        (1, 2.4, False),
        (1, 3.1, True),
        (1, 60.0, True),
        (2, 5.0, False),
        (2, 5.6, True),
        (3, 10.0, False),
        (3, 11.0, True),
        (6, 30.0, False),
        (6, 34.9, False),
        (6, 36.0, True),
        (1000, 30.0, False),
        (1000, 86_400.0, True),
        (1, 86_400.0, True),
        (0, 2.0, False),
        (1, -5.0, False),
    ],
)
def test_a_next_try_beyond_the_hosts_own_backoff_is_the_providers_hint(attempt, wait, is_hint):
    status = {"type": "retry", "attempt": attempt, "message": "x", "next": (NOW + wait) * 1000}
    parsed = parse_status(SES, status, NOW)

    assert (parsed.facts.host_retry_at_wall is not None) == is_hint
    if is_hint:
        assert parsed.facts.host_retry_at_wall == pytest.approx(NOW + wait)


def test_a_retry_without_a_next_try_has_no_hint():
    parsed = parse_status(SES, {"type": "retry"}, NOW)

    assert parsed == SessionStatusChanged(session_id=SES, status="retry", facts=Facts(observed_at_wall=NOW))


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_provider_of_an_assistants_error_is_kept():
    message = parse_message(assistant_info(error=API_ERROR), NOW)

    assert message.error.provider == "fake"
    assert message.error.status == 402


@pytest.mark.parametrize("error", [None, {}, [], ""], ids=repr)
def test_an_empty_error_of_a_message_is_none(error):
    assert parse_message(assistant_info(error=error), NOW).error is None


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        ("boom", Facts(message="boom", observed_at_wall=NOW)),
        ({"name": "UnknownError", "message": "top"}, Facts(name="UnknownError", message="top", observed_at_wall=NOW)),
        (
            {"name": "X", "data": {"message": "inner"}, "message": "top"},
            Facts(name="X", message="inner", observed_at_wall=NOW),
        ),
        ({"data": {"statusCode": True}}, Facts(observed_at_wall=NOW)),
        ({"data": {"statusCode": "429"}}, Facts(observed_at_wall=NOW)),
        ({"data": {"statusCode": 429.0}}, Facts(status=429, observed_at_wall=NOW)),
        (
            {"data": {"responseHeaders": {"retry-after": 60}}},
            Facts(headers={"retry-after": "60"}, observed_at_wall=NOW),
        ),
    ],
)
def test_an_error_of_any_shape_is_facts(error, facts):
    assert parse_error(error, NOW) == facts


def test_a_huge_error_text_is_cut():
    assert len(parse_error("x" * 1_000_000, NOW).message) == 2000


# ── histories ────────────────────────────────────────────────────────────────────────────────────────────────────


def entry(info, *parts):
    return {"info": info, "parts": list(parts)}


def text(part_id, words="words"):
    return {"id": part_id, "type": "text", "text": words}


def tool(part_id, status="completed"):
    return {"id": part_id, "type": "tool", "state": {"status": status}}


def test_a_history_gives_its_newest_prompt_and_what_answers_it():
    history = [
        entry(user_info(id="u0", time={"created": 1000})),
        entry(assistant_info(id="m0", parentID="u0", finish="stop")),
        entry(user_info(id="u1", time={"created": 2000})),
        entry(
            assistant_info(id="m1"), text("p1"), tool("t1"), text("p2"), {"id": "p3", "type": "reasoning", "text": "r"}
        ),
        entry(assistant_info(id="m2"), tool("t2", "running")),
        entry({"id": "s", "role": "system"}),
    ]
    user, answers = parse_history(history, NOW)

    assert user.message_id == "u1"
    assert [found.message.message_id for found in answers] == ["m1", "m2"]
    assert answers[0] == InspectedMessage(
        message=PRIMARY_ANSWER, has_text=True, has_finished_tool=True, tail_parts=("p2", "p3")
    )
    assert answers[1].running_tools == frozenset({"t2"})


def test_the_newest_prompt_is_the_one_created_last_not_the_last_in_the_list():
    history = [
        entry(user_info(id="new", time={"created": 5000})),
        entry(user_info(id="old", time={"created": 1000})),
    ]

    assert parse_history(history, NOW)[0].message_id == "new"


@pytest.mark.parametrize(
    ("parts", "asks"),
    [
        ([{"id": "p1", "type": "compaction", "auto": False}], True),
        ([text("p1")], False),
        ([], False),
        (None, False),
        (["junk", 3], False),
    ],
)
def test_a_request_for_a_summary_is_told_by_its_part(parts, asks):
    history = [{"info": user_info(), "parts": parts}, entry(assistant_info(mode="compaction"))]

    assert parse_history(history, NOW)[0].compaction is asks


@pytest.mark.parametrize(
    ("parts", "flags"),
    [
        ([], (False, False, ())),
        ([text("p1", "")], (False, False, ())),
        ([text("p1")], (True, False, ("p1",))),
        ([{"id": "p1", "type": "step-start"}, {"id": "p2", "type": "patch"}], (False, False, ())),
        ([tool("t1")], (False, True, ())),
        ([text("p1"), tool("t1")], (True, True, ())),
        (None, (False, False, ())),
        (["junk", 3], (False, False, ())),
    ],
)
def test_the_parts_of_an_answer_are_a_few_flags(parts, flags):
    history = [entry(user_info()), {"info": assistant_info(), "parts": parts}]
    [found] = parse_history(history, NOW)[1]

    assert (found.has_text, found.has_finished_tool, found.tail_parts) == flags


def test_an_empty_history_holds_no_turn():
    assert parse_history([], NOW) == (None, ())


@pytest.mark.parametrize("history", [None, {}, "x", [None], [{"info": 3}], [{}]], ids=repr)
def test_what_is_no_list_of_messages_is_malformed(history):
    with pytest.raises(MalformedEvent):
        parse_history(history, NOW)
