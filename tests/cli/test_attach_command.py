"""`fallback-plugin attach` as a process, on a server that plays OpenCode."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

import fallback_plugin

SES = "ses_1"
CHAIN = {"fallback_models": ["two/b"], "min_hop_interval_seconds": 0}
PATIENCE = 20.0


def command(*arguments):
    return [sys.executable, "-m", "fallback_plugin", *arguments]


@pytest.fixture
def environment(tmp_path):
    """A home without any configuration; warnings that nobody sees are errors here."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OPENCODE", "XDG", "PYTHON"))}
    return {**kept, "HOME": str(tmp_path), "PYTHONWARNINGS": "error::ResourceWarning"}


@pytest.fixture
def run(environment, tmp_path):
    """Runs the command to its end."""

    def start(*arguments, **variables):
        return subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=tmp_path,
            env={**environment, **variables},
        )

    return start


class Process:
    """The command at work; its lines are read as they come."""

    def __init__(self, arguments, environment, cwd):
        self.popen = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=cwd,
            env=environment,
        )
        self.out, self.err = [], []
        self._readers = [self._read(self.popen.stdout, self.out), self._read(self.popen.stderr, self.err)]

    @staticmethod
    def _read(pipe, lines):
        def follow():
            for line in iter(pipe.readline, ""):
                lines.append(line.rstrip("\n"))

        reader = threading.Thread(target=follow)
        reader.start()
        return reader

    def end(self, number=signal.SIGTERM):
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            code = self.popen.wait(PATIENCE)
        finally:
            self.popen.kill()
        for reader in self._readers:
            reader.join(PATIENCE)
        self.popen.stdout.close()
        self.popen.stderr.close()
        return code


def wait_until(holds, what):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.01)

    pytest.fail(f"waited in vain: {what}")


@pytest.fixture
def attach(environment, tmp_path):
    """Starts `attach`; what still runs at the end of the test is ended."""
    started = []

    def start(*arguments, **variables):
        process = Process(["attach", *arguments], {**environment, **variables}, tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        process.end()


@pytest.fixture
def chain_file(tmp_path):
    file = tmp_path / "chain.json"
    file.write_text(json.dumps(CHAIN))
    return str(file)


@contextmanager
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield free.getsockname()[1]


def fail_a_turn(server, reply, *, abort_takes=0.0):
    """A turn on the server that the provider throttles; the abort ends it, the prompt runs on the next model."""

    def info(message_id, **fields):
        return {"id": message_id, "sessionID": SES, "agent": "build", "time": {"created": 1}, **fields}

    def answer(message_id, provider, model):
        return info(message_id, role="assistant", parentID="u1", providerID=provider, modelID=model)

    def abort(handler):
        time.sleep(abort_takes)
        server.say("session.idle", sessionID=SES)
        handler.send(reply())

    def prompt(handler):
        model = server.requests[-1][3]["model"]
        handler.send(reply(status=200))
        server.say("message.updated", sessionID=SES, info=answer("m2", model["providerID"], model["modelID"]))

    server.replies["POST", f"/session/{SES}/abort"] = abort
    server.replies["POST", f"/session/{SES}/prompt_async"] = prompt
    user = info("u1", role="user", model={"providerID": "one", "modelID": "a"})
    server.say("message.updated", sessionID=SES, info=user)
    server.say("message.updated", sessionID=SES, info=answer("m1", "one", "a"))
    status = {"type": "retry", "attempt": 1, "message": "Rate limit reached for my-secret-account", "next": 0}
    server.say("session.status", sessionID=SES, status=status)


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_is_down_is_one_line_and_exit_3(run):
    with free_port() as port:
        done = run("attach", "--url", f"http://127.0.0.1:{port}")

    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == f"no server answers at http://127.0.0.1:{port}: ConnectError\n"


@pytest.mark.parametrize("url", ["127.0.0.1:4096", "http://[::1", "http://h:port", "http://h:99999", "ftp://h", ""])
def test_a_wrong_url_is_one_line_and_exit_3(run, url):
    done = run("attach", "--url", url)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"{url!r} is no server URL; expected one like http://127.0.0.1:4096\n"


def test_a_password_in_the_url_is_refused_unseen(run):
    done = run("attach", "--url", "http://opencode:geheim@127.0.0.1:4096")

    assert done.returncode == 3
    assert "OPENCODE_SERVER_PASSWORD" in done.stderr
    assert "geheim" not in done.stdout + done.stderr


def test_a_web_page_is_no_opencode_server(run, loopback, reply):
    loopback.replies["GET", "/doc"] = reply(body="<html></html>", content_type="text/html")
    done = run("attach", "--url", loopback.url)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"{loopback.url} is not an OpenCode server: GET /doc is not its OpenAPI document\n"


def test_a_missing_operation_is_named_and_exit_3(run, loopback, reply, document):
    missing = "POST /session/{sessionID}/prompt_async"
    loopback.replies["GET", "/doc"] = reply(body=document(without=[missing]))
    done = run("attach", "--url", loopback.url)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"the OpenCode at {loopback.url} lacks {missing}; update it (1.18.33 has them)\n"


def test_a_wrong_password_is_one_line_that_does_not_repeat_it(run, loopback, reply):
    loopback.replies["GET", "/doc"] = reply(status=401)
    done = run("attach", "--url", loopback.url, OPENCODE_SERVER_PASSWORD="geheim")

    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert "OPENCODE_SERVER_PASSWORD" in done.stderr
    assert "geheim" not in done.stderr
    assert loopback.requests[0][2]["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('{\n  "fallback_model": ["two/b"]\n}', ":2", "fallback_models"),
        ('{\n\n  "cooldown_seconds": "long"\n}', ":3", "cooldown_seconds"),
        ("{", ":1", ""),
    ],
    ids=["unknown key", "wrong type", "no json"],
)
def test_a_bad_file_is_told_with_its_line_and_exit_2_before_the_server_is_asked(
    run, loopback, tmp_path, text, place, words
):
    file = tmp_path / "bad.json"
    file.write_text(text)
    done = run("attach", "--url", loopback.url, "--config", str(file))

    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file}{place}" in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert loopback.requests == []


def test_a_missing_file_is_told_and_exit_2(run, loopback, tmp_path):
    done = run("attach", "--url", loopback.url, "--config", str(tmp_path / "none.json"))

    assert done.returncode == 2
    assert "none.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_option_is_exit_2(run):
    done = run("attach", "--no-such-option")

    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_wait_it_keeps_trying_and_ends_well_on_a_signal(attach, number):
    with free_port() as port:
        process = attach("--url", f"http://127.0.0.1:{port}", "--wait")
        wait_until(lambda: len(process.err) >= 2, "a second try")

        assert process.popen.poll() is None
        assert process.end(number) == 0
    assert set(process.err) == {f"no server answers at http://127.0.0.1:{port}: ConnectError"}
    assert process.out == []


def test_with_wait_a_server_that_comes_up_is_attached_to(attach, loopback, reply):
    ready = loopback.replies["GET", "/doc"]
    loopback.replies["GET", "/doc"] = reply(status=503)
    process = attach("--url", loopback.url, "--wait")
    wait_until(lambda: process.err, "a failed try")
    loopback.replies["GET", "/doc"] = ready
    wait_until(lambda: process.out, "the ready line")

    assert f"attached to {loopback.url}" in process.out[0]
    assert process.end() == 0


# ── at work ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_says_when_it_is_ready_carries_a_turn_on_and_ends_well(attach, loopback, reply, chain_file):
    process = attach("--url", loopback.url, "--config", chain_file)
    wait_until(lambda: process.out, "the ready line")
    assert process.out[0].endswith(f"attached to {loopback.url} ({chain_file})")

    fail_a_turn(loopback, reply)
    wait_until(lambda: len(process.out) >= 3, "failure and hop")
    assert process.end() == 0
    assert process.out[1].endswith(f"{SES}  one/a failed: rate limit; going on with two/b")
    assert process.out[2].endswith(f"{SES}  one/a → two/b (rate limit)")
    assert "detached (" in process.out[3]
    assert len(process.out) == 4
    assert process.err == []
    assert "my-secret-account" not in "".join(process.out)


def test_json_lines_are_objects_that_say_all(attach, loopback, reply, chain_file):
    process = attach("--url", loopback.url, "--config", chain_file, "--json")
    wait_until(lambda: process.out, "the ready line")
    fail_a_turn(loopback, reply)
    wait_until(lambda: len(process.out) >= 3, "failure and hop")
    loopback.say_raw("{")
    wait_until(lambda: not any(stream.qsize() for stream in loopback.streams), "the malformed event to go out")
    time.sleep(0.2)
    assert process.end() == 0

    ready, failure, hop, detached = [json.loads(line) for line in process.out]
    assert (ready["notice"], ready["ready"], ready["url"], ready["config"]) == (
        "attachment", True, loopback.url, chain_file
    )  # fmt: skip
    assert (failure["notice"], failure["session"], failure["route"], failure["next_route"]) == (
        "failure", SES, "one/a", "two/b"
    )  # fmt: skip
    assert failure["failure"]["kind"] == "rate_limit"
    assert (hop["notice"], hop["next_route"]) == ("hop", "two/b")
    assert detached["counts"]["malformed"] == 1
    assert detached["calls"] == len(loopback.requests) - loopback.paths().count("/event")
    assert all("at" in json.loads(line) and "text" in json.loads(line) for line in process.out)


def test_a_reader_that_is_gone_ends_neither_the_plugin_nor_its_good_end(
    loopback, reply, chain_file, environment, tmp_path
):
    ours, theirs = os.pipe()
    with (tmp_path / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command("attach", "--url", loopback.url, "--config", chain_file),
            stdout=theirs, stderr=errors, cwd=tmp_path, env=environment,
        )  # fmt: skip
        os.close(theirs)
        try:
            assert b"attached to" in os.read(ours, 4096)
            os.close(ours)
            fail_a_turn(loopback, reply)
            wait_until(lambda: "/tui/show-toast" in loopback.paths("POST"), "the hop")
            process.send_signal(signal.SIGTERM)
            code = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        said = errors.read()

    assert loopback.paths("POST").count(f"/session/{SES}/prompt_async") == 1
    assert code == 0
    assert said == ""


def test_a_terminal_without_arrows_still_gets_every_line(attach, loopback, reply, chain_file):
    process = attach("--url", loopback.url, "--config", chain_file, PYTHONIOENCODING="ascii")
    wait_until(lambda: process.out, "the ready line")
    fail_a_turn(loopback, reply)
    wait_until(lambda: len(process.out) >= 3, "failure and hop")

    assert process.end() == 0
    assert "one/a \\u2192 two/b" in process.out[2]


def test_json_lines_need_no_more_than_ascii(attach, loopback, reply, chain_file):
    process = attach("--url", loopback.url, "--config", chain_file, "--json", PYTHONIOENCODING="ascii")
    wait_until(lambda: process.out, "the ready line")
    fail_a_turn(loopback, reply)
    wait_until(lambda: len(process.out) >= 3, "failure and hop")

    assert process.end() == 0
    assert json.loads(process.out[2])["text"] == "one/a → two/b (rate limit)"


def test_a_signal_in_the_middle_of_a_hop_lets_it_finish(attach, loopback, reply, chain_file):
    process = attach("--url", loopback.url, "--config", chain_file, "--json")
    wait_until(lambda: process.out, "the ready line")
    fail_a_turn(loopback, reply, abort_takes=0.7)
    wait_until(lambda: loopback.paths("POST"), "the abort")
    assert f"/session/{SES}/prompt_async" not in loopback.paths("POST")

    assert process.end() == 0
    notices = [json.loads(line)["notice"] for line in process.out]
    assert notices == ["attachment", "failure", "hop", "attachment"]
    assert loopback.paths("POST").count(f"/session/{SES}/prompt_async") == 1


def test_the_directory_is_told_to_the_server(attach, loopback, tmp_path):
    process = attach("--url", loopback.url, "--directory", str(tmp_path))
    wait_until(lambda: process.out, "the ready line")

    assert process.end() == 0
    assert {headers.get("x-opencode-directory") for _, _, headers, _ in loopback.requests} == {str(tmp_path.resolve())}


# ── the package ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_module_is_the_command(run):
    done = run("--help")

    assert done.returncode == 0
    assert "attach" in done.stdout
    assert run().stdout + run().stderr


def test_importing_the_package_loads_no_library(environment):
    heavy = ["httpx", "anyio", "asyncio", "pydantic", "typer", "click", "rich", "redis", "sqlite3", "re2", "h11"]
    code = f"import sys, fallback_plugin; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30, env=environment
    )

    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_no_other():
    assert sorted(fallback_plugin.__all__) == fallback_plugin.__all__
    assert set(fallback_plugin.__all__) == set(fallback_plugin._HOMES)
    for name in fallback_plugin.__all__:
        home = importlib.import_module(f"fallback_plugin.{fallback_plugin._HOMES[name]}")
        assert getattr(fallback_plugin, name) is getattr(home, name)

    assert len(fallback_plugin.__all__) <= 15


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        fallback_plugin.Nothing  # noqa: B018
