"""How fast and how exact a gallery's searches are, beside NumPy's exact scan.

    python benchmarks/gallery.py --photos 100000 --out benchmarks/results/gallery_lancedb.json
    python benchmarks/gallery.py --photos 100000 --uri http://localhost:19530/benchmark

Rows are random vectors about random centers; half of the queries are of the same kind, half have no center near, as a
text's embedding has none among those of photos. Times are of `Gallery.search` as a user calls it, one query at a time,
in rounds that alternate with NumPy's (a float32 matrix-vector product and argpartition, the ids alone).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.gallery.engines.base import Row, Settings
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.gallery.places import engine_of
from fashion_retrieval.model import FashionModel

Vectors = NDArray[np.float32]
Search = Callable[[Vectors], list[int]]
TOP_K = 10
BATCH = 1_024
ROUND = 20
"""Queries in a row, before the other side's turn."""
PAUSE = 0.2
"""Seconds before a turn: NumPy's threads wait busily for more work for a while, and would take the other's cores."""
FRACTIONS = {"group < 1": 0.001, "group < 10": 0.01, "group < 100": 0.1, "group < 500": 0.5}
"""Filters, and the fraction of the rows they leave."""


class Vectorless:
    """In place of a model: rows and queries are vectors already."""

    model_id = "none"
    fingerprint = "0" * 64

    def __init__(self, dim: int) -> None:
        self.embedding_dim = dim


def unit(points: NDArray[np.floating[Any]]) -> Vectors:
    """The rows, (N, D), L2-normalized, in float32."""
    rows: Vectors = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return rows


def measure(ours: Search, scan: Search, queries: Vectors, truth: list[set[int]]) -> dict[str, float]:
    """Recall at 10 against the exact answer and milliseconds a query, beside those of the plain scan."""
    times: dict[Search, list[float]] = {ours: [], scan: []}
    found = 0
    for start in range(0, len(queries), ROUND):
        for search, taken in times.items():
            time.sleep(PAUSE)
            for number in range(start, min(start + ROUND, len(queries))):
                begun = time.perf_counter()
                answer = search(queries[number])
                taken.append(1e3 * (time.perf_counter() - begun))
                if search is ours:
                    found += len(truth[number] & set(answer))
    (p50, p95), numpy_p50 = np.quantile(times[ours], (0.5, 0.95)), np.median(times[scan])
    return {
        "recall_at_10": round(found / sum(map(len, truth)), 4),
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "numpy_p50_ms": round(float(numpy_p50), 2),
        "ratio": round(float(p50 / numpy_p50), 3),
    }


def resident() -> float:
    """Resident memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def exact(vectors: Vectors, queries: Vectors, allowed: NDArray[np.intp]) -> list[set[int]]:
    """The ten nearest of the allowed rows to each query."""
    scores = queries @ vectors[allowed].T
    return [set(allowed[np.argsort(-row)[:TOP_K]].tolist()) for row in scores]


def fill(gallery: Gallery, vectors: Vectors, groups: NDArray[np.int64]) -> None:
    """Write all rows, in batches."""
    for start in range(0, len(vectors), BATCH):
        numbers = range(start, min(start + BATCH, len(vectors)))
        fields = [{"group": int(groups[number])} for number in numbers]
        rows = [Row(str(n), vectors[n], f"{n:064x}", None, dict(f)) for n, f in zip(numbers, fields, strict=True)]
        gallery._store.write(rows)


def run(photos: int, dim: int, queries: int, uri: str) -> dict[str, Any]:
    """Build the gallery and measure it."""
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(max(photos // 100, 1), dim)).astype(np.float32)
    spread = generator.normal(size=(photos + queries, dim)).astype(np.float32)
    points = unit(centers[generator.integers(0, len(centers), photos + queries)] + spread)
    vectors, near = points[:photos], points[photos:]
    far = unit(generator.normal(size=(queries, dim)))
    groups = generator.integers(0, 1_000, photos)
    everything = np.arange(photos)

    model = cast(FashionModel, Vectorless(dim))
    kind = engine_of(uri)
    settings = Settings("none", model.fingerprint, dim, None, {"group": "int"})
    with Gallery(kind.create(uri, settings), model) as gallery:
        before, start = resident(), time.perf_counter()
        fill(gallery, vectors, groups)
        written, most = time.perf_counter(), peak()
        gallery.optimize()
        built = time.perf_counter()

    def scan(query: Vectors) -> list[int]:
        scores = vectors @ query
        best = np.argpartition(-scores, TOP_K)[:TOP_K]
        return [int(number) for number in best[np.argsort(-scores[best])]]

    def searched(where: str | None = None) -> Search:
        return lambda query: [int(match.id) for match in gallery.search(query, TOP_K, where=where)]

    with Gallery.open(uri, model) as gallery:
        opened, resident_before = time.perf_counter(), resident()
        searched()(near[0])
        report: dict[str, Any] = {
            "engine": gallery.info.engine,
            "indexed": gallery.info.indexed,
            "photos": photos,
            "dim": dim,
            "queries": queries,
            "processor": f"{os.cpu_count()} x {platform.machine()}, {platform.system()}",
            "threads": torch.get_num_threads(),
            "load_average": round(os.getloadavg()[0], 1),
            "write_s": round(written - start, 1),
            "optimize_s": round(built - written, 1),
            "first_search_s": round(time.perf_counter() - opened, 2),
            "memory_mb": {"while adding": round(most - before), "while searching": round(resident() - resident_before)},
            "near": measure(searched(), scan, near, exact(vectors, near, everything)),
            "far": measure(searched(), scan, far, exact(vectors, far, everything)),
        }
        both = np.concatenate([near[: queries // 2], far[: queries // 2]])
        for where, fraction in FRACTIONS.items():
            allowed = np.flatnonzero(groups < int(where.rpartition(" ")[2]))
            answer = measure(searched(where), scan, both, exact(vectors, both, allowed))
            report[f"filtered to {fraction:.1%}"] = answer
    return report


def main() -> None:
    """Read the command line, measure, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--uri", help="an empty place; by default a temporary folder")
    parser.add_argument("--out", type=Path, help="a JSON file; by default stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(options.photos, options.dim, options.queries, options.uri or f"{folder}/gallery")
    text = json.dumps(report, indent=2)
    if options.out:
        with write_atomically(options.out) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
