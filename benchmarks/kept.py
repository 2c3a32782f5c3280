"""Memory that a list of recognitions keeps, with photos and masks and without them.

python -m benchmarks.kept
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.__main__ import RESULTS, machine
from benchmarks.photos import scene
from fashion_retrieval._utils.files import write_atomically

LISTED = 2_000
"""Recognitions of the list that is extrapolated to."""

_PROGRAM = """
import ctypes, gc, json, pathlib, pickle, re, sys
from fashion_retrieval import FashionModel
keep, count, *files = sys.argv[1:]
model = FashionModel.from_pretrained("compact")

def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(re.search(r"VmRSS:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024

def found(count):
    return list(model.recognize_many([files[n % len(files)] for n in range(count)], keep_image=keep == "keep"))

found(4)  # what the first photos make once
before, results = resident(), found(int(count))
after = resident()
garments = sum(len(result.garments) for result in results)
packed = len(pickle.dumps(results[0]))
print(json.dumps({"bytes": after - before, "before": before, "garments": garments, "pickled": packed}))
"""


def measure(cache: Path, size: tuple[int, int], kept: int, compact: int) -> dict[str, Any]:
    """Resident bytes of a recognition in a list: of `kept` that hold photo and masks, and of `compact` that don't.

    Each in a process of its own, which gives back to the system what it has freed before it is measured. A list of
    small results can hide in memory that the process had before: the larger of resident and pickled bytes counts.
    """
    files = []
    for seed, (sweater, trousers) in enumerate(
        (("#b22228", "#263a76"), ("#2e6b3c", "#888888"), ("#e0c040", "#202020"))
    ):
        files.append(cache / f"kept_{size[0]}_{size[1]}_{seed}.jpg")
        drawn = scene.figure(*size, sweater=sweater, trousers=trousers, seed=seed)
        files[-1].write_bytes(scene.jpeg(drawn))
    rows = {}
    for name, count in (("keep", kept), ("compact", compact)):
        command = [sys.executable, "-c", _PROGRAM, name, str(count), *(str(file.resolve()) for file in files)]
        ran = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows[name] = {
            "photos": count,
            "garments": ran["garments"],
            "bytes_each": round(ran["bytes"] / count),
            "pickled_bytes": ran["pickled"],
            "mib_with_the_model": round(ran["before"] / 2**20),
            f"mib_of_{LISTED}": round(max(ran["bytes"] / count, ran["pickled"]) * LISTED / 2**20, 1),
        }
    times = rows["compact"][f"mib_of_{LISTED}"] / rows["keep"][f"mib_of_{LISTED}"]
    return {"size": list(size), "listed": LISTED, "rows": rows, "times": round(times, 6)}


def main(
    quick: Annotated[bool, typer.Option(help="A smoke run; its results mean nothing.")] = False,
    cache: Annotated[Path, typer.Option(help="Where photos are drawn.")] = Path("runs/benchmarks"),
    out: Annotated[Path, typer.Option(help="The JSON file.")] = RESULTS / "kept.json",
) -> None:
    """Measure and write JSON."""
    cache.mkdir(parents=True, exist_ok=True)
    found = measure(cache, (400, 300), 2, 2) if quick else measure(cache, (4032, 3024), 4, 48)
    with write_atomically(out) as partial:
        partial.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"written to {out}")


if __name__ == "__main__":
    typer.run(main)
