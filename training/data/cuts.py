"""Parts of garments that hide what an attribute needs: a dress without its hem, a shirt without its sleeves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fashion_retrieval.images.load import load_image
from fashion_retrieval.images.preprocess import RGB
from fashion_retrieval.images.regions import mask_box, masked_crop
from fashion_retrieval.inference.colors import dominant_colors
from fashion_retrieval.taxonomy import FAMILIES, Taxonomy
from training.data.crops import Crops, fitted_box
from training.data.io import read_label_image
from training.data.manifest import Sample, read_lines, region_mask
from training.data.regions import Mask, studio_mask

Box = tuple[int, int, int, int]
Groups = Mapping[str, frozenset[str] | None]
"""Groups, each with the values for which something holds; None is all values."""

FOLDS = 6
"""Parts of a split; settings are chosen on one part of `train`."""
_RARELY = 0.2
_BACKGROUND, _SPECK = 24, 0.01
_SOLID = 0.8
"""How much of a strip must lie on the garment."""
_NO_GARMENT = {"street": (0, 19, 41), "clothing": (0,)}
"""Values of masks: nothing, hair and skin."""
_TRIES, _LEFT_OVER = 20, 0.02


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a garment, as fractions of its box, and the groups that it hides or surely shows."""

    rows: tuple[float, float] = (0.0, 1.0)
    columns: tuple[float, float] = (0.0, 1.0)
    hides: Groups = field(default_factory=dict)
    shows: Groups = field(default_factory=dict)

    def of(self, box: Sequence[float]) -> Box:
        """The part of a box, xyxy in pixels, at least one pixel wide and high."""
        left, top, right, bottom = box
        (x1, x2), (y1, y2) = (
            (round(low + first * (high - low)), round(low + last * (high - low)))
            for low, high, (first, last) in ((left, right, self.columns), (top, bottom, self.rows))
        )
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


OUT_OF_VIEW = {"sleeve": "sleeves_out_of_view", "length": "hem_out_of_view", "neckline": "none"}
"""Groups that a cut can hide, and what they are labeled then."""
SHAPE = tuple(OUT_OF_VIEW)
CUTS = {
    "whole": Cut(shows=dict.fromkeys(("texture", *SHAPE, "fabric", "fit"))),
    "no_hem": Cut(
        rows=(0.0, 0.55),
        hides={"length": None},
        shows={**dict.fromkeys(("texture", "neckline", "fabric")), "sleeve": frozenset({"short_sleeve", "sleeveless"})},
    ),
    "no_neckline": Cut(rows=(0.5, 1.0), hides={"neckline": None}, shows=dict.fromkeys(("texture", "fabric"))),
    "no_sleeves": Cut(
        columns=(0.3, 0.7),
        hides={"sleeve": frozenset({"long_sleeve", "short_sleeve"})},
        shows=dict.fromkeys(("texture", "neckline", "fabric")),
    ),
    "strip": Cut(rows=(0.45, 0.7), columns=(0.35, 0.65), hides=dict.fromkeys(SHAPE), shows={"fabric": None}),
}
"""What `training.evaluate visibility` shows; docs/models/compact.md explains it."""


def holds(groups: Groups, group: str, value: str) -> bool:
    """Whether something holds for a garment's value of a group."""
    values = groups.get(group, frozenset())
    return values is None or value in values


SHOWN, UNKNOWN, HIDDEN = 0, 1, 2


def cut_states(samples: Sequence[Sample], taxonomy: Taxonomy) -> Tensor:
    """What the cuts make of the samples' groups: (n, cuts, groups) int64, `SHOWN`, `UNKNOWN` or `HIDDEN`.

    A group that does not apply to the category, or that no cut hides, keeps its label where the cut shows it.
    """
    categories = {value.name: value for value in taxonomy.category.values}
    states = torch.full((len(samples), len(CUTS), len(taxonomy.attributes)), UNKNOWN)
    for row, sample in enumerate(samples):
        category = categories.get(sample.category or "")
        for column, group in enumerate(taxonomy.attributes):
            value, applies = sample.attributes.get(group.name, ""), category is not None and group.applies(category)
            absent = {v.name for v in group.values if v.absent}
            states[row, 0, column] = SHOWN
            for place, cut in enumerate([*CUTS.values()][1:], start=1):
                if applies and OUT_OF_VIEW.get(group.name) in absent and holds(cut.hides, group.name, value):
                    states[row, place, column] = HIDDEN
                elif holds(cut.shows, group.name, value) or (group.name in SHAPE and not applies):
                    states[row, place, column] = SHOWN
    return states


def cut_chances(samples: Sequence[Sample], states: Tensor, taxonomy: Taxonomy) -> Tensor:
    """How often each cut is taken of each sample: (n, cuts) float32; the whole garment 0, one that hides nothing rare.

    Only clothes of a known category and extent are cut.
    """
    clothes = {value.name for value in taxonomy.category.values if value.kind in FAMILIES[0] + FAMILIES[1]}
    able = torch.tensor([s.category in clothes and (s.mask is not None or s.source == "products") for s in samples])
    chances = ((states == HIDDEN).any(-1) + _RARELY) * able[:, None]
    chances[:, 0] = 0
    return chances


def draw_cuts(chances: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cuts of a fraction of the garments: rows of `CUTS`, (g,) int64, and the parts of their extents, (g, 4) xyxy.

    Each edge lies up to 0.05 further out, or up to 0.1 further in, than that of `CUTS`.
    """
    count = len(chances)
    able = chances.any(1)
    drawn = torch.multinomial(chances + (~able).float()[:, None], 1, generator=generator)[:, 0]
    taken = able & (torch.rand(count, generator=generator) < fraction)
    cuts = torch.where(taken, drawn, 0)
    table = torch.tensor([[c.columns[0], c.rows[0], c.columns[1], c.rows[1]] for c in CUTS.values()])
    edges = table[cuts]
    inwards = torch.rand(count, 4, generator=generator) * 0.15 - 0.05
    moved = edges + inwards * torch.tensor([1.0, 1.0, -1.0, -1.0])
    return cuts, torch.where((edges == 0) | (edges == 1), edges, moved)


def extents(samples: Sequence[Sample], crops: Crops, size: tuple[int, int], wanted: Tensor) -> Tensor:
    """Where the wanted garments, (n,) bool, lie in their crops of (h, w): (n, 4) float32 xyxy, fractions of the sides.

    A crop along a mask's box is all garment; of a studio photo it is what differs from the border.
    """
    boxes = torch.zeros(len(samples), 4)
    for row in wanted.nonzero()[:, 0].tolist():
        sample = samples[row]
        if sample.box is not None:
            width, height = sample.box[2] - sample.box[0], sample.box[3] - sample.box[1]
            boxes[row] = torch.tensor(fitted_box(width, height, size)) / torch.tensor([*size[::-1], *size[::-1]])
        else:
            boxes[row] = _content(crops[torch.tensor([row])][0])
    return boxes


def _content(crop: Tensor) -> Tensor:
    """(3, h, w) uint8 -> the box of what differs from the border, (4,) xyxy as fractions."""
    pixels = crop.short()
    border = torch.cat([pixels[:, 0], pixels[:, :, 0], pixels[:, :, -1]], dim=1).median(1).values
    differs = (pixels - border[:, None, None]).abs().amax(0) > _BACKGROUND
    sides = []
    for dim, length in ((0, crop.shape[2]), (1, crop.shape[1])):
        places = (differs.float().mean(dim) > _SPECK).nonzero()[:, 0].tolist() or [0, length - 1]
        sides.append((places[0] / length, (places[-1] + 1) / length))
    (left, right), (top, bottom) = sides
    return torch.tensor([left, top, right, bottom])


def refit(crop: Tensor, box: Tensor) -> Tensor:
    """The part of a crop inside a box, (4,) xyxy as fractions, fitted into its size on white: (3, h, w) uint8."""
    height, width = crop.shape[1:]
    left, top, right, bottom = (box * torch.tensor([width, height, width, height])).round().int().tolist()
    part = crop[:, min(top, height - 1) : max(bottom, top + 1), min(left, width - 1) : max(right, left + 1)]
    x1, y1, x2, y2 = fitted_box(part.shape[2], part.shape[1], (height, width))
    inner = functional.interpolate(part[None].float(), (y2 - y1, x2 - x1), mode="bilinear", antialias=True)
    fitted = torch.full_like(crop, 255)
    fitted[:, y1:y2, x1:x2] = inner[0].round().clamp(0, 255)
    return fitted


def fold_of(photo: Path) -> int:
    """The part of a split that a photo belongs to, by its name: 0 to `FOLDS` - 1."""
    return int(sha256(photo.stem.encode()).hexdigest(), 16) % FOLDS


def with_masks(root: Path, samples: Sequence[Sample], split: str) -> list[Sample]:
    """The users' photos among the samples that have a mask, with it and its box; the others are left out."""
    path = root / "clothing_masks.jsonl"
    masked = {row["id"] for row in read_lines(path, split)} if path.is_file() else set()
    found = []
    for sample in samples:
        if sample.source == "clothing" and sample.id in masked:
            mask = sample.photo.with_name(f"{sample.id}.mask.png")
            box = as_box(read_label_image(mask) == 1)
            found.append(replace(sample, box=box, mask=mask, mask_value=1))
    return found


def extent(sample: Sample) -> Mask:
    """The pixels of a garment with a mask, or of a studio product with all that is not background: (H, W) bool."""
    mask = region_mask(sample)
    return studio_mask(np.asarray(load_image(sample.photo))) if mask is None else mask


def cut_views(sample: Sample, cuts: Mapping[str, Cut]) -> Iterator[tuple[str, str, RGB, RGB]]:
    """(name of the cut, dominant color, crop, masked crop) of each part of a garment, as recognition shows a region.

    A strip that lies too little on the garment is left out.
    """
    pixels, mask = np.asarray(load_image(sample.photo)), extent(sample)
    around = as_box(mask)
    for name, cut in cuts.items():
        box = cut.of(around)
        left, top, right, bottom = box
        if name == "strip" and not is_solid(mask, box):
            continue
        crop, part = pixels[top:bottom, left:right], mask[top:bottom, left:right]
        inside = crop if sample.mask is None else masked_crop(pixels, box, mask)
        yield name, dominant_colors(crop, part if part.any() else ~part)[0].name, crop, inside


def pieces(samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[tuple[Sample, str, RGB]]:
    """(sample, dominant color, crop) of parts of the photos with masks that show no garment, one a photo at most.

    A part is a fifth to a half of the photo wide and high, at a random place; faces and hair are no garment.
    """
    for sample, mask in {one.photo: (one, one.mask) for one in samples if one.mask is not None}.values():
        garments = ~np.isin(read_label_image(mask), _NO_GARMENT[sample.source])
        for _ in range(_TRIES):
            sides = [round(side * rng.uniform(0.2, 0.5)) for side in garments.shape]
            top, left = (int(rng.integers(0, side - own)) for side, own in zip(garments.shape, sides, strict=True))
            part = slice(top, top + sides[0]), slice(left, left + sides[1])
            if garments[part].mean() <= _LEFT_OVER:
                crop = np.asarray(load_image(sample.photo))[part]
                yield sample, dominant_colors(crop, np.ones(crop.shape[:2], bool))[0].name, crop
                break


def as_box(mask: Mask) -> Box:
    """The tight box around a mask that is not empty, xyxy in pixels."""
    left, top, right, bottom = mask_box(mask)
    return int(left), int(top), int(right), int(bottom)


def is_solid(mask: Mask, box: Box) -> bool:
    """Whether enough of a box, xyxy in pixels, lies on the garment."""
    left, top, right, bottom = box
    return bool(mask[top:bottom, left:right].mean() >= _SOLID)
