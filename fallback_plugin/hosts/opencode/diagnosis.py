"""What keeps OpenCode from loading us, or us from answering it, and how to mend it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import anyio

from fallback_plugin import __version__
from fallback_plugin.hosts.opencode.bridge_check import ANSWER_PATIENCE, check_command
from fallback_plugin.hosts.opencode.finding import Finding, Grade
from fallback_plugin.hosts.opencode.installation import MARK, PLUGIN_NAME, command_of, plugin_text, user_root

KNOWN_VERSION = (1, 18, 33)
"""The OpenCode that the tests run on."""
_ARGUMENTS = (["-P", "-m", "fallback_plugin", "bridge"], ["-m", "fallback_plugin", "bridge"])


def plugin_files(directory: Path) -> list[Path]:
    """The plugin files of ours, or in their place, that OpenCode loads in a directory, in its order.

    Args:
        directory: where OpenCode is started; absolute.
    """
    roots = [user_root()]
    if not _is_set("OPENCODE_DISABLE_PROJECT_CONFIG"):
        roots += [each / ".opencode" for each in _up_to_repository(directory)]

    roots.append(Path.home() / ".opencode")
    if own := os.environ.get("OPENCODE_CONFIG_DIR"):
        roots.append(Path(own).absolute())

    files = [root / folder / PLUGIN_NAME for root in dict.fromkeys(roots) for folder in ("plugin", "plugins")]
    return [file for file in files if os.path.lexists(file)]


def _up_to_repository(directory: Path) -> list[Path]:
    """The directory and those above it, up to the top of its git repository; without one, all."""
    chain = [directory, *directory.parents]
    top = next((index for index, each in enumerate(chain) if (each / ".git").exists()), len(chain))
    return chain[: top + 1]


def check_environment() -> list[Finding]:
    """Variables of OpenCode that keep it from loading plugins."""
    findings: list[Finding] = []
    if _is_set("OPENCODE_PURE"):
        text = "OPENCODE_PURE is set: OpenCode loads no plugins"
        findings.append(Finding(check="environment", grade=Grade.FAIL, text=text, remedy="unset OPENCODE_PURE"))

    if _is_set("OPENCODE_DISABLE_PROJECT_CONFIG"):
        text = "OPENCODE_DISABLE_PROJECT_CONFIG is set: OpenCode does not load the plugins of projects"
        remedy = "unset it, or `fallback-plugin install opencode --global`"
        findings.append(Finding(check="environment", grade=Grade.WARN, text=text, remedy=remedy))

    return findings


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")


async def check_plugin(directory: Path, *, is_needed: bool = True) -> list[Finding]:
    """The plugin files that are loaded in a directory, and the command in each: it is started, and asked to answer.

    Args:
        directory: where OpenCode is started; absolute.
        is_needed: false where a server that `attach` follows does without.
    """
    files = plugin_files(directory)
    if not files:
        return [
            Finding(
                check="plugin",
                grade=Grade.FAIL if is_needed else Grade.WARN,
                text=f"not installed for {directory}, nor for all projects",
                remedy="`fallback-plugin install opencode`, there or with --global; or `attach` to a server",
            )
        ]

    findings: list[Finding] = []
    commands: list[list[str]] = []
    for file in files:
        finding, command = _check_file(file)
        findings.append(finding)
        if command is not None and command not in commands:
            commands.append(command)

    if len(files) > 1:
        text = f"installed {len(files)} times: OpenCode loads all, {files[0]} first, and the first is used"
        findings.append(Finding(check="plugin", grade=Grade.OK, text=text))

    for command in commands:
        findings += await check_command(command, directory)

    return findings


def _check_file(file: Path) -> tuple[Finding, list[str] | None]:
    again = f"`{_install(file)}`"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        return _plugin(Grade.FAIL, f"{file} can't be read: {reason}", f"remove it, then {again}"), None

    if not text.startswith(MARK):
        return _plugin(Grade.FAIL, f"{file} is not ours", f"move it away, then {again}"), None

    command = command_of(text)
    if command is None or command[1:] not in _ARGUMENTS:
        # Started it would be whatever somebody wrote there.
        return _plugin(Grade.FAIL, f"{file} names no command that `install` writes; it was not started", again), None

    if text != plugin_text(command):
        return _plugin(Grade.WARN, f"{file} is not what version {__version__} writes", again), command

    return _plugin(Grade.OK, f"{file} is up to date"), command


def _plugin(grade: Grade, text: str, remedy: str = "") -> Finding:
    return Finding(check="plugin", grade=grade, text=text, remedy=remedy)


def _install(file: Path) -> str:
    root = file.parent.parent
    if root == user_root():
        return "fallback-plugin install opencode --global"

    place = f" --directory {shlex.quote(str(root.parent))}" if root.name == ".opencode" else ""
    return f"fallback-plugin install opencode{place}"


async def check_opencode() -> Finding:
    """The `opencode` on PATH, and its version."""

    def found(grade: Grade, text: str, remedy: str = "") -> Finding:
        return Finding(check="opencode", grade=grade, text=text, remedy=remedy)

    known = ".".join(map(str, KNOWN_VERSION))
    binary = shutil.which("opencode")
    if binary is None:
        return found(Grade.WARN, "no `opencode` is on PATH", f"install OpenCode {known} or newer, or add it to PATH")

    try:
        with anyio.fail_after(ANSWER_PATIENCE):
            done = await anyio.run_process([binary, "--version"], check=False, stdin=subprocess.DEVNULL)
    except (TimeoutError, OSError) as error:
        return found(Grade.WARN, f"{binary} can't be run: {type(error).__name__}", "reinstall OpenCode")

    version = re.search(rb"(\d+)\.(\d+)\.(\d+)", done.stdout)
    if done.returncode or version is None:
        return found(Grade.WARN, f"{binary} does not say its version", "reinstall OpenCode")

    if tuple(map(int, version.groups())) < KNOWN_VERSION:
        return found(Grade.WARN, f"{binary} is {version[0].decode()}, older than {known}", "`opencode upgrade`")

    return found(Grade.OK, f"{binary} is {version[0].decode()}")
