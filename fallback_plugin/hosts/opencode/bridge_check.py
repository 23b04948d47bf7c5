"""Whether the command of a plugin file starts a bridge that answers and ends as it shall."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from fallback_plugin import __version__
from fallback_plugin.hosts.opencode.finding import Finding, Grade

ANSWER_PATIENCE = 15.0
"""Seconds for an interpreter to start and answer; a cold one on a slow disk takes a few."""
END_PATIENCE = 5.0
"""Seconds to end in, once stdin is closed."""
_PING = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{}}\n'
_AGAIN = "`fallback-plugin install opencode` once more (--global if it was)"
_LINE_BYTES = 65_536
_WORDS_KEPT = 200


async def check_command(command: Sequence[str], directory: Path) -> list[Finding]:
    """Whether the interpreter of a command has this package, and the command answers.

    Args:
        command: what a plugin file starts.
        directory: where OpenCode is started.
    """
    interpreter = await _check_interpreter(command, directory)
    if interpreter.grade is Grade.FAIL:
        return [interpreter]

    return [interpreter, await check_round_trip(command, directory)]


async def _check_interpreter(command: Sequence[str], directory: Path) -> Finding:
    name = command[0]
    again = f"{_AGAIN}, from the environment that shall run it"

    def found(grade: Grade, text: str, remedy: str = "") -> Finding:
        return Finding(check="interpreter", grade=grade, text=text, remedy=remedy)

    if shutil.which(name) is None:
        return found(Grade.FAIL, f"{name} {_wrong_with(name)}", again)

    probe = [*command[: command.index("-m")], "-c", "import fallback_plugin; print(fallback_plugin.__version__)"]
    try:
        with anyio.fail_after(ANSWER_PATIENCE):
            done = await anyio.run_process(probe, cwd=directory, check=False, stdin=subprocess.DEVNULL)
    except TimeoutError:
        return found(Grade.FAIL, f"{name} was not done within {ANSWER_PATIENCE:g} s", again)
    except OSError as error:
        return found(Grade.FAIL, f"{name} can't be run: {error.strerror}", again)

    if done.returncode:
        return found(Grade.FAIL, f"{name} can't import fallback_plugin: {_last_line(done.stderr)}", again)

    version = done.stdout.decode(errors="replace").strip()
    if version != __version__:
        return found(Grade.WARN, f"{name} has version {version}, this is {__version__}", "upgrade it, or " + again)

    return found(Grade.OK, f"{name} has version {version}")


def _wrong_with(interpreter: str) -> str:
    return "can't be executed" if os.path.lexists(interpreter) else "is not there"


async def check_round_trip(command: Sequence[str], directory: Path) -> Finding:
    """Start the bridge as OpenCode does, ask it something, close its stdin.

    Args:
        command: what a plugin file starts.
        directory: where OpenCode is started.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            process = await anyio.open_process(command, cwd=directory, stderr=errors)
        except OSError as error:
            return _failed(f"the bridge can't be started: {error.strerror}")

        try:
            return await _converse(process, errors)
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()

                await process.aclose()


async def _converse(process: Process, errors: IO[bytes]) -> Finding:
    if process.stdin is None or process.stdout is None:
        raise AssertionError  # both are pipes unless asked otherwise

    began = anyio.current_time()
    try:
        with anyio.fail_after(ANSWER_PATIENCE):
            await process.stdin.send(_PING)
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", _LINE_BYTES)
    except TimeoutError:
        return _failed(f"the bridge did not answer within {ANSWER_PATIENCE:g} s")
    except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, anyio.EndOfStream):
        errors.seek(0)
        return _failed(f"the bridge ended without an answer: {_last_line(errors.read())}")

    took = anyio.current_time() - began
    if not _is_answer(line):
        return _failed("the bridge answered something that is not JSON-RPC")

    await process.stdin.aclose()
    with anyio.move_on_after(END_PATIENCE) as waiting:
        await process.wait()

    if waiting.cancelled_caught:
        return _failed(f"the bridge did not end within {END_PATIENCE:g} s after its stdin was closed")

    return Finding(check="round trip", grade=Grade.OK, text=f"the bridge answered within {took:.1f} s and ended")


def _failed(text: str) -> Finding:
    remedy = f"install the package anew in its environment, then {_AGAIN}"
    return Finding(check="round trip", grade=Grade.FAIL, text=text, remedy=remedy)


def _is_answer(line: bytes) -> bool:
    try:
        answer: object = json.loads(line)
    except (ValueError, RecursionError):
        return False

    return isinstance(answer, dict) and cast("dict[str, object]", answer).keys() >= {"id", "result"}


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").split("\n")
    return next((line.strip()[:_WORDS_KEPT] for line in reversed(lines) if line.strip()), "it said nothing")
