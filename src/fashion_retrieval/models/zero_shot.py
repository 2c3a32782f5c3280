"""Zero-shot classification: prompts become classes, and the nearest in the embedding space wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.models.probe import softmax

if TYPE_CHECKING:
    from fashion_retrieval.models.towers import Towers

Floats = NDArray[np.float32]
_CROP_WEIGHT = np.float32(0.3)
"""Part of the crop beside the masked crop in what attributes are read from; chosen on the validation split."""


class PromptCache:
    """Embeddings of texts, each computed once; those of a whole call are computed together. Threads may share it.

    Of `ready` ones none is computed. It keeps `limit` others; when there would be more, only those of the latest call
    stay.
    """

    def __init__(
        self, towers: Towers, ready: Mapping[str, Floats] | None = None, *, batch_size: int = 256, limit: int = 32_768
    ) -> None:
        self._towers = towers
        self._ready = ready or {}
        self._batch_size = batch_size
        self._limit = limit
        self._rows: dict[str, Floats] = {}
        self._classes: dict[tuple[tuple[str, ...], ...], Floats] = {}
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, texts: Iterable[str], *, batch_size: int | None = None) -> None:
        """Compute the texts that are not here yet, `batch_size` at a time; None is the cache's own."""
        size = batch_size or self._batch_size
        wanted = set(texts)
        with self._lock:
            missing = (text for text in wanted - self._rows.keys() if text not in self._ready)
            new = sorted(missing, key=lambda text: (len(text), text))
            if len(self._rows) + len(new) > self._limit:
                self._rows = {text: row for text, row in self._rows.items() if text in wanted}
                self._classes.clear()
            for start in range(0, len(new), size):
                batch = new[start : start + size]
                self._rows.update(zip(batch, self._towers.encode_texts(batch), strict=True))

    def rows(self, texts: Sequence[str], *, batch_size: int | None = None) -> Floats:
        """At least one text -> (N, d) float32, L2-normalized."""
        with self._lock:
            self.add(texts, batch_size=batch_size)
            return np.stack([self._row(text) for text in texts])

    def classes(self, prompts: Sequence[Sequence[str]]) -> Floats:
        """One class per list of prompts, the mean of its templates: (classes, d) float32, L2-normalized."""
        key = tuple(map(tuple, prompts))
        with self._lock:
            if key not in self._classes:
                self.add(prompt for group in key for prompt in group)
                means = np.stack([np.stack([self._row(prompt) for prompt in group]).mean(0) for group in key])
                self._classes[key] = normalized(means)
            return self._classes[key]

    def _row(self, text: str) -> Floats:
        row = self._rows.get(text)
        return self._ready[text] if row is None else row


def normalized(rows: Floats) -> Floats:
    """(..., d) float32 -> the same, L2-normalized."""
    lengths = np.sqrt(np.einsum("...d,...d->...", rows, rows))[..., None]
    found: Floats = rows / np.maximum(lengths, np.float32(1e-12))
    return found


def attribute_view(crop: Floats, masked: Floats) -> Floats:
    """What attributes are read from: (…, d) and (…, d) -> (…, d), L2-normalized.

    Mostly the masked crop, as in the paper; a part of the crop, which is embedded for the category anyway, makes up for
    what a mask cuts off.
    """
    return normalized((1 - _CROP_WEIGHT) * masked + _CROP_WEIGHT * crop)


@dataclass(frozen=True, slots=True)
class ZeroShotClassifier:
    """The values of a group as classes in the embedding space, one per phrase."""

    classes: Floats  # (k, d), L2-normalized
    owners: NDArray[np.int64]  # (k,), in order: the value that a class is a phrase of
    scale: float  # factor on the cosine: the model's logit_scale times the group's calibration

    @classmethod
    def build(
        cls, cache: PromptCache, prompts: Sequence[Sequence[str]], templates: int, scale: float
    ) -> ZeroShotClassifier:
        """From the prompts of each value, phrase by phrase, as many of each phrase as there are templates."""
        phrases = [
            (value, of_value[start : start + templates])
            for value, of_value in enumerate(prompts)
            for start in range(0, len(of_value), templates)
        ]
        return cls(cache.classes([texts for _, texts in phrases]), np.array([value for value, _ in phrases]), scale)

    def probabilities(self, image: Floats) -> Floats:
        """(d,) float32, L2-normalized -> (values,) float32: softmax over all classes, summed over a value's synonyms.

        For models with a sigmoid head (SigLIP) the values of a group still exclude each other, so that their constant
        logit bias cancels and the same softmax holds.
        """
        # Without BLAS, whose threads wait in a loop and take the cores from the model's.
        odds = softmax(np.float32(self.scale) * np.einsum("kd,d->k", self.classes, image))
        found: Floats = np.add.reduceat(odds, np.flatnonzero(np.diff(self.owners, prepend=-1)))
        return found
