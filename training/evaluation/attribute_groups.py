"""Attribute groups, asked zero-shot: the answers to labeled garments and their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fashion_retrieval.taxonomy import Group, Value
from training.evaluation.metrics import accuracy, expected_calibration_error, macro_f1
from training.evaluation.significance import Outcomes

Nouns = Sequence[tuple[Value, float]]
"""Categories a garment may be of, with weights."""
Guesses = dict[str, list[tuple[int, str, str, float]]]
"""Group -> (row, truth, guess, probability) of the garments that carry a label of it."""


class Answering(Protocol):
    """What of a model's recognizer is asked here."""

    def attribute_probabilities(self, embedding: Tensor, group: Group, nouns: Nouns) -> Tensor:
        """(d,) -> (values,), summing to 1."""


def guess_group(
    recognizer: Answering, group: Group, embeddings: Tensor, nouns: Sequence[Nouns], truths: Mapping[int, str]
) -> list[tuple[int, str, str, float]]:
    """The likeliest value for each garment that has a label.

    Args:
        recognizer: Of the taxonomy that the group is of.
        group: What is asked.
        embeddings: (N, d), L2-normalized.
        nouns: What each garment's prompts name.
        truths: Label by row.
    """
    names = [value.name for value in group.values]
    rows = []
    for i, truth in truths.items():
        shares = recognizer.attribute_probabilities(embeddings[i], group, nouns[i])
        best = int(shares.argmax())
        rows.append((i, truth, names[best], float(shares[best])))
    return rows


def group_figures(guesses: Guesses, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Precision, macro-F1 and calibration error of each group over the chosen garments, and their unweighted means."""
    figures: dict[str, Any] = {}
    for name, rows in guesses.items():
        kept = [row for row in rows if chosen[row[0]]]
        if kept:
            _, truth, guess, sure = zip(*kept, strict=True)
            right = np.array([t == g for t, g in zip(truth, guess, strict=True)])
            figures[name] = {
                "precision": accuracy(truth, guess),
                "macro_f1": macro_f1(truth, guess),
                "calibration_error": expected_calibration_error(np.array(sure), right),
                "labeled": len(kept),
            }
    for what in ("precision", "macro_f1", "calibration_error"):
        figures[f"mean_{what}"] = float(np.mean([figures[name][what] for name in guesses if name in figures]))
    return figures


def marks(guesses: Guesses, count: int) -> dict[str, str]:
    """By group a sign for each of `count` garments: 1 right, 0 wrong, - no label of the group."""
    signs = {}
    for name, rows in guesses.items():
        line = ["-"] * count
        for i, truth, guess, _ in rows:
            line[i] = "1" if truth == guess else "0"
        signs[name] = "".join(line)
    return signs


def precision_outcomes(signs: Mapping[str, str]) -> Outcomes:
    """Those of the mean precision, from `marks`: an item is a garment with all its labels."""
    values = {"1": 1.0, "0": 0.0, "-": np.nan}
    return Outcomes.of_labels([np.array([values[sign] for sign in line]) for line in signs.values()])
