"""The segmenter on photos taken from near: portraits cut from street photos, and users' photos of one garment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval import FashionModel
from training.data.pixels import CLASSES, STREET_KINDS, clothing_photos, street_photos

_PERSON = CLASSES.index("person")
_BUST = 0.38
"""Of a person's height: head and chest."""
_ENLARGED = 3


def evaluate_near(model: FashionModel, root: Path, split: str, names: list[str]) -> dict[str, Any]:
    """Clothing of portraits against the rest; and whether one garment is one region, of the right kind.

    Args:
        model: Its segmenter is asked without boxes.
        root: The open data pack.
        split: A split of it.
        names: What the values of street masks mean.
    """
    kinds = np.array([CLASSES.index(STREET_KINDS.get(name, "other")) for name in names])
    segmenter = model.segmenter
    if segmenter is None:
        return {}
    overlap = union = 0
    regions = []
    people = street_photos(root, split)
    for photo in people:
        assert photo.mask is not None  # all of street_photos have one
        with Image.open(photo.path) as opened, Image.open(photo.mask) as mask:
            image, truth = portrait(opened.convert("RGB"), kinds[np.asarray(mask)])
        found = segmenter.segment(image)
        regions.append(len(found))
        guess = _joined([region.mask for region in found], (image.height, image.width))[
            _ENLARGED // 2 :: _ENLARGED, _ENLARGED // 2 :: _ENLARGED
        ]
        overlap += int((guess & (truth > _PERSON)).sum())
        union += int((guess | (truth > _PERSON)).sum())
    alone = clothing_photos(root, split)
    right, single = [], []
    for photo in alone:
        with Image.open(photo.path) as opened:
            found = segmenter.segment(opened.convert("RGB"))
        right.append(bool(found) and found[0].kind == photo.kinds[0])
        single.append(len(found) == 1)
    return {
        "portraits": {
            "photos": len(people),
            "clothing_iou": overlap / max(union, 1),
            "regions": float(np.mean(regions)),
        },
        "one_garment": {
            "photos": len(alone),
            "kind_of_largest_region": float(np.mean(right)),
            "one_region": float(np.mean(single)),
        },
    }


def portrait(image: Image.Image, truth: NDArray[np.int64]) -> tuple[Image.Image, NDArray[np.int64]]:
    """Head and chest of the person in a photo, enlarged, and their classes, as they were: (h, w) of `truth`'s."""
    subject = truth > CLASSES.index("background")
    rows = np.flatnonzero(subject.any(1))
    height = rows[-1] + 1 - rows[0]
    top, bottom = max(0, rows[0] - round(0.04 * height)), rows[0] + round(_BUST * height)
    columns = np.flatnonzero(subject[rows[0] : bottom].any(0))
    margin = round(0.1 * (columns[-1] - columns[0]))
    left, right = max(0, columns[0] - margin), min(image.width, columns[-1] + 1 + margin)
    cut = image.crop((left, top, right, bottom))
    large = cut.resize((_ENLARGED * cut.width, _ENLARGED * cut.height), Image.Resampling.BICUBIC)
    return large, truth[top:bottom, left:right]


def _joined(masks: list[NDArray[np.bool_]], size: tuple[int, int]) -> NDArray[np.bool_]:
    joined = np.zeros(size, bool)
    for mask in masks:
        joined |= mask
    return joined
