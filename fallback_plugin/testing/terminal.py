r"""A program in a terminal: it is typed to, its screen is read, and it is gone afterwards.

    async with Terminal(["sh"], columns=80, rows=24) as terminal:
        await terminal.type("echo hello")
        await terminal.press("enter")
        await terminal.wait_for("hello\n")
        terminal.recording.save(Path("hello.cast"))

The program runs on a real pseudo-terminal that controls it, in a session and process group of its own, with a
screen emulated by pyte. It is told where the cursor is if it asks; other questions get no answer.
Leaving the terminal hangs up, as closing a window does, and kills what is left of the process group.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Self

import anyio

from fallback_plugin.testing.recording import Recording
from fallback_plugin.testing.terminal_screen import TerminalScreen

KEYS: Mapping[str, str] = MappingProxyType(
    {
        "enter": "\r",
        "escape": "\x1b",
        "tab": "\t",
        "shift+tab": "\x1b[Z",
        "space": " ",
        "backspace": "\x7f",
        "delete": "\x1b[3~",
        "up": "\x1b[A",
        "down": "\x1b[B",
        "right": "\x1b[C",
        "left": "\x1b[D",
        "home": "\x1b[H",
        "end": "\x1b[F",
        "page up": "\x1b[5~",
        "page down": "\x1b[6~",
        **{f"ctrl+{letter}": chr(ord(letter) - ord("a") + 1) for letter in "abcdefghijklmnopqrstuvwxyz"},
    }
)
"""What `Terminal.press` knows, and what each key sends."""

_CLAIMED: Mapping[str, str] = MappingProxyType({"TERM": "xterm-256color", "COLORTERM": "truecolor"})
_STOP_SECONDS = 5.0
_CHUNK = 65_536
# Popen can't make a terminal the controlling one, and code of ours between fork and exec is unsafe with threads.
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvpe(sys.argv[1], sys.argv[1:], os.environ)
"""


class Terminal:
    """A program in a pseudo-terminal, as an async context manager.

    Args:
        command: the program and its arguments.
        directory: where it starts, here where None.
        environment: its environment variables, ours where None; TERM and COLORTERM are set.
        columns: the terminal's width in characters.
        rows: its height in lines.

    Raises:
        ModuleNotFoundError: pyte, which the test group brings, is not installed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        columns: int = 100,
        rows: int = 30,
    ) -> None:
        self.recording = Recording(columns=columns, rows=rows)
        """What the program has written so far."""
        self._command = tuple(command)
        self._directory = directory
        self._environment = {**(os.environ if environment is None else environment), **_CLAIMED}
        self._screen = TerminalScreen(columns, rows, reply=self._reply)
        self._process: subprocess.Popen[bytes] | None = None
        self._master = -1
        self._started = 0.0
        self._changed = anyio.Event()
        self._reading = anyio.CancelScope()
        self._read_up = anyio.Event()
        self._stack = AsyncExitStack()

    @property
    def screen(self) -> tuple[str, ...]:
        """The text of each line as it is now, without the blanks at its end."""
        return self._screen.lines

    @property
    def text(self) -> str:
        """All lines of the screen."""
        return self._screen.text

    @property
    def pid(self) -> int:
        """The program's process id, which is its process group too; 0 before its start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """As `subprocess.Popen.returncode`: None while it runs, negative where a signal ended it."""
        return self._process.poll() if self._process else None

    @property
    def elapsed(self) -> float:
        """Seconds since the start, the clock of the recording."""
        return time.monotonic() - self._started

    async def type(self, text: str, *, pause: float = 0.0) -> None:
        """Type some text.

        Args:
            text: the characters.
            pause: seconds after each of them; 0 sends all at once, as a paste does.
        """
        for characters in text if pause else [text]:
            await self._write(characters)
            await anyio.sleep(pause)

    async def press(self, key: str) -> None:
        """Press a key that is no character.

        Args:
            key: one of `KEYS`.

        Raises:
            KeyError: it is none of them.
        """
        await self._write(KEYS[key])

    async def wait_for(
        self,
        awaited: str | re.Pattern[str],
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - a time limit is this call's very contract
    ) -> str:
        """Wait until something is on the screen.

        Args:
            awaited: a part of the screen's text, lines separated by newlines, or what is searched in it.
            timeout: seconds.

        Returns:
            What was found.

        Raises:
            TimeoutError: it did not show; has the screen as it was then.
            EOFError: the program has ended without it; has the screen too.
        """
        pattern = re.compile(re.escape(awaited)) if isinstance(awaited, str) else awaited
        with anyio.move_on_after(timeout):
            while not (found := pattern.search(self.text)):
                if self._read_up.is_set():
                    raise EOFError(f"the program has ended and {pattern.pattern!r} is not on the screen:\n{self.text}")

                await self._changed.wait()

            return found.group()

        raise TimeoutError(f"{pattern.pattern!r} did not show within {timeout:g} s:\n{self.text}")

    async def wait_until_gone(
        self,
        text: str,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - as above
    ) -> None:
        """Wait until something is no longer on the screen.

        Args:
            text: a part of the screen's text.
            timeout: seconds.

        Raises:
            TimeoutError: it stays; has the screen.
        """
        with anyio.move_on_after(timeout):
            while text in self.text:
                await self._changed.wait()

            return

        raise TimeoutError(f"{text!r} is still there after {timeout:g} s:\n{self.text}")

    async def wait_for_exit(
        self,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - as above
    ) -> int:
        """Wait until the program has ended, and give its exit code.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it runs on; has the screen.
        """
        with anyio.move_on_after(timeout):
            while self.exit_code is None:  # noqa: ASYNC110 - nothing tells of an exit
                await anyio.sleep(0.01)

        if self.exit_code is None:
            raise TimeoutError(f"the program runs on after {timeout:g} s:\n{self.text}")

        return self.exit_code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone.

        Args:
            number: the signal.
        """
        os.kill(self.pid, number)

    async def hang_up(self) -> None:
        """Close the terminal under the program, as closing its window does."""
        self._reading.cancel()
        await self._read_up.wait()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            self._start()
            stack.push_async_callback(self._stop)
            tasks.start_soon(self._read)
            self._stack = stack.pop_all()

        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stack.aclose()

    def _start(self) -> None:
        self._master, slave = pty.openpty()
        size = struct.pack("HHHH", self.recording.rows, self.recording.columns, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        os.set_blocking(self._master, False)
        self._started = time.monotonic()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the caller names the program
                [sys.executable, "-I", "-S", "-c", _TAKE_TERMINAL, *self._command],
                cwd=self._directory,
                env=self._environment,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
            )
        finally:
            os.close(slave)

    async def _read(self) -> None:
        try:
            with self._reading:
                await self._read_until_end()
        finally:
            self._read_up.set()
            self._tell()

    async def _read_until_end(self) -> None:
        while True:
            await anyio.wait_readable(self._master)
            data = self._read_now()
            if not data:
                return

            self.recording.writes.append((self.elapsed, data))
            self._screen.feed(data)
            self._tell()

    def _read_now(self) -> bytes:
        try:
            return os.read(self._master, _CHUNK)
        except OSError as error:
            # Linux says so where others say end of file: nobody holds the other side any more.
            if error.errno == errno.EIO:
                return b""

            raise

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _write(self, text: str) -> None:
        rest = text.encode()
        while rest:
            if self._master < 0:
                raise EOFError("the terminal has been hung up")

            await anyio.wait_writable(self._master)
            rest = rest[os.write(self._master, rest) :]

    def _reply(self, said: str) -> None:
        # The program may be gone by now, or not read: nobody waits for the answer then.
        with suppress(OSError):
            os.write(self._master, said.encode())

    async def _stop(self) -> None:
        process = self._process
        if process is None:
            return

        with anyio.CancelScope(shield=True):
            _signal_group(process.pid, signal.SIGHUP)
            with anyio.move_on_after(_STOP_SECONDS):
                while process.poll() is None:  # noqa: ASYNC110
                    await anyio.sleep(0.01)

            # What the program has started lives in its group and may outlive it.
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
            await self.hang_up()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
