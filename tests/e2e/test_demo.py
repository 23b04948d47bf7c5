"""The demonstration on the real OpenCode server, as `make demo` runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys


def test_the_demonstration_ends_well_on_the_real_server(opencode_binary):
    done = subprocess.run(
        [sys.executable, "-m", "fallback_plugin", "demo", "--host", "opencode"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "FALLBACK_PLUGIN_OPENCODE": str(opencode_binary)},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"On OpenCode \d+\.\d+", done.stdout)
    assert done.stdout.count("  yes ") == 4
    assert done.stdout.rstrip().endswith("Every turn ended as it must.")
