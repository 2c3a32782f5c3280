"""Figures: accuracy, macro-F1, calibration, boxes, ranks, intervals. NumPy in, floats out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import InputError

Labels = Sequence[str]
_CHUNK, _SAME = 256, 1e-9  # queries ranked at a time, and how near two equal cosines are


def accuracy(truth: Labels, guess: Labels) -> float:
    """Share of equal labels: top-1 precision in the paper's sense."""
    return float(np.mean([t == g for t, g in zip(truth, guess, strict=True)]))


def macro_f1(truth: Labels, guess: Labels) -> float:
    """Unweighted mean of the F1 of every label that occurs in the truth."""
    scores = []
    for label in sorted(set(truth)):
        both = sum(t == g == label for t, g in zip(truth, guess, strict=True))
        scores.append(2 * both / (sum(t == label for t in truth) + sum(g == label for g in guess)))
    return float(np.mean(scores))


def expected_calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance of confidence and accuracy over equal bins, weighted by their counts (Guo et al., 2017)."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[place == b].mean() - correct[place == b].mean()) * (place == b).mean() for b in set(place)]
    return float(sum(gaps))


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
    """The place of each query's target among the gallery's rows by cosine, from 1.

    It is one more than the rows that score higher and the rows before the target in the gallery that score the same;
    cosines (float64) nearer than 1e-9 are the same, so copies of a photo keep the gallery's order.

    Args:
        queries: (Q, D) floating, of any length but zero.
        gallery: (N, D) floating, of any length but zero.
        targets: (Q,) integer rows of the gallery.
        excluded: (Q,) integer: a row that is no answer to the query, or -1; None excludes nothing.

    Returns:
        (Q,) int64.

    Raises:
        InputError: Another shape, a row out of range, a vector that is zero or not finite, an excluded target.
    """
    left, right = _unit_rows(queries, "queries"), _unit_rows(gallery, "gallery")
    count, size = len(left), len(right)
    none = np.full(count, -1)
    targets, excluded = np.asarray(targets), none if excluded is None else np.asarray(excluded)
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
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        scores, target, out = left[part] @ right.T, targets[part, None], excluded[part, None]
        over = scores - np.take_along_axis(scores, target, axis=1)
        before = (over > _SAME) | ((over >= -_SAME) & (places < target))
        ranks[part] = 1 + (before & (places != out)).sum(axis=1)
    return ranks


def _unit_rows(vectors: NDArray[np.floating], name: str) -> NDArray[np.float64]:
    """(N, D) L2-normalized float64."""
    array = np.asarray(vectors)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{name} must be (N, D) floating, got {array.dtype} {array.shape}")
    array = array.astype(np.float64)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    bad = ~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0)
    if bad.any():
        raise InputError(f"{name}[{int(bad.argmax())}] is zero or not finite; expected embeddings")
    return np.asarray(array / lengths)


def _range(rows: NDArray[np.integer]) -> str:
    return f"from {rows.min()} to {rows.max()}" if rows.size else "empty"


def recall_at_k(ranks: NDArray[np.int64], k: int) -> float:
    """Share of queries whose target is among the first k."""
    return float((ranks <= k).mean())


def recall_interval(ranks: NDArray[np.int64], k: int, *, seed: int = 0) -> list[float]:
    """Its 95% interval over the queries."""
    hits = ranks <= k
    return bootstrap_interval(len(ranks), lambda rows: float(hits[rows].mean()), seed=seed)


def bootstrap_interval(
    count: int, figure: Callable[[NDArray[np.int64]], float], *, rounds: int = 1000, seed: int = 0
) -> list[float]:
    """95% percentile interval of a figure over `count` items drawn with replacement; `figure` gets their indices."""
    return stratified_interval([count], lambda drawn: figure(drawn[0]), rounds=rounds, seed=seed)


def stratified_interval(
    counts: Sequence[int], figure: Callable[[list[NDArray[np.int64]]], float], *, rounds: int = 1000, seed: int = 0
) -> list[float]:
    """As `bootstrap_interval`, with the items of each group drawn from that group alone."""
    chance = np.random.default_rng(seed)
    values = [figure([chance.integers(count, size=count) for count in counts]) for _ in range(rounds)]
    return [round(float(np.quantile(values, q)), 4) for q in (0.025, 0.975)]
