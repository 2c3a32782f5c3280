"""The segmenter on close-ups: portraits cut from street photos, and users' photos of one garment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval import FashionModel
from fashion_retrieval.images.load import load_image
from fashion_retrieval.results import Segmenter
from training.data.io import read_label_image
from training.data.pixels import CLASSES, STREET_KINDS, Photo, clothing_photos, flat_lay_photos, street_photos

_BACKGROUND, _PERSON = CLASSES.index("background"), CLASSES.index("person")
_BUST = 0.38
"""Head and chest, as a fraction of a person's height."""
_ENLARGED = 3


def evaluate_close_ups(model: FashionModel, root: Path, split: str, names: list[str]) -> dict[str, Any]:
    """IoU of clothing in portraits; and whether one garment is found as one region, of the right kind."""
    if model.segmenter is None:
        return {}
    return {
        "portraits": portrait_figures(model.segmenter, street_photos(root, split), names),
        "flat_lay": one_garment_figures(model.segmenter, flat_lay_photos(root, split)),
        "one_garment": one_garment_figures(model.segmenter, clothing_photos(root, split)),
    }


def portrait_figures(segmenter: Segmenter, photos: Sequence[Photo], names: list[str]) -> dict[str, Any]:
    """IoU of clothing against the rest, and regions a photo, in portraits cut from photos of people with masks."""
    kinds = np.array([CLASSES.index(STREET_KINDS.get(name, "other")) for name in names])
    overlap = union = 0
    regions = []
    for photo in photos:
        assert photo.mask is not None  # all of street_photos have one
        with Image.open(photo.path) as opened, Image.open(photo.mask) as mask:
            image, truth = portrait(opened.convert("RGB"), kinds[np.asarray(mask)])
        found = segmenter.segment(image)
        regions.append(len(found))
        middle = slice(_ENLARGED // 2, None, _ENLARGED)
        guess = union_of([region.mask for region in found], (image.height, image.width))[middle, middle]
        overlap += int((guess & (truth > _PERSON)).sum())
        union += int((guess | (truth > _PERSON)).sum())
    return {"photos": len(photos), "clothing_iou": overlap / max(union, 1), "regions": float(np.mean(regions))}


def one_garment_figures(segmenter: Segmenter, photos: Sequence[Photo]) -> dict[str, Any]:
    """How one garment is found: as one region, of the right kind; and, with masks, the IoU of all regions with it."""
    right, single, overlaps = [], [], []
    for photo in photos:
        image = load_image(photo.path)
        found = segmenter.segment(image)
        right.append(bool(found) and found[0].kind == photo.kinds[0])
        single.append(len(found) == 1)
        if photo.mask is not None:
            truth = read_label_image(photo.mask) > 0
            guess = union_of([region.mask for region in found], truth.shape)
            overlaps.append((truth & guess).sum() / (truth | guess).sum())
    figures = {
        "photos": len(photos),
        "kind_of_largest_region": float(np.mean(right)),
        "one_region": float(np.mean(single)),
    }
    if overlaps:
        figures |= {"iou": float(np.mean(overlaps)), "iou_of_80": float(np.mean(np.array(overlaps) >= 0.8))}
    return figures


def portrait(image: Image.Image, truth: NDArray[np.int64]) -> tuple[Image.Image, NDArray[np.int64]]:
    """Head and chest of the person in a photo, enlarged three times, and the part's classes, (h, w), not enlarged."""
    subject = truth > _BACKGROUND
    rows = np.flatnonzero(subject.any(1))
    height = rows[-1] + 1 - rows[0]
    top, bottom = max(0, rows[0] - round(0.04 * height)), rows[0] + round(_BUST * height)
    columns = np.flatnonzero(subject[rows[0] : bottom].any(0))
    margin = round(0.1 * (columns[-1] - columns[0]))
    left, right = max(0, columns[0] - margin), min(image.width, columns[-1] + 1 + margin)
    cut = image.crop((left, top, right, bottom))
    large = cut.resize((_ENLARGED * cut.width, _ENLARGED * cut.height), Image.Resampling.BICUBIC)
    return large, truth[top:bottom, left:right]


def union_of(masks: Sequence[NDArray[np.bool_]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels that lie in any of the masks, (H, W) bool."""
    return np.asarray(np.logical_or.reduce([np.zeros(shape, dtype=bool), *masks]))
