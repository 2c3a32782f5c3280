"""Augmentation of photos with pixel labels: close-ups of people, other colors of garments, other backgrounds.

The photos with pixel masks are few, full-length and of one style. Cutting people out along the masks and pasting them
elsewhere (copy-paste, Ghiasi et al., 2021) keeps the labels exact, and so does repainting a garment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fashion_retrieval.taxonomy import KINDS
from training.data.augment import uniform
from training.data.pixels import bits

_MIN_SUBJECT = 0.03
"""Fraction of the photo that a cut-out must fill."""
_BACKGROUND = bits("background")


def portrait_places(allowed: Tensor, placement: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Move a fraction of the placements, (b, 2, 3), onto head and chest, as in a portrait.

    `allowed` is (b, H, W), a bit per class; photos without a known person stay.
    """
    count, height, width = allowed.shape
    subject = subject_of(allowed)
    rows = subject.flatten(2).any(2)
    top = rows.float().argmax(1)
    reach = (top[:, None] + torch.arange(max(1, height // 12))).clamp(max=height - 1)
    head = subject[torch.arange(count)[:, None], reach].any(1).float()
    middle = (head * torch.arange(width)).sum(1) / head.sum(1).clamp(min=1)
    center = torch.stack([middle / width, top / height], dim=1) * 2 - 1
    chosen = (torch.rand(count, generator=generator) < fraction) & rows.any(1)
    scale = uniform(0.22, 0.55, count, generator=generator)
    offset = torch.stack(
        [uniform(-0.35, 0.35, count, generator=generator), uniform(0.5, 1.0, count, generator=generator)], dim=1
    )
    moved = placement * (scale / placement[:, 1, 1])[:, None, None]
    moved[:, :, 2] = center + scale[:, None] * offset
    return torch.where(chosen[:, None, None], moved, placement)


def repaint(photos: Tensor, allowed: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Give one garment in a fraction of the photos another mean color; folds and prints stay.

    Photos are (b, 3, h, w) float32 in [0, 1]; `allowed` is (b, h, w) int64, a bit per class.
    """
    rows = (torch.rand(len(photos), generator=generator) < fraction).nonzero().flatten()
    count, shown, allowed = len(rows), photos[rows], allowed[rows]
    powers = torch.tensor([bits(kind) for kind in KINDS])
    coarse = allowed[:, ::4, ::4]
    present = torch.stack([(coarse == power).flatten(1).any(1) for power in powers], dim=1)
    chosen = torch.rand(count, len(powers), generator=generator).mul(present).argmax(1)
    area = allowed == powers[chosen][:, None, None]
    pixels = area.flatten(1).sum(1).clamp(min=1)[:, None]
    mean = (shown * area[:, None]).flatten(2).sum(2) / pixels
    gray = torch.rand(count, 1, generator=generator) ** 1.5
    color = (gray + uniform(-0.3, 0.3, count, 3, generator=generator)).clamp(0, 1)
    contrast = uniform(0.4, 1.2, count, 1, 1, 1, generator=generator)
    painted = ((shown - mean[:, :, None, None]) * contrast + color[:, :, None, None]).clamp(0, 1)
    return photos.index_copy(0, rows, torch.where(area[:, None], painted, shown))


def change_scenes(
    photos: Tensor, allowed: Tensor, scenes: Tensor, fraction: float | Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace the background of a fraction of the photos by another photo or a painted backdrop.

    Shapes are those of `repaint`; the fraction is for all, or (b,) for each. Only `scenes`, (b,) bool, photos with
    exact labels, become backgrounds; photos with a tiny or unknown subject stay.
    """
    known = subject_of(allowed[:, ::4, ::4]).flatten(1).float().mean(1) >= _MIN_SUBJECT
    rows = ((torch.rand(len(photos), generator=generator) < fraction) & known).nonzero().flatten()
    count, behind = len(rows), scenes.nonzero().flatten()
    painted = torch.rand(count, generator=generator) < (0.5 if len(behind) else 1.0)
    drawn = backdrops(count, photos.shape[2:], generator)
    classes = torch.full_like(allowed[rows], _BACKGROUND)
    if len(behind):
        source = behind[torch.randint(len(behind), (count,), generator=generator)]
        drawn = torch.where(painted[:, None, None, None], drawn, photos[source])
        classes = torch.where(painted[:, None, None], classes, allowed[source])
    keep = without_fringe(subject_of(allowed[rows]))
    moved = blended(photos[rows], drawn, keep)
    return photos.index_copy(0, rows, moved), allowed.index_copy(0, rows, torch.where(keep, allowed[rows], classes))


def without_fringe(subject: Tensor) -> Tensor:
    """The subject, (b, h, w) bool, less its outermost pixels, which show the old background."""
    return functional.max_pool2d(-subject[:, None].float(), 3, stride=1, padding=1)[:, 0] < 0


def blended(photos: Tensor, behind: Tensor, keep: Tensor) -> Tensor:
    """The photos where `keep`, (b, h, w) bool, and what is behind them elsewhere, with soft edges."""
    soft = functional.avg_pool2d(keep[:, None].float(), 3, stride=1, padding=1, count_include_pad=False)
    return behind + (photos - behind) * soft


def grain(photos: Tensor, generator: torch.Generator, most: float = 0.06) -> Tensor:
    """Add noise of a standard deviation up to `most` to half of the photos, since enlarged small photos have none."""
    amount = (uniform(-most, most, len(photos), 1, 1, 1, generator=generator)).clamp(min=0)
    return (photos + amount * torch.randn(photos.shape, generator=generator)).clamp_(0, 1)


def subject_of(allowed: Tensor) -> Tensor:
    """Pixels that can't be background, (b, h, w) bool."""
    return (allowed & _BACKGROUND) == 0


def backdrops(count: int, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Painted backgrounds, from one flat color to stripes and patches: (count, 3, h, w) in [0, 1]."""
    drawn = []
    for _ in range(count):
        cells = [int(2 ** (5 * value)) for value in torch.rand(2, generator=generator).tolist()]
        base = torch.rand(3, 1, 1, generator=generator)
        strength = float(torch.rand((), generator=generator)) * 0.8
        patches = base + strength * (torch.rand(3, *cells, generator=generator) - 0.5)
        smooth = bool(torch.rand((), generator=generator) < 0.5)
        drawn.append(functional.interpolate(patches[None], tuple(size), mode="bilinear" if smooth else "nearest")[0])
    return torch.stack(drawn).clamp(0, 1) if drawn else torch.empty(0, 3, *size)
