"""Searching a vector store: checked arguments, scores that no store rounds its own way, ties in the order of ids."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fashion_retrieval._utils.checks import check_whole
from fashion_retrieval._utils.deprecation import warn_renamed
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.engines.base import MAX_ROWS, RENAMED_FIELDS, Row, Settings, VectorStore
from fashion_retrieval.gallery.filters import Scalar, parse_where
from fashion_retrieval.results import Match

_TIE = 1e-6
"""Scores closer than this may come from the store in any order."""


def search(
    store: VectorStore, query: ArrayLike, top_k: int, *, where: str | None, exclude: Collection[str]
) -> list[Match]:
    """Search a vector store, as `Gallery.search` does.

    Raises:
        InputError: The query's shape, type or values, `top_k`, `where` or `exclude` can't be used.
    """
    vector = _unit(query, store.settings.embedding_dim)
    if isinstance(exclude, str):
        raise InputError(f"exclude must be a collection of ids, got the text {exclude!r:.60}; put it in a list")
    excluded = set(exclude)
    most = MAX_ROWS - 1 - len(excluded)
    if most < 1:
        raise InputError(f"exclude must name fewer than {MAX_ROWS - 1} ids, got {len(excluded)}; use where instead")
    check_whole("top_k", top_k, most)
    settings = store.settings
    condition = None if where is None else parse_where(where, settings.types, settings.renamed)
    asked = top_k + len(excluded) + 1
    while True:
        rows = store.nearest(vector, asked, condition)
        ranked = _ranked(rows, vector, settings)
        kept = [match for match in ranked if match.id not in excluded]
        complete = len(rows) < asked or asked == MAX_ROWS
        if complete or kept[top_k - 1].score > ranked[-1].score + _TIE:
            return kept[:top_k]
        asked = min(4 * asked, MAX_ROWS)  # a tie at the end: which of its ids come first is not known yet


def _unit(query: ArrayLike, width: int) -> NDArray[np.float32]:
    try:
        array = np.asarray(query)
    except ValueError as error:
        raise InputError(f"a query must be ({width},) floats, got rows of several lengths") from error
    if array.dtype.kind != "f" or array.shape not in {(width,), (1, width)}:
        got = f"{array.dtype} {array.shape}"
        raise InputError(
            f"a query must be floats of shape ({width},) or (1, {width}), got {got}; see FashionModel.encode"
        )
    vector = array.reshape(width).astype(np.float64)
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or not length:
        raise InputError(f"a query must hold finite numbers, not all 0, got a vector of length {length}")
    return (vector / length).astype(np.float32)


def to_match(row: Row, score: float, settings: Settings) -> Match:
    """A row as a result."""
    return Match(row.id, score, row.photo, _Fields(row.fields) if settings.renamed else row.fields)


class _Fields(dict[str, Scalar | None]):
    """Values by field, which the old name of a recognized field finds too."""

    def __missing__(self, name: str) -> Scalar | None:
        new = RENAMED_FIELDS.get(name, name)
        if new not in self:
            raise KeyError(name)
        warn_renamed(f"the field {name!r}", repr(new))
        return self[new]


def _ranked(rows: Sequence[Row], vector: NDArray[np.float32], settings: Settings) -> list[Match]:
    # In float64, with each row summed alike, so that equal embeddings have equal scores whatever store returned them.
    vectors = np.array([row.vector for row in rows], np.float64).reshape(-1, len(vector))
    scores = np.round(np.sum(vectors * vector, axis=1), 7).tolist()
    matches = [to_match(row, score, settings) for row, score in zip(rows, scores, strict=True)]
    return sorted(matches, key=lambda match: (-match.score, match.id))
