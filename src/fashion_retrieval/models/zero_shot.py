"""Zero-shot classification: prompts become classes, and the nearest in the embedding space wins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fashion_retrieval._device import inference_context

if TYPE_CHECKING:
    from fashion_retrieval.models.encoder import Encoder


_CROP_SHARE = 0.3
"""Part of the crop beside the masked crop in what attributes are read from; chosen on the validation split."""


class PromptCache:
    """Embeddings of prompts, each computed once; those of a whole call are computed together."""

    def __init__(self, encoder: Encoder, device: torch.device, dtype: torch.dtype, *, batch_size: int = 256) -> None:
        self._encoder = encoder
        self._device = device
        self._dtype = dtype
        self._batch_size = batch_size
        self._rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, prompts: Iterable[str]) -> None:
        """Compute the prompts that are not here yet."""
        new = sorted(
            {prompt for prompt in prompts if prompt not in self._rows}, key=lambda prompt: (len(prompt), prompt)
        )
        for start in range(0, len(new), self._batch_size):
            batch = new[start : start + self._batch_size]
            tokens = self._encoder.tokenize(batch).to(self._device)
            with inference_context(self._device, self._dtype):
                rows = self._encoder.encode_text(tokens).float()
            self._rows.update(zip(batch, rows, strict=True))

    def classes(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """One class per list of prompts, the mean of its templates: (classes, d) float32, L2-normalised."""
        self.add(prompt for group in prompts for prompt in group)
        means = [torch.stack([self._rows[prompt] for prompt in group]).mean(0) for group in prompts]
        return functional.normalize(torch.stack(means), dim=-1)


def attribute_view(crop: Tensor, masked: Tensor) -> Tensor:
    """What attributes are read from: (…, d) and (…, d) -> (…, d), L2-normalised.

    Mostly the masked crop, as in the paper; a part of the crop, which is embedded for the category anyway, makes up for
    what a mask cuts off.
    """
    return functional.normalize((1 - _CROP_SHARE) * masked + _CROP_SHARE * crop, dim=-1)


def probabilities(image: Tensor, classes: Tensor, owner: Sequence[int], scale: float) -> Tensor:
    """Softmax of the scaled cosines over all classes, summed over the synonyms of each value.

    For models with a sigmoid head (SigLIP) the values of a group still exclude each other, so that their constant logit
    bias cancels and the same softmax holds.

    Args:
        image: (d,) float32, L2-normalised.
        classes: (k, d) float32, L2-normalised, one per phrase.
        owner: For each class the index of its value, ascending from 0.
        scale: Factor on the cosine: the model's logit_scale times the group's calibration.

    Returns:
        (values,) float32, summing to 1.
    """
    shares = (scale * classes @ image).softmax(-1)
    totals = torch.zeros(max(owner) + 1, device=shares.device)
    return totals.index_add(0, torch.tensor(owner, device=shares.device), shares)
