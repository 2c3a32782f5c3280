"""Calibration: one factor on the logits per group, so that probabilities are frequencies (Guo et al., 2017)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fashion_retrieval import FashionModel
from fashion_retrieval.models.probe import softmax
from fashion_retrieval.models.towers import Floats
from training.evaluation.recognition import embed_split

FACTORS = tuple(round(0.3 + 0.05 * step, 2) for step in range(35))
# The deepfashion taxonomy calls two of the groups by the paper's names.
ALIASES = {"sleeve": "sleeve_length", "length": "dress_length"}


def fit_calibration(model: FashionModel, root: Path, split: str) -> dict[str, float]:
    """The factor of least negative log-likelihood for category and each attribute group."""
    garments = embed_split(model, root, split)
    recognizer, view = model.recognizer("default", 1), garments.view
    names = [value.name for value in recognizer.taxonomy.category.values]
    labels = [names.index(s.category) if s.category in names else -1 for s in garments.samples]
    factors = {"category": _best_factor([[(1.0, row)] for row in garments.category], labels)}
    for group in recognizer.taxonomy.attributes:
        values = [value.name for value in group.values]
        known = {i: values.index(label) for i, label in garments.labels(group.name).items() if label in values}
        mixtures = [
            [
                (weight, recognizer.attribute_probabilities(view[i], group, [(category, 1.0)]))
                for category, weight in garments.contexts[i]
            ]
            for i in known
        ]
        factors[group.name] = _best_factor(mixtures, [*known.values()])
    return factors | {alias: factors[name] for name, alias in ALIASES.items()}


def _best_factor(mixtures: list[list[tuple[float, Floats]]], truths: list[int]) -> float:
    """The factor for garments whose probabilities are mixtures of softmaxes with one scale.

    `truths` are indices of the correct values, -1 for unknown.
    """
    labels = np.array(truths)
    known = labels >= 0
    weights = np.array([[weight for weight, _ in parts] for parts in mixtures])[known]
    probabilities = np.array([[part for _, part in parts] for parts in mixtures])[known]
    logits, right = np.log(np.maximum(probabilities, 1e-30)), labels[known, None, None]
    losses = []
    for factor in FACTORS:
        of_right = np.take_along_axis(softmax(factor * logits), right, axis=2)[..., 0]
        losses.append(-float(np.log(np.maximum((of_right * weights).sum(1), 1e-12)).mean()))
    return FACTORS[losses.index(min(losses))]
