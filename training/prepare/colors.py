"""The color of each garment as one of the paper's nine names, for its category prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.inference.colors import dominant_colors, paper_color
from training.data.deepfashion import mask_path
from training.data.io import read_label_image
from training.engine.files import LineFile
from training.prepare.garments import Garment, load_garment

_BATCH = 64


def color_settings(masks: Path | None) -> dict[str, Any]:
    """The file's first line."""
    return {"kind": "colors", "names": "paper's nine", "pixels": "masks" if masks else "boxes"}


def prepare_colors(garments: Sequence[Garment], lines: LineFile, *, masks: Path | None) -> list[tuple[str, str]]:
    """Add the missing colors, and return id and reason of the garments whose photo or mask can't be used.

    Of a row `{"id": …, "color": …, "seen": …, "share": …}`, `color` is one of the nine, `seen` the name in the wider
    palette, `share` its fraction of the garment's pixels: those of its mask, or without `masks` of its box.
    """
    todo = [garment for garment in garments if garment.id not in lines.done]
    failures: list[tuple[str, str]] = []
    rows: list[dict[str, Any]] = []
    for garment in tracked(todo, "colors", len(todo), shown=True, unit="garments"):
        try:
            rows.append(color_of(garment, masks))
        except InputError as error:
            failures.append((garment.id, str(error)))
        if len(rows) == _BATCH:
            lines.append(rows)
            rows = []
    lines.append(rows)
    return failures


def color_of(garment: Garment, masks: Path | None) -> dict[str, Any]:
    """The row of one garment."""
    image, (x1, y1, x2, y2) = load_garment(garment)
    mask = np.zeros((image.height, image.width), dtype=np.bool_)
    mask[y1:y2, x1:x2] = True
    if masks is not None:
        mask = read_label_image(mask_path(masks, garment.id)) == 1
    first, *_ = dominant_colors(np.asarray(image), mask, limit=1) or (None,)
    if first is None:
        raise ImageError(f"the mask of {garment.id} is empty; remove it and run `python -m training.prepare masks`")
    return {"id": garment.id, "color": paper_color((first,)), "seen": first.name, "share": round(first.share, 4)}
