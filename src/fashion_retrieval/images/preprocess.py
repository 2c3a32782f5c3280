"""An RGB photo of any size -> the input of an image tower: the one way for photos, crops, references and galleries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.images.pixels import Pixels, turned

RGB: TypeAlias = Image.Image | NDArray[np.uint8] | Pixels
"""A PIL image in mode RGB, (H, W, 3) uint8, or a decoded photo, which is shrunk, then turned, then made sRGB."""

_LARGE, _SHEET = 4_000_000, 1_000_000
"""Photos of more pixels are shrunk in sheets of so many, so that no second one of the photo's size is needed."""

_MODES = ("shortest", "longest", "squash")
_OF_PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """open_clip's evaluation transform, in about a third of its time to the last level of 255 but one.

    Resizing works on 8-bit levels, bicubic or bilinear with antialiasing: as Pillow does it or, where that is asked
    for, by Pillow itself.

    `size` is height and width, `mean` and `std` are per channel, of levels in [0, 1]. The resize mode "shortest" cuts
    what is longer, "longest" adds borders of the level `fill`, in [0, 255], "squash" does neither. With `exact` every
    level is open_clip's own, in little less than its time, and torch is not needed.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill: int = 0
    exact: bool = False

    def __post_init__(self) -> None:
        for name, known in (("interpolation", ("bicubic", "bilinear")), ("resize_mode", _MODES)):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}; correct the configuration")

    def __call__(self, image: RGB) -> NDArray[np.float32]:
        """RGB photo -> (3, h, w) float32, normalized."""
        return self.normalize(self.resize(image))

    def resize(self, image: RGB) -> NDArray[np.uint8]:
        """RGB photo -> (h, w, 3) uint8.

        A strip so thin that nothing would be left of it is made wider first.
        """
        height, width = _size(image)
        least = math.ceil(max(height, width) / min(self.size))
        wide = max(height, least), max(width, least)
        if wide != (height, width):
            image = resized(image, wide, "bicubic", exact=self.exact)
        inner = resized(image, self._inner(*wide), self._filter, exact=self.exact)
        return _center(inner, self.size, self.fill if self.resize_mode == "longest" else 0)

    def normalize(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(..., h, w, 3) uint8 -> (..., 3, h, w) float32, in memory channels last as before."""
        *_, width, channels = levels.shape
        rows = levels.reshape(*levels.shape[:-2], width * channels).astype(np.float32)
        rows -= self.row(self.mean, width)
        rows /= self.row(self.std, width)
        return np.moveaxis(rows.reshape(levels.shape), -1, -3)

    @staticmethod
    def row(levels: tuple[float, float, float], width: int) -> NDArray[np.float32]:
        """Levels per channel, in [0, 1], for each number of a row of pixels, in [0, 255]: (3 * width,) float32."""
        return np.tile(np.array(levels, np.float32) * np.float32(255), width)

    @property
    def _filter(self) -> str:
        # open_clip resizes to the shorter side of an oblong input by the bicubic filter, whatever is asked for.
        oblong = self.resize_mode == "shortest" and self.size[0] != self.size[1]
        return "bicubic" if oblong else self.interpolation

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to resize a photo to, before it is cut or gets borders."""
        if self.resize_mode == "squash":
            return self.size
        ratios = height / self.size[0], width / self.size[1]
        if self.resize_mode == "longest":
            return round(height / max(ratios)), round(width / max(ratios))
        if self.size[0] != self.size[1]:
            return round(height / min(ratios)), round(width / min(ratios))
        side, short = self.size[0], min(height, width)
        return int(side * height / short), int(side * width / short)


def resized(image: RGB, size: tuple[int, int], interpolation: str, *, exact: bool = False) -> NDArray[np.uint8]:
    """RGB photo -> (h, w, 3) uint8 of the given height and width, bicubic or bilinear with antialiasing.

    `exact` is by Pillow, else by torch, which works with coarser weights: some levels differ by one. Across, then down;
    as in Pillow 13 down first where much height is lost. A decoded photo comes out upright and in sRGB.
    """
    if isinstance(image, Pixels):
        if exact or image.height * image.width <= _LARGE:
            image = image.upright()
        lying = image.orientation > 4
        small = _resized(image.levels, size[::-1] if lying else size, interpolation, exact=exact, lying=lying)
        small = np.ascontiguousarray(turned(small, image.orientation))
        return small if image.to_srgb is None else image.to_srgb(small)
    return _resized(np.asarray(image), size, interpolation, exact=exact)


def _resized(
    pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: str, *, exact: bool, lying: bool = False
) -> NDArray[np.uint8]:
    """`resized`; of a photo that is `lying`, rows are what will be columns."""
    rows, columns = size
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    if exact:
        return np.asarray(Image.fromarray(pixels).resize((columns, rows), _OF_PILLOW[interpolation]))
    lost, wider = (width - columns, height - rows) if lying else (height - rows, width - columns)
    down_first = (lost > max(0, 2 * wider)) != lying
    if down_first or height * width > _LARGE:
        pixels = _in_sheets(pixels, (rows, width) if down_first else (height, columns), interpolation)
    return _in_sheets(pixels, size, interpolation)


def _in_sheets(pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """`_interpolated`; a large photo, resized one way, in sheets along the other, so that no second one is needed."""
    (height, width), (rows, columns) = pixels.shape[:2], size
    if height * width <= _LARGE or (height != rows and width != columns):
        return _interpolated(pixels, size, interpolation)
    along, length, other = (1, width, height) if height != rows else (0, height, width)
    starts = range(0, length, max(1, _SHEET // other))
    parts = [
        pixels[:, start : start + starts.step] if along else pixels[start : start + starts.step] for start in starts
    ]
    sizes = [(rows, part.shape[1]) if along else (part.shape[0], columns) for part in parts]
    made = [_interpolated(part, size, interpolation) for part, size in zip(parts, sizes, strict=True)]
    return np.concatenate(made, axis=along)


def _interpolated(pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    import torch

    if pixels.shape[:2] == size:
        return pixels
    batch = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))[None].permute(
        0, 3, 1, 2
    )  # channels last in memory, for which torch has a fast way
    found = torch.nn.functional.interpolate(batch, size, mode=interpolation, antialias=True)
    levels: NDArray[np.uint8] = found[0].permute(1, 2, 0).numpy()
    return levels


def _size(image: RGB) -> tuple[int, int]:
    if isinstance(image, Image.Image | Pixels):
        return image.height, image.width
    height, width = image.shape[:2]
    return height, width


def _center(pixels: NDArray[np.uint8], size: tuple[int, int], fill: int) -> NDArray[np.uint8]:
    """(H, W, 3) -> (h, w, 3): borders where it is smaller, cut where it is larger."""
    missing = [max(0, wanted - given) for wanted, given in zip(size, pixels.shape[:2], strict=True)]
    if any(missing):
        (top, left), (height, width) = (gap // 2 for gap in missing), pixels.shape[:2]
        inner, pixels = pixels, np.full((height + missing[0], width + missing[1], 3), fill, np.uint8)
        pixels[top : top + height, left : left + width] = inner
    top, left = (round((given - wanted) / 2) for given, wanted in zip(pixels.shape[:2], size, strict=True))
    return pixels[top : top + size[0], left : left + size[1]]
