"""Pixel labels for the segmenter: exact ones from street masks, weak ones from the labels of other photos.

A weak label is the set of classes that a pixel may have, stored as a bit mask: in a studio photo of a handbag the plain
background is background and the rest is bag; in a user's photo of a dress a pixel is dress, background or person; the
face of a studio model is person; a street photo shows only what its tags name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.images.load import load_image
from fashion_retrieval.taxonomy import KINDS
from training.data.faces import head_masks
from training.data.io import read_label_image
from training.data.manifest import LABELS, read_lines
from training.data.regions import studio_mask

CLASSES = ("background", "person", *KINDS)
IGNORED = 2 ** len(CLASSES) - 1
"""All classes are allowed."""

FOLDS = 6
GARMENT, SOMEBODY, UNKNOWN = 1, 2, 255
"""Values of the mask of one garment; 0 is background."""
EXACT, SEVERAL = -1, -2
"""Tags of photos with exact labels, and of photos that show several kinds."""

STREET_KINDS, CLOTHING_KINDS = LABELS["street_kinds"], LABELS["clothing_kinds"]
"""Class by label; street labels without one are "other"."""
WORN = frozenset({"upper", "outerwear", "dress", "trousers", "shorts", "skirt", "legwear"})


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo and what is known of its pixels: a mask (of all classes, or of its one kind), or the kinds it shows."""

    path: Path
    mask: Path | None = None
    kinds: tuple[str, ...] = ()
    studio: bool = False


def street_photos(root: Path, split: str) -> list[Photo]:
    """Photos with pixel masks."""
    rows = [row for row in read_lines(root / "street.jsonl", split) if "regions" in row]
    folder = root / "street" / split
    return [Photo(folder / f"{row['id']}.jpg", folder / f"{row['id']}.mask.png") for row in rows]


def tagged_photos(root: Path, split: str) -> list[Photo]:
    """Street photos without pixel masks; shoes and small things may be there without a tag."""
    rows = [row for row in read_lines(root / "street.jsonl", split) if "regions" not in row]
    always = {"footwear", "other", "headwear", "bag"}
    return [
        Photo(
            root / "street" / split / f"{row['id']}.jpg",
            kinds=tuple(sorted(always.union(STREET_KINDS.get(tag, "other") for tag in row["tags"]))),
        )
        for row in rows
    ]


def clothing_photos(root: Path, split: str) -> list[Photo]:
    """Users' photos of one garment of a known class."""
    rows = [row for row in read_lines(root / "clothing.jsonl", split) if row["label"] in CLOTHING_KINDS]
    return [Photo(root / "clothing" / split / f"{r['id']}.jpg", kinds=(CLOTHING_KINDS[r["label"]],)) for r in rows]


def flat_lay_photos(root: Path, split: str) -> list[Photo]:
    """Those of the users' photos that have a mask of their garment, which nobody wears."""
    rows = [row for row in read_lines(root / "clothing_masks.jsonl", split) if row["label"] in CLOTHING_KINDS]
    folder = root / "clothing" / split
    return [
        Photo(folder / f"{row['id']}.jpg", folder / f"{row['id']}.mask.png", (CLOTHING_KINDS[row["label"]],))
        for row in rows
    ]


def guessed_photos(root: Path, split: str, masks: Path) -> list[Photo]:
    """Users' photos with a mask that `training.guess_masks` drew."""
    found = [(photo, masks / f"{photo.path.stem}.mask.png") for photo in clothing_photos(root, split)]
    return [replace(photo, mask=mask) for photo, mask in found if mask.is_file()]


def in_fold(photo: Photo, fold: int) -> bool:
    """Whether a photo belongs to one of the `FOLDS` parts of a split, by its name: settings are chosen on one part."""
    return int(sha256(photo.path.stem.encode()).hexdigest(), 16) % FOLDS == fold


def product_photos(root: Path, split: str) -> list[Photo]:
    """Studio photos of a product of a known class on a plain background."""
    photos = []
    for row in read_lines(root / "products.jsonl", split):
        kind = LABELS["product_type_kinds"].get(row["article_type"], LABELS["product_kinds"].get(row["sub_category"]))
        if kind:
            photos.append(Photo(root / "products" / split / f"{row['id']}.jpg", kinds=(kind,), studio=True))
    return photos


def bits(*classes: str) -> int:
    """The bit mask that allows these classes."""
    return sum(1 << CLASSES.index(name) for name in classes)


def load_photos(
    photos: Sequence[Photo], size: tuple[int, int], root: Path, label: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Read photos into memory, fitted into (h, w) and centered.

    Returns (N, 3, h, w) uint8 photos, padded with white; (N, h, w) int16 bit masks of the allowed classes, `IGNORED` in
    the padding; (N,) int64 class known to be in the photo, or `EXACT`, or `SEVERAL`.
    """
    names: list[str] = json.loads((root / "street_labels.json").read_text(encoding="utf-8"))
    table = np.array([bits(STREET_KINDS.get(name, "other")) for name in names], dtype=np.int16)
    pixels = torch.full((len(photos), 3, *size), 255, dtype=torch.uint8)
    allowed = torch.full((len(photos), *size), IGNORED, dtype=torch.int16)
    tags = torch.tensor([_tag(photo) for photo in photos], dtype=torch.int64)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        read = workers.map(partial(_read, size=size, table=table), photos, chunksize=32)
        for row, (image, labels) in enumerate(tracked(read, label, len(photos), shown=True)):
            height, width = labels.shape
            y, x = (size[0] - height) // 2, (size[1] - width) // 2
            pixels[row, :, y : y + height, x : x + width] = torch.from_numpy(image).permute(2, 0, 1)
            allowed[row, y : y + height, x : x + width] = torch.from_numpy(labels)
    return pixels, allowed, tags


def _tag(photo: Photo) -> int:
    if photo.mask is not None:
        return EXACT
    return CLASSES.index(photo.kinds[0]) if len(photo.kinds) == 1 else SEVERAL


def _read(photo: Photo, *, size: tuple[int, int], table: NDArray[np.int16]) -> tuple[np.ndarray, np.ndarray]:
    """One photo and its allowed classes, fitted into (h, w): (h', w', 3) uint8, (h', w') int16."""
    image = load_image(photo.path)
    ratio = min(size[0] / image.height, size[1] / image.width)
    inner = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    labels = Image.fromarray(allowed_classes(photo, image, table).astype(np.int32)).resize(
        inner, Image.Resampling.NEAREST
    )
    return np.asarray(image.resize(inner, Image.Resampling.BICUBIC)), np.asarray(labels).astype(np.int16)


def allowed_classes(photo: Photo, image: Image.Image, table: NDArray[np.int16]) -> np.ndarray:
    """The classes that each pixel may have: (H, W) int, a bit per class; `table` has the bits of a mask's values."""
    if photo.mask is not None and photo.kinds:
        values = np.full(UNKNOWN + 1, IGNORED)
        values[[0, GARMENT, SOMEBODY]] = bits("background"), bits(*photo.kinds), bits("person")
        return np.asarray(values[read_label_image(photo.mask)])
    if photo.mask is not None:
        return np.asarray(table[read_label_image(photo.mask)])
    if not photo.studio:
        return np.full((image.height, image.width), bits(*{*photo.kinds, "background", "person"}))
    subject = studio_mask(np.asarray(image))
    if subject.all():
        return np.full((image.height, image.width), IGNORED)
    if photo.kinds[0] not in WORN:
        return np.where(subject, bits(*photo.kinds), bits("background"))
    skin, around = head_masks(np.asarray(image))
    inside = np.full(subject.shape, IGNORED - bits("background", "bag"))
    inside[around] = bits("person", "headwear", "other")
    inside[skin] = bits("person")
    return np.where(subject, inside, bits("background"))
