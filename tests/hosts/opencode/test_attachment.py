"""Following a server: the check at the door, events read and counted, drops survived, hops finished at the end."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Phase
from fallback_plugin.errors import HostRefused, HostUnavailable
from fallback_plugin.hosts.opencode import attachment as attachment_module
from fallback_plugin.hosts.opencode.attachment import (
    DRAIN_PATIENCE,
    LONGEST_PAUSE,
    NEEDED_OPERATIONS,
    Attachment,
    check_server,
)
from fallback_plugin.hosts.opencode.client import OpenCodeClient
from fallback_plugin.testing.virtual_time import settle

SES = "ses_1"
RULES = Rules(default=Policy(chain=("two/b", "three/c"), min_hop_interval_seconds=0.0))


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


@asynccontextmanager
async def attached(client, rules_of=lambda config: RULES, patience=10):
    """A running attachment that is ready."""
    notices, lines = [], []
    attachment = Attachment(client, rules_of, observer=lambda notice, now: notices.append(notice), on_line=lines.append)
    attachment.notices, attachment.lines = notices, lines
    attachment.stop, ready = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: attachment.run(attachment.stop, on_ready=ready.set))
        if patience:
            with anyio.fail_after(patience):
                await ready.wait()
        yield attachment
        attachment.stop.set()


def user_info(message_id="u1", session_id=SES, created=1000):
    return {
        "id": message_id,
        "role": "user",
        "sessionID": session_id,
        "time": {"created": created},
        "agent": "build",
        "model": {"providerID": "one", "modelID": "a"},
    }


def answer_info(message_id="m1", route="one/a", session_id=SES, **fields):
    provider, _, model = route.partition("/")
    return {
        "id": message_id,
        "role": "assistant",
        "sessionID": session_id,
        "parentID": "u1",
        "providerID": provider,
        "modelID": model,
        "agent": "build",
        "time": {"created": 1000},
        **fields,
    }


def start_turn(server):
    server.say("message.updated", sessionID=SES, info=user_info())
    server.say("session.status", sessionID=SES, status={"type": "busy"})
    server.say("message.updated", sessionID=SES, info=answer_info())


def say_retry(server, attempt=1):
    status = {"type": "retry", "attempt": attempt, "message": "Rate limit reached", "next": 0}
    server.say("session.status", sessionID=SES, status=status)


def say_idle(server):
    server.say("session.status", sessionID=SES, status={"type": "idle"})
    server.say("session.idle", sessionID=SES)


def script_calls(server):
    server.on("POST", f"/session/{SES}/abort", True)
    server.on("POST", f"/session/{SES}/prompt_async", 204)
    server.on("POST", "/tui/show-toast", True)


def prompts(server):
    return [body["model"]["providerID"] for body in server.bodies(f"/session/{SES}/prompt_async")]


# ── the check at the door ────────────────────────────────────────────────────────────────────────────────────────


async def refusal_of(server, client, answer, error=HostRefused):
    server.on("GET", "/doc", answer)
    with pytest.raises(error) as caught:
        await check_server(client)

    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_server_with_every_operation_passes(server, client, document):
    server.on("GET", "/doc", document())
    await check_server(client)

    assert server.made() == [("GET", "/doc")]


async def test_parameters_of_paths_may_have_other_names(server, client, document):
    text = json.dumps(document()).replace("{sessionID}", "{id}").replace("{messageID}", "{mid}")
    server.on("GET", "/doc", json.loads(text))
    await check_server(client)


@pytest.mark.parametrize("operation", [f"{method.upper()} {path}" for path, method in NEEDED_OPERATIONS.items()])
async def test_a_missing_operation_is_named(server, client, document, operation):
    told = await refusal_of(server, client, document(without=[operation]))

    assert told == f"the OpenCode at http://opencode.test lacks {operation}; update it (1.18.33 has them)"


async def test_all_missing_operations_are_named_in_one_line(server, client):
    told = await refusal_of(server, client, {"paths": {"/session": {}}})

    assert all(path in told for path in NEEDED_OPERATIONS)


NOT_OPENCODE = "http://opencode.test is not an OpenCode server: GET /doc is not its OpenAPI document"


@pytest.mark.parametrize(
    "answer",
    [
        *[404, 403, 302, [], None, "text", 7.5, {}, {"paths": None}, {"paths": []}, {"paths": {}}],
        *[{"paths": {"/pets": {}}}, httpx.Response(200, html="<!doctype html>"), httpx.Response(200, text="")],
    ],
    ids=str,
)
async def test_what_is_no_opencode_server_is_said(server, client, answer):
    assert await refusal_of(server, client, answer) == NOT_OPENCODE


@pytest.mark.parametrize("verbs", [None, 5, "get", [], ["post"]])
async def test_a_path_without_operations_is_a_missing_operation(server, client, document, verbs):
    broken = document()
    broken["paths"]["/session/{sessionID}/abort"] = verbs

    assert "lacks POST /session/{sessionID}/abort;" in await refusal_of(server, client, broken)


async def test_a_wrong_password_is_said(server, client):
    assert "OPENCODE_SERVER_PASSWORD" in await refusal_of(server, client, 401)


@pytest.mark.parametrize("answer", [500, 503, httpx.ConnectError("x"), httpx.ReadTimeout("x")], ids=str)
async def test_a_server_that_is_down_or_broken_is_unavailable(server, client, answer):
    await refusal_of(server, client, answer, HostUnavailable)


# ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_hosts_configuration_is_read_before_the_first_event(server, client):
    seen = []

    def rules_of(config):
        seen.append(config)
        return RULES

    server.on("GET", "/config", {"agent": {"build": {"fallback_models": ["two/b"]}}})
    async with attached(client, rules_of):
        assert seen == [{"agent": {"build": {"fallback_models": ["two/b"]}}}]
        assert [path for _, path, _ in server.requests][:3] == ["/config", "/event", "/session/status"]


@pytest.mark.parametrize("answer", [404, 500, httpx.ReadTimeout("x"), httpx.Response(200, html="<html>")], ids=str)
async def test_a_configuration_that_cannot_be_read_is_said_and_not_needed(server, client, answer):
    server.on("GET", "/config", answer)
    async with attached(client) as attachment:
        assert len(attachment.lines) == 1
        assert attachment.lines[0].startswith("the server's own configuration is not known: ")


async def test_ready_is_said_once_and_not_before_the_events_flow(server, client):
    server.refuse = httpx.ConnectError("down")
    async with attached(client, patience=0) as attachment:
        await anyio.sleep(30)
        assert attachment.counts["dropped"] > 3
        assert server.made("GET")[-1] == ("GET", "/config"), "nothing was caught up with yet"


async def test_sessions_at_work_before_the_start_are_carried_on(server, client):
    script_calls(server)
    status = {"type": "retry", "attempt": 4, "message": "Rate limit reached", "next": 0}
    server.on("GET", "/session/status", {SES: status})
    server.on("GET", f"/session/{SES}/message", [{"info": user_info()}, {"info": answer_info(), "parts": []}])
    async with attached(client):
        await settle()
        say_idle(server)
        await settle()

        assert prompts(server) == ["two"]


async def test_a_status_that_cannot_be_read_is_said_and_the_events_are_followed(server, client):
    script_calls(server)
    server.on("GET", "/session/status", 500)
    async with attached(client) as attachment:
        assert attachment.lines[0].startswith("sessions at work are not known: ")
        start_turn(server)
        say_retry(server)
        say_idle(server)
        await settle()
        assert prompts(server) == ["two"]


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failing_turn_is_carried_on_with_three_calls(server, client):
    script_calls(server)
    async with attached(client) as attachment:
        before = client.calls
        start_turn(server)
        say_retry(server)
        await settle()
        say_idle(server)
        await settle()
        server.say("message.updated", sessionID=SES, info=answer_info("m2", "two/b"))
        await settle()

        assert prompts(server) == ["two"]
        assert [notice.notice.value for notice in attachment.notices] == ["failure", "hop"]
        assert client.calls - before == 3


async def test_a_turn_that_goes_well_costs_no_call(server, client):
    async with attached(client):
        before = client.calls
        start_turn(server)
        for number in range(200):
            server.say(
                "message.part.delta", sessionID=SES, messageID="m1", partID="p1", field="text", delta=str(number)
            )
        server.say(
            "message.updated", sessionID=SES, info=answer_info(finish="stop", time={"created": 1, "completed": 2})
        )
        say_idle(server)
        await anyio.sleep(600)

        assert client.calls == before


async def test_what_cannot_be_read_is_counted_by_reason_and_skipped(server, client, monkeypatch):
    monkeypatch.setattr(attachment_module, "EVENT_BYTES", 2000)
    script_calls(server)
    async with attached(client) as attachment:
        for junk in ("{", "[]", "null", '"text"', "7", "\ud83d".encode("utf-16", "surrogatepass").hex(), "[" * 1500):
            server.say_raw(junk)
        server.say("session.idle")
        server.say(
            "message.part.updated", sessionID=SES, part={"id": "p", "messageID": "m", "type": "tool", "state": 1}
        )
        server.say("file.watched", x=1)
        server.say("server.heartbeat")
        server.say("file.edited", text="x" * 3000)
        start_turn(server)
        say_retry(server)
        say_idle(server)
        await settle()

        assert dict(attachment.counts) == {
            "events": 1 + 7 + 5 + 6,
            "malformed": 8,
            "passed over": 3,
            "too large": 1,
        }
        assert prompts(server) == ["two"]


@pytest.mark.parametrize(
    "raw",
    [
        '{"type": "session.status", "properties": {"sessionID": "s", "status": {"type": "retry", "attempt": 1e999}}}',
        '{"type": "session.status", "properties": {"sessionID": "s", "status": {"type": "retry", "next": NaN}}}',
        '{"type": "message.part.updated", "properties": {"sessionID": "s", "part": {"id": "p", "messageID": "m", "type": "tool", "state": {"status": []}}}}',
        '{"type": "session.error", "properties": {"sessionID": "s", "error": {"data": {"statusCode": 1e999}}}}',
        '{"id": [], "type": "session.idle", "properties": {"sessionID": "s"}}',
        '{"id": {}, "type": {}, "properties": {"sessionID": "s"}}',
        '{"type": "session.idle", "properties": {"sessionID": "\\ud83d"}}',
        "[" * 100_000,
        "1" * 5000,
    ],
    ids=lambda raw: raw[:60],
)
async def test_no_event_ends_the_attachment(server, client, raw):
    script_calls(server)
    async with attached(client) as attachment:
        server.say_raw(raw)
        start_turn(server)
        say_retry(server)
        say_idle(server)
        await settle()

        assert prompts(server) == ["two"]
        assert attachment.counts["dropped"] == 0


async def test_an_event_told_twice_in_a_row_is_taken_once(server, client):
    async with attached(client) as attachment:
        before = attachment.counts["events"]
        again = json.dumps(server.event("message.updated", sessionID=SES, info=user_info()))
        for _ in range(3):
            server.say_raw(again)
        await settle()

        assert attachment.counts["events"] - before == 3
        assert attachment.counts["duplicate"] == 2


async def test_events_without_an_id_are_no_duplicates(server, client):
    async with attached(client) as attachment:
        for _ in range(3):
            server.say_raw(json.dumps({"type": "session.idle", "properties": {"sessionID": SES}}))
        await settle()

        assert attachment.counts["duplicate"] == 0


# ── drops ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_server_that_is_gone_is_asked_again_with_growing_pauses(server, client):
    async with attached(client) as attachment:
        server.refuse = httpx.ConnectError("down")
        server.cut()
        await anyio.sleep(60)

        pauses = [round(b - a, 3) for a, b in zip(server.opened[1:], server.opened[2:], strict=False)]
        assert pauses[:6] == [0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE, LONGEST_PAUSE]
        assert set(pauses[5:]) == {LONGEST_PAUSE}
        assert attachment.counts["dropped"] == len(server.opened)
        assert "broke: ReadError; trying again in 0.2 s" in attachment.lines[0]


@pytest.mark.parametrize("how", ["cut", "end"])
async def test_after_a_drop_the_pause_is_short_again_and_the_sessions_are_caught_up_with(server, client, how):
    async with attached(client) as attachment:
        for _ in range(3):
            getattr(server, how)()
            await anyio.sleep(0.3)
        await settle()

        assert len(server.opened) == 4
        assert attachment.lines.count("the event stream is back") == 3
        assert server.made("GET").count(("GET", "/session/status")) == 4
        assert server.made("GET").count(("GET", "/config")) == 4
        assert attachment.counts["dropped"] == (3 if how == "cut" else 0)


async def test_a_failure_during_the_gap_is_found_and_carried_on(server, client):
    script_calls(server)
    async with attached(client) as attachment:
        start_turn(server)
        await settle()
        server.on("GET", "/session/status", {SES: {"type": "retry", "attempt": 2, "message": "Rate limit", "next": 0}})
        server.on("GET", f"/session/{SES}/message", [{"info": user_info()}, {"info": answer_info(), "parts": []}])
        server.cut()
        await anyio.sleep(1)
        say_idle(server)
        await settle()

        assert prompts(server) == ["two"]
        assert [notice.notice.value for notice in attachment.notices] == ["failure"]


async def test_a_hop_whose_words_were_lost_in_the_gap_is_not_made_twice(server, client):
    script_calls(server)
    async with attached(client) as attachment:
        start_turn(server)
        say_retry(server)
        say_idle(server)
        await settle()
        assert prompts(server) == ["two"]

        server.on("GET", "/session/status", {SES: {"type": "busy"}})
        history = [{"info": user_info()}, {"info": answer_info()}, {"info": answer_info("m2", "two/b")}]
        server.on("GET", f"/session/{SES}/message", history)
        server.cut()
        await anyio.sleep(20)

        assert prompts(server) == ["two"]
        assert [notice.notice.value for notice in attachment.notices] == ["failure", "hop"]


async def test_a_changed_host_configuration_is_in_force_after_the_drop(server, client):
    seen = []

    def rules_of(config):
        seen.append(config)
        return RULES

    server.on("GET", "/config", {"v": 1}, {"v": 2})
    async with attached(client, rules_of):
        server.end()
        await anyio.sleep(1)

    assert seen == [{"v": 1}, {"v": 2}]


async def test_a_configuration_that_cannot_be_read_again_leaves_the_last_one_in_force(server, client):
    seen = []

    def rules_of(config):
        seen.append(config)
        return RULES

    server.on("GET", "/config", {"v": 1}, 500)
    async with attached(client, rules_of):
        server.end()
        await anyio.sleep(1)

    assert seen == [{"v": 1}, {"v": 1}]


async def test_a_reload_keeps_what_the_host_said(server, client):
    server.on("GET", "/config", {"v": 1})
    script_calls(server)
    seen = []

    def others(config):
        seen.append(config)
        return Rules(default=Policy(chain=("nine/z",)))

    async with attached(client) as attachment:
        attachment.reload(others)
        assert seen == [{"v": 1}]
        start_turn(server)
        say_retry(server)
        say_idle(server)
        await settle()

    assert prompts(server) == ["nine"]


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stop_with_nothing_under_way_is_at_once(server, client):
    async with attached(client) as attachment:
        began = anyio.current_time()
        attachment.stop.set()

    assert anyio.current_time() - began == pytest.approx(0, abs=1e-3)


async def test_a_stop_in_the_middle_of_a_hop_lets_it_finish(server, client):
    async def abort_slowly(request):
        await anyio.sleep(1.0)
        return True

    async def accept(request):
        server.say("message.updated", sessionID=SES, info=answer_info("m2", "two/b"))
        return 204

    server.on("POST", f"/session/{SES}/abort", abort_slowly)
    server.on("POST", f"/session/{SES}/prompt_async", accept)
    server.on("POST", "/tui/show-toast", True)
    async with attached(client) as attachment:
        start_turn(server)
        say_retry(server)
        await settle()
        say_idle(server)
        assert attachment.plugin.retry_in_flight == {SES}
        began = anyio.current_time()
        attachment.stop.set()

    assert prompts(server) == ["two"]
    assert [notice.notice.value for notice in attachment.notices] == ["failure", "hop"]
    assert anyio.current_time() - began == pytest.approx(1.0, abs=0.01)
    assert attachment.plugin.sessions[SES].phase is Phase.RUNNING


async def test_a_hop_that_never_ends_holds_the_stop_up_for_a_bounded_time(server, client):
    async def never(request):
        await anyio.sleep_forever()

    server.on("POST", f"/session/{SES}/abort", never)
    server.on("POST", f"/session/{SES}/prompt_async", never)
    async with attached(client) as attachment:
        start_turn(server)
        say_retry(server)
        await settle()
        began = anyio.current_time()
        attachment.stop.set()

    assert anyio.current_time() - began == pytest.approx(DRAIN_PATIENCE, abs=0.01)


async def test_a_stop_while_the_server_is_away_is_at_once(server, client):
    server.refuse = httpx.ConnectError("down")
    async with attached(client, patience=0) as attachment:
        await anyio.sleep(100)
        began = anyio.current_time()
        attachment.stop.set()

    assert anyio.current_time() - began < 0.01


# ── over a socket ────────────────────────────────────────────────────────────────────────────────────────────────


async def until(holds):
    while not holds():
        await anyio.sleep(0.01)


# In real time, and not on trio: there httpx leaves its own generators open when a stream is left in the middle.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_socket_that_is_cut_and_comes_back(loopback):
    client = OpenCodeClient(loopback.url)
    lines = []
    attachment = Attachment(client, lambda config: RULES, on_line=lines.append)
    stop, ready = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: attachment.run(stop, on_ready=ready.set))
        with anyio.fail_after(10):
            await ready.wait()
            loopback.say_raw("{")
            loopback.say("message.updated", sessionID=SES, info=user_info())
            await until(lambda: attachment.plugin.sessions)
            loopback.cut()
            await until(lambda: lines)
        stop.set()
    await client.close()

    assert lines == ["the event stream is back"]
    assert attachment.counts["malformed"] == 1
    assert loopback.paths().count("/event") == 2
