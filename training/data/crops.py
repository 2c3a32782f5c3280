"""Crops in memory, and augmentation of whole batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from training.data.manifest import Sample, region_mask


def load_crops(samples: Sequence[Sample], size: tuple[int, int], *, masked: bool, label: str) -> Tensor:
    """Read each garment's crop, fitted into `size` (h, w) on white: (N, 3, h, w) uint8."""
    crops = torch.full((len(samples), 3, *size), 255, dtype=torch.uint8)
    for row, sample in enumerate(track(samples, description=label)):
        crops[row] = torch.from_numpy(fit(read_crop(sample, masked=masked), size)).permute(2, 0, 1)
    return crops


def read_crop(sample: Sample, *, masked: bool) -> Image.Image:
    """The crop by the labelled box; `masked` makes all but the garment white. The whole photo where it has no box."""
    with Image.open(sample.photo) as photo:
        image = photo.convert("RGB")
    mask = region_mask(sample) if masked else None
    if mask is not None:
        image = Image.fromarray(np.where(mask[..., None], np.asarray(image), np.uint8(255)))
    return image if sample.box is None else image.crop(sample.box)


def fit(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize to fit inside (h, w), centred on white: (h, w, 3) uint8."""
    height, width = size
    ratio = min(height / image.height, width / image.width)
    inner = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    offset = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas.paste(image.resize(inner, Image.Resampling.BICUBIC), offset)
    return np.array(canvas)


def augment(
    crops: Tensor,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    zoom: tuple[float, float] = (0.78, 1.06),
    erased: float = 0.0,
) -> Tensor:
    """Random flip, scale, aspect, shift, rotation, light and colour cast; empty parts are white.

    Args:
        crops: (b, 3, H, W) uint8.
        size: (h, w) of the result, at most (H, W).
        generator: The only source of chance.
        zoom: Part of the crop that is seen, least and most.
        erased: Share of the crops of which a rectangle is made white (random erasing, Zhong et al., 2020).

    Returns:
        (b, 3, h, w) float32 in [0, 1].
    """
    margin = round(size[0] * 1.1), round(size[1] * 1.1)
    pixels = crops.float().div_(255)
    if margin[0] < crops.shape[2]:
        pixels = functional.interpolate(pixels, margin, mode="bilinear", antialias=True)
    grid = random_grid(len(crops), size, generator, zoom=zoom)
    pixels = functional.grid_sample(pixels - 1, grid, align_corners=False) + 1  # zero padding is white
    pixels = colour_jitter(pixels, generator)
    return erase(pixels, erased, generator) if erased else pixels


def erase(pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Make a random rectangle, a fifth to a half of each side, white in a share of the pictures: (b, 3, h, w)."""
    count, _, height, width = pixels.shape
    chosen = torch.rand(count, generator=generator) < share
    extent = _uniform(0.2, 0.5, count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (1 - extent)
    rows, columns = torch.arange(height) / height, torch.arange(width) / width
    inside = [
        (steps >= corner[:, i, None]) & (steps < (corner + extent)[:, i, None])
        for i, steps in enumerate((rows, columns))
    ]
    hidden = chosen[:, None, None] & inside[0][:, :, None] & inside[1][:, None, :]
    return pixels.masked_fill(hidden[:, None], 1.0)


def random_grid(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    zoom: tuple[float, float] = (0.78, 1.06),
    shift: float = 0.1,
    roam: float = 0.0,
) -> Tensor:
    """A grid per picture for a random flip, scale, aspect, rotation (7 degrees) and shift: (count, h, w, 2).

    The shift grows by `roam` times what the scale leaves out of sight.
    """
    scale = _uniform(zoom[0], zoom[1], count, generator=generator)
    aspect = _uniform(0.9, 1.1, count, generator=generator)
    angle = _uniform(-0.12, 0.12, count, generator=generator)
    flip = (torch.rand(count, generator=generator) < 0.5).float() * 2 - 1
    cos, sin, ratio = angle.cos(), angle.sin(), size[0] / size[1]
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = flip * cos * scale * aspect
    matrix[:, 0, 1] = -sin * scale * ratio
    matrix[:, 1, 0] = flip * sin * scale * aspect / ratio
    matrix[:, 1, 1] = cos * scale
    reach = shift + roam * (1 - scale).clamp(min=0)
    matrix[:, :, 2] = reach[:, None] * _uniform(-1, 1, count, 2, generator=generator)
    return functional.affine_grid(matrix, [count, 3, *size], align_corners=False)


def colour_jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Random light, contrast and colour cast; pure white, the empty part, stays. (b, 3, h, w) in [0, 1], likewise."""
    count = len(pixels)
    light = _uniform(0.85, 1.1, count, 1, 1, 1, generator=generator)
    cast = _uniform(0.95, 1.05, count, 3, 1, 1, generator=generator)
    contrast = _uniform(0.85, 1.15, count, 1, 1, 1, generator=generator)
    white = (pixels > 0.999).all(1, keepdim=True)
    changed = ((pixels - 0.5) * contrast + 0.5) * light * cast
    return torch.where(white, pixels, changed).clamp_(0, 1)


def _uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)
