"""A module of ours in a process of its own, so that what it loads, or breaks, is gone with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m name` with this process's import path and no input; output is text, a failure raises nothing."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", name, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
