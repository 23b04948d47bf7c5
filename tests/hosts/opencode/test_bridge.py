"""The Python side of the plugin inside OpenCode, whole, against a JavaScript side that the test plays.

In real time: configuration and store live on the disk. The host's HTTP is the server in memory of conftest.py.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from fallback_plugin.errors import HostRefused, HostUnavailable
from fallback_plugin.hosts.opencode import bridge as bridge_module
from fallback_plugin.hosts.opencode import project as project_module
from fallback_plugin.hosts.opencode.bridge import Bridge, BridgeTransport
from fallback_plugin.hosts.opencode.client import OpenCodeClient
from fallback_plugin.hosts.opencode.project import Project
from fallback_plugin.hosts.opencode.rpc import Peer

RECORDINGS = Path(__file__).parents[2] / "data" / "recordings"
PRIMARY, B, C = "fake/primary", "fake/b", "fake/c"
PATIENCE = 8.0
CONFIG = {"model": PRIMARY, "agent": {"build": {"model": PRIMARY, "fallback_models": [B, C]}}}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nothing of the user's is read or written."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "FALLBACK_PLUGIN_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(project_module, "TOAST_DELAY", 0.05)
    return tmp_path / "home"


class Pipe:
    """One end of two crossed pipes; `cut` ends both directions."""

    def __init__(self, source, sink):
        self._source = source
        self._sink = sink

    async def read(self):
        try:
            return await self._source.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return b""

    async def write(self, data):
        try:
            await self._sink.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokenPipeError from error

    def cut(self):
        self._source.close()
        self._sink.close()


def crossed():
    to_one, from_other = anyio.create_memory_object_stream(100)
    to_other, from_one = anyio.create_memory_object_stream(100)
    return Pipe(from_other, to_other), Pipe(from_one, to_one)


class JavaScript:
    """The host's side: carries `http` out on a server in memory, and keeps what it is told to log."""

    def __init__(self, pipe, server):
        self.pipe = pipe
        self.server = server
        self.lines = []
        self.asked = []
        self.peer = Peer(pipe, notified={"log": self._log}, answered={"http": self._http})

    def _log(self, params):
        self.lines.append(params["message"])

    async def _http(self, params):
        self.asked.append((params["directory"], params["method"], params["path"]))
        url = f"http://opencode.test{params['path']}"
        request = httpx.Request(params["method"], url, headers=params["headers"], content=params["body"])
        response = await self.server.handle_async_request(request)
        content = await response.aread()
        kind = response.headers.get("content-type", "")
        return {"status": response.status_code, "headers": {"content-type": kind}, "body": content.decode()}

    def open(self, directory, config=CONFIG):
        self.peer.notify("project.opened", {"directory": str(directory), "config": config})

    def tell(self, directory, *events):
        for event in events:
            self.peer.notify("event", {"directory": str(directory), "event": event})

    async def ask(self, directory, session_id="ses_1", model=PRIMARY, **params):
        """The route that a prompt goes to."""
        asked = {"directory": str(directory), "sessionID": session_id, "model": spelled(model), "agent": "build"}
        answer = await self.peer.request("chat.message", {**asked, **params}, patience=PATIENCE)
        chosen = answer.get("model", asked["model"])
        return f"{chosen['providerID']}/{chosen['modelID']}"

    async def ready(self, *directories):
        await until(lambda: all(self.has_said(f"{directory}: ready") for directory in directories))

    def has_said(self, text):
        return any(text in line for line in self.lines)


def spelled(route):
    provider, _, model = route.partition("/")
    return {"providerID": provider, "modelID": model}


def users(events):
    messages = [event["properties"]["info"] for event in events if event["type"] == "message.updated"]
    return [message for message in messages if message["role"] == "user"]


async def until(is_so):
    with anyio.fail_after(PATIENCE):
        while not is_so():
            await anyio.sleep(0.01)


@asynccontextmanager
async def bridged(server):
    """The JavaScript side of a running bridge."""
    ours, theirs = crossed()
    host = JavaScript(theirs, server)
    host.bridge = Bridge(ours)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.peer.run)
        tasks.start_soon(host.bridge.run)
        try:
            yield host
        finally:
            theirs.cut()
            ours.cut()


@pytest.fixture
def project(tmp_path):
    """A directory with a configuration of ours."""
    return configured(tmp_path / "project")


def configured(directory, **settings):
    path = directory / ".opencode" / "opencode-fallback.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"store": "memory://", "min_hop_interval_seconds": 0, **settings}))
    return directory


def recording(name):
    return json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))["events"]


def at_retry(events):
    return 1 + next(n for n, event in enumerate(events) if event["properties"].get("status", {}).get("type") == "retry")


def idle(session_id):
    status = {"sessionID": session_id, "status": {"type": "idle"}}
    return [
        {"id": "evt_a", "type": "session.status", "properties": status},
        {"id": "evt_b", "type": "session.idle", "properties": {"sessionID": session_id}},
    ]


def session_of(events):
    return next(event["properties"]["sessionID"] for event in events if "sessionID" in event["properties"])


def script(server, session_id):
    server.on("POST", f"/session/{session_id}/abort", True)
    server.on("POST", f"/session/{session_id}/prompt_async", 204)
    server.on("POST", "/tui/show-toast", True)
    server.on("GET", f"/session/{session_id}/message", [])


def prompts(server, session_id):
    bodies = server.bodies(f"/session/{session_id}/prompt_async")
    return [f"{body['model']['providerID']}/{body['model']['modelID']}" for body in bodies]


def toasts(server):
    return [body["message"] for body in server.bodies("/tui/show-toast")]


# ── whole turns ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_project_that_is_opened_is_looked_at_through_the_host(server, project):
    events = recording("rate-limit-429")
    session_id = session_of(events)
    script(server, session_id)
    server.on("GET", "/session/status", {session_id: {"type": "retry", "attempt": 1, "message": "Rate limit reached"}})
    async with bridged(server) as host:
        host.open(project)
        await host.ready(project)
        await until(lambda: ("GET", f"/session/{session_id}/message") in server.made())

    assert host.asked[0] == (str(project), "GET", "/session/status")
    assert {directory for directory, _, _ in host.asked} == {str(project)}


async def test_a_recorded_rate_limit_is_aborted_and_carried_on_and_the_next_prompt_passes_the_dead_model(
    server, project
):
    events = recording("rate-limit-429")
    session_id = session_of(events)
    script(server, session_id)
    async with bridged(server) as host:
        host.open(project)
        await host.ready(project)
        assert await host.ask(project, session_id) == PRIMARY

        host.tell(project, *events[: at_retry(events)])
        await until(lambda: ("POST", f"/session/{session_id}/abort") in server.made())
        assert prompts(server, session_id) == []
        host.tell(project, *idle(session_id))
        await until(lambda: prompts(server, session_id) == [B])
        [user] = {each["id"]: each for each in users(events)}.values()
        resumed = {"directory": str(project), "sessionID": session_id, "model": spelled(B), "messageID": user["id"]}
        answer = await host.peer.request("chat.message", resumed, patience=PATIENCE)
        assert answer == {"created": user["time"]["created"]}

        assert await host.ask(project, "ses_other") == B
        assert await host.ask(project, "ses_other", PRIMARY, picked=True) == B, "the agent's own, not picked"
        assert await host.ask(project, "ses_other", "fake/else", picked=True) == "fake/else"
        assert await host.ask(project, session_id, PRIMARY, messageID="msg_1") == PRIMARY
        await until(lambda: toasts(server))

    [toast] = toasts(server)
    assert toast.startswith(f"{PRIMARY} is out (rate limit")
    assert toast.endswith(f"asking {B}")
    assert host.has_said(f"{session_id}  {PRIMARY} failed")
    assert host.peer.counts == {}
    assert len(server.bodies(f"/session/{session_id}/abort")) == 1


async def test_a_recorded_failure_that_ends_the_run_needs_no_abort(server, project):
    events = recording("insufficient-balance-402")
    session_id = session_of(events)
    script(server, session_id)
    async with bridged(server) as host:
        host.open(project)
        host.tell(project, *events)
        await until(lambda: prompts(server, session_id) == [B])

    assert ("POST", f"/session/{session_id}/abort") not in server.made()
    [body] = server.bodies(f"/session/{session_id}/prompt_async")
    assert body["parts"] == []
    assert body["messageID"].startswith("msg_")


async def test_a_tool_that_was_run_is_a_sign_of_life(server, project):
    async with bridged(server) as host:
        host.open(project)
        await host.ready(project)
        host.peer.notify(
            "tool.executed", {"directory": str(project), "tool": "bash", "sessionID": "ses_1", "callID": "c"}
        )
        assert (await host.peer.request("ping", {}, patience=PATIENCE)) == {"projects": 1}
        [intake] = [each._intake for each in host.bridge._projects.values()]

    assert intake.counts == {}


# ── before it is ready, without a project, with two ──────────────────────────────────────────────────────────────


async def test_events_before_it_is_ready_are_kept_and_prompts_go_as_asked(server, project, monkeypatch):
    events = recording("insufficient-balance-402")
    session_id = session_of(events)
    script(server, session_id)
    may_load = anyio.Event()
    load = Project._load

    async def slowly(self):
        await may_load.wait()
        return await load(self)

    monkeypatch.setattr(Project, "_load", slowly)
    async with bridged(server) as host:
        host.open(project)
        host.tell(project, *events)
        assert await host.ask(project, session_id) == PRIMARY
        may_load.set()
        await until(lambda: prompts(server, session_id) == [B])


async def test_the_hosts_configuration_is_the_newest_also_when_it_came_while_starting(server, project, monkeypatch):
    may_open = anyio.Event()
    open_store = Project._open_store

    async def slowly(self, loaded):
        store = await open_store(self, loaded)
        await may_open.wait()
        return store

    monkeypatch.setattr(Project, "_open_store", slowly)
    async with bridged(server) as host:
        host.open(project, {"agent": {}})
        host.open(project, {"agent": {"build": {"fallback_models": [C]}}})
        await host.peer.request("ping", {}, patience=PATIENCE)
        may_open.set()
        await host.ready(project)
        [served] = host.bridge._projects.values()
        assert served._plugin._rules.policy("build").chain == (C,)


async def test_what_is_about_no_open_project_changes_nothing(server, project):
    async with bridged(server) as host:
        assert await host.ask(project) == PRIMARY
        host.tell(project, *recording("rate-limit-429"))
        host.peer.notify("project.closed", {"directory": str(project)})
        assert await host.peer.request("ping", {}, patience=PATIENCE) == {"projects": 0}

    assert host.asked == []


@pytest.mark.parametrize(
    "params",
    [{}, {"directory": 3}, {"directory": "x", "model": None}, {"directory": "x", "model": {"providerID": "one"}}],
    ids=str,
)
async def test_a_prompt_that_can_not_be_read_is_refused_and_the_next_is_answered(server, project, params):
    async with bridged(server) as host:
        host.open(project)
        await host.ready(project)
        with pytest.raises(HostUnavailable):
            await host.peer.request("chat.message", params, patience=PATIENCE)
        assert await host.ask(project) == PRIMARY


async def test_two_projects_are_served_apart_and_one_is_closed(server, tmp_path):
    events = recording("insufficient-balance-402")
    session_id = session_of(events)
    script(server, session_id)
    one, other = configured(tmp_path / "one"), configured(tmp_path / "other")
    async with bridged(server) as host:
        host.open(one, {"agent": {"build": {"model": PRIMARY, "fallback_models": [C]}}})
        host.open(other)
        await host.ready(one, other)
        host.tell(one, *events)
        await until(lambda: prompts(server, session_id) == [C])
        assert await host.ask(one, "ses_2") == C
        assert await host.ask(other, "ses_3") == PRIMARY, "its store is another one"
        assert (str(one), "POST", f"/session/{session_id}/prompt_async") in host.asked

        host.peer.notify("project.closed", {"directory": str(one)})
        assert await host.ask(one, "ses_2") == PRIMARY
        assert await host.peer.request("ping", {}, patience=PATIENCE) == {"projects": 1}
        host.open(one)
        await until(lambda: sum(f"{one}: ready" in line for line in host.lines) == 2)


async def test_two_projects_without_a_store_of_their_own_share_what_is_out(server, tmp_path, home):
    events = recording("insufficient-balance-402")
    script(server, session_of(events))
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    async with bridged(server) as host:
        host.open(one)
        host.open(other)
        await host.ready(one, other)
        host.tell(one, *events)
        await until(lambda: host.has_said("insufficient") or host.has_said(f"{PRIMARY} failed"))
        with anyio.fail_after(PATIENCE):
            while await host.ask(other, "ses_9") != B:
                await anyio.sleep(0.05)

    assert (home / "state.db").exists()


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_broken_configuration_is_said_in_a_toast_and_the_hosts_chains_hold(server, project):
    path = project / ".opencode" / "opencode-fallback.json"
    path.write_text('{"fallback_models": 3}')
    script(server, "ses_1")
    async with bridged(server) as host:
        host.open(project)
        await host.ready(project)
        await until(lambda: toasts(server))
        [served] = host.bridge._projects.values()
        assert served._plugin._rules.policy("build").chain == (PRIMARY, B, C)

    [toast] = toasts(server)
    assert toast.startswith(f"{path}:1:")
    assert "fallback_models" in toast
    assert "\n" not in toast


async def test_a_configuration_that_changes_on_the_disk_is_in_force_without_a_restart(server, project):
    async with bridged(server) as host:
        host.open(project, {})
        await host.ready(project)
        [served] = host.bridge._projects.values()
        assert served._plugin._rules.policy("build").chain == ()

        configured(project, fallback_models=[C])
        await until(lambda: served._plugin._rules.policy("build").chain == (C,))
        assert host.has_said("configuration reloaded")

        script(server, "ses_1")
        (project / ".opencode" / "opencode-fallback.json").write_text("{")
        await until(lambda: toasts(server))
        assert served._plugin._rules.policy("build").chain == (C,), "the last good one"


@pytest.mark.parametrize(
    "config", [None, 3, "x", [], {"agent": 3}, {"agent": {"build": {"fallback_models": 7}}}], ids=str
)
async def test_a_configuration_of_the_host_that_can_not_be_used_is_said_and_survived(server, project, config):
    async with bridged(server) as host:
        host.peer.notify("project.opened", {"directory": str(project), "config": config})
        await host.ready(project)
        host.open(project)
        [served] = host.bridge._projects.values()
        await until(lambda: served._plugin._rules.policy("build").chain == (PRIMARY, B, C))

    assert host.has_said("host configuration") is (config != {"agent": 3})


async def test_a_store_that_can_not_be_used_is_said_and_done_without(server, project):
    configured(project, store="nonsense://x")
    async with bridged(server) as host:
        host.open(project)
        await host.ready(project)
        assert await host.ask(project) == PRIMARY

    assert host.has_said("nothing is shared with other processes")


# ── a host that fails ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer", [500, 404, httpx.ReadTimeout("t"), httpx.Response(200, text="<html>"), [], RuntimeError("x")], ids=repr
)
async def test_a_host_that_does_not_say_what_is_at_work_is_served_all_the_same(server, project, answer):
    server.on("GET", "/session/status", answer)
    async with bridged(server) as host:
        host.open(project)
        await host.ready(project)
        assert await host.ask(project) == PRIMARY


async def test_a_project_whose_work_has_failed_is_served_again(server, project, monkeypatch, caplog):
    monkeypatch.setattr(bridge_module, "AGAIN_SECONDS", 0.05)
    opened = []
    open_store = Project._open_store

    async def fail_once(self, loaded):
        opened.append(loaded)
        if len(opened) == 1:
            raise RuntimeError("the secret of a prompt")

        return await open_store(self, loaded)

    monkeypatch.setattr(Project, "_open_store", fail_once)
    events = recording("insufficient-balance-402")
    session_id = session_of(events)
    script(server, session_id)
    async with bridged(server) as host:
        host.open(project)
        await host.ready(project)
        host.tell(project, *events)
        await until(lambda: prompts(server, session_id) == [B])

    assert "a project's work failed: RuntimeError at test_bridge.py:" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 200, "headers": {}, "body": '{"a": 1}'}, None),
        ({"status": 200, "body": '{"a": 1}'}, None),
        ({"status": 404, "body": ""}, HostRefused),
        ({"status": 503, "body": ""}, HostUnavailable),
        ({"status": 200, "body": None}, HostRefused),
        ({"status": "nonsense"}, HostUnavailable),
        ({"status": None}, HostUnavailable),
        ({"status": 7}, HostUnavailable),
        ({"status": 99999, "body": "{}"}, HostUnavailable),
        ({"status": 200, "headers": 3}, HostUnavailable),
        ({"status": 200, "headers": {"content-type": 3}}, HostUnavailable),
        ({"status": 200, "body": "\ud800"}, HostUnavailable),
        ({}, HostUnavailable),
    ],
    ids=str,
)
async def test_whatever_the_hosts_side_answers_is_a_response_or_an_error_of_the_host(answer, error):
    class Side:
        async def request(self, method, params, *, patience):
            return answer

    client = OpenCodeClient("http://opencode.internal", transport=BridgeTransport(Side(), "/project"))
    if error is None:
        assert await client.get("/config") == {"a": 1}
    else:
        with pytest.raises(error):
            await client.get("/config")
    await client.close()


@pytest.mark.parametrize("failure", [TimeoutError(), HostUnavailable("gone")], ids=repr)
async def test_a_side_that_does_not_answer_is_a_host_that_is_not_available(failure):
    asked = []

    class Side:
        async def request(self, method, params, *, patience):
            asked.append((method, params, patience))
            raise failure

    client = OpenCodeClient("http://opencode.internal", transport=BridgeTransport(Side(), "/project"))
    with pytest.raises(HostUnavailable):
        await client.post("/session/ses_1/abort", {"a": "é"}, patience=10)
    await client.close()

    [(method, params, patience)] = asked
    assert (method, patience) == ("http", 10)
    assert params == {
        "directory": "/project",
        "method": "POST",
        "path": "/session/ses_1/abort",
        "headers": {"accept": "*/*", "content-type": "application/json"},
        "body": '{"a":"é"}',
        "timeout": 10_000,
    }


async def test_it_ends_when_the_host_does_whatever_is_under_way(server, project):
    events = recording("rate-limit-429")
    session_id = session_of(events)

    async def hang(request):
        await anyio.sleep_forever()

    script(server, session_id)
    server.on("POST", f"/session/{session_id}/abort", hang)
    with anyio.fail_after(PATIENCE):
        async with bridged(server) as host:
            host.open(project)
            await host.ready(project)
            host.tell(project, *events[: at_retry(events)])
            await until(lambda: ("POST", f"/session/{session_id}/abort") in server.made())
