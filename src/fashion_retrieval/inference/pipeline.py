"""From the reader through the model, a batch at a time: photos and texts -> embeddings, photos -> recognitions."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.inputs import DeferredFile, ImageInput
from fashion_retrieval.images.pixels import Pixels
from fashion_retrieval.images.prefetch import read_photos
from fashion_retrieval.inference.recognition import Recognizer, find_photo
from fashion_retrieval.results import Encoded, Failure, Recognition, Segmenter

if TYPE_CHECKING:
    from fashion_retrieval.models.towers import Levels, Towers
    from fashion_retrieval.models.zero_shot import PromptCache


def encode_photos(
    towers: Towers,
    images: Iterable[ImageInput | DeferredFile],
    *,
    batch_size: int,
    skip: bool,
    max_pixels: int | None = None,
    digests: bool = True,
) -> Generator[Encoded]:
    """Encode photos as they are read, in order; see `FashionModel.encode_iter`.

    `batch_size` photos in a row make a batch; those of them that can't be read are left out of it.
    """
    for batch in read_photos(
        images,
        towers.preprocessing.resize,
        batch_size=batch_size,
        ahead=towers.ahead,
        skip=skip,
        label=lambda index: f"images[{index}]",
        max_pixels=max_pixels,
        digests=digests,
    ):
        rows = iter(encode_levels(towers, [photo.content for photo in batch if photo.content is not None]))
        for photo in batch:
            embedding = next(rows) if photo.error is None else Failure(photo.index, photo.name, photo.error)
            yield Encoded(photo.index, embedding, photo.digest)


def encode_levels(towers: Towers, levels: Sequence[Levels]) -> NDArray[np.float32]:
    """Encode photos as `Preprocessing.resize` leaves them, (h, w, 3) uint8 each, in one batch: (N, D) float32."""
    return towers.encode_images(levels) if levels else np.empty((0, towers.embedding_dim), np.float32)


def encode_texts(
    cache: PromptCache, texts: Sequence[str], width: int, *, batch_size: int, progress: bool
) -> NDArray[np.float32]:
    """Encode texts, those of like length together: (N, width) float32, L2-normalized."""
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"texts[{index}] must be a text that is not empty, got {text!r}")
    rows = np.empty((len(texts), width), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    starts = range(0, len(order), batch_size)
    for start in tracked(starts, "encoding texts", len(starts), shown=progress, unit="batches"):
        chosen = order[start : start + batch_size]
        rows[chosen] = cache.rows([texts[i] for i in chosen], batch_size=batch_size)
    return rows


def recognize_photos(
    recognizer: Recognizer,
    segmenter: Segmenter | None,
    images: Iterable[ImageInput],
    *,
    batch_size: int,
    skip: bool,
    max_pixels: int | None = None,
    keep_image: bool = False,
) -> Generator[Recognition | Failure]:
    """Recognize photos as they are read, in order; see `FashionModel.recognize_many`."""
    ahead = recognizer.towers.ahead
    for batch in read_photos(
        images, Pixels.upright, batch_size=batch_size, ahead=ahead, skip=skip, max_pixels=max_pixels
    ):
        photos = [
            find_photo(photo.content, None, segmenter, photo.image) for photo in batch if photo.content is not None
        ]
        found = iter(recognizer.recognize(photos, batch_size=batch_size))
        for photo in batch:
            if photo.error is not None:
                yield Failure(photo.index, photo.name, photo.error)
            else:
                yield next(found) if keep_image else next(found).compact()
