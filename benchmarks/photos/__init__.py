"""Photos as they come: colors, memory, time to load, damage. Each alone: `python -m benchmarks.photos --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.photos import colors, loading, memory, mutations, profiles

PARTS = ("memory", "colors", "loading", "mutations")


def measure(
    cache: Path, *, quick: bool = False, parts: tuple[str, ...] = PARTS, folder: Path = profiles.FOLDER
) -> dict[str, Any]:
    """Measure some of the four parts; `folder` is where color profiles are looked for."""
    measures = {
        "memory": lambda: memory.measure(cache, quick=quick),
        "colors": lambda: colors.measure(folder, count=2 if quick else 140),
        "loading": lambda: loading.measure(cache, rounds=1 if quick else 9, quick=quick),
        "mutations": lambda: mutations.measure(count=40 if quick else 400),
    }
    measured = {part: measures[part]() for part in parts}
    for line in measured.get("colors", {}).get("left_out", []):
        print(f"left out: {line}", file=sys.stderr)
    return measured
