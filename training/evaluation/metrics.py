"""Metrics: boxes and ranks; those of labels and the intervals are the package's own. NumPy in, floats out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.ranking import CHUNK, unit_rows
from fashion_retrieval._utils.scores import mean_interval
from fashion_retrieval.errors import InputError

_SAME = 1e-9
"""Cosines nearer than this are equal."""


def box_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of boxes, xyxy: (N, 4), (M, 4) -> (N, M)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = (high - low).clip(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return np.asarray(overlap / (areas[0][:, None] + areas[1][None] - overlap).clip(min=1e-9))


def match_boxes(truth: NDArray[np.float64], found: NDArray[np.float64], threshold: float = 0.5) -> dict[int, int]:
    """One-to-one matches, best IoU first: index of the truth -> index of the found box."""
    matches: dict[int, int] = {}
    if not len(truth) or not len(found):
        return matches
    iou = box_iou(truth, found)
    for flat in np.argsort(-iou, axis=None):
        t, f = np.unravel_index(flat, iou.shape)
        if iou[t, f] < threshold:
            break
        if int(t) not in matches and int(f) not in matches.values():
            matches[int(t)] = int(f)
    return matches


def rank_targets(
    queries: NDArray[np.floating],
    gallery: NDArray[np.floating],
    targets: NDArray[np.integer],
    excluded: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """The rank of each query's target among the gallery's rows by cosine, from 1.

    A rank is one more than the number of rows that score higher, or that score the same and stand before the target.
    Cosines (float64) nearer than 1e-9 are the same, so that copies of a photo keep the gallery's order.

    Args:
        queries: (Q, D) floating, of any norm but zero.
        gallery: (N, D) floating, of any norm but zero.
        targets: (Q,) integer rows of the gallery.
        excluded: (Q,) integer: a row to leave out of the query's gallery, or -1; None excludes nothing.

    Returns:
        (Q,) int64.

    Raises:
        InputError: A shape is wrong, a row is out of range, a vector is zero or not finite, a target is excluded.
    """
    left, right = unit_rows(queries, "queries"), unit_rows(gallery, "gallery")
    count, size = len(left), len(right)
    targets = np.asarray(targets)
    excluded = np.full(count, -1) if excluded is None else np.asarray(excluded)
    if left.shape[1] != right.shape[1]:
        raise InputError(f"queries and gallery must have one width, got {left.shape[1]} and {right.shape[1]}")
    for name, rows, low in (("targets", targets, 0), ("excluded", excluded, -1)):
        if (
            rows.shape != (count,)
            or rows.dtype.kind not in "iu"
            or (count and not low <= rows.min() <= rows.max() < size)
        ):
            expected = f"({count},) integers, each from {low} to {size - 1}"
            raise InputError(f"{name} must be {expected}, got {rows.dtype} {rows.shape} {_range(rows)}")
    if (targets == excluded).any():
        raise InputError(f"query {int((targets == excluded).argmax())} excludes its own target; keep it in the gallery")
    ranks = np.empty(count, dtype=np.int64)
    places = np.arange(size)
    for start in range(0, count, CHUNK):
        part = slice(start, start + CHUNK)
        scores, target, out = left[part] @ right.T, targets[part, None], excluded[part, None]
        over = scores - np.take_along_axis(scores, target, axis=1)
        before = (over > _SAME) | ((over >= -_SAME) & (places < target))
        ranks[part] = 1 + (before & (places != out)).sum(axis=1)
    return ranks


def _range(rows: NDArray[np.integer]) -> str:
    return f"from {rows.min()} to {rows.max()}" if rows.size else "empty"


def recall_at_k(ranks: NDArray[np.int64], k: int) -> float:
    """Fraction of queries whose target is among the first k."""
    return float((ranks <= k).mean())


def recall_metrics(ranks: NDArray[np.int64], ks: Sequence[int], *, seed: int = 0) -> dict[str, Any]:
    """Recall at each k with its 95% interval, the median rank and the ranks, for a results file."""
    metrics: dict[str, Any] = {}
    for k in ks:
        metrics[f"recall_at_{k}"] = recall_at_k(ranks, k)
        metrics[f"recall_at_{k}_interval"] = mean_interval(ranks <= k, seed=seed)
    return metrics | {"median_rank": float(np.median(ranks)), "ranks": ranks.tolist()}
