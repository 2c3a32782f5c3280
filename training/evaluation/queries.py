"""Queries of a reference photo and a text: who answers them, and what the answers are compared with.

Ways to ask, by name: "composed"; "text" and "photo", one of the two alone; "sum" of both embeddings; "text_branch" and
"photo_branch", what AGCN's branch alone would ask; "wrong_photo", composed with another photo in the reference's place.
How far "composed" is ahead of "wrong_photo" is the photo's worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval._utils.significance import ItemScores
from fashion_retrieval.errors import InputError
from fashion_retrieval.models.composer import Composer as Agcn
from fashion_retrieval.models.zero_shot import normalized
from fashion_retrieval.results import Reference
from training.data.features import TextTokens

COMPOSED, WRONG_PHOTO = "composed", "wrong_photo"
DRAWS = 3
"""Other photos that each query is asked with."""
_BATCH = 64

Rows = NDArray[np.float32]
Query = tuple[Path, str]
"""A reference photo and a text."""


class Composer(Protocol):
    """Who answers: `FashionModel`, `Remembering` or `OnFeatures`."""

    def encode(self, *, images: Any = None, texts: Any = None, progress: bool = False) -> Rows:  # noqa: ANN401  # lists
        """Photos or texts -> (N, D)."""

    def compose(self, reference_image: Any, modification_text: Any) -> Rows:  # noqa: ANN401  # lists
        """Pairs of a photo and a text -> (N, D)."""


@runtime_checkable
class WithBranches(Composer, Protocol):
    """Who can also answer with a part of itself."""

    def branches(self, photos: Sequence[Path], texts: Sequence[str]) -> dict[str, Rows]:
        """Pairs of a photo and a text -> (N, D) by branch; empty where there is none."""


class Remembering:
    """A model that encodes each reference photo once."""

    def __init__(self, model: FashionModel) -> None:
        self._model, self._references = model, dict[Path, Reference]()

    def encode(self, *, images: Any = None, texts: Any = None, progress: bool = False) -> Rows:  # noqa: ANN401  # lists
        """The model's own."""
        return self._model.encode(images=images, texts=texts, progress=progress)

    def compose(self, photos: Sequence[Path], texts: Sequence[str]) -> Rows:
        """The model's own, (N, D) float32."""
        return self._model.compose(self._encoded(photos), list(texts))

    def branches(self, photos: Sequence[Path], texts: Sequence[str]) -> dict[str, Rows]:
        """By branch (N, D) float32, L2-normalized."""
        computes, composer = self._model._composition.composer, self._model._bundle.composer
        if computes is None or composer is None:
            return {}
        tokens = np.stack([reference.tokens for reference in self._encoded(photos)]).astype(np.float32)
        kept, changed, _ = computes.parts(tokens, *self._model.towers.text_tokens(texts))
        return _branches(composer, kept, changed)

    def _encoded(self, photos: Sequence[Path]) -> list[Reference]:
        new = [photo for photo in dict.fromkeys(photos) if photo not in self._references]
        if new:
            self._references.update(zip(new, self._model.reference(new), strict=True))
        return [self._references[photo] for photo in photos]


class OnFeatures:
    """A composer on token features that are kept: AGCN, or one that is compared with it.

    Args:
        composer: In eval mode; (b, 1 + k, d) image tokens, (b, s, d) text tokens and their lengths -> (b, d).
        texts: Tokens of texts.
        tokens: Tokens of photos, (n, 1 + k, d) float32, as `TripletDataset.photo_tokens` gives them.
        device: Where the composer is.
    """

    def __init__(
        self, composer: nn.Module, texts: TextTokens, tokens: Callable[[Sequence[Path]], Tensor], device: torch.device
    ) -> None:
        self._composer, self._texts, self._tokens, self._device = composer, texts, tokens, device

    def encode(
        self, *, images: Sequence[Path] | None = None, texts: Sequence[str] | None = None, progress: bool = False
    ) -> Rows:
        """The pooled embeddings of photos or of texts, (N, D) float32."""
        if images is not None:
            return np.asarray(torch.cat([self._tokens([photo])[:, 0] for photo in images]).numpy())
        words, lengths = self._texts(texts or ())
        return np.asarray(words[torch.arange(len(words)), lengths - 1].numpy())

    @torch.no_grad()
    def compose(self, photos: Sequence[Path], texts: Sequence[str]) -> Rows:
        """(N, D) float32."""
        return np.asarray(self._composer(*self._inputs(photos, texts)).float().cpu().numpy())

    @torch.no_grad()
    def branches(self, photos: Sequence[Path], texts: Sequence[str]) -> dict[str, Rows]:
        """By branch (N, D) float32, L2-normalized; none of a composer that is no AGCN."""
        if not isinstance(self._composer, Agcn):
            return {}
        kept, changed, _ = self._composer.parts(*self._inputs(photos, texts))
        return _branches(self._composer, kept.cpu().numpy(), changed.cpu().numpy())

    def _inputs(self, photos: Sequence[Path], texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        words, lengths = self._texts(texts)
        return self._tokens(photos).to(self._device), words.to(self._device), lengths.to(self._device)


def _branches(composer: Agcn, kept: Rows, changed: Rows) -> dict[str, Rows]:
    """Of the parts of queries, (b, d) each, those that the composer has a branch for, L2-normalized."""
    found = {"text_branch": (composer.text_branch, changed), "photo_branch": (composer.image_branch, kept)}
    return {way: normalized(part) for way, (branch, part) in found.items() if branch is not None}


@dataclass(frozen=True, slots=True)
class Answers:
    """Embeddings of photos and of queries, each encoded once."""

    photos: dict[Path, Rows]  # (D,) each
    queries: dict[str, dict[Query, Rows]]  # by way; "composed" and "wrong_photo" hold those with other photos too

    @classmethod
    def of(cls, model: Composer, asked: Iterable[Query], wrong: Iterable[Query], photos: Iterable[Path]) -> Answers:
        """Ask a model.

        Args:
            model: Who answers.
            asked: Queries, asked in every way.
            wrong: Queries with another photo in the reference's place.
            photos: Of the galleries.
        """
        right = list(dict.fromkeys(asked))
        composed = _in_batches(lambda *of: {COMPOSED: model.compose(*of)}, list(dict.fromkeys([*right, *wrong])))
        queries = {COMPOSED: composed[COMPOSED], WRONG_PHOTO: composed[COMPOSED]}
        if isinstance(model, WithBranches):
            queries |= _in_batches(model.branches, right)
        places = list(dict.fromkeys([*photos, *(photo for photo, _ in right)]))
        rows = dict(zip(places, model.encode(images=places, progress=True), strict=True))
        texts = list(dict.fromkeys(text for _, text in right))
        words = dict(zip(texts, model.encode(texts=texts), strict=True))
        queries["text"] = {query: words[query[1]] for query in right}
        queries["photo"] = {query: rows[query[0]] for query in right}
        queries["sum"] = {query: _unit(words[query[1]]) + _unit(rows[query[0]]) for query in right}
        return cls(rows, queries)

    @property
    def ways(self) -> list[str]:
        """The ways that were asked, "composed" first, without "wrong_photo"."""
        return [way for way in self.queries if way != WRONG_PHOTO]

    def stack(self, way: str, queries: Iterable[Query]) -> Rows:
        """(Q, D) float32."""
        return np.stack([self.queries[way][query] for query in queries])

    def gallery(self, photos: Iterable[Path]) -> Rows:
        """(N, D) float32."""
        return np.stack([self.photos[photo] for photo in photos])


def _in_batches(
    ask: Callable[[list[Path], list[str]], dict[str, Rows]], queries: Sequence[Query]
) -> dict[str, dict[Query, Rows]]:
    found: dict[str, dict[Query, Rows]] = {}
    starts = range(0, len(queries), _BATCH)
    for start in tracked(starts, "composing queries", len(starts), shown=True, unit="batches"):
        batch = queries[start : start + _BATCH]
        for way, rows in ask([photo for photo, _ in batch], [text for _, text in batch]).items():
            found.setdefault(way, {}).update(zip(batch, rows, strict=True))
    return found


def _unit(row: Rows) -> Rows:
    return np.asarray(row / np.linalg.norm(row))


def check_draws(draws: int) -> None:
    """Refuse a number of draws that is none."""
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 0:
        raise InputError(f"draws must be a whole number from 0 on, got {draws!r}")


def ways_metrics(ways: Mapping[str, Mapping[str, ItemScores]], *, seed: int = 0) -> dict[str, Any]:
    """Metrics of each way; of "composed" with 95% intervals, of others how far "composed" is ahead on the same queries.

    Args:
        ways: By way and measure ("recall_at_10") the scores of the same queries.
        seed: Seed of the resampling.
    """
    found: dict[str, Any] = {}
    for way, measured in ways.items():
        found[way] = {measure: scores.mean() for measure, scores in measured.items()}
        if way == COMPOSED:
            found[way] |= {f"{name}_interval": scores.interval(seed=seed) for name, scores in measured.items()}
        else:
            ahead = {name: ways[COMPOSED][name].compare(scores, seed=seed) for name, scores in measured.items()}
            found[way]["composed_is_ahead_by"] = ahead
    return found
