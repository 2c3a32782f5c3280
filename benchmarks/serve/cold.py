"""A new process until /readyz answers 200, against one that loads the model and recognizes a first photo."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.rounds import Run, interleave, paired, quartiles
from benchmarks.serve.service import Service
from benchmarks.startup import first_recognition, run_python

FIRST = "first recognition of a process"


def measure(cache: Path, *, rounds: int) -> dict[str, Any]:
    """Seconds of each, and how many times the first recognition it takes."""
    photo = material.photos(1, cache)[0][0].resolve()
    contenders: dict[str, Run] = {
        FIRST: partial(run_python, first_recognition(photo)),
        "ready, without the page": partial(_ready, "--no-page"),
        "ready, with the page": _ready,
    }
    seconds = interleave(contenders, rounds, label="cold start")
    rows = {
        name: {"seconds": quartiles(spent), "times": paired(seconds, FIRST, name).ratio()}
        for name, spent in seconds.items()
    }
    return {"rounds": rounds, "rows": rows}


def _ready(*options: str) -> None:
    """Start a service, wait until it is ready, and kill it; its end does not count."""
    service = Service(*options)
    try:
        service.wait_ready()
    finally:
        service.process.kill()
        service.process.wait()
