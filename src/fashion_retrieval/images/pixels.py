"""A decoded photo, large and not looked at yet: it is shrunk before it is turned, and turned before it is converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval.images.color import ToSRGB
from fashion_retrieval.images.regions import crop_region, masked_crop

_SMALL = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An RGB photo as its file has it: perhaps not upright, and in the file's own color space.

    Attributes:
        levels: (H, W, 3) uint8, as stored.
        orientation: EXIF's, 1 to 8; 1 is upright.
        to_srgb: The way from the levels to sRGB; None where they are sRGB.
    """

    levels: NDArray[np.uint8]
    orientation: int = 1
    to_srgb: ToSRGB | None = None

    @property
    def height(self) -> int:
        """Of the upright photo."""
        return int(self.levels.shape[self.orientation > 4])

    @property
    def width(self) -> int:
        """Of the upright photo."""
        return int(self.levels.shape[self.orientation <= 4])

    @property
    def nbytes(self) -> int:
        """Of the levels."""
        return self.levels.nbytes

    def upright(self) -> Pixels:
        """The photo turned as it is meant to be seen."""
        if self.orientation == 1:
            return self
        return replace(self, levels=np.ascontiguousarray(turned(self.levels, self.orientation)), orientation=1)

    def turned_if_small(self) -> Pixels:
        """The upright photo, unless it is so large that there should not be two of it."""
        return self.upright() if self.levels.size < 3 * _SMALL else self

    def srgb(self) -> NDArray[np.uint8]:
        """The whole photo upright and in sRGB, (H, W, 3) uint8."""
        levels = self.upright().levels
        return levels if self.to_srgb is None else self.to_srgb(levels)

    def image(self) -> Image.Image:
        """`srgb` as a PIL image."""
        return Image.fromarray(self.srgb())

    def crop(self, box: Sequence[float], mask: NDArray[np.bool_] | None = None) -> Pixels:
        """The part of an upright photo inside a box, white outside the mask (`crop_region`, `masked_crop`)."""
        part = crop_region(self.levels, box) if mask is None else masked_crop(self.levels, box, mask)
        return replace(self, levels=part)

    def chosen(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Some pixels of an upright photo in sRGB, by their places in reading order: (N,) -> (N, 3) uint8."""
        found: NDArray[np.uint8] = self.levels[places // self.width, places % self.width]
        return found if self.to_srgb is None else self.to_srgb(found)


def as_pixels(image: Pixels | NDArray[np.uint8]) -> Pixels:
    """A photo, of which an array, (H, W, 3) uint8, is upright and sRGB."""
    return image if isinstance(image, Pixels) else Pixels(image)


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels as stored, (H, W, ...), in the position that an EXIF orientation means: a view of them."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    # A side of one pixel stays as it is: numpy would take its backward step for contiguous, which torch refuses.
    down, across = orientation in (3, 4, 7, 8) and len(pixels) > 1, orientation in (2, 3, 6, 7) and pixels.shape[1] > 1
    return pixels[:: -1 if down else 1, :: -1 if across else 1]
