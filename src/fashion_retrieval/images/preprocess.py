"""An RGB photo of any size -> the input of an image tower: the one way for photos, crops, references and galleries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.images.pixels import Pixels, turned

RGB: TypeAlias = Image.Image | NDArray[np.uint8] | Tensor | Pixels
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
    level is open_clip's own, in little less than its time.
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

    def __call__(self, image: RGB) -> Tensor:
        """RGB photo -> (3, h, w) float32, normalized."""
        return self.normalize(self.resize(image))

    def batch(self, levels: Sequence[Tensor], device: torch.device) -> Tensor:
        """At least one result of `resize`, (h, w, 3) uint8 each -> (b, 3, h, w) float32 on `device`, normalized."""
        stacked = torch.stack(list(levels))
        if device.type == "cuda":
            return self.normalize(stacked.pin_memory().to(device, non_blocking=True))
        return self.normalize(stacked.to(device))

    def resize(self, image: RGB) -> Tensor:
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

    def normalize(self, pixels: Tensor) -> Tensor:
        """(..., h, w, 3) uint8 -> (..., 3, h, w) float32 on the same device, in memory channels last as before."""
        *_, width, channels = pixels.shape
        mean, std = _of_a_row(self.mean, width, pixels.device), _of_a_row(self.std, width, pixels.device)
        rows = pixels.reshape(*pixels.shape[:-2], width * channels).float().sub_(mean).div_(std)
        return rows.view(pixels.shape).movedim(-1, -3)

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


@cache
def _of_a_row(levels: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """Levels per channel, in [0, 1], for each number of a row of pixels, in [0, 255]."""
    return (torch.tensor(levels, device=device) * 255).repeat(width)


def resized(image: RGB, size: tuple[int, int], interpolation: str, *, exact: bool = False) -> Tensor:
    """RGB photo -> (h, w, 3) uint8 of the given height and width, bicubic or bilinear with antialiasing.

    `exact` is by Pillow, else by torch, which works with coarser weights: some levels differ by one. Across, then down;
    as in Pillow 13 down first where much height is lost. A decoded photo comes out upright and in sRGB.
    """
    if isinstance(image, Pixels):
        if exact or image.height * image.width <= _LARGE:
            image = image.upright()
        lying = image.orientation > 4
        small = _resized(image.levels, size[::-1] if lying else size, interpolation, exact=exact, lying=lying).numpy()
        small = np.ascontiguousarray(turned(small, image.orientation))
        return torch.from_numpy(small if image.to_srgb is None else image.to_srgb(small))
    return _resized(image, size, interpolation, exact=exact)


def _resized(
    image: Image.Image | NDArray[np.uint8] | Tensor,
    size: tuple[int, int],
    interpolation: str,
    *,
    exact: bool,
    lying: bool = False,
) -> Tensor:
    """`resized`; of a photo that is `lying`, rows are what will be columns."""
    pixels, (rows, columns) = _as_tensor(image), size
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    if exact:
        return _as_tensor(Image.fromarray(pixels.numpy()).resize((columns, rows), _OF_PILLOW[interpolation]))
    lost, wider = (width - columns, height - rows) if lying else (height - rows, width - columns)
    down_first = (lost > max(0, 2 * wider)) != lying
    if down_first or height * width > _LARGE:
        pixels = _in_sheets(pixels, (rows, width) if down_first else (height, columns), interpolation)
    return _in_sheets(pixels, size, interpolation)


def _in_sheets(pixels: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """`_interpolated`; a large photo, resized one way, in sheets along the other, so that no second one is needed."""
    (height, width), (rows, columns) = pixels.shape[:2], size
    if height * width <= _LARGE or (height != rows and width != columns):
        return _interpolated(pixels, size, interpolation)
    along, other = (1, height) if height != rows else (0, width)
    parts = torch.split(pixels, max(1, _SHEET // other), dim=along)
    sizes = [(rows, part.shape[1]) if along else (part.shape[0], columns) for part in parts]
    return torch.cat([_interpolated(part, size, interpolation) for part, size in zip(parts, sizes, strict=True)], along)


def _interpolated(pixels: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    if pixels.shape[:2] == size:
        return pixels
    batch = pixels.contiguous()[None].permute(0, 3, 1, 2)  # channels last in memory, for which torch has a fast way
    return functional.interpolate(batch, size, mode=interpolation, antialias=True)[0].permute(1, 2, 0)


def _size(image: RGB) -> tuple[int, int]:
    if isinstance(image, Image.Image | Pixels):
        return image.height, image.width
    height, width = image.shape[:2]
    return height, width


def _as_tensor(image: Image.Image | NDArray[np.uint8] | Tensor) -> Tensor:
    return torch.from_numpy(np.array(image)) if isinstance(image, Image.Image) else torch.as_tensor(image)


def _center(pixels: Tensor, size: tuple[int, int], fill: int) -> Tensor:
    """(H, W, 3) -> (h, w, 3): borders where it is smaller, cut where it is larger."""
    missing = [max(0, wanted - given) for wanted, given in zip(size, pixels.shape[:2], strict=True)]
    if any(missing):
        (top, left), (height, width) = (gap // 2 for gap in missing), pixels.shape[:2]
        inner, pixels = pixels, pixels.new_full((height + missing[0], width + missing[1], 3), fill)
        pixels[top : top + height, left : left + width] = inner
    top, left = (round((given - wanted) / 2) for given, wanted in zip(pixels.shape[:2], size, strict=True))
    return pixels[top : top + size[0], left : left + size[1]]
