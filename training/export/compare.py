"""A saved model against the trained one, on photos and texts that never change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import WeightsError
from fashion_retrieval.models.segmenter import GarmentSegmenter

TEXTS = ("a photo of red dress", "a photo of long sleeve blue jacket", "a photo of striped shirt", "sneakers")
MODIFICATIONS = ("is red", "has long sleeves and a collar", "is shorter", "the same in denim")

_OUTLINES = {
    "navy": ((80, 60), (120, 52), (160, 60), (210, 130), (165, 140), (165, 270), (75, 270), (75, 140), (30, 130)),
    "crimson": ((95, 40), (145, 40), (150, 120), (195, 290), (45, 290), (90, 120)),
    "olive": ((80, 40), (160, 40), (170, 290), (130, 290), (120, 110), (110, 290), (70, 290)),
    "gray": ((85, 90), (155, 90), (190, 220), (50, 220)),
}
"""Color -> outline of a shirt, a dress, trousers and a skirt, in pixels."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near a saved model is to the trained one.

    Attributes:
        cosines: Least cosine between embeddings of the two models, by what was embedded.
        pixels: Fraction of the photos' pixels to which both segmenters give the same class; None without segmenters.
    """

    cosines: dict[str, float]
    pixels: float | None

    def __str__(self) -> str:
        cosines = ", ".join(f"{what} {cosine:.6f}" for what, cosine in self.cosines.items())
        more = "" if self.pixels is None else f"; segmenters agree on {100 * self.pixels:.2f}% of the pixels"
        return f"least cosine of the saved model to the trained one: {cosines}{more}"

    def check(self, *, least_cosine: float, least_pixels: float) -> None:
        """Refuse a model that differs from the trained one.

        Raises:
            WeightsError: A cosine or the fraction of pixels is too low.
        """
        near = all(cosine >= least_cosine for cosine in self.cosines.values())
        if not near or (self.pixels is not None and self.pixels < least_pixels):
            expected = f"cosines of at least {least_cosine:g}, {100 * least_pixels:g}% of the pixels"
            raise WeightsError(f'{self}; expected {expected}; save with weights_dtype = "float32", or lower the bar')


def compare(trained: FashionModel, saved: FashionModel) -> Agreement:
    """Embed drawn photos, texts and, with a composer, photos with modification texts by both."""
    photos = drawn_photos()
    cosines = {
        "photos": _least_cosine(trained.encode(images=photos), saved.encode(images=photos)),
        "texts": _least_cosine(trained.encode(texts=TEXTS), saved.encode(texts=TEXTS)),
    }
    if trained.config.composer is not None:
        cosines["queries"] = _least_cosine(trained.compose(photos, MODIFICATIONS), saved.compose(photos, MODIFICATIONS))
    both = (trained.segmenter, saved.segmenter) if trained.config.segmenter else ()
    segmenters = [segmenter for segmenter in both if isinstance(segmenter, GarmentSegmenter)]
    return Agreement(cosines, _same_pixels(segmenters[0], segmenters[1], photos) if segmenters else None)


def drawn_photos() -> list[Image.Image]:
    """Four RGB images of 240 x 320 pixels: a shirt, a dress, trousers and a skirt on a light background."""
    photos = []
    for color, outline in _OUTLINES.items():
        photo = Image.new("RGB", (240, 320), (238, 236, 230))
        ImageDraw.Draw(photo).polygon(outline, fill=color, outline="black")
        photos.append(photo)
    return photos


def _least_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """The least cosine of rows (N, D), L2-normalized, with the same rows of another array."""
    return float((first * second).sum(1).min())


def _same_pixels(first: GarmentSegmenter, second: GarmentSegmenter, photos: list[Image.Image]) -> float:
    same = [first.probabilities(photo).argmax(0) == second.probabilities(photo).argmax(0) for photo in photos]
    return float(np.mean(same))
