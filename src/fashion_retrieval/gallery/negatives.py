"""Results that should not show something: scores are lowered by how near they are to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

POOL = 200
"""How many of the nearest photos tell what likeness is usual."""
WEIGHT = 0.5
"""How much counts; chosen with `POOL` on the train split by `training.evaluate negation`, for a top 10."""

Floats: TypeAlias = NDArray[np.float64]
Lower: TypeAlias = Callable[[Floats, Floats], Floats]
"""Scores (N,) of L2-normalized vectors (N, D) -> the scores, some of them lower."""


def lowering(scores: Floats, vectors: Floats, negatives: Sequence[NDArray[np.float32]]) -> Lower:
    """How to lower scores by the likeness to the negatives, each (D,); told by the nearest photos, best first.

    A likeness counts from the mean of the first `POOL` on, in their standard deviations, as do the scores: cosines of
    texts and of composed queries differ in scale. Of several negatives, the likest counts. No score falls below -1.
    """
    if not negatives or len(scores) < 2:
        return lambda scores, _: scores
    away = np.stack(negatives).T.astype(np.float64)
    usual = vectors[:POOL] @ away
    mean, spread, weight = usual.mean(axis=0), usual.std(axis=0), WEIGHT * scores[:POOL].std()
    spread[spread == 0] = 1

    def lower(scores: Floats, vectors: Floats) -> Floats:
        beyond = np.maximum(vectors @ away - mean, 0) / spread
        lowered: Floats = np.maximum(scores - weight * beyond.max(axis=1), -1)
        return lowered

    return lower
