"""Zero-shot classification: prompts become classes, and the nearest in the embedding space wins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from fashion_retrieval.models.encoder import Encoder


_CROP_WEIGHT = 0.3
"""Part of the crop beside the masked crop in what attributes are read from; chosen on the validation split."""


class PromptCache:
    """Embeddings of texts, each computed once; those of a whole call are computed together. Threads may share it.

    It keeps `limit` texts; when there would be more, only those of the latest call stay.
    """

    def __init__(self, encoder: Encoder, device: torch.device, *, batch_size: int = 256, limit: int = 32_768) -> None:
        self._encoder = encoder
        self._device = device
        self._batch_size = batch_size
        self._limit = limit
        self._rows: dict[str, Tensor] = {}
        self._classes: dict[tuple[tuple[str, ...], ...], Tensor] = {}
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, texts: Iterable[str], *, batch_size: int | None = None) -> None:
        """Compute the texts that are not here yet, `batch_size` at a time; None is the cache's own."""
        size = batch_size or self._batch_size
        wanted = set(texts)
        with self._lock:
            new = sorted(wanted - self._rows.keys(), key=lambda text: (len(text), text))
            if len(self._rows) + len(new) > self._limit:
                self._rows = {text: row for text, row in self._rows.items() if text in wanted}
                self._classes.clear()
            for start in range(0, len(new), size):
                batch = new[start : start + size]
                with torch.inference_mode():
                    rows = self._encoder.encode_text(self._encoder.tokenize(batch).to(self._device))
                self._rows.update(zip(batch, rows, strict=True))

    def rows(self, texts: Sequence[str], *, batch_size: int | None = None) -> Tensor:
        """At least one text -> (N, d) float32, L2-normalized."""
        with self._lock:
            self.add(texts, batch_size=batch_size)
            return torch.stack([self._rows[text] for text in texts])

    def classes(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """One class per list of prompts, the mean of its templates: (classes, d) float32, L2-normalized."""
        key = tuple(map(tuple, prompts))
        with self._lock:
            if key not in self._classes:
                self.add(prompt for group in key for prompt in group)
                means = torch.stack([torch.stack([self._rows[prompt] for prompt in group]).mean(0) for group in key])
                self._classes[key] = functional.normalize(means, dim=-1)
            return self._classes[key]


def attribute_view(crop: Tensor, masked: Tensor) -> Tensor:
    """What attributes are read from: (…, d) and (…, d) -> (…, d), L2-normalized.

    Mostly the masked crop, as in the paper; a part of the crop, which is embedded for the category anyway, makes up for
    what a mask cuts off.
    """
    return functional.normalize((1 - _CROP_WEIGHT) * masked + _CROP_WEIGHT * crop, dim=-1)


@dataclass(frozen=True, slots=True)
class ZeroShotClassifier:
    """The values of a group as classes in the embedding space, one per phrase."""

    classes: Tensor  # (k, d) float32, L2-normalized
    members: Tensor  # (values, k) float32, 1 where a class is a phrase of the value, else 0
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
        classes = cache.classes([texts for _, texts in phrases])
        owner = torch.tensor([value for value, _ in phrases])
        members = functional.one_hot(owner, len(prompts)).T.to(classes)
        return cls(classes, members, scale)

    def probabilities(self, image: Tensor) -> Tensor:
        """(d,) float32, L2-normalized -> (values,) float32: softmax over all classes, summed over a value's synonyms.

        For models with a sigmoid head (SigLIP) the values of a group still exclude each other, so that their constant
        logit bias cancels and the same softmax holds.
        """
        return self.members @ (self.scale * (self.classes @ image)).softmax(-1)
