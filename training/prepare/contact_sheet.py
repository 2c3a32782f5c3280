"""A contact sheet of masks: photos on a grid, darkened outside the mask, with the box and SAM's own estimate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.errors import InputError
from training.data.deepfashion import mask_path
from training.prepare.garments import Garment, load_garment

SHEET = "contact_sheet.png"
_COLUMNS, _ROWS, _TILE = 6, 4, (192, 256)


def draw_sheet(garments: Sequence[Garment], masks: Path) -> Path | None:
    """Draw up to 24 garments, spread evenly over those with a mask; returns the file, or None without masks."""
    ready = [garment for garment in garments if mask_path(masks, garment.id).is_file()]
    count = min(len(ready), _COLUMNS * _ROWS)
    if not count:
        return None
    rows = -(-count // _COLUMNS)
    sheet = Image.new("RGB", (_TILE[0] * min(count, _COLUMNS), _TILE[1] * rows), "white")
    for place in range(count):
        tile = draw_tile(ready[place * len(ready) // count], masks)
        corner = (place % _COLUMNS * _TILE[0], place // _COLUMNS * _TILE[1])
        sheet.paste(tile, (corner[0] + (_TILE[0] - tile.width) // 2, corner[1] + (_TILE[1] - tile.height) // 2))
    with write_atomically(masks / SHEET) as partial:
        sheet.save(partial, "PNG", optimize=True)
    return masks / SHEET


def draw_tile(garment: Garment, masks: Path) -> Image.Image:
    """One photo of the sheet, at most 188 x 252 pixels; a blank one if it can't be read."""
    size = (_TILE[0] - 4, _TILE[1] - 4)
    try:
        image, box = load_garment(garment)
    except InputError:
        return Image.new("RGB", size, "lightgray")
    with Image.open(mask_path(masks, garment.id)) as file:
        iou, mask = file.info.get("iou", "?"), np.asarray(file) == 1
    if mask.shape == (image.height, image.width):
        pixels = np.asarray(image)
        image = Image.fromarray(np.where(mask[..., None], pixels, pixels // 3))
    ratio = min(size[0] / image.width, size[1] / image.height)
    image = image.resize((max(1, round(image.width * ratio)), max(1, round(image.height * ratio))))
    draw = ImageDraw.Draw(image)
    draw.rectangle([round(side * ratio) for side in box], outline=(255, 60, 60))
    draw.rectangle((0, 0, 42, 12), fill="black")
    draw.text((3, 1), str(iou), fill="white")
    return image
