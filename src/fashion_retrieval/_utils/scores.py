"""How good predicted labels are, and how sure that is: NumPy in, floats out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Labels = Sequence[str] | NDArray[np.str_] | NDArray[np.int64]


def accuracy(truth: Labels, predicted: Labels) -> float:
    """Fraction of equal labels: top-1 precision in the paper's sense."""
    return float((np.asarray(truth) == np.asarray(predicted)).mean())


def accuracy_interval(accuracy: float, count: int) -> tuple[float, float]:
    """95% interval of an accuracy over `count` items (Wilson, 1927): it holds for few of them too."""
    z2 = 1.96**2 / count
    middle, half = accuracy + z2 / 2, sqrt(z2 * (accuracy * (1 - accuracy) + z2 / 4))
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def macro_f1(truth: Labels, predicted: Labels) -> float:
    """Unweighted mean of the F1 of every label that occurs in the truth."""
    labels = np.unique(truth)[:, None]
    true, guessed = np.asarray(truth) == labels, np.asarray(predicted) == labels
    return float((2 * (true & guessed).sum(axis=1) / (true.sum(axis=1) + guessed.sum(axis=1))).mean())


def reliability(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 10
) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and count of each of so many equal bins of confidence that has items, the low first."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    inside = [place == b for b in np.unique(place)]
    return [(float(confidence[rows].mean()), float(correct[rows].mean()), int(rows.sum())) for rows in inside]


def expected_calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance of confidence and accuracy over equal bins, weighted by their counts (Guo et al., 2017)."""
    found = reliability(confidence, correct, bins)
    return float(sum(abs(said - right) * (count / len(confidence)) for said, right, count in found))


def mean_interval(values: NDArray[np.floating] | NDArray[np.bool_], *, seed: int = 0) -> list[float]:
    """95% percentile bootstrap interval of the mean of (N,) values."""
    return stratified_interval([len(values)], lambda drawn: float(values[drawn[0]].mean()), seed=seed)


def stratified_interval(
    counts: Sequence[int], metric: Callable[[list[NDArray[np.int64]]], float], *, rounds: int = 1000, seed: int = 0
) -> list[float]:
    """95% percentile interval of a metric over items drawn with replacement, from each stratum separately.

    `metric` gets the drawn indices of each stratum.
    """
    generator = np.random.default_rng(seed)
    values = [metric([generator.integers(count, size=count) for count in counts]) for _ in range(rounds)]
    return [round(float(np.quantile(values, q)), 4) for q in (0.025, 0.975)]
