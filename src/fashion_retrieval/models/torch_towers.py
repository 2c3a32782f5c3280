"""`Towers` and `Composes` by torch, on any device and in any dtype."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.inference_copy import for_inference
from fashion_retrieval.models.segmenter import GarmentSegmenter
from fashion_retrieval.models.towers import Floats, Levels

_AHEAD = 2
"""Batches that are decoded while a GPU is busy; a CPU that computes is better left alone."""


class TorchTowers:
    """An encoder's copy for inference, faster than the encoder itself. In float32 its preprocessing is exact."""

    backend = "torch"

    def __init__(
        self, encoder: Encoder, device: torch.device, dtype: torch.dtype, *, fingerprint: str | None = None
    ) -> None:
        """With its `fingerprint` the encoder itself is not kept."""
        self.device = device
        self.encoder = encoder.for_inference(device, dtype, fingerprint=(lambda: fingerprint) if fingerprint else None)
        self.preprocessing = replace(encoder.preprocessing, exact=dtype == torch.float32)
        self.dtype = str(dtype).removeprefix("torch.")
        self.embedding_dim = encoder.embedding_dim
        self.context_length = encoder.context_length
        self.logit_scale = encoder.logit_scale
        self.ahead = 0 if device.type == "cpu" else _AHEAD
        how = self.preprocessing
        rows = (torch.from_numpy(how.row(levels, how.size[1])).to(device) for levels in (how.mean, how.std))
        self._mean, self._std = rows

    @property
    def fingerprint(self) -> str:
        """See `Towers`; of the weights as they are in float32."""
        return self.encoder.fingerprint

    def encode_images(self, levels: Sequence[Levels]) -> Floats:
        """See `Towers`."""
        with torch.inference_mode():
            return _array(self.encoder.encode_image(self._pixels(levels)))

    def image_tokens(self, levels: Sequence[Levels]) -> Floats:
        """See `Towers`."""
        with torch.inference_mode():
            return _array(self.encoder.image_tokens(self._pixels(levels)))

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """See `Towers`."""
        with torch.inference_mode():
            return _array(self.encoder.encode_text(self.encoder.tokenize(texts).to(self.device)))

    def text_tokens(self, texts: Sequence[str]) -> tuple[Floats, NDArray[np.int64]]:
        """See `Towers`."""
        with torch.inference_mode():
            states, lengths = self.encoder.text_tokens(self.encoder.tokenize(texts).to(self.device))
        found: NDArray[np.int64] = lengths.cpu().numpy()
        return _array(states), found

    def count_tokens(self, texts: Sequence[str]) -> int:
        """See `Towers`."""
        return int((self.encoder.tokenize(texts) != 0).sum())

    def _pixels(self, levels: Sequence[Levels]) -> Tensor:
        """(b, 3, h, w) float32 on the device, normalized, in memory channels last as the photos are."""
        stacked = torch.from_numpy(np.stack(levels))
        if self.device.type == "cuda":
            stacked = stacked.pin_memory()
        moved = stacked.to(self.device, non_blocking=True)
        rows = moved.flatten(2).float().sub_(self._mean).div_(self._std)
        return rows.view(moved.shape).movedim(-1, -3)


class TorchComposer:
    """A composer; in float32, since casts cost so small a network more than they save."""

    def __init__(self, composer: Composer, device: torch.device) -> None:
        own = device.type == "cpu"  # elsewhere a copy: others compute with the module itself on the CPU
        self.composer, self.device = composer if own else copy.deepcopy(composer).to(device), device

    def __call__(self, image: Floats, text: Floats, lengths: NDArray[np.int64]) -> Floats:
        """See `Composes`."""
        with torch.inference_mode():
            return _array(self.composer(*self._tensors(image, text, lengths)))

    def parts(self, image: Floats, text: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """See `Composes`."""
        with torch.inference_mode():
            kept, changed, gates = self.composer.parts(*self._tensors(image, text, lengths))
        return _array(kept), _array(changed), _array(gates)

    def _tensors(self, *arrays: NDArray[np.float32] | NDArray[np.int64]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(array).to(self.device) for array in arrays)


def ready_segmenter(segmenter: GarmentSegmenter, device: torch.device) -> GarmentSegmenter:
    """A segmenter's copy for inference, in float32."""
    return for_inference(segmenter, device, torch.float32)


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.float().cpu().numpy()
    return array
