"""DeepFashion, category and attribute prediction, with the fine annotations: photos of one garment each.

    ROOT/Anno_fine/{train,val,test}{,_attr,_cate,_bbox,_landmarks}.txt   rows that belong together by their number
    ROOT/img/<item>/img_00000001.jpg, or ROOT/Img/img/<item>/...
    ROOT/masks/<item>/img_00000001.png, ROOT/colors.jsonl               what `training.prepare` makes

Labels become values of the taxonomy "deepfashion".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image

from fashion_retrieval.errors import ConfigError, InputError
from training.data.deepfashion_files import Faults, PhotoFolders
from training.data.deepfashion_labels import PUBLISHED, Box, read_annotations, refuse
from training.data.manifest import Sample

MASKS, COLORS = "masks", "colors.jsonl"
"""Where `training.prepare` writes, in the root."""

_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # raised by Pillow for a broken header


def prepared_samples(root: Path, splits: Sequence[str], *, whole: bool = False) -> list[Sample]:
    """`read_samples` with the prepared colors and, unless `whole`, masks; all must exist."""
    return read_samples(root, splits, masks=None if whole else root / MASKS, colors=root / COLORS, whole=whole)


def read_samples(
    root: Path, splits: Sequence[str], *, masks: Path | None = None, colors: Path | None = None, whole: bool = False
) -> list[Sample]:
    """The garments of some splits, in the files' order, with the box clipped at the photo's edges.

    `masks` and `colors` are what `training.prepare` writes. `whole` leaves the box out, so that the whole photo is
    trained on (the paper's Table 4). One ConfigError names all faults of annotations, photos, boxes, masks and colors.
    """
    unknown = [split for split in splits if split not in PUBLISHED]
    if unknown:
        raise InputError(f"splits must be of {', '.join(PUBLISHED)}, got {', '.join(unknown)}")
    annotations = read_annotations(root)
    names = read_colors(colors) if colors else {}
    folders, faults, samples = PhotoFolders(root), Faults(), []
    for row in (row for split in splits for row in annotations.splits[split]):
        photo, mask = folders.find(row.path), masks and mask_path(masks, row.id)
        size = photo_size(photo)
        box = row.box if size is None else clip_box(row.box, size)
        if size is None:
            faults.add("missing or unreadable photo", row.path)
        elif box is None:
            faults.add("box outside its photo for", row.path)
        if mask and photo_size(mask) not in (None, size):
            faults.add("mask of another size than its photo (remove it) for", row.id)
        elif mask and not mask.is_file():
            faults.add(f"no mask (run `python -m training.prepare masks {root}`) for", row.id)
        if colors and row.id not in names:
            faults.add(f"no color (run `python -m training.prepare colors {root}`) for", row.id)
        samples.append(
            Sample(
                "deepfashion",
                row.id,
                photo,
                box=None if whole else box,
                mask=mask,
                mask_value=1 if mask else None,
                category=row.category,
                color=names.get(row.id),
                attributes=row.attributes,
            )
        )
    refuse(root, faults)
    return samples


def photo_size(photo: Path) -> tuple[int, int] | None:
    """(width, height) in pixels of the upright photo, from the file's header; None if it can't be read."""
    try:
        with Image.open(photo) as image:
            return upright_size(image)
    except _BROKEN:
        return None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in pixels of an opened image, its EXIF orientation applied."""
    turned = image.format != "PNG" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else image.size


def clip_box(box: Box, size: tuple[int, int]) -> Box | None:
    """The part of a box inside a photo of (width, height), or None if there is none."""
    x1, y1, x2, y2 = box
    x1, y1, x2, y2 = max(0, x1), max(0, y1), min(x2, size[0]), min(y2, size[1])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def mask_path(masks: Path, row_id: str) -> Path:
    """The path of a garment's mask."""
    return masks / f"{row_id}.png"


def read_colors(path: Path) -> dict[str, str]:
    """Color by id, from the file of `prepare colors`."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        return {row["id"]: row["color"] if "color" in row else row["colour"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{path} holds no colors ({reason}); make it with `python -m training.prepare colors`"
        ) from None
