"""What becomes of a LanceDB gallery that gets one photo at a time, and is never told to optimize.

    python -m benchmarks.writes --out benchmarks/results/writes.json

Each row is added by a `Gallery` that is opened for it alone, as by one call of the command or one web request. The
vectors are drawn, so that no model takes time: an add is what `Gallery.add` does at its store, a look for the id and a
write. `first_search_ms` opens the gallery and searches once; `search_ms` is the median of searches after it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.gallery import Vectorless, Vectors, unit
from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.gallery.engines.base import Row, Settings
from fashion_retrieval.gallery.engines.lancedb import LanceStore
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.model import FashionModel

TOP_K, SEARCHES = 10, 20
STEPS = (50, 400, 1_000, 5_000)


def add(uri: str, model: FashionModel, number: int, vector: Vectors) -> float:
    """Open the gallery, add one row; returns the milliseconds it took."""
    begun = time.perf_counter()
    with Gallery.open(uri, model) as gallery:
        if not gallery._store.read([str(number)]):
            gallery._store.write([Row(str(number), vector, f"{number:064x}", None, {})])
    return 1e3 * (time.perf_counter() - begun)


def search(uri: str, model: FashionModel, query: Vectors) -> tuple[float, float]:
    """Milliseconds of the first search, with opening, and the median of those after it."""
    begun = time.perf_counter()
    with Gallery.open(uri, model) as gallery:
        gallery.search(query, TOP_K)
        times = [time.perf_counter()]
        for _ in range(SEARCHES):
            gallery.search(query, TOP_K)
            times.append(time.perf_counter())
    return 1e3 * (times[0] - begun), 1e3 * float(np.median(np.diff(times)))


def run(most: int, dim: int, folder: Path) -> dict[str, Any]:
    """Add rows one by one up to `most`, and measure at each of `STEPS`."""
    vectors = unit(np.random.default_rng(0).normal(size=(most, dim)))
    model = cast(FashionModel, Vectorless(dim))
    uri = str(folder / "gallery")
    LanceStore.create(uri, Settings("none", model.fingerprint, dim, None, {})).close()
    times: list[float] = []
    steps: list[dict[str, float]] = []
    for number, vector in enumerate(vectors):
        times.append(add(uri, model, number, vector))
        if len(times) in STEPS:
            sizes = [path.stat().st_size for path in Path(uri).rglob("*") if path.is_file()]
            first, later = zip(*(search(uri, model, vector) for _ in range(3)), strict=True)
            recent = times[-50:]
            step: dict[str, float] = {
                "adds": len(times),
                "add_ms": round(float(np.median(recent)), 1),
                "mean_add_ms": round(float(np.mean(times)), 1),
                "slowest_add_ms": round(max(times), 1),
                "first_search_ms": round(float(np.median(first)), 1),
                "search_ms": round(float(np.median(later)), 2),
                "files": len(sizes),
                "mb": round(sum(sizes) / 1e6, 1),
            }
            steps.append(step)
            print(step, flush=True)
    return {
        "dim": dim,
        "vectors_mb": round(vectors.nbytes / 1e6, 1),
        "processor": f"{os.cpu_count()} x {platform.machine()}, {platform.system()}",
        "load_average": round(os.getloadavg()[0], 1),
        "steps": steps,
    }


def main() -> None:
    """Read the command line, measure, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=int, default=STEPS[-1])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--out", type=Path, help="a JSON file; by default only stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(options.most, options.dim, Path(folder))
    if options.out:
        with write_atomically(options.out) as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
