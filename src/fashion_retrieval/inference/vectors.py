"""Embeddings in fewer bytes: fewer numbers a row, and smaller numbers."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.checks import check_whole
from fashion_retrieval.errors import InputError

Precision = Literal["float32", "float16", "int8", "binary", "ubinary"]
_MAX_CODE = 127
_TINY = 1e-12


def check_vectors(dimensions: int | None, precision: str, width: int, allowed: tuple[str, ...] = ()) -> None:
    """Refuse what embeddings of this width can't be turned into with an `InputError`."""
    if dimensions is not None:
        check_whole("dimensions", dimensions, width)
    *kinds, last = allowed or get_args(Precision)
    if not isinstance(precision, str) or precision not in (*kinds, last):
        raise InputError(f"precision must be {', '.join(map(repr, kinds))} or {last!r}, got {precision!r:.60}")


def normalized(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """(..., D) float32, L2-normalized; a row of zeros stays one."""
    floats = rows.astype(np.float32, copy=False)
    found: NDArray[np.float32] = floats / np.maximum(np.linalg.norm(floats, axis=-1, keepdims=True), _TINY)
    return found


def shortened(
    rows: NDArray[np.floating[Any]], dimensions: int | None, basis: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(..., D) -> (..., dimensions) float32, L2-normalized: the first coordinates, by a (D, D) basis if there is one.

    At full width and with None rows stay as they are, without the basis.
    """
    if dimensions is None or dimensions == rows.shape[-1]:
        return rows.astype(np.float32, copy=False)
    return normalized(rows[..., :dimensions] if basis is None else rows @ basis[:, :dimensions])


def quantized(rows: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """(N, D) float32 in numbers of this precision; `EmbeddingModel.encode` tells what they are."""
    made: NDArray[Any]
    if precision == "int8":
        largest = np.abs(rows).max(axis=-1, keepdims=True, initial=_TINY)
        made = np.rint(rows * (_MAX_CODE / largest)).astype(np.int8)
    elif precision in ("binary", "ubinary"):
        made = np.packbits(rows > 0, axis=-1)
        made = (made ^ 0x80).view(np.int8) if precision == "binary" else made  # minus 128
    else:
        made = rows.astype(precision, copy=False)
    return made


def restored(rows: NDArray[Any]) -> NDArray[np.float32]:
    """What rows of `quantized` in float32, float16 or int8 stand for: (N, D) float32; L2-normalized unless float32."""
    return rows if rows.dtype == np.float32 else normalized(rows)
