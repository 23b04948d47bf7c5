"""The plugin's actions as OpenCode wants them said."""

from __future__ import annotations

import httpx
import pytest

from fallback_plugin.core.actions import DispatchTurn, Removal
from fallback_plugin.core.events import SessionStatusChanged
from fallback_plugin.core.failure import Facts
from fallback_plugin.errors import HostRefused, HostUnavailable
from fallback_plugin.hosts.opencode.client import OpenCodeClient
from fallback_plugin.hosts.opencode.host import DISCARD_TRIES, OpenCodeHost
from fallback_plugin.runtime.host import Toast

NOW = 1_795_247_222.0
PROMPT = "/session/ses_1/prompt_async"


@pytest.fixture
def host(client):
    return OpenCodeHost(client, wall_clock=lambda: NOW)


def turn(**fields):
    return DispatchTurn(**{"session_id": "ses_1", "generation": 2, "user_message_id": "u1", "route": "two/b", **fields})


async def test_an_abort_is_one_post_that_waits_for_the_runs_end(server, host):
    server.on("POST", "/session/ses_1/abort", True)
    await host.abort("ses_1")

    assert server.requests == [("POST", "/session/ses_1/abort", {})]


@pytest.mark.parametrize(
    ("answer", "error"), [(404, HostRefused), (500, HostUnavailable), (httpx.ReadTimeout("x"), HostUnavailable)]
)
async def test_an_abort_that_fails_says_so(server, host, answer, error):
    server.on("POST", "/session/ses_1/abort", answer)
    with pytest.raises(error):
        await host.abort("ses_1")


# ── dispatch ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_turn_is_resumed_in_place_with_no_parts(server, host):
    server.on("POST", PROMPT, 204)
    returned = await host.dispatch(turn(agent="build"))

    assert (returned.session_id, returned.generation, returned.outcome) == ("ses_1", 2, "accepted")
    assert (returned.replayed, returned.dropped_parts, returned.reason) == (False, (), "")
    assert server.bodies(PROMPT) == [
        {"messageID": "u1", "agent": "build", "model": {"providerID": "two", "modelID": "b"}, "parts": []}
    ]


async def test_what_the_message_carried_is_repeated_as_it_was(server, host):
    server.on("POST", PROMPT, 204)
    carried = {
        "system": "Be terse.",
        "tools": {"bash": False},
        "format": {"type": "json_schema", "schema": {"type": "object"}, "retryCount": 2},
    }
    await host.dispatch(turn(agent="plan", carried=carried, route="openrouter/meta/llama-3:free"))

    assert server.bodies(PROMPT) == [
        {
            **carried,
            "messageID": "u1",
            "agent": "plan",
            "model": {"providerID": "openrouter", "modelID": "meta/llama-3:free"},
            "parts": [],
        }
    ]


async def test_an_agent_that_is_not_known_is_left_out(server, host):
    server.on("POST", PROMPT, 204)
    await host.dispatch(turn())

    assert "agent" not in server.bodies(PROMPT)[0]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        *[(400, "refused"), (401, "refused"), (404, "refused"), (409, "refused"), (500, "unavailable")],
        *[(httpx.ReadTimeout("x"), "unavailable"), (httpx.ConnectError("x"), "unavailable")],
    ],
    ids=str,
)
async def test_a_dispatch_never_raises_for_what_the_server_does(server, host, answer, outcome):
    server.on("POST", PROMPT, answer)
    returned = await host.dispatch(turn(agent="build", carried={"system": "my prompt"}))

    assert (returned.outcome, returned.generation) == (outcome, 2)
    assert returned.reason
    assert "my prompt" not in returned.reason


REMOVALS = (Removal(message_id="m1"), Removal(message_id="m2", part_id="p2"))


async def test_what_must_go_goes_first_in_order(server, host):
    server.on("POST", PROMPT, 204)
    server.on("DELETE", "/session/ses_1/message/m1", True)
    server.on("DELETE", "/session/ses_1/message/m2/part/p2", True)
    await host.dispatch(turn(removals=REMOVALS))

    assert server.made() == [
        ("DELETE", "/session/ses_1/message/m1"),
        ("DELETE", "/session/ses_1/message/m2/part/p2"),
        ("POST", PROMPT),
    ]


@pytest.mark.parametrize("answer", [404, 400, 403])
async def test_a_removal_that_is_refused_or_gone_does_not_stop_the_dispatch(server, host, answer):
    server.on("POST", PROMPT, 204)
    server.on("DELETE", "/session/ses_1/message/m1", answer)
    server.on("DELETE", "/session/ses_1/message/m2/part/p2", True)
    returned = await host.dispatch(turn(removals=REMOVALS))

    assert returned.outcome == "accepted"
    assert len(server.made("DELETE")) == 2


@pytest.mark.parametrize("replay", [False, True])
async def test_a_busy_session_hears_no_prompt_yet(server, host, replay):
    server.on("DELETE", "/session/ses_1/message/m1", 409)
    returned = await host.dispatch(turn(removals=REMOVALS, replay=replay))

    assert (returned.outcome, returned.reason) == ("unavailable", "the session is still busy")
    assert server.made() == [("DELETE", "/session/ses_1/message/m1")]


async def test_a_server_that_does_not_answer_a_removal_gets_no_prompt(server, host):
    server.on("DELETE", "/session/ses_1/message/m1", httpx.ReadTimeout("x"))
    returned = await host.dispatch(turn(removals=REMOVALS))

    assert returned.outcome == "unavailable"
    assert server.made("POST") == []


async def test_a_replay_removes_first_too(server, host):
    server.on("DELETE", "/session/ses_1/message/m1", True)
    server.on("GET", "/session/ses_1/message/u1", {"info": {}, "parts": [{"type": "text", "text": "hi"}]})
    server.on("POST", PROMPT, 204)
    returned = await host.dispatch(turn(removals=REMOVALS[:1], replay=True))

    assert returned.replayed
    assert [method for method, _ in server.made()] == ["DELETE", "GET", "POST"]


@pytest.mark.parametrize(
    ("answer", "outcome"), [(404, "refused"), (500, "unavailable"), (httpx.ReadError("x"), "unavailable")]
)
async def test_a_replay_whose_message_cannot_be_fetched(server, host, answer, outcome):
    server.on("GET", "/session/ses_1/message/u1", answer)
    returned = await host.dispatch(turn(replay=True))

    assert returned.outcome == outcome
    assert server.made("POST") == []


# ── inspect ──────────────────────────────────────────────────────────────────────────────────────────────────────

HISTORY = "/session/ses_1/message"
USER = {"info": {"id": "u1", "role": "user", "time": {"created": 1000}, "agent": "build"}, "parts": []}
ANSWER = {
    "info": {"id": "m1", "role": "assistant", "parentID": "u1", "providerID": "one", "modelID": "a"},
    "parts": [{"id": "p1", "type": "text", "text": "hel"}],
}


async def test_an_inspection_is_status_newest_turn_and_parent_in_three_calls(server, host):
    retry = {"type": "retry", "attempt": 2, "message": "Rate limit", "next": (NOW + 7200) * 1000}
    server.on("GET", "/session/status", {"ses_1": retry, "ses_2": {"type": "busy"}})
    server.on("GET", HISTORY, [USER, ANSWER])
    server.on("GET", "/session/ses_1", {"id": "ses_1", "parentID": "ses_0"})
    found = await host.inspect("ses_1")

    assert server.made() == [("GET", "/session/status"), ("GET", HISTORY), ("GET", "/session/ses_1")]
    assert found.parent_id == "ses_0"
    assert (found.session_id, found.found, found.user.message_id, found.user.agent) == ("ses_1", True, "u1", "build")
    assert found.status == SessionStatusChanged(
        session_id="ses_1",
        status="retry",
        attempt=2,
        facts=Facts(message="Rate limit", host_retry_at_wall=NOW + 7200, observed_at_wall=NOW),
    )
    [answer] = found.assistants
    assert (answer.message.route, answer.has_text, answer.tail_parts) == ("one/a", True, ("p1",))


async def test_only_the_newest_messages_are_asked_for(loopback, reply):
    loopback.replies["GET", HISTORY] = reply(body=[USER])
    client = OpenCodeClient(loopback.url)
    await OpenCodeHost(client).inspect("ses_1")
    await client.close()

    assert loopback.paths() == ["/session/status", f"{HISTORY}?limit=50", "/session/ses_1"]


@pytest.mark.parametrize("statuses", [{}, {"ses_2": {"type": "busy"}}, [], None, {"ses_1": {}}])
async def test_a_session_that_is_not_listed_is_idle(server, host, statuses):
    server.on("GET", "/session/status", statuses)
    server.on("GET", HISTORY, [USER])

    assert (await host.inspect("ses_1")).status == SessionStatusChanged(session_id="ses_1", status="idle")


async def test_a_status_of_an_unknown_type_is_not_known(server, host):
    server.on("GET", "/session/status", {"ses_1": {"type": "dreaming"}})
    server.on("GET", HISTORY, [USER])

    assert (await host.inspect("ses_1")).status is None


async def test_a_session_that_the_host_does_not_know_is_not_found(server, host):
    server.on("GET", HISTORY, 404)
    found = await host.inspect("ses_1")

    assert (found.session_id, found.found, found.user) == ("ses_1", False, None)


async def test_an_empty_session_is_found_without_a_turn(server, host):
    server.on("GET", HISTORY, [])
    found = await host.inspect("ses_1")

    assert (found.found, found.user, found.assistants) == (True, None, ())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        *[(400, HostRefused), (401, HostRefused), (500, HostUnavailable), (httpx.ReadTimeout("x"), HostUnavailable)],
        *[({"not": "a list"}, HostRefused), (httpx.Response(200, json=[{"info": 3}]), HostRefused)],
        (httpx.Response(200, html="<html>"), HostRefused),
    ],
    ids=["400", "401", "500", "timeout", "object", "shape", "html"],
)
async def test_a_history_that_cannot_be_read_is_an_error_and_not_a_missing_session(server, host, answer, error):
    server.on("GET", HISTORY, answer)
    with pytest.raises(error) as caught:
        await host.inspect("ses_1")

    assert "\n" not in str(caught.value)


async def test_a_malformed_status_is_an_error(server, host):
    server.on("GET", "/session/status", {"ses_1": "busy"})
    server.on("GET", HISTORY, [USER])
    with pytest.raises(HostRefused, match="unknown shape"):
        await host.inspect("ses_1")


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_toast_is_shown_as_the_host_takes_it(server, host):
    server.on("POST", "/tui/show-toast", True)
    await host.show(Toast(title="Model fallback", message="one/a → two/b", variant="warning"))

    assert server.bodies("/tui/show-toast") == [
        {"title": "Model fallback", "message": "one/a → two/b", "variant": "warning", "duration": 8000}
    ]


@pytest.mark.parametrize(
    ("statuses", "ids"),
    [({}, []), ({"b": {"type": "busy"}, "a": {"type": "retry"}}, ["b", "a"]), (None, []), ([1], []), ("x", [])],
)
async def test_the_sessions_at_work_are_those_with_a_status(server, host, statuses, ids):
    server.on("GET", "/session/status", statuses)

    assert await host.sessions_at_work() == ids


# ── discard ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_messages_are_discarded_in_order_once_the_session_is_no_longer_busy(server, host, monkeypatch):
    monkeypatch.setattr("fallback_plugin.hosts.opencode.host.DISCARD_PAUSE", 0.0)
    server.on("DELETE", "/session/ses_1/message/m1", 409, 409, True)
    server.on("DELETE", "/session/ses_1/message/m2/part/p2", 404)
    await host.discard("ses_1", REMOVALS)

    assert server.made() == [
        *[("DELETE", "/session/ses_1/message/m1")] * 3,
        ("DELETE", "/session/ses_1/message/m2/part/p2"),
    ]


@pytest.mark.parametrize(
    ("answer", "error", "tries"),
    [(409, HostRefused, DISCARD_TRIES), (403, HostRefused, 1), (500, HostUnavailable, 1)],
)
async def test_a_discard_that_fails_says_so(server, host, monkeypatch, answer, error, tries):
    monkeypatch.setattr("fallback_plugin.hosts.opencode.host.DISCARD_PAUSE", 0.0)
    server.on("DELETE", "/session/ses_1/message/m1", answer)
    with pytest.raises(error):
        await host.discard("ses_1", REMOVALS)

    assert len(server.made()) == tries
