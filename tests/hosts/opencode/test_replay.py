"""Replay as a new message: the 23 cases of the TypeScript plugin's message-replay.test.ts, on our tiers (S13).

There a tier is a filter and a loop sends; here `replay_tiers` lists what to send and `OpenCodeHost` sends it. The
second tier keeps `file` parts: the real host has no `image` (K23).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.core.actions import DispatchTurn
from fallback_plugin.hosts.opencode.host import OpenCodeHost
from fallback_plugin.hosts.opencode.replay import replay_tiers

MESSAGE_PATH = "/session/ses_1/message/u1"
PROMPT_PATH = "/session/ses_1/prompt_async"
TURN = DispatchTurn(session_id="ses_1", generation=3, user_message_id="u1", route="two/b", agent="build", replay=True)

TEXT = {"type": "text", "text": "say hi"}
MORE = {"type": "text", "text": "and more"}
FILE = {"type": "file", "mime": "image/png", "url": "data:image/png;base64,AA=="}
AGENT = {"type": "agent", "name": "explore"}
SUBTASK = {"type": "subtask", "prompt": "look"}
UNKNOWN = {"type": "hologram", "data": 1}


def message(*parts):
    return {"info": {"id": "u1", "role": "user"}, "parts": list(parts)}


def tiers(*parts):
    return [(tier.parts, tier.dropped) for tier in replay_tiers(message(*parts))]


# ── filterPartsByTier ────────────────────────────────────────────────────────────────────────────────────────────


def test_tier_1_has_all_parts_unchanged():
    assert tiers(TEXT, FILE, AGENT, SUBTASK)[0] == ([TEXT, FILE, AGENT, SUBTASK], ())


def test_tier_2_has_text_and_files_only():
    assert tiers(TEXT, FILE, AGENT)[1] == ([TEXT, FILE], ("agent",))


def test_tier_3_has_text_only():
    assert tiers(TEXT, FILE, AGENT)[2] == ([TEXT], ("agent", "file"))


def test_no_parts_make_no_tier():
    assert tiers() == []


def test_text_alone_makes_one_tier():
    assert tiers(TEXT) == [([TEXT], ())]


def test_text_and_file_tier_1_and_2_are_the_same_and_sent_once():
    assert [parts for parts, _ in tiers(TEXT, FILE)] == [[TEXT, FILE], [TEXT]]


def test_text_and_file_the_last_tier_is_text():
    assert tiers(TEXT, FILE)[-1] == ([TEXT], ("file",))


# ── replayWithDegradation ────────────────────────────────────────────────────────────────────────────────────────


async def replay(server, client, parts, *answers):
    """What a replay came to, and the parts of each prompt that was sent."""
    server.on("GET", MESSAGE_PATH, message(*parts))
    server.on("POST", PROMPT_PATH, *(answers or (204,)))
    returned = await OpenCodeHost(client).dispatch(TURN)

    return returned, [body["parts"] for body in server.bodies(PROMPT_PATH)]


async def test_the_first_tier_is_taken_nothing_dropped(server, client):
    returned, sent = await replay(server, client, [TEXT, FILE, AGENT])

    assert (returned.outcome, returned.replayed, returned.dropped_parts) == ("accepted", True, ())
    assert sent == [[TEXT, FILE, AGENT]]


async def test_the_second_tier_is_taken_and_the_dropped_types_are_told(server, client):
    returned, sent = await replay(server, client, [TEXT, FILE, AGENT], 400, 204)

    assert (returned.outcome, returned.dropped_parts) == ("accepted", ("agent",))
    assert sent == [[TEXT, FILE, AGENT], [TEXT, FILE]]


async def test_the_third_tier_is_taken_and_every_other_type_was_dropped(server, client):
    returned, sent = await replay(server, client, [TEXT, FILE, AGENT], 400, 400, 204)

    assert (returned.outcome, returned.dropped_parts) == ("accepted", ("agent", "file"))
    assert sent[-1] == [TEXT]


async def test_every_tier_is_refused_and_the_last_refusal_is_the_reason(server, client):
    returned, sent = await replay(server, client, [TEXT, FILE, AGENT], 400, 413, 422)

    assert (returned.outcome, returned.replayed) == ("refused", False)
    assert returned.reason.endswith("with 422")
    assert len(sent) == 3


async def test_a_message_without_parts_is_refused_without_sending(server, client):
    returned, sent = await replay(server, client, [])

    assert (returned.outcome, returned.reason) == ("refused", "the message has no parts to send again")
    assert sent == []


async def test_a_text_is_sent_once_though_refused(server, client):
    returned, sent = await replay(server, client, [TEXT], 400)

    assert returned.outcome == "refused"
    assert sent == [[TEXT]]


async def test_text_and_file_refused_once_go_on_as_text(server, client):
    returned, sent = await replay(server, client, [TEXT, FILE], 400, 204)

    assert (returned.outcome, returned.dropped_parts) == ("accepted", ("file",))
    assert sent == [[TEXT, FILE], [TEXT]]


async def test_parts_without_any_text_are_tried_once_and_refused(server, client):
    returned, sent = await replay(server, client, [AGENT], 400)

    assert returned.outcome == "refused"
    assert sent == [[AGENT]]


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_that_fails_is_no_reason_to_drop_parts(server, client, status):
    returned, sent = await replay(server, client, [TEXT, FILE], status)

    assert returned.outcome == "unavailable"
    assert sent == [[TEXT, FILE]]


async def test_parts_of_unknown_types_are_left_out_and_told(server, client):
    returned, sent = await replay(server, client, [TEXT, UNKNOWN])

    assert returned.dropped_parts == ("hologram",)
    assert sent == [[TEXT]]


def test_an_empty_or_missing_type_is_unknown():
    assert tiers(TEXT, {"type": "", "text": "x"}, {"text": "y"}) == [([TEXT], ("", "None"))]


@pytest.mark.parametrize("found", [404, 400, "not a message", [], {}, {"parts": None}, {"parts": "x"}])
async def test_a_message_that_cannot_be_read_is_refused_and_said_as_text(server, client, found):
    server.on("GET", MESSAGE_PATH, found)
    returned = await OpenCodeHost(client).dispatch(TURN)

    assert returned.outcome == "refused"
    assert isinstance(returned.reason, str)
    assert returned.reason
    assert server.bodies(PROMPT_PATH) == []


@pytest.mark.parametrize("parts", [[None], [3, "x", []], [{}, None, TEXT]])
def test_parts_that_are_no_objects_are_passed_over(parts):
    assert all(tier.parts == [TEXT] for tier in replay_tiers({"parts": parts}))


def test_files_alone_make_no_text_tier():
    assert tiers(FILE, {**FILE, "mime": "image/jpeg"}) == [([FILE, {**FILE, "mime": "image/jpeg"}], ())]


async def test_equal_tiers_are_skipped_and_the_text_is_the_second_attempt(server, client):
    returned, sent = await replay(server, client, [FILE, TEXT, FILE], 400, 204)

    assert (returned.outcome, returned.dropped_parts) == ("accepted", ("file",))
    assert len(sent) == 2


def test_every_text_survives_to_the_last_tier():
    assert tiers(TEXT, FILE, MORE, AGENT)[-1][0] == [TEXT, MORE]


# ── what is ours ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_ids_of_the_host_are_not_copied():
    part = {**TEXT, "id": "p1", "messageID": "u1", "sessionID": "ses_1", "time": {"start": 1}, "metadata": {"a": 1}}

    assert tiers(part) == [([{**TEXT, "metadata": {"a": 1}}], ())]


def test_what_the_host_derived_by_itself_is_left_to_it():
    derived = {"type": "text", "text": "<file>…</file>", "synthetic": True}

    assert tiers(TEXT, derived, {"type": "compaction"}) == [([TEXT], ())]
    assert tiers(derived) == []


async def test_a_replay_is_a_new_message_on_the_route_with_all_that_the_turn_carried(server, client):
    server.on("GET", MESSAGE_PATH, message(TEXT))
    server.on("POST", PROMPT_PATH, 204)
    turn = DispatchTurn(
        session_id="ses_1",
        generation=3,
        user_message_id="u1",
        route="two/org/b",
        agent="build",
        carried={"system": "Be terse.", "tools": {"bash": False}, "format": {"type": "text"}},
        replay=True,
    )
    returned = await OpenCodeHost(client).dispatch(turn)

    assert returned.generation == 3
    assert server.bodies(PROMPT_PATH) == [
        {
            "system": "Be terse.",
            "tools": {"bash": False},
            "format": {"type": "text"},
            "model": {"providerID": "two", "modelID": "org/b"},
            "agent": "build",
            "parts": [TEXT],
        }
    ]


PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "file", "agent", "subtask", "compaction", "step-start", "x", ""])},
        optional={"id": st.text(), "synthetic": st.booleans(), "text": st.text()},
    ),
    max_size=8,
)


@given(PARTS)
def test_each_tier_sends_less_than_the_one_before_and_tells_exactly_what_it_leaves_out(parts):
    own = [part for part in parts if not part.get("synthetic") and part["type"] != "compaction"]
    before = None
    for tier in replay_tiers(message(*parts)):
        kinds = {part["type"] for part in tier.parts}
        assert tier.parts
        assert before is None or len(tier.parts) < before
        assert set(tier.dropped) == {part["type"] for part in own} - kinds
        assert all("id" not in part for part in tier.parts)
        before = len(tier.parts)
