"""Scores of labels, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fashion_retrieval._utils import scores


def test_macro_f1_by_hand() -> None:
    truth, guess = list("aaabbc"), list("aabbda")
    assert scores.macro_f1(truth, guess) == pytest.approx((4 / 6 + 2 / 4 + 0) / 3)  # "d" is no label of the truth
    assert scores.accuracy(truth, guess) == 0.5
    assert scores.macro_f1(truth, truth) == 1


def test_expected_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 1.0, 0.85, 0.15])
    correct = np.array([True, False, True, True, False])
    gaps = 0.6 * (2.9 / 3 - 2 / 3) + 0.2 * 0.15 + 0.2 * 0.15
    assert scores.expected_calibration_error(confidence, correct) == pytest.approx(gaps)
    assert scores.expected_calibration_error(confidence, correct, bins=1) == pytest.approx(3.9 / 5 - 3 / 5)


def test_accuracy_interval_is_wilsons() -> None:
    assert scores.accuracy_interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Newcombe (1998)
    low, high = scores.accuracy_interval(1.0, 10)
    assert (low, high) == (pytest.approx(0.7225, abs=1e-4), 1.0)
