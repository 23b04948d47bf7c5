"""`fallback-plugin bridge`: what the plugin inside OpenCode starts. Not for people."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import anyio
from anyio import to_thread

from fallback_plugin.hosts.opencode.bridge import LOG_NAME, Bridge
from fallback_plugin.stores.url import state_directory

LOG_BYTES = 1024 * 1024
_READ_BYTES = 256 * 1024


def bridge_command() -> None:
    """Serve the plugin inside OpenCode over stdin and stdout, until stdin ends."""
    # Whatever prints must not print into the protocol.
    output = os.dup(sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _log_to_file()
    anyio.run(Bridge(_Pipes(sys.stdin.fileno(), output)).run)
    # A thread may still wait for the pipe.
    os._exit(0)


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


def log_path() -> Path:
    """Where the bridge writes what it did."""
    return state_directory() / LOG_NAME


def _log_to_file() -> None:
    path = log_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    except OSError:
        return

    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("fallback_plugin")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


class _JsonLines(logging.Formatter):
    """One object a line, for people with a pager and for programs."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        line: dict[str, object] = {"at": at, "pid": record.process, "level": record.levelname.lower()}
        line["text"] = record.getMessage()
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)

        return json.dumps(line)
