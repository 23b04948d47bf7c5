"""The bridge's log: a file for its user alone, since stdout is the protocol's and nobody reads stderr."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from fallback_plugin.stores.url import state_directory

LOG_NAME = "bridge.log"
LOG_BYTES = 1024 * 1024


def log_path() -> Path:
    """Where the bridge writes what it did."""
    return state_directory() / LOG_NAME


def log_to_file() -> None:
    """Write the package's log into the file; without a place for it, nowhere. Sets the process's umask."""
    path = log_path()
    # A full log is followed by a new file, which must be its owner's alone as well.
    os.umask(0o077)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch()
        path.chmod(0o600)
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
        return json.dumps(line)
