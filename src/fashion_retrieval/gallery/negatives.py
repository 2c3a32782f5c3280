"""Results that should not show something: scores are lowered by how near they are to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 20
"""So many times the wanted results are looked at, of which those that show least of it come first."""
WEIGHT = 0.5
"""How much counts; chosen with `CANDIDATES` on the train split by `training.evaluate negation`."""

Floats = NDArray[np.float64]


def lowered(scores: Floats, vectors: Floats, negatives: Sequence[NDArray[np.float32]] | None) -> Floats:
    """Scores (N,) of L2-normalized vectors (N, D), lowered by their likeness to the negatives, each (D,).

    A likeness counts from the mean of the N vectors on, in their standard deviations, as do the scores: cosines of
    texts and of composed queries differ in scale. Of several negatives, the likest counts.
    """
    if not negatives or len(scores) < 2:
        return scores
    likeness = vectors @ np.stack(negatives).T.astype(np.float64)
    spread = likeness.std(axis=0)
    beyond = np.maximum(likeness - likeness.mean(axis=0), 0) / np.where(spread > 0, spread, 1)
    below: Floats = WEIGHT * scores.std() * beyond.max(axis=1)
    return scores - below
