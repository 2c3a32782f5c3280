"""What shorter and smaller numbers cost: recall at 10 against float32, and how far scores are off.

    python benchmarks/vectors.py --embeddings val.npz --out benchmarks/results/vectors.json

Rows are real embeddings (`photos` of a file that `training.fit_dimensions` cached) and drawn ones: about centers that
are near each other, and near-duplicates, forty of each. Half of the queries are rows, half lie beside one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.inference.vectors import normalized, quantized, restored

Vectors = NDArray[np.float32]
TOP_K, ROWS, QUERIES, RERANKED = 10, 10_000, 200, 40
DIMS = (64, 256, 512, 1_152)


def kinds(embeddings: Path | None) -> Iterator[tuple[str, Vectors, Vectors]]:
    """Name, rows and queries, L2-normalized."""
    generator = np.random.default_rng(0)
    for dim in DIMS:
        centers = generator.normal(size=(ROWS // 100, dim)).astype(np.float32)
        clustered = np.repeat(centers, 100, axis=0) + generator.normal(size=(ROWS, dim)).astype(np.float32)
        twins = np.repeat(generator.normal(size=(ROWS // 40, dim)).astype(np.float32), 40, axis=0)
        twins = twins + 0.02 * generator.normal(size=(ROWS, dim)).astype(np.float32)
        for name, rows in (("clustered", clustered), ("near-duplicates", twins)):
            yield f"{name}, {dim}", normalized(rows), _queries(normalized(rows), generator)
    if embeddings:
        with np.load(embeddings) as kept:
            rows = kept["photos"]
        yield f"the embedded model's photos, {rows.shape[1]}", rows, _queries(rows, generator)


def _queries(rows: Vectors, generator: np.random.Generator) -> Vectors:
    chosen = rows[generator.integers(0, len(rows), QUERIES)]
    noise = generator.normal(size=chosen.shape).astype(np.float32) * (0.3 / rows.shape[1] ** 0.5)
    noise[::2] = 0
    return normalized(chosen + noise)


def measure(rows: Vectors, queries: Vectors) -> dict[str, dict[str, float]]:
    """By precision: recall at 10 by the scores of what is stored, and the largest and median error of a score."""
    exact = queries @ rows.T
    truth = _best(exact, TOP_K)
    found: dict[str, dict[str, float]] = {}
    for precision in ("float16", "int8"):
        scores = queries @ restored(quantized(rows, precision)).T
        errors = np.abs(scores - exact)
        recall = {"recall_at_10": _recall(truth, _best(scores, TOP_K))}
        found[precision] = recall | {"largest_error": float(errors.max()), "median_error": float(np.median(errors))}
    bits = [np.unpackbits(quantized(given, "ubinary"), axis=1).astype(np.float32) - 0.5 for given in (queries, rows)]
    near = _best(bits[0] @ bits[1].T, RERANKED)
    again = np.take_along_axis(near, _best(np.take_along_axis(exact, near, axis=1), TOP_K), axis=1)
    found["binary"] = {"recall_at_10": _recall(truth, near[:, :TOP_K])}
    found[f"binary, {RERANKED} reranked in float32"] = {"recall_at_10": _recall(truth, again)}
    return found


def _best(scores: NDArray[np.floating[Any]], number: int) -> NDArray[np.intp]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :number]


def _recall(truth: NDArray[np.intp], found: NDArray[np.intp]) -> float:
    pairs = zip(truth.tolist(), found.tolist(), strict=True)
    return float(np.mean([len(set(left) & set(right)) / TOP_K for left, right in pairs]))


def main() -> None:
    """Read the command line, measure, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--embeddings", type=Path, help="an .npz file with photos, (N, D) float32")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    options = parser.parse_args()
    report: dict[str, Any] = {"queries": QUERIES, "kinds": {}}
    for name, rows, queries in kinds(options.embeddings):
        report["kinds"][name] = {"rows": len(rows)} | measure(rows, queries)
    with write_atomically(options.out) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
