"""From a query to results: what is asked is checked, the store's nearest rows are ranked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fashion_retrieval._utils.checks import check_whole
from fashion_retrieval._utils.deprecation import warn_renamed
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.engines.base import MAX_ROWS, RENAMED_FIELDS, Row, Settings, VectorStore
from fashion_retrieval.gallery.filters import Filter, Scalar, parse_where
from fashion_retrieval.gallery.negatives import CANDIDATES, lowered
from fashion_retrieval.results import Match, Matches

_TIE = 1e-6
"""Scores closer than this may come from the store in any order."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What `Gallery.search` is asked, checked: vectors are L2-normalized (D,) float32."""

    query: NDArray[np.float32]
    top_k: int
    where: Filter | None
    exclude: frozenset[str]
    negatives: tuple[NDArray[np.float32], ...]

    @classmethod
    def read(
        cls,
        settings: Settings,
        query: ArrayLike,
        top_k: int,
        *,
        where: str | None,
        exclude: Collection[str],
        negative: ArrayLike | None,
    ) -> Question:
        """Check the arguments of `Gallery.search`; an `InputError` says which can't be used."""
        vector = _unit(query, settings.embedding_dim)
        away = () if negative is None else _units(negative, len(vector))
        if isinstance(exclude, str):
            raise InputError(f"exclude must be a collection of ids, got the text {exclude!r:.60}; put it in a list")
        excluded = frozenset(exclude)
        most = MAX_ROWS - 1 - len(excluded)
        if most < 1:
            raise InputError(f"exclude must name fewer than {MAX_ROWS - 1} ids, got {len(excluded)}; use where instead")
        check_whole("top_k", top_k, most)
        condition = None if where is None else parse_where(where, settings.types, settings.renamed)
        return cls(vector, top_k, condition, excluded, away)


def answer(store: VectorStore, question: Question) -> Matches:
    """The results of a search, best first; equal scores are in the order of their ids."""
    vector, top_k, excluded, away = question.query, question.top_k, question.exclude, question.negatives
    asked = top_k + len(excluded) + 1
    if away:
        asked = min(max(asked, CANDIDATES * top_k), MAX_ROWS)
    while True:
        rows = store.nearest(vector, asked, question.where)
        # In float64, with each row summed alike, so that equal embeddings have equal scores in every store.
        vectors = np.array([row.vector for row in rows], np.float64).reshape(-1, len(vector))
        scores = np.round(lowered(np.sum(vectors * vector, axis=1), vectors, away), 7).tolist()
        ranked = sorted(zip(scores, rows, strict=True), key=lambda pair: (-pair[0], pair[1].id))
        kept = [(score, row) for score, row in ranked if row.id not in excluded]
        if away or len(rows) < asked or asked == MAX_ROWS or kept[top_k - 1][0] > ranked[-1][0] + _TIE:
            return Matches(to_match(row, score, store.settings) for score, row in kept[:top_k])
        asked = min(4 * asked, MAX_ROWS)  # a tie at the end: which of its ids come first is not known yet


def to_match(row: Row, score: float, settings: Settings) -> Match:
    """A row as users see it."""
    return Match(row.id, score, row.photo, _Fields(row.fields) if settings.renamed else row.fields, row.views)


def _units(negative: ArrayLike, width: int) -> tuple[NDArray[np.float32], ...]:
    remedy = "encode texts or photos with FashionModel.encode"
    if isinstance(negative, str):
        raise InputError(f"negative must be embeddings, got the text {negative!r:.60}; {remedy}")
    try:
        return tuple(_unit(row, width) for row in np.atleast_2d(np.asarray(negative)))
    except (ValueError, InputError) as error:
        raise InputError(
            f"negative must hold floats of shape (N, {width}) that are finite, not all 0; {remedy}"
        ) from error


def _unit(query: ArrayLike, width: int) -> NDArray[np.float32]:
    try:
        array = np.asarray(query)
    except ValueError as error:
        raise InputError(f"a query must be ({width},) floats, got rows of several lengths") from error
    if array.dtype.kind != "f" or array.shape not in {(width,), (1, width)}:
        expected = f"floats of shape ({width},) or (1, {width})"
        raise InputError(f"a query must be {expected}, got {array.dtype} {array.shape}; see FashionModel.encode")
    vector = array.reshape(width).astype(np.float64)
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or not length:
        raise InputError(f"a query must hold finite numbers, not all 0, got a vector of length {length}")
    return (vector / length).astype(np.float32)


class _Fields(dict[str, Scalar | None]):
    """Values by field, which the old name of a recognized field finds too."""

    def __missing__(self, name: str) -> Scalar | None:
        new = RENAMED_FIELDS.get(name, name)
        if new not in self:
            raise KeyError(name)
        warn_renamed(f"the field {name!r}", repr(new))
        return self[new]
