"""Where the OpenCode binary of this machine is."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_BINARY_VARIABLE = "FALLBACK_PLUGIN_OPENCODE"


def find_opencode(node_modules: Sequence[Path] = ()) -> Path:
    """Find the OpenCode binary of this platform.

    Looked at in order: the environment variable FALLBACK_PLUGIN_OPENCODE, the platform packages of
    `opencode-ai` in the given directories, and PATH.

    Args:
        node_modules: directories that npm has installed into.

    Raises:
        FileNotFoundError: none is there; the text says what to do.
    """
    if named := os.environ.get(_BINARY_VARIABLE):
        return _existing(Path(named))

    # npm's postinstall script would choose among these; it is not run where scripts are off.
    for directory in node_modules:
        for package in platform_packages():
            binary = directory / package / "bin" / "opencode"
            if binary.is_file():
                return binary

    if found := shutil.which("opencode"):
        return Path(found)

    raise FileNotFoundError(
        f"no OpenCode binary: install the npm package opencode-ai, or set {_BINARY_VARIABLE} to the binary"
    )


def _existing(binary: Path) -> Path:
    if binary.is_file():
        return binary

    raise FileNotFoundError(f"{_BINARY_VARIABLE} names {binary}, which is not a file")


def platform_packages() -> list[str]:
    """Give the npm packages that hold a binary for this machine, the best first."""
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
    architecture = machine.get(platform.machine().lower(), platform.machine().lower())
    system = "darwin" if sys.platform == "darwin" else "linux"
    plain = f"opencode-{system}-{architecture}"
    names = [plain] if architecture != "x64" else _by_instructions(plain)
    if system != "linux":
        return names

    musl = [f"{name}-musl" for name in names]
    return [*musl, *names] if Path("/etc/alpine-release").exists() else [*names, *musl]


def _by_instructions(plain: str) -> list[str]:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return [plain, f"{plain}-baseline"]

    return [plain, f"{plain}-baseline"] if "avx2" in flags else [f"{plain}-baseline", plain]
