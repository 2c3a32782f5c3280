"""The figures of training/metrics.py by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fashion_retrieval._utils import scores
from training.evaluation import metrics


def test_match_boxes_is_one_to_one_best_first() -> None:
    truth = np.array([[0.0, 0, 10, 10], [0, 0, 10, 6]])
    found = np.array([[0.0, 0, 10, 7], [0, 0, 10, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(metrics.box_iou(truth, found), [[0.7, 1, 0], [6 / 7, 0.6, 0]])
    assert metrics.match_boxes(truth, found) == {0: 1, 1: 0}
    assert metrics.match_boxes(truth, found, threshold=0.9) == {0: 1}
    assert metrics.match_boxes(truth, found[:1]) == {1: 0}
    assert metrics.match_boxes(truth, found[2:]) == metrics.match_boxes(truth[:0], found) == {}


def test_mean_interval_is_the_textbooks() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = scores.mean_interval(values)
    margin = 1.96 * values.std() / 20
    assert [low, high] == pytest.approx([values.mean() - margin, values.mean() + margin], abs=0.03)
    assert scores.stratified_interval([5, 2], lambda drawn: float(len(drawn[0]) + len(drawn[1]))) == [7.0, 7.0]
    first, again, other = (scores.mean_interval(np.arange(9.0), seed=seed) for seed in (0, 0, 1))
    assert first == again != other
