"""The service under load: how fast, how right, how it ends. Each alone: `python -m benchmarks.serve --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.serve import cold, ending, overload, soak, throughput

PARTS = ("throughput", "cold", "ending", "overload", "soak")


def measure(
    cache: Path, *, quick: bool = False, parts: tuple[str, ...] = PARTS, requests: int | None = None
) -> dict[str, Any]:
    """Measure some of the five parts; `requests` are those of the soak."""
    few = 4 if quick else 48
    measures = {
        "throughput": lambda: throughput.measure(cache, count=few, rounds=1 if quick else 7),
        "cold": lambda: cold.measure(cache, rounds=1 if quick else 7),
        "ending": lambda: ending.measure(cache, rounds=1 if quick else 10),
        "overload": lambda: overload.measure(cache, seconds=2 if quick else 30, count=few),
        "soak": lambda: soak.measure(cache, count=requests or (200 if quick else 20_000)),
    }
    return {part: measures[part]() for part in parts}
