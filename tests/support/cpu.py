"""What this CPU can do."""

from __future__ import annotations

from pathlib import Path

import pytest


def cpu_flags() -> set[str]:
    """Linux' list of CPU features; empty on other systems."""
    path = Path("/proc/cpuinfo")
    return set(path.read_text(encoding="utf-8", errors="replace").split()) if path.is_file() else set()


needs_vnni = pytest.mark.skipif(
    not {"avx512_vnni", "avx_vnni"} & cpu_flags(),
    reason="8-bit weights overflow in int8 products on a CPU without VNNI",
)
