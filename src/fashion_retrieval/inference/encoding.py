"""Whole photos -> embeddings: the reader, then the image tower, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fashion_retrieval.images.inputs import DeferredFile, ImageInput
from fashion_retrieval.images.prefetch import read_photos
from fashion_retrieval.results import Encoded, Failure

if TYPE_CHECKING:
    from fashion_retrieval.models.encoder import Encoder


def encode_photos(
    encoder: Encoder,
    device: torch.device,
    images: Iterable[ImageInput | DeferredFile],
    *,
    batch_size: int,
    skip: bool,
    max_pixels: int | None = None,
    digests: bool = True,
) -> Iterator[Encoded]:
    """Encode photos as they are read, in order; see `FashionModel.encode_iter`.

    `batch_size` photos in a row make a batch; those of them that can't be read are left out of it.
    """
    for batch in read_photos(
        images,
        encoder.preprocessing.resize,
        batch_size=batch_size,
        device=device,
        skip=skip,
        label=lambda index: f"images[{index}]",
        max_pixels=max_pixels,
        digests=digests,
    ):
        rows = iter(encode_levels(encoder, device, [photo.content for photo in batch if photo.content is not None]))
        for photo in batch:
            embedding = next(rows) if photo.error is None else Failure(photo.index, photo.name, photo.error)
            yield Encoded(photo.index, embedding, photo.digest)


def encode_levels(encoder: Encoder, device: torch.device, levels: Sequence[Tensor]) -> NDArray[np.float32]:
    """Encode photos as `Preprocessing.resize` leaves them, (h, w, 3) uint8 each, in one batch: (N, D) float32."""
    if not levels:
        return np.empty((0, encoder.embedding_dim), np.float32)
    with torch.inference_mode():
        rows: NDArray[np.float32] = encoder.encode_image(encoder.preprocessing.batch(levels, device)).cpu().numpy()
    return rows
