"""`fallback-plugin bridge`: what the plugin inside OpenCode starts. Not for people."""

from __future__ import annotations

import logging
import os
import signal
import sys

import anyio
from anyio import to_thread

from fallback_plugin.hosts.opencode.bridge_log import log_to_file

logger = logging.getLogger("fallback_plugin")

_READ_BYTES = 256 * 1024


def bridge_command() -> None:
    """Serve the plugin inside OpenCode over stdin and stdout, until stdin ends."""
    # Whatever prints must not print into the protocol.
    output = os.dup(sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # What the user types to the host is the host's; we end when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to_file()
    # httpx goes without its own command line where that can't be imported: 5 MB for each host.
    sys.modules["httpx._main"] = None  # pyright: ignore[reportArgumentType] - as the import system has it
    status = 1
    try:
        from fallback_plugin.hosts.opencode.bridge import Bridge  # noqa: PLC0415 - after the line above

        anyio.run(Bridge(_Pipes(sys.stdin.fileno(), output)).run)
        status = 0
    except Exception as error:  # noqa: BLE001 - its text may hold a prompt, and nobody reads stderr
        logger.error("the bridge has failed: %s", type(error).__name__)  # noqa: TRY400
    finally:
        # A thread may still wait for the pipe.
        os._exit(status)


class _Pipes:
    """The two pipes, read and written in threads: files and pipes of every platform can be."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink

    async def read(self) -> bytes:
        return await to_thread.run_sync(os.read, self._source, _READ_BYTES, abandon_on_cancel=True)

    async def write(self, data: bytes) -> None:
        await to_thread.run_sync(self._write, data, abandon_on_cancel=True)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._sink, view) :]
