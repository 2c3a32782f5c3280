"""The garments of a DeepFashion root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fashion_retrieval.errors import ImageError
from fashion_retrieval.images.load import load_image
from training.data.deepfashion import clip_box
from training.data.deepfashion_files import PhotoFolders
from training.data.deepfashion_labels import PUBLISHED, Box, read_annotations


@dataclass(frozen=True, slots=True)
class Garment:
    """One annotated garment: its id, photo, and box (xyxy in pixels, as annotated)."""

    id: str
    photo: Path
    box: Box


def read_garments(root: Path, splits: Sequence[str] = tuple(PUBLISHED)) -> list[Garment]:
    """All garments of some splits, in the files' order; photos are not opened."""
    annotations, folders = read_annotations(root), PhotoFolders(root)
    rows = [row for split in splits for row in annotations.splits[split]]
    return [Garment(row.id, folders.find(row.path), row.box) for row in rows]


def load_garment(garment: Garment) -> tuple[Image.Image, Box]:
    """The upright RGB photo, and the box clipped at its edges; a box outside it is refused."""
    image = load_image(garment.photo)
    box = clip_box(garment.box, image.size)
    if box is None:
        raise ImageError(f"box {garment.box} lies outside its {image.width}x{image.height} photo; correct it")
    return image, box
