"""Figures: accuracy, macro-F1, calibration, boxes, intervals. NumPy in, floats out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Labels = Sequence[str]


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


def bootstrap_interval(
    count: int, figure: Callable[[NDArray[np.int64]], float], *, rounds: int = 1000, seed: int = 0
) -> list[float]:
    """95% percentile interval of a figure over `count` items drawn with replacement; `figure` gets their indices."""
    chance = np.random.default_rng(seed)
    values = [figure(chance.integers(count, size=count)) for _ in range(rounds)]
    return [round(float(np.quantile(values, q)), 4) for q in (0.025, 0.975)]
