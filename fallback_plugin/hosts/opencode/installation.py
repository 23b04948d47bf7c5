"""The files that make OpenCode load us."""

from __future__ import annotations

import json
import re
from importlib.resources import files

PLUGIN_NAME = "fallback-plugin.js"
MARK = "// fallback-plugin for OpenCode:"
"""How every plugin file of ours begins."""
_COMMAND = re.compile(r"^const COMMAND = .*$", re.MULTILINE)


def plugin_text(command: list[str]) -> str:
    """The JavaScript file for one interpreter.

    Args:
        command: what starts the bridge, such as `[sys.executable, "-m", "fallback_plugin", "bridge"]`.
    """
    template = files("fallback_plugin.hosts.opencode").joinpath("plugin.js").read_text(encoding="utf-8")
    line = f"const COMMAND = {json.dumps(command)}"
    return _COMMAND.sub(lambda _: line, template, count=1)
