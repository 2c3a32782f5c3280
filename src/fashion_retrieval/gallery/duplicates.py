"""Near-duplicates: photos that were encoded, resized, cropped or lit anew, by their embeddings and their hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.progress import progress_bar
from fashion_retrieval.gallery.engines.base import Row, VectorStore
from fashion_retrieval.images.hash import BITS

SLOPE, LIMIT = 50.0, 12.0
"""Near-duplicates are at most `LIMIT` apart: the bits that differ, and `SLOPE` times (1 - cosine).

Chosen by `python -m benchmarks duplicates` on its train split, where it takes one in 300 for a copy of another photo.
"""
ALONE = 0.99
"""The least cosine of near-duplicates of which one has no hash."""
_BLOCK, _WIDE = 1_024, 8_192
"""Photos compared at a time with so many others: 32 MiB of products."""


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What tells near-duplicates: embeddings and hashes as one matrix, so that one product compares both.

    `matrix` is (N, D + 64) float32: the L2-normalized embedding times the root of `SLOPE`, and the bits as plus or
    minus the root of 1/2, 0 without one. The product of two rows is SLOPE cosine + 32 - bits that differ. `hashed`, of
    (N,) bool, tells which have one.
    """

    matrix: NDArray[np.float32]
    hashed: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Looks:
        """The looks of rows, of which there is at least one."""
        hashes = np.array([row.hash or 0 for row in rows], np.int64)
        bits = np.unpackbits(hashes.view(np.uint8)).reshape(-1, BITS)
        signs = np.where(hashes[:, np.newaxis] == 0, 0, (bits - 0.5) * np.sqrt(2))
        vectors = np.stack([row.vector for row in rows]) * np.sqrt(SLOPE)
        return cls(np.hstack([vectors, signs]).astype(np.float32), hashes != 0)

    def __getitem__(self, chosen: slice | NDArray[np.intp]) -> Looks:
        return Looks(self.matrix[chosen], self.hashed[chosen])

    def pairs(self, others: Looks) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The numbers of the near-duplicates, here and among the others."""
        least: NDArray[np.float64] | float = SLOPE + BITS / 2 - LIMIT
        if not (self.hashed.all() and others.hashed.all()):
            least = np.where(self.hashed[:, np.newaxis] & others.hashed, least, SLOPE * ALONE)
        here, there = np.nonzero(self.matrix @ others.matrix.T >= least)
        return here, there


def find_duplicates(store: VectorStore, *, progress: bool) -> list[tuple[str, ...]]:
    """`Gallery.duplicates`: every photo is compared with every other, some of them at a time."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ids: list[str] = []
    parts: list[Looks] = []
    for rows in store.scan():
        ids += [row.id for row in rows]
        parts.append(Looks.of(rows))
    if not ids:
        return []
    looks = Looks(np.concatenate([part.matrix for part in parts]), np.concatenate([part.hashed for part in parts]))
    parts.clear()
    pairs: list[NDArray[np.intp]] = []
    with progress_bar("comparing", len(ids), shown=progress) as advance:
        for start in range(0, len(ids), _BLOCK):
            block = looks[start : start + _BLOCK]
            for other in range(start, len(ids), _WIDE):
                here, there = block.pairs(looks[other : other + _WIDE])
                pairs.append(np.stack([here + start, there + other]))
            advance(len(block.hashed))
    edges = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(edges.shape[1], np.bool_), tuple(edges)), shape=(len(ids), len(ids)))
    _, labels = connected_components(graph, directed=False)
    groups: dict[int, list[str]] = {}
    for id, label in sorted(zip(ids, labels.tolist(), strict=True)):
        groups.setdefault(label, []).append(id)
    return [tuple(group) for group in groups.values() if len(group) > 1]
