"""From a query to results: what is asked is checked, the store's nearest rows are ranked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import PurePath

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fashion_retrieval._utils.checks import check_ids, check_whole
from fashion_retrieval._utils.deprecation import warn_renamed
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.engines.base import MAX_ROWS, RENAMED_FIELDS, Row, Settings, VectorStore
from fashion_retrieval.gallery.filters import Filter, Scalar, none_of, parse_where
from fashion_retrieval.gallery.negatives import POOL, Floats, Lower, lowering
from fashion_retrieval.gallery.picks import Picks
from fashion_retrieval.results import Match, Matches

_TIE = 1e-6
"""Scores closer than this may come from the store in any order."""
_DEEP = 1_024
"""Rows looked at after which a filter leaves out the groups that were found."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What `Gallery.search` is asked, checked: vectors are L2-normalized (D,) float32.

    Rows for which `preferred` is true come before all others.
    """

    query: NDArray[np.float32]
    top_k: int
    where: Filter | None
    exclude: frozenset[str]
    negatives: tuple[NDArray[np.float32], ...]
    offset: int
    min_score: float
    group_by: str | None
    unique: bool
    preferred: Filter | None

    @classmethod
    def read(
        cls,
        settings: Settings,
        query: ArrayLike,
        top_k: int = 10,
        *,
        where: str | None = None,
        exclude: Collection[str] = (),
        negative: ArrayLike | None = None,
        offset: int = 0,
        min_score: float | None = None,
        group_by: str | None = None,
        unique: bool = False,
        preferred: str | None = None,
    ) -> Question:
        """Check the arguments of `Gallery.search`; an `InputError` says which can't be used."""
        vector = _unit(query, settings.embedding_dim)
        away = () if negative is None else _units(negative, len(vector))
        excluded = frozenset(check_ids("exclude", exclude))
        most = MAX_ROWS - 1 - len(excluded)
        if most < 1:
            raise InputError(f"exclude must name fewer than {MAX_ROWS - 1} ids, got {len(excluded)}; use where instead")
        check_whole("top_k", top_k, most)
        check_whole("offset", offset, MAX_ROWS, least=0)
        if offset + top_k > most:
            remedy = "narrow the search with where"
            raise InputError(f"offset + top_k must be at most {most}, got {offset} + {top_k}; {remedy}")
        if not isinstance(unique, bool):
            raise InputError(f"unique must be True or False, got {unique!r:.60}")
        conditions = [
            None if c is None else parse_where(c, settings.types, settings.renamed) for c in (where, preferred)
        ]
        return cls(
            query=vector,
            top_k=top_k,
            where=conditions[0],
            exclude=excluded,
            negatives=away,
            offset=offset,
            min_score=-1.0 if min_score is None else _cosine(min_score),
            group_by=None if group_by is None else _group(group_by, settings),
            unique=unique,
            preferred=conditions[1],
        )


def answer(store: VectorStore, question: Question) -> Matches:
    """The results of a search, best first; equal scores are in the order of their ids."""
    picks = Picks(question.group_by, question.exclude, unique=question.unique)
    if question.preferred:
        _pick(store, question, picks, question.preferred & question.where)
    _pick(store, question, picks, question.where)
    page = picks.rows[question.offset : question.offset + question.top_k]
    return Matches(to_match(row, score, store.settings) for score, row in page)


def _pick(store: VectorStore, question: Question, picks: Picks, where: Filter | None) -> None:
    """Pick rows, best first, until there are as many as are asked for, or no more.

    Of the rows that the store gives, those are certain whose score is above that of all rows beyond them; where they
    are too few, more are asked for. A lowered score is never above the store's, so it is certain in the same way.
    """
    needed = question.offset + question.top_k
    fewest = max(needed + len(question.exclude), POOL if question.negatives else 0) + 1
    asked, narrowed, left_out = fewest, where, len(picks.groups)
    lower: Lower | None = None
    while len(picks.rows) < needed:
        asked = min(asked, MAX_ROWS)
        rows = store.nearest(question.query, asked, narrowed)
        ended = len(rows) < asked
        # In float64, with each row summed alike, so that equal embeddings have equal scores in every store.
        vectors = np.array([row.vector for row in rows], np.float64).reshape(-1, len(question.query))
        scores = np.sum(vectors * question.query, axis=1)
        certain = -np.inf if ended or asked == MAX_ROWS else float(scores.min()) + _TIE
        lower = lower or _lowering(question, rows, scores, vectors, certain)
        if lower:
            ranked = _ranked(lower(scores, vectors), rows)
            picks.take([pair for pair in ranked if pair[0] > certain and pair[0] >= question.min_score], needed)
        if ended or (lower and certain < question.min_score):
            return
        if question.group_by and asked >= _DEEP and len(picks.groups) > left_out:
            others = none_of(question.group_by, picks.groups, store.settings.types)
            narrowed, left_out, asked = others & where, len(picks.groups), fewest
        elif asked == MAX_ROWS:
            return
        else:
            asked *= 4


def _ranked(scores: Floats, rows: Sequence[Row]) -> list[tuple[float, Row]]:
    """Rows with their scores, the best first, and equal ones by id."""
    return sorted(zip(np.round(scores, 7).tolist(), rows, strict=True), key=lambda pair: (-pair[0], pair[1].id))


def _lowering(question: Question, rows: Sequence[Row], scores: Floats, vectors: Floats, certain: float) -> Lower | None:
    """How scores are lowered; None where it is not certain yet which are the nearest that tell it."""
    if not question.negatives:
        return lowering(scores, vectors, ())
    order = sorted(range(len(rows)), key=lambda place: (-round(float(scores[place]), 7), rows[place].id))
    known = [place for place in order if scores[place] > certain]
    if len(known) < POOL and len(known) < len(rows):
        return None
    return lowering(scores[known], vectors[known], question.negatives)


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
    if isinstance(query, str | PurePath | Match):
        got = f"the text {query!r:.60}" if isinstance(query, str) else f"a {type(query).__name__}"
        remedy = "FashionModel.encode or compose makes one of texts and photos"
        raise InputError(f"a query must be an embedding, got {got}; {remedy}")
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


def _cosine(number: float) -> float:
    if not isinstance(number, Real) or isinstance(number, bool) or not -1 <= number <= 1:
        raise InputError(f"min_score must be a cosine in [-1, 1], got {number!r:.60}")
    return float(number)


def _group(name: str, settings: Settings) -> str:
    known = settings.renamed.get(name, name) if isinstance(name, str) else None
    if known not in settings.fields:
        fields = ", ".join(settings.fields) or "none"
        raise InputError(f"group_by must be a field of this gallery, got {name!r:.60}; its fields are: {fields}")
    return known


class _Fields(dict[str, Scalar | None]):
    """Values by field, which the old name of a recognized field finds too."""

    def __missing__(self, name: str) -> Scalar | None:
        new = RENAMED_FIELDS.get(name, name)
        if new not in self:
            raise KeyError(name)
        warn_renamed(f"the field {name!r}", repr(new))
        return self[new]
