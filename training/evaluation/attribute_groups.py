"""Attribute groups, classified zero-shot: predictions for labeled garments, and their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.scores import accuracy, expected_calibration_error, macro_f1
from fashion_retrieval._utils.significance import ItemScores
from fashion_retrieval.inference.recognition import CategoryContext, Recognizer
from fashion_retrieval.models.towers import Floats
from fashion_retrieval.taxonomy import Group


@dataclass(frozen=True, slots=True)
class Predictions:
    """The likeliest value of one group, for each garment with a label of it.

    Attributes:
        rows: Index of the garment, (N,) int64.
        truth: Its label, (N,) str.
        predicted: The likeliest value, (N,) str.
        probability: Probability of that value, (N,) float64.
    """

    rows: NDArray[np.int64]
    truth: NDArray[np.str_]
    predicted: NDArray[np.str_]
    probability: NDArray[np.float64]

    def metrics(self, chosen: NDArray[np.bool_]) -> dict[str, Any] | None:
        """Precision, macro-F1 and calibration error over chosen garments, given as a bool each; None without any."""
        kept = chosen[self.rows]
        if not kept.any():
            return None
        truth, predicted = self.truth[kept], self.predicted[kept]
        return {
            "precision": accuracy(truth, predicted),
            "macro_f1": macro_f1(truth, predicted),
            "calibration_error": expected_calibration_error(self.probability[kept], truth == predicted),
            "labeled": len(truth),
        }


def predict_group(
    recognizer: Recognizer,
    group: Group,
    embeddings: Floats,
    contexts: Sequence[CategoryContext],
    labels: Mapping[int, str],
) -> Predictions:
    """Classify the garments that have a label, given by row.

    Embeddings are (N, d) float32, L2-normalized; the prompts name the categories of a garment's context.
    """
    names = np.array([value.name for value in group.values])
    found = [recognizer.attribute_probabilities(embeddings[i], group, contexts[i]) for i in labels]
    best = np.array([row.argmax() for row in found], dtype=np.int64)
    probability = np.array([row.max() for row in found], dtype=np.float64)
    return Predictions(np.array([*labels], dtype=np.int64), np.array([*labels.values()]), names[best], probability)


def group_metrics(predictions: Mapping[str, Predictions], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Metrics of each group over the chosen garments, and their unweighted means."""
    found = {name: row.metrics(chosen) for name, row in predictions.items()}
    metrics: dict[str, Any] = {name: row for name, row in found.items() if row}
    keys = ("precision", "macro_f1", "calibration_error")
    return metrics | {f"mean_{key}": float(np.mean([row[key] for row in metrics.values()])) for key in keys}


def correct_signs(predictions: Mapping[str, Predictions], count: int) -> dict[str, str]:
    """By group one character for each of `count` garments: 1 correct, 0 wrong, - without a label of the group."""
    signs = {name: np.full(count, "-") for name in predictions}
    for name, row in predictions.items():
        signs[name][row.rows] = np.where(row.truth == row.predicted, "1", "0")
    return {name: "".join(line) for name, line in signs.items()}


def precision_scores(signs: Mapping[str, str]) -> ItemScores:
    """Scores of the mean precision, from `correct_signs`: an item is a garment with all its labels."""
    values = {"1": 1.0, "0": 0.0, "-": np.nan}
    return ItemScores.of_labels([np.array([values[sign] for sign in line]) for line in signs.values()])
