"""The nearest rows of a gallery, in NumPy and to the last digit: for measuring, where each tie counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import InputError

CHUNK = 256
"""Queries ranked at a time."""


def top_rows(
    queries: NDArray[np.floating], gallery: NDArray[np.floating], k: int, excluded: NDArray[np.integer]
) -> NDArray[np.int64]:
    """The first k rows of the gallery for each query, by cosine; of equal ones the first row goes first.

    Args:
        queries: (Q, D) floating, of any norm but zero.
        gallery: (N, D) floating, of any norm but zero.
        k: How many; at least 1.
        excluded: (Q,) integer: a row to leave out of the query's gallery, or -1.

    Returns:
        (Q, k) int64, -1 behind the end of the gallery.
    """
    left, right = unit_rows(queries, "queries"), unit_rows(gallery, "gallery")
    found = np.full((len(left), k), -1, dtype=np.int64)
    for start in range(0, len(left), CHUNK):
        scores, out = left[start : start + CHUNK] @ right.T, np.asarray(excluded)[start : start + CHUNK]
        here = np.flatnonzero(out >= 0)
        scores[here, out[here]] = -np.inf
        least = -np.partition(-scores, min(k, len(right)) - 1, axis=1)[:, min(k, len(right)) - 1]
        for place, (line, bound) in enumerate(zip(scores, least, strict=True), start):
            near = np.flatnonzero((line >= bound) & (line > -np.inf))  # to sort a large gallery takes ten times as long
            order = near[np.argsort(-line[near], kind="stable")][:k]
            found[place, : len(order)] = order
    return found


def unit_rows(vectors: NDArray[np.floating], name: str) -> NDArray[np.float64]:
    """(N, D) L2-normalized float64."""
    array = np.asarray(vectors)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{name} must be (N, D) floating, got {array.dtype} {array.shape}")
    array = array.astype(np.float64)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    bad = ~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0)
    if bad.any():
        raise InputError(f"{name}[{int(bad.argmax())}] is zero or not finite; expected embeddings")
    return np.asarray(array / lengths)
