"""The exact nearest rows of a matrix: scores by 8-bit codes leave few candidates, float32 decides among them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)
_LARGEST = 127
_BLOCK = 256
"""Rows coded at a time, so that the work stays in the processor's cache."""
_GROWTH = 1.25
_FEW = 512
"""Rows that are scored in float32 at once."""
_COPYING = 5
"""How much dearer a row of codes is where it must be copied first."""
_WORTH_THREADS = 1 << 22
"""Bytes of codes above which they are shared among threads."""
_ROUNDING = 1e-5
"""What float32 adds to the error of a score, at most."""


class Scan:
    """L2-normalized rows to be searched by cosine.

    A row v is kept as it is and as a step s times a code c, whole numbers from -127 to 127. With the query coded alike,
    a score by codes is off by at most |v - sc| and the like of the query (Cauchy-Schwarz). So every row that may be
    among the nearest is known, and only these are scored in float32.

    Args:
        dim: Width of a row, D.
        room: For how many rows to allot memory.
    """

    def __init__(self, dim: int, room: int = 0) -> None:
        self._rows = np.empty((room, dim), np.float32)
        self._codes = np.empty((room, dim), np.int8)
        self._steps = np.empty(room, np.float32)
        self._errors = np.empty(room, np.float32)

    def put(self, start: int, rows: NDArray[np.float32]) -> None:
        """Set (M, D) float32 rows from number `start` on. Searches of the rows before may be under way."""
        needed = start + len(rows)
        if needed > len(self._rows):
            room = int(needed * _GROWTH)
            self._rows = _grown(self._rows, start, room)
            self._codes = _grown(self._codes, start, room)
            self._steps = _grown(self._steps, start, room)
            self._errors = _grown(self._errors, start, room)
        for first in range(0, len(rows), _BLOCK):
            block = rows[first : first + _BLOCK]
            here = slice(start + first, start + first + len(block))
            self._rows[here] = block
            self._codes[here], self._steps[here], self._errors[here] = _coded(block)

    def rows(self, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """(M, D) float32, those of these numbers."""
        return self._rows[numbers]

    def nearest(self, query: NDArray[np.float32], limit: int, allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
        """The numbers of the rows with the highest scores, best first; fewer than `limit` where fewer are allowed.

        Args:
            query: L2-normalized (D,) float32.
            limit: How many, at least 1.
            allowed: (N,) bool, which of the first N rows count.
        """
        possible = int(np.count_nonzero(allowed))
        limit = min(limit, possible)
        if possible > max(limit, _FEW):
            numbers = self._candidates(query, limit, allowed, possible)
        else:
            numbers = np.flatnonzero(allowed)
        best: NDArray[np.intp] = numbers[np.argsort(-(self._rows[numbers] @ query), kind="stable")[:limit]]
        return best

    def _candidates(
        self, query: NDArray[np.float32], limit: int, allowed: NDArray[np.bool_], possible: int
    ) -> NDArray[np.intp]:
        """Those of the `possible` allowed rows that may be among the nearest."""
        code, step, error = _coded(query[np.newaxis])
        count = len(allowed)
        chosen = slice(0, count) if possible == count else np.flatnonzero(allowed)
        if possible < count / _COPYING:
            scores = _products(code, self._codes[chosen])
        else:
            scores = _products(code, self._codes[:count])[chosen]
        scores = scores * (self._steps[chosen] * step)
        errors = self._errors[chosen]
        off = float(error[0]) + _ROUNDING
        most = off + float(errors.max()) * (1 + off)
        near = np.flatnonzero(scores >= _highest(scores, limit) - 2 * most)
        scores, offs = scores[near], off + errors[near] * (1 + off)
        near = near[scores + offs >= _highest(scores - offs, limit)]
        return near if isinstance(chosen, slice) else chosen[near]


def _highest(scores: NDArray[np.float32], rank: int) -> float:
    """The score of this rank, counted from 1."""
    return float(np.partition(scores, len(scores) - rank)[len(scores) - rank])


def _products(code: NDArray[np.int8], codes: NDArray[np.int8]) -> NDArray[np.float32]:
    """(N,) float32, the products of a (1, D) int8 code with (N, D) int8 codes."""
    import simsimd
    import torch

    threads = torch.get_num_threads() if codes.size > _WORTH_THREADS else 1
    products = simsimd.cdist(code, codes, "dot", out_dtype="float32", threads=threads)
    return np.asarray(products, np.float32).reshape(-1)


def _coded(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """Codes (N, D) int8, their steps (N,) float32, and how far each row is from its step times its code."""
    steps = np.maximum(rows.max(axis=1), -rows.min(axis=1)) / _LARGEST
    steps[steps == 0] = 1
    codes = np.rint(rows / steps[:, np.newaxis])
    rest = rows - codes * steps[:, np.newaxis]
    return codes.astype(np.int8), steps, np.sqrt(np.einsum("nd,nd->n", rest, rest))


def _grown(array: NDArray[T], kept: int, size: int) -> NDArray[T]:
    grown = np.empty((size, *array.shape[1:]), array.dtype)
    grown[:kept] = array[:kept]
    return grown
