"""The npm package that pins OpenCode: a directory with package.json and its lock file, installed once."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

_LOCK_PAUSE = 0.1
_WORDS_KEPT = 200


def is_installed(package: Path) -> bool:
    """Whether node_modules holds what the lock file says: npm leaves a copy of it there when it is done."""
    done = package / "node_modules" / ".package-lock.json"
    lock = package / "package-lock.json"
    return done.is_file() and lock.is_file() and done.stat().st_mtime >= lock.stat().st_mtime


async def install_package(package: Path, *, patience: float) -> str | None:
    """Run `npm ci` where it is needed.

    Args:
        package: the directory.
        patience: seconds that it may take.

    Returns:
        None when it is installed, else why it is not, in a few words.
    """
    if not (package / "package-lock.json").is_file():
        return f"{package} holds no package-lock.json"

    if is_installed(package):
        return None

    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm"

    try:
        with anyio.fail_after(patience):
            async with _lock(package / ".cache" / "install.lock"):
                return None if is_installed(package) else await _install(npm, package)
    except TimeoutError:
        return f"npm ci was not done within {patience:g} s"


async def _install(npm: str, package: Path) -> str | None:
    done = await anyio.run_process(
        [npm, "ci"], cwd=package, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").split()
        return f"npm ci failed: {' '.join(words)[:_WORDS_KEPT]}"

    # npm keeps the time of an unchanged tree, and the next run would install again.
    (package / "node_modules" / ".package-lock.json").touch()
    return None


@asynccontextmanager
async def _lock(path: Path) -> AsyncGenerator[None]:
    """Let one process at a time install."""
    path.parent.mkdir(exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        while not _take(handle):  # noqa: ASYNC110 - another process holds it
            await anyio.sleep(_LOCK_PAUSE)

        yield
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False

    return True
