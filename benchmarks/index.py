"""Indexing with recognition, beside another checkout of this repository: both add the same photos, a part in turn.

python -m benchmarks.index --before FOLDER       # FOLDER: a checkout of the commit to compare with
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import material
from benchmarks.__main__ import RESULTS, machine
from benchmarks.rounds import paired
from fashion_retrieval._utils.files import write_atomically

HERE = Path(__file__).parent
SIDE = HERE / "index_side.py"


class Side:
    """A process that adds photos with one checkout's package."""

    def __init__(self, checkout: Path, place: Path) -> None:
        path = {"PYTHONPATH": str(checkout.absolute() / "src")}
        self.process = subprocess.Popen(
            [sys.executable, str(SIDE), str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | path,
        )

    def add(self, photos: Sequence[Path]) -> tuple[float, float]:
        """Seconds that adding took, by the clock and of the processors, of a process that does nothing else."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the process was started without pipes")
        print(json.dumps([str(photo) for photo in photos]), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        if answer["added"] != len(photos):
            raise RuntimeError(f"expected {len(photos)} photos added, got {answer['added']}")
        return float(answer["seconds"]), float(answer["processor_seconds"])

    def end(self) -> None:
        """End the process."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def measure(before: Path, photos: Sequence[Path], *, part: int, minutes: float) -> dict[str, Any]:
    """Seconds of each part on both sides, in turn, whoever was first being second next; until the time is over."""
    with TemporaryDirectory() as place:
        sides = {"before": Side(before, Path(place, "before")), "now": Side(HERE.parent, Path(place, "now"))}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        worked: dict[str, list[float]] = {name: [] for name in sides}
        warm, rest = photos[:16], photos[16:]
        for side in sides.values():
            side.add(warm)
        end, done = time.monotonic() + 60 * minutes, 0
        for number, start in enumerate(range(0, len(rest), part)):
            if time.monotonic() > end:
                break
            chosen = rest[start : start + part]
            for name in list(sides)[:: -1 if number % 2 else 1]:
                spent = sides[name].add(chosen)
                seconds[name].append(spent[0])
                worked[name].append(spent[1])
            done += len(chosen)
            ratios = (spent["before"][-1] / spent["now"][-1] for spent in (seconds, worked))
            told = "{:.2f} times as fast, {:.2f} times less processor time".format(*ratios)
            typer.echo(f"{done} of {len(rest)} photos, the last {len(chosen)}: {told}")
        for side in sides.values():
            side.end()
    return {
        "photos": done,
        "of": len(rest),
        "part": part,
        "times_as_fast": paired(seconds, "now", "before").ratio(),
        "times_less_processor_time": paired(worked, "now", "before").ratio(),
        "in_all": {"clock": _quotient(seconds), "processor": _quotient(worked)},
        "photos_per_second": {name: round(done / sum(spent), 2) for name, spent in seconds.items()},
        "seconds": {name: np.round(spent, 2).tolist() for name, spent in seconds.items()},
        "load_average_at_the_end": round(os.getloadavg()[0], 2),
    }


def _quotient(spent: Mapping[str, Sequence[float]]) -> float:
    return round(sum(spent["before"]) / sum(spent["now"]), 3)


def main(
    before: Annotated[Path, typer.Option(help="A checkout of the commit to compare with.")],
    photos: Annotated[Path, typer.Option(help="A folder of photos.")] = material.PACK / "street",
    most: Annotated[int, typer.Option(min=17, help="Photos at most.")] = 2_016,
    part: Annotated[int, typer.Option(min=1, help="Photos in each turn.")] = 64,
    minutes: Annotated[float, typer.Option(help="Begin no further turn after so long.")] = 60.0,
    out: Annotated[Path, typer.Option(help="The JSON file.")] = RESULTS / "index.json",
) -> None:
    """Time both sides and write JSON."""
    files = sorted(photos.rglob("*.jpg"))[:most]
    head = subprocess.run(["git", "-C", str(before), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    measured = {"machine": machine(), "before": head.stdout.strip() or None}
    measured |= measure(before, files, part=part, minutes=minutes)
    with write_atomically(out) as partial:
        partial.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"written to {out}")


if __name__ == "__main__":
    typer.run(main)
