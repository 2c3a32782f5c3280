"""The factor that makes probabilities frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from training.export.calibrate import _best_factor


@pytest.mark.parametrize(("right", "of", "factor"), [(8, 10, 1.0), (7, 10, 0.6), (10, 10, 2.0)])
def test_factor_turns_probabilities_into_frequencies(right: int, of: int, factor: float) -> None:
    """0.8 in its place; 4^factor to 1 is 7 to 3 at a factor of 0.61, and the sure one is the largest of all."""
    sure, other = np.array([0.8, 0.2], np.float32), np.array([0.5, 0.5], np.float32)
    truths = [0] * right + [1] * (of - right) + [-1]
    assert _best_factor([[(1.0, sure)]] * (of + 1), truths) == pytest.approx(factor)
    assert _best_factor([[(0.0, other), (1.0, sure)]] * (of + 1), truths) == pytest.approx(factor)
