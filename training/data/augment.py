"""Augmentation of whole batches. Parameters are drawn first, so that processes change their parts as one would all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ZOOM = (0.78, 1.06)
"""Least and most of a crop's side that is seen."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The parameters of a batch's augmentation."""

    placement: Tensor  # (b, 2, 3) for `affine_grid`
    light: Tensor  # (b, 1, 1, 1), factor on the brightness
    cast: Tensor  # (b, 3, 1, 1), factor on each channel
    contrast: Tensor  # (b, 1, 1, 1), factor on the distance to gray
    hidden: Tensor | None  # (b, 2, 2) first and last row and column of the erased rectangle as fractions of the side

    def of(self, rows: slice, device: torch.device) -> Changes:
        """The parameters of some crops, on a device."""
        parts = (self.placement, self.light, self.cast, self.contrast)
        placement, light, cast, contrast = (part[rows].to(device) for part in parts)
        hidden = None if self.hidden is None else self.hidden[rows].to(device)
        return Changes(placement, light, cast, contrast, hidden)


def draw_changes(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    zoom: tuple[float, float] = ZOOM,
    erased: float = 0.0,
) -> Changes:
    """Random flip, scale, aspect, shift, rotation, light, color cast and contrast of crops that become (h, w).

    In the fraction `erased` of the crops a rectangle becomes white (random erasing, Zhong et al., 2020).
    """
    placement = draw_placement(count, size, generator, zoom)
    light, cast, contrast = _draw_light(count, generator)
    hidden = draw_hidden(count, erased, generator) if erased else None
    return Changes(placement, light, cast, contrast, hidden)


def apply_changes(crops: Tensor, size: tuple[int, int], changes: Changes | None) -> Tensor:
    """(b, 3, H, W) uint8 crops as the encoder sees them in training: (b, 3, h, w) float32 in [0, 1].

    What lies outside a crop is white. `size` is at most (H, W); without changes the crops are only resized.
    """
    pixels = crops.float().div_(255)
    if changes is None:
        same = size == tuple(crops.shape[2:])
        return pixels if same else functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    margin = round(size[0] * 1.1), round(size[1] * 1.1)
    if margin[0] < crops.shape[2]:
        pixels = functional.interpolate(pixels, margin, mode="bilinear", antialias=True)
    grid = functional.affine_grid(changes.placement, [len(crops), 3, *size], align_corners=False)
    pixels = functional.grid_sample(pixels - 1, grid, align_corners=False) + 1  # zero padding is white
    pixels = _relight(pixels, changes.light, changes.cast, changes.contrast)
    return pixels if changes.hidden is None else erase(pixels, changes.hidden)


def draw_hidden(count: int, fraction: float, generator: torch.Generator) -> Tensor:
    """A random rectangle, a fifth to a half of each side, for a fraction of the crops: `Changes.hidden`."""
    chosen = torch.rand(count, generator=generator) < fraction
    extent = uniform(0.2, 0.5, count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (1 - extent)
    return torch.stack([corner, corner + extent * chosen[:, None]], dim=1)


def erase(pixels: Tensor, hidden: Tensor) -> Tensor:
    """Make the rectangles of `draw_hidden`, (b, 2, 2), white: (b, 3, h, w) -> the same shape."""
    first, last = hidden[:, 0], hidden[:, 1]
    height, width = pixels.shape[2:]
    rows, columns = (torch.arange(length, device=pixels.device) / length for length in (height, width))
    down = (rows >= first[:, :1]) & (rows < last[:, :1])
    across = (columns >= first[:, 1:]) & (columns < last[:, 1:])
    return pixels.masked_fill((down[:, :, None] & across[:, None, :])[:, None], 1.0)


def color_jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Random light, contrast and color cast; pure white, the padding, stays. (b, 3, h, w) in [0, 1] -> the same."""
    return _relight(pixels, *_draw_light(len(pixels), generator))


def draw_placement(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    zoom: tuple[float | Tensor, float | Tensor],
    shift: float = 0.1,
    roam: float = 0.0,
) -> Tensor:
    """Random flip, scale, aspect, rotation (7 degrees) and shift: (count, 2, 3) for `affine_grid`.

    `zoom` is for all, or (count,) for each. The shift grows by `roam` times the part that the scale leaves out of
    sight.
    """
    scale = uniform(zoom[0], zoom[1], count, generator=generator)
    aspect = uniform(0.9, 1.1, count, generator=generator)
    angle = uniform(-0.12, 0.12, count, generator=generator)
    flip = (torch.rand(count, generator=generator) < 0.5).float() * 2 - 1
    cos, sin, ratio = angle.cos(), angle.sin(), size[0] / size[1]
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = flip * cos * scale * aspect
    matrix[:, 0, 1] = -sin * scale * ratio
    matrix[:, 1, 0] = flip * sin * scale * aspect / ratio
    matrix[:, 1, 1] = cos * scale
    reach = shift + roam * (1 - scale).clamp(min=0)
    matrix[:, :, 2] = reach[:, None] * uniform(-1, 1, count, 2, generator=generator)
    return matrix


def _draw_light(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """`Changes.light`, `.cast` and `.contrast`."""
    light = uniform(0.85, 1.1, count, 1, 1, 1, generator=generator)
    cast = uniform(0.95, 1.05, count, 3, 1, 1, generator=generator)
    return light, cast, uniform(0.85, 1.15, count, 1, 1, 1, generator=generator)


def _relight(pixels: Tensor, light: Tensor, cast: Tensor, contrast: Tensor) -> Tensor:
    white = (pixels > 0.999).all(1, keepdim=True)
    changed = ((pixels - 0.5) * contrast + 0.5) * light * cast
    return torch.where(white, pixels, changed).clamp_(0, 1)


def uniform(low: float | Tensor, high: float | Tensor, *shape: int, generator: torch.Generator) -> Tensor:
    """Uniform random numbers between two values."""
    return low + (high - low) * torch.rand(*shape, generator=generator)
