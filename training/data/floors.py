"""Augmentation of photos of one garment that nobody wears: other floors and beds, shadows, things lying in front."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.data.augment import uniform
from training.data.pixels import bits
from training.data.scenes import backdrops, blended, subject_of, without_fringe

_BACKGROUND = bits("background")
_IN_FRONT = bits("background", "person", "bag", "headwear", "other")
_CELLS = 28, 20
_LEAST = 0.08
"""Fraction of the photo that a piece of floor must fill."""
_EMPTY = 0.04
"""Of the photos show a floor alone."""


def floors(photos: Tensor, allowed: Tensor, size: tuple[int, int]) -> Tensor:
    """Pieces of floor beside the garments, mirrored until they fill (h, w): (n, 3, h, w) uint8.

    Photos are (N, 3, H, W) uint8, `allowed` is (N, H, W), a bit per class; photos with little floor give none.
    """
    height, width = allowed.shape[1] // _CELLS[0], allowed.shape[2] // _CELLS[1]
    free = (allowed == _BACKGROUND).float()[:, None]
    free = -functional.max_pool2d(-free, (height, width))[:, 0]
    pieces = []
    for photo, cells in zip(photos, free.bool().numpy(), strict=True):
        top, bottom, left, right = _largest_rectangle(cells)
        if (bottom - top) * (right - left) >= _LEAST * cells.size:
            piece = photo[:, top * height : bottom * height, left * width : right * width].numpy()
            spare = [(0, max(0, wanted - had)) for wanted, had in zip(size, piece.shape[1:], strict=True)]
            pieces.append(torch.from_numpy(np.pad(piece, [(0, 0), *spare], "symmetric")[:, : size[0], : size[1]]))
    return torch.stack(pieces) if pieces else torch.empty(0, 3, *size, dtype=torch.uint8)


def lay_down(photos: Tensor, allowed: Tensor, bank: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Put the garments on other floors, with a shadow; a few photos show the floor alone.

    Photos are (b, 3, h, w) float32 in [0, 1], `allowed` (b, h, w) int64; `bank` is `floors`.
    """
    count, size = len(photos), (photos.shape[2], photos.shape[3])
    subject = subject_of(allowed)
    drawn = backdrops(count, size, generator)
    if len(bank):
        picked = bank[torch.randint(len(bank), (count,), generator=generator)].float().div_(255)
        picked = torch.where(_some(0.5, count, generator), picked, picked.flip(2))
        picked = torch.where(_some(0.5, count, generator), picked, picked.flip(3))
        drawn = torch.where(_some(0.25, count, generator), drawn, picked)
    pixels = subject.flatten(1).sum(1).clamp(min=1)[:, None]
    garment = (photos * subject[:, None]).flatten(2).sum(2) / pixels
    alike = (garment - drawn.mean((2, 3)) + uniform(-0.12, 0.12, count, 3, generator=generator))[:, :, None, None]
    light = uniform(0.7, 1.15, count, 1, 1, 1, generator=generator)
    drawn = torch.where(_some(0.35, count, generator), drawn + alike, drawn * light).clamp(0, 1)
    drawn = drawn * (1 - _shadow(subject, generator))
    keep = without_fringe(subject) & ~_some(_EMPTY, count, generator)[:, 0]
    return blended(photos, drawn, keep), torch.where(keep, allowed, _BACKGROUND)


def put_in_front(photos: Tensor, allowed: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a strap, a lock of hair or a hanger across each photo; shapes are those of `lay_down`."""
    count, (height, width) = len(photos), photos.shape[2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    draw = partial(uniform, generator=generator)
    angle = draw(0, math.pi, count, 1, 1)
    along, off = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    start, wide = draw(-1.4, 0.4, count, 1, 1), draw(0.015, 0.07, count, 1, 1)
    middle = off - draw(-0.5, 0.5, count, 1, 1) - draw(-0.4, 0.4, count, 1, 1) * along**2
    band = (middle.abs() < wide) & (along > start) & (along < start + draw(0.6, 2.5, count, 1, 1))
    color = (draw(0, 1, count, 1, 1, 1) ** 2 + draw(-0.2, 0.2, count, 3, 1, 1)).clamp(0, 1)
    shaded = color * (1 + 0.3 * (middle / wide)[:, None].clamp(-1, 1))
    photos = torch.where(band[:, None], shaded.clamp(0, 1), photos)
    return photos, torch.where(band & (allowed != _BACKGROUND), _IN_FRONT, allowed)


def _some(fraction: float, count: int, generator: torch.Generator) -> Tensor:
    """True for a fraction of the photos: (count, 1, 1, 1) bool."""
    return torch.rand(count, 1, 1, 1, generator=generator) < fraction


def _shadow(subject: Tensor, generator: torch.Generator) -> Tensor:
    """How much light the garments take from the floor: (b, 1, h, w) in [0, 0.5]."""
    count, size = len(subject), subject.shape[1:]
    coarse = functional.avg_pool2d(subject[:, None].float(), 4, ceil_mode=True)
    shift = torch.eye(2, 3).repeat(count, 1, 1)
    shift[:, :, 2] = uniform(-0.06, 0.06, count, 2, generator=generator)
    grid = functional.affine_grid(shift, list(coarse.shape), align_corners=False)
    moved = functional.grid_sample(coarse, grid, align_corners=False)
    moved = functional.avg_pool2d(moved, 5, stride=1, padding=2, count_include_pad=False)
    depth = uniform(-0.3, 0.5, count, 1, 1, 1, generator=generator).clamp(min=0)
    return functional.interpolate(moved * depth, size, mode="bilinear")


def _largest_rectangle(free: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the largest rectangle of free cells."""
    sums = np.pad(free.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    best, found = 0, (0, 0, 0, 0)
    for top in range(free.shape[0]):
        for bottom in range(top + 1, free.shape[0] + 1):
            columns = np.diff(sums[bottom] - sums[top]) == bottom - top
            edges = np.flatnonzero(np.diff(np.concatenate([[0], columns.astype(np.int8), [0]])))
            for left, right in edges.reshape(-1, 2).tolist():
                if (bottom - top) * (right - left) > best:
                    best, found = (bottom - top) * (right - left), (top, bottom, left, right)
    return found
