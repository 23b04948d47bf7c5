"""plugin.js under real node, with bridges that are missing, dying, talking nonsense, deaf, slow, and the real one."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from importlib.resources import files
from itertools import count
from pathlib import Path

import pytest

from fallback_plugin.hosts.opencode.bridge_log import LOG_NAME
from fallback_plugin.hosts.opencode.events import _PARSERS
from fallback_plugin.hosts.opencode.installation import MARK, plugin_text
from fallback_plugin.testing.opencode_plugged import SAME_CODE

HERE = Path(__file__).parent
SCRIPT = files("fallback_plugin.hosts.opencode").joinpath("plugin.js").read_text(encoding="utf-8")
WAIT = 0.25
SLACK = 0.3
"""Seconds for a machine that is busy with other things."""
PATIENCE = 15.0
BRIDGE = [sys.executable, "-m", "fallback_plugin", "bridge"]
NOW = 1_800_000_000_000
MODEL = {"providerID": "one", "modelID": "a", "variant": "high"}


class Node:
    """A node process that has loaded plugin.js; `say` a command, look at what was told."""

    def __init__(self, script, notes, environment):
        self.notes = notes
        self.script = script
        self.told = []
        self._ids = count(1)
        self._answers = queue.Queue()
        self.process = subprocess.Popen(
            ["node", str(HERE / "plugin_driver.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            message = json.loads(line)
            if "id" in message:
                self._answers.put(message)
            else:
                self.told.append(message)

    def say(self, verb, **params):
        number = next(self._ids)
        self.process.stdin.write(json.dumps({"id": number, "verb": verb, **params}) + "\n")
        self.process.stdin.flush()
        answer = self._answers.get(timeout=PATIENCE)
        assert answer["id"] == number
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def load(self, directory="/one", copy="a", config=None):
        own = self.script.with_name(f"{copy}.mjs")
        own.write_bytes(self.script.read_bytes())
        hooks = self.say("load", url=own.as_uri(), directory=directory, copy=copy)
        if hooks:
            self.hook("config", {} if config is None else config, directory=directory, copy=copy)
        return hooks

    def hook(self, name, *values, directory="/one", copy="a", times=1):
        return self.say("hook", name=name, values=values, directory=directory, copy=copy, times=times)

    def prompt(self, directory="/one", **given):
        """The model that a prompt goes to, and the seconds that the hook took."""
        message, seconds = self.message(directory, **given)
        return message["model"], seconds

    def message(self, directory="/one", **given):
        """The message that a prompt becomes, and the seconds that the hook took."""
        output = {"message": {"id": "msg_1", "agent": "build", "model": MODEL, "time": {"created": NOW}}, "parts": []}
        done = self.hook("chat.message", {"sessionID": "ses_1", **given}, output, directory=directory)
        return done["values"][1]["message"], done["milliseconds"] / 1000

    def event(self, kind, times=1, **properties):
        self.hook("event", {"event": {"id": "evt_1", "type": kind, "properties": properties}}, times=times)

    def noted(self, method=None):
        """What the stand-in was told, all of it or the parameters of one method."""
        text = self.notes.read_text() if self.notes.exists() else ""
        messages = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return messages if method is None else [each["params"] for each in messages if each.get("method") == method]

    def births(self):
        return [(each["born"], each["at"]) for each in self.noted() if "born" in each]

    def requests(self, path=""):
        return [told["http"] for told in list(self.told) if path in told.get("http", {}).get("url", "")]

    def crashes(self):
        return [told for told in self.told if "crashed" in told]

    def end(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdin.close()
        self.process.stdout.close()


def until(is_so):
    end = time.monotonic() + PATIENCE
    while not (found := is_so()):
        assert time.monotonic() < end, "it has not come to pass"
        time.sleep(0.02)

    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def start(tmp_path):
    """Starts node with a plugin whose bridge is a stand-in of a manner, or a command."""
    nodes = []

    def start(manner=None, command=None, **constants):
        notes, script = tmp_path / "notes", tmp_path / "plugin.mjs"
        stand_in = [sys.executable, str(HERE / "bridge_stand_in.py"), str(notes), manner or "keeps"]
        text = plugin_text(command or stand_in).replace("3_000)", "30)")
        for name, value in constants.items():
            text, found = re.subn(rf"\b{name} = [\w.* ]+", f"{name} = {value}", text, count=1)
            assert found == 1
        script.write_text(text)
        home = {name: str(tmp_path / "home") for name in ("HOME", "XDG_CONFIG_HOME", "FALLBACK_PLUGIN_HOME")}
        nodes.append(Node(script, notes, {**home, **SAME_CODE}))
        return nodes[-1]

    yield start
    for node in nodes:
        node.end()
    assert [node.crashes() for node in nodes] == [[] for _ in nodes]


# ── the text ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_passes_on_just_the_events_that_the_other_side_reads():
    [listed] = re.findall(r"const EVENTS = new Set\(\[(.*?)\]\)", SCRIPT, re.DOTALL)

    assert set(re.findall(r'"([^"]+)"', listed)) == set(_PARSERS) - {"tool.executed"}


def test_it_is_marked_as_ours_and_short():
    assert SCRIPT.startswith(MARK)
    assert SCRIPT.count("\n") < 250
    assert plugin_text(["/a b/python", "-m", "x"]).count('const COMMAND = ["/a b/python", "-m", "x"]\n') == 1


# ── bridges that are not there, or not right ─────────────────────────────────────────────────────────────────────


def test_without_python_the_host_works_and_is_told_once(start):
    node = start(command=["/nowhere/python", "-m", "fallback_plugin"], FIRST_PAUSE=10)
    node.load()
    for _ in range(3):
        assert node.prompt()[0] == MODEL
    node.event("session.idle", sessionID="ses_1")

    [logged] = until(lambda: node.requests("/log"))
    assert "/nowhere/python can't be run (ENOENT)" in logged["body"]
    until(lambda: node.requests("/tui/show-toast"))
    assert len(node.requests()) == 2


@pytest.mark.parametrize("manner", ["ends", "babbles", "endless"])
def test_a_bridge_that_is_no_use_is_replaced_later_and_later(start, manner):
    node = start(manner, FIRST_PAUSE=40)
    node.load()
    births = until(lambda: len(node.births()) >= 5 and node.births())
    model, seconds = node.prompt()

    assert model == MODEL
    assert seconds < WAIT + SLACK
    for n, pause in enumerate((0.04, 0.08, 0.16, 0.32)):
        assert births[n + 1][1] - births[n][1] >= pause * 0.9
    until(lambda: not any(is_alive(pid) for pid, _ in births[:4]))
    assert sum("can't be run (it ends at once)" in each["body"] for each in node.requests("/log")) == 1


def test_a_bridge_that_never_answers_delays_a_prompt_by_a_quarter_of_a_second_and_changes_nothing(start):
    node = start("silent")
    node.load()
    until(lambda: node.noted("project.opened"))
    model, seconds = node.prompt()

    assert model == MODEL
    assert WAIT - 0.01 <= seconds < WAIT + SLACK
    assert len(node.births()) == 1


def test_a_bridge_that_owes_an_answer_for_long_is_stuck_and_replaced(start):
    node = start("silent", STUCK=400, FIRST_PAUSE=10)
    node.load()
    until(lambda: node.noted("project.opened"))
    node.prompt()

    until(lambda: len(node.noted("project.opened")) == 2)
    [first, _] = node.births()
    assert not is_alive(first[0])


def test_a_bridge_that_does_not_read_is_replaced_before_the_host_runs_full(start):
    node = start("deaf", BACKLOG="1024 * 1024", FIRST_PAUSE=10)
    node.load()
    until(node.births)
    error = {"name": "APIError", "data": {"message": "x" * 10_000}}
    node.event("session.error", times=150, sessionID="ses_1", error=error)

    until(lambda: len(node.births()) >= 2)
    assert not is_alive(node.births()[0][0])


@pytest.mark.parametrize("manner", ["keeps", "refuses", "text", "half", "empty", "null"])
def test_an_answer_that_names_no_model_changes_none(start, manner):
    node = start(manner)
    node.load()
    until(lambda: node.noted("project.opened"))
    model, seconds = node.prompt()

    assert model == MODEL
    assert seconds < WAIT


def test_an_answer_that_names_a_model_is_obeyed(start):
    node = start("routes")
    node.load()
    until(lambda: node.noted("project.opened"))
    model, _ = node.prompt(model={"providerID": "one", "modelID": "a"}, messageID="msg_0")

    assert model == {"providerID": "two", "modelID": "org/b"}
    [asked] = node.noted("chat.message")
    assert asked == {
        "directory": "/one",
        "sessionID": "ses_1",
        "messageID": "msg_0",
        "agent": "build",
        "model": MODEL,
        "picked": True,
        "id": "msg_1",
    }


@pytest.mark.parametrize(("manner", "created"), [("dates", 1_700_000_000_123), ("misdates", NOW), ("keeps", NOW)])
def test_a_message_that_is_resumed_keeps_the_time_that_it_had(start, manner, created):
    node = start(manner)
    node.load()
    until(lambda: node.noted("project.opened"))
    message, _ = node.message(messageID="msg_1")

    assert message == {"id": "msg_1", "agent": "build", "model": MODEL, "time": {"created": created}}


def test_odd_messages_are_survived(start):
    node = start("odd")
    node.load()
    until(lambda: sum(each.get("id") == 2 for each in node.noted()) == 6)
    assert [each["error"]["code"] for each in node.noted() if each.get("id") == 1] == [-32601]
    model, _ = node.prompt()

    assert model == MODEL
    assert len(node.births()) == 1


def test_requests_are_carried_out_by_the_hosts_own_fetch(start):
    node = start("asks")
    node.load()
    answers = until(lambda: [each for each in node.noted() if each.get("id") == 11] and node.noted())
    found = {each["id"]: each for each in answers if "id" in each}

    assert found[10]["result"] == {"status": 200, "headers": {"content-type": "application/json"}, "body": "{}"}
    assert found[11]["error"]["message"] == "TimeoutError"
    [asked] = node.requests("/session/status")
    assert asked["url"] == "http://opencode.test/session/status"
    assert {tuple(each) for each in asked["headers"]} >= {("authorization", "Bearer host"), ("x-a", "b")}
    [logged] = node.requests("/log")
    assert json.loads(logged["body"]) == {"service": "fallback-plugin", "level": "info", "message": "hello"}


# ── what is passed on ────────────────────────────────────────────────────────────────────────────────────────────


def test_tokens_are_not_passed_on_one_by_one_nor_any_text(start):
    node = start("keeps", TOKEN_PAUSE=60_000)
    node.load()
    where = {"sessionID": "ses_1", "messageID": "msg_1", "partID": "prt_1"}
    node.event("message.part.delta", times=5000, **where, field="text", delta="a secret")
    node.event("message.part.delta", **where | {"partID": "prt_2"}, field="text", delta="a secret")
    part = {"id": "prt_1", "sessionID": "ses_1", "messageID": "msg_1", "type": "text", "text": "a secret"}
    node.event("message.part.updated", times=1000, sessionID="ses_1", part=part)
    tool = part | {"id": "prt_3", "type": "tool", "tool": "bash", "callID": "c", "text": None}
    for status in ("running", "completed"):
        state = {"status": status, "input": {"command": "a secret"}, "output": "a secret"}
        node.event("message.part.updated", times=1000, sessionID="ses_1", part=tool | {"state": state})
    node.event("session.idle", sessionID="ses_1")
    until(lambda: node.noted("event") and node.noted("event")[-1]["event"]["type"] == "session.idle")

    told = [each["event"] for each in node.noted("event")]
    assert [each["type"] for each in told] == [
        *["message.part.delta"] * 2,
        *["message.part.updated"] * 3,
        "session.idle",
    ]
    assert told[0]["properties"] == where
    assert told[2]["properties"]["part"]["text"] == "…"
    assert [each["properties"]["part"]["state"]["status"] for each in told[3:5]] == ["running", "completed"]
    assert "secret" not in node.notes.read_text()


def test_a_stream_of_tokens_is_a_sign_of_life_now_and_then(start):
    node = start("keeps", TOKEN_PAUSE=1)
    node.load()
    for _ in range(3):
        node.event("message.part.delta", sessionID="ses_1", messageID="msg_1", partID="prt_1")
        time.sleep(0.01)
    until(lambda: len(node.noted("event")) == 3)


def test_events_of_other_types_stay_where_they_are_and_messages_go_without_their_diffs(start):
    node = start("keeps")
    node.load()
    node.event("session.updated", sessionID="ses_1", info={"title": "a secret"})
    node.event("session.created", sessionID="ses_1", info={"id": "ses_1", "title": "a secret", "cost": 0})
    info = {"id": "msg_1", "role": "user", "system": "Be terse.", "summary": {"diffs": ["a secret"]}}
    node.event("message.updated", sessionID="ses_1", info=info)
    node.hook("tool.execute.after", {"tool": "bash", "sessionID": "ses_1", "callID": "c"}, {"output": "a secret"})
    until(lambda: node.noted("tool.executed"))

    created, updated = (each["event"]["properties"] for each in node.noted("event"))
    assert created == {"sessionID": "ses_1", "info": {"id": "ses_1"}}
    assert updated["info"] == {"id": "msg_1", "role": "user", "system": "Be terse."}
    assert "secret" not in node.notes.read_text()


def test_a_subagents_call_and_its_session_go_with_the_title_that_they_share(start):
    node = start("keeps")
    node.load()
    info = {"id": "ses_2", "parentID": "ses_1", "title": "look (@explore subagent)"}
    node.event("session.created", sessionID="ses_2", info={**info, "cost": 0})
    asked = {"description": "look", "subagent_type": "explore", "prompt": "a secret"}
    part = {"id": "prt_1", "sessionID": "ses_1", "messageID": "msg_1", "type": "tool", "tool": "task", "callID": "c"}
    node.event("message.part.updated", sessionID="ses_1", part=part | {"state": {"status": "running", "input": asked}})
    until(lambda: len(node.noted("event")) == 2)

    created, updated = (each["event"]["properties"] for each in node.noted("event"))
    assert created["info"] == info
    assert updated["part"]["state"]["input"] == {"description": "look", "subagent_type": "explore"}
    assert "secret" not in node.notes.read_text()


def test_of_the_configuration_neither_keys_nor_prompts_are_passed_on(start):
    node = start("keeps")
    build = {
        "model": "one/a",
        "fallback_models": ["two/b"],
        "prompt": "a secret",
        "options": {"fallback_models": ["three/c"], "apiKey": "a secret"},
    }
    providers = {"one": {"options": {"apiKey": "a secret"}}}
    node.load(config={"model": "one/a", "agent": {"build": build, "plan": None}, "provider": providers})
    [opened] = until(lambda: node.noted("project.opened"))

    assert opened["config"]["model"] == "one/a"
    assert opened["config"]["agent"]["build"] == {
        "model": "one/a",
        "fallback_models": ["two/b"],
        "options": {"fallback_models": ["three/c"]},
    }
    assert "secret" not in node.notes.read_text()


def test_no_hook_throws_whatever_it_is_called_with(start):
    node = start("keeps")
    hooks = node.load()
    for name in (name for name in hooks if name != "dispose"):
        node.say("break", copy="a", directory="/one", name=name)
    node.say("break", copy="a", directory="/one", name="dispose")

    until(lambda: node.noted("project.closed"))
    assert node.prompt()[0] == MODEL


def test_no_hook_but_a_prompts_waits(start):
    node = start("deaf")
    node.load()
    took = node.hook("event", {"event": {"id": "e", "type": "session.idle", "properties": {}}}, times=100)
    assert took["milliseconds"] < 100
    took = node.hook("tool.execute.after", {"tool": "bash", "sessionID": "s", "callID": "c"}, {}, times=100)
    assert took["milliseconds"] < 100


# ── lives ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bridge_that_is_killed_is_replaced_and_told_of_the_projects_again(start):
    node = start("keeps")
    for directory in ("/one", "/two"):
        node.load(directory, config={"model": "one/a"})
    until(lambda: len(node.noted("project.opened")) == 2)
    [(pid, _)] = node.births()
    os.kill(pid, signal.SIGKILL)

    model, seconds = node.prompt()
    assert model == MODEL
    assert seconds < WAIT + SLACK
    until(lambda: len(node.noted("project.opened")) == 4)
    assert node.noted("project.opened")[:2] == node.noted("project.opened")[2:]
    assert len(node.births()) == 2


def test_two_copies_of_the_plugin_in_one_process_make_one_bridge(start):
    node = start("keeps")
    assert "event" in node.load(copy="a")
    assert node.load(copy="b") == [], "for the same project: installed twice"
    assert "event" in node.load("/two", copy="b")
    until(lambda: len(node.noted("project.opened")) == 2)

    assert len(node.births()) == 1


def test_a_project_that_is_disposed_is_closed_and_may_come_again(start):
    node = start("keeps")
    node.load()
    node.hook("dispose")
    until(lambda: node.noted("project.closed") == [{"directory": "/one"}])
    node.load()
    until(lambda: len(node.noted("project.opened")) == 2)

    assert len(node.births()) == 1


def test_a_bridge_does_not_keep_a_host_that_is_done(start):
    node = start("keeps")
    node.load()
    until(lambda: node.noted("project.opened"))
    node.say("close")

    assert node.process.wait(PATIENCE) == 0
    until(lambda: any("ended" in each for each in node.noted()))


# ── the real bridge ──────────────────────────────────────────────────────────────────────────────────────────────


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_real_bridge_answers_writes_its_log_for_the_user_alone_and_ends_when_the_host_is_killed(start, tmp_path):
    node = start(command=BRIDGE)
    project = tmp_path / "project"
    project.mkdir()
    (project / "json.py").write_text("raise SystemExit('a project must not be imported')")
    node.load(str(project), config={"model": "one/a"})
    until(lambda: node.requests("/session/status"))
    ready = until(lambda: [each for each in node.requests("/log") if "ready" in each["body"]])
    assert str(project) in ready[0]["body"]

    model, seconds = node.prompt(str(project))
    assert model == MODEL
    assert seconds < WAIT, "answered, not waited for in vain"
    assert (tmp_path / "home" / LOG_NAME).stat().st_mode & 0o777 == 0o600

    [child] = children_of(node.process.pid)
    node.process.send_signal(signal.SIGKILL)
    until(lambda: not is_alive(child))


def test_a_module_of_the_hosts_directory_is_not_taken_for_pythons_own(start, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('a project must not be imported')")
    monkeypatch.chdir(tmp_path)
    node = start(command=BRIDGE)
    node.load()

    until(lambda: [each for each in node.requests("/log") if "ready" in each["body"]])
    assert not [each for each in node.requests("/log") if "can't be run" in each["body"]]
