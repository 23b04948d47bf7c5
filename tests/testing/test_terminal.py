"""A program in a terminal: typed to, read, hung up on, ended with everything it has started."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from fallback_plugin.testing.recording import Recording
from fallback_plugin.testing.terminal import KEYS, Terminal

# Shows what arrives, byte by byte, once the terminal is in raw mode.
ECHO = """
import os, sys, tty
tty.setraw(0)
os.write(1, "".join(sys.argv[1:]).encode() + b"ready\\r\\n")
while True:
    os.write(1, os.read(0, 1024).hex().encode() + b"\\r\\n")
"""
# Tells of each signal and lives on.
STUBBORN = """
import os, signal, sys, time
for name in ("SIGHUP", "SIGINT", "SIGTERM"):
    signal.signal(getattr(signal, name), lambda number, frame: open(sys.argv[1], "a").write(f"{number} "))
os.write(1, b"ready\\r\\n")
while True:
    time.sleep(0.05)
"""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def python(code, *arguments):
    return [sys.executable, "-c", code, *arguments]


def sh(script):
    return ["sh", "-c", script]


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(true, timeout=5):
    with anyio.fail_after(timeout):
        while not true():
            await anyio.sleep(0.01)


async def test_the_program_has_the_terminal_for_its_own():
    check = (
        "import os, sys; print(os.get_terminal_size(), os.getsid(0) == os.getpgid(0) == os.tcgetpgrp(0) == os.getpid())"
    )
    async with Terminal(python(check), columns=61, rows=9) as terminal:
        assert await terminal.wait_for(re.compile(r"columns=61, lines=9\) (True|False)")) == "columns=61, lines=9) True"
        assert await terminal.wait_for_exit() == 0


async def test_directory_and_environment(tmp_path):
    command = sh('echo "$PWD $NAME $TERM"')
    async with Terminal(
        command, directory=tmp_path, environment={"NAME": "value", "TERM": "dumb"}, columns=300
    ) as terminal:
        await terminal.wait_for(f"{tmp_path} value xterm-256color")


async def test_what_is_typed_arrives():
    async with Terminal(["cat"]) as terminal:
        await terminal.type("grüße")
        await terminal.press("enter")
        await terminal.wait_for("grüße\ngrüße")

        await terminal.type("slow", pause=0.001)
        await terminal.press("backspace")
        await terminal.press("enter")
        await terminal.wait_for("slo\nslo")


async def test_keys_send_what_terminals_send():
    async with Terminal(python(ECHO), columns=40, rows=len(KEYS) + 4) as terminal:
        await terminal.wait_for("ready")
        for key, sent in KEYS.items():
            await terminal.press(key)
            await terminal.wait_for(re.compile(rf"(?m)^{sent.encode().hex()}$"))

        assert terminal.screen[1 : len(KEYS) + 1] == tuple(sent.encode().hex() for sent in KEYS.values())


async def test_an_unknown_key():
    async with Terminal(["cat"]) as terminal:
        with pytest.raises(KeyError):
            await terminal.press("hyper")


async def test_ctrl_c_reaches_the_foreground():
    async with Terminal(sh("echo ready; exec sleep 30")) as terminal:
        await terminal.wait_for("ready")
        await terminal.press("ctrl+c")
        assert await terminal.wait_for_exit() == -signal.SIGINT


async def test_waiting_in_vain_shows_the_screen():
    async with Terminal(sh("echo something else; sleep 30")) as terminal:
        await terminal.wait_for("something")
        with pytest.raises(TimeoutError, match=r"'wanted' did not show within 0.05 s:\nsomething else"):
            await terminal.wait_for("wanted", timeout=0.05)

        with pytest.raises(TimeoutError, match=r"'something' is still there after 0.05 s:\nsomething else"):
            await terminal.wait_until_gone("something", timeout=0.05)

        with pytest.raises(TimeoutError, match=r"runs on after 0.05 s:\nsomething else"):
            await terminal.wait_for_exit(timeout=0.05)


async def test_waiting_for_a_program_that_has_ended():
    async with Terminal(sh("echo last words; exit 3")) as terminal:
        with pytest.raises(EOFError, match=r"has ended and 'more' is not on the screen:\nlast words"):
            await terminal.wait_for("more", timeout=20)

        assert await terminal.wait_for("last words") == "last words"
        assert await terminal.wait_for_exit() == 3


async def test_waiting_until_something_has_gone():
    async with Terminal(sh("printf 'old text'; sleep 0.2; printf '\\rnew\\033[K'; sleep 30")) as terminal:
        await terminal.wait_for("old text")
        await terminal.wait_until_gone("old text")
        assert terminal.text.strip() == "new"


async def test_the_program_is_told_where_the_cursor_is():
    async with Terminal(python(ECHO, "ab\033[6n")) as terminal:
        await terminal.wait_for(b"\x1b[1;3R".hex())


async def test_an_unknown_program():
    async with Terminal(["/nowhere/to/be/found"]) as terminal:
        await terminal.wait_for("FileNotFoundError")
        assert await terminal.wait_for_exit() == 1


async def test_leaving_ends_what_the_program_has_started():
    async with Terminal(sh("sleep 1000 & echo child $!; wait")) as terminal:
        child = int((await terminal.wait_for(re.compile(r"child \d+"))).split()[1])
        assert runs(child)

    assert terminal.exit_code in (-signal.SIGHUP, -signal.SIGKILL)
    await until(lambda: not runs(child))


async def test_leaving_kills_who_does_not_go(tmp_path, monkeypatch):
    monkeypatch.setattr("fallback_plugin.testing.terminal._STOP_SECONDS", 0.2)
    told = tmp_path / "told"
    async with Terminal(python(STUBBORN, str(told))) as terminal:
        await terminal.wait_for("ready")

    assert terminal.exit_code == -signal.SIGKILL
    assert told.read_text() == f"{int(signal.SIGHUP)} "


async def test_an_error_of_the_test_comes_through_bare():
    with pytest.raises(ZeroDivisionError):
        async with Terminal(["cat"]) as terminal:
            assert 1 / 0

    assert terminal.exit_code is not None


async def test_a_closed_window_hangs_up(tmp_path, monkeypatch):
    monkeypatch.setattr("fallback_plugin.testing.terminal._STOP_SECONDS", 0.2)
    told = tmp_path / "told"
    async with Terminal(python(STUBBORN, str(told))) as terminal:
        await terminal.wait_for("ready")
        await terminal.hang_up()
        await until(told.exists)

        assert terminal.exit_code is None
        with pytest.raises(EOFError, match="hung up"):
            await terminal.type("anyone?")


async def test_a_signal_reaches_the_program_alone(tmp_path):
    told = tmp_path / "told"
    async with Terminal(sh(f"{shlex.join(python(STUBBORN, str(told)))} & wait")) as terminal:
        await terminal.wait_for("ready")
        terminal.signal(signal.SIGTERM)
        assert await terminal.wait_for_exit() == -signal.SIGTERM

        # The kernel hangs up on the group when the terminal has lost its owner.
        await until(told.exists)
        assert told.read_text() == f"{int(signal.SIGHUP)} "


async def test_the_recording_has_what_was_written_and_when(tmp_path):
    async with Terminal(sh("printf 'a\\303'; sleep 0.2; printf '\\244b'; sleep 0.1"), columns=20, rows=3) as terminal:
        assert await terminal.wait_for_exit() == 0
        await terminal.wait_for("aäb")

    recording = terminal.recording
    assert b"".join(data for _, data in recording.writes) == "aäb".encode()
    assert recording.writes[1][0] - recording.writes[0][0] > 0.15
    assert all(before[0] <= after[0] for before, after in pairwise(recording.writes))

    recording.save(tmp_path / "it.cast", title="letters")
    loaded = Recording.load(tmp_path / "it.cast")
    assert (loaded.columns, loaded.rows) == (20, 3)
    assert [data for _, data in loaded.writes] == [b"a", "äb".encode()]


@contextmanager
def open_descriptors():
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_no_descriptor_is_left():
    with open_descriptors():
        async with Terminal(["cat"]) as terminal:
            await terminal.type("x")
            await terminal.wait_for("x")
