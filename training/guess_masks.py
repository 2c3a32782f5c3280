"""Draw masks of users' photos that have none with a trained segmenter; the next training learns from them, too.

A photo names the class of its one garment, so the segmenter has to know only where clothing is (Xie et al., 2020).

python -m training.guess_masks training/configs/guess_compact.toml
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import with_config

from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.images.load import load_image
from fashion_retrieval.models.garments import BACKGROUND, PERSON
from fashion_retrieval.models.segmenter import GarmentSegmenter
from fashion_retrieval.taxonomy import FAMILIES
from training.data.pixels import GARMENT, SOMEBODY, UNKNOWN, clothing_photos, flat_lay_photos
from training.engine.errors import one_line_errors
from training.engine.settings import SCHEMA, read_settings
from training.export.parts import load_segmenter

_SURE = 0.75
_LEAST = 0.03
"""Of the photo that the garment must fill."""
_NOBODY = 0.012
"""Of the photo, at most, is person where nobody wears the garment: all clothing is of it."""


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str  # the open data pack
    segmenter: str  # folder of `training.train_segmenter`
    output: str  # folder for the masks


def guess(segmenter: GarmentSegmenter, image: Image.Image, kind: str) -> NDArray[np.uint8]:
    """The mask of the garment of a known kind: (H, W), 0 background, `GARMENT`, `SOMEBODY` or `UNKNOWN`.

    Where somebody is in the photo, clothing of another family of kinds is unknown: it is not the garment.
    """
    names = segmenter.config.classes
    mirrored = segmenter.probabilities(ImageOps.mirror(image))[:, :, ::-1]
    seen = (segmenter.probabilities(image) + mirrored) * np.float32(0.5)
    background, person = seen[names.index(BACKGROUND)], seen[names.index(PERSON)]
    clothing = 1 - background - person
    alike = {kind}.union(*(family for family in FAMILIES if kind in family))
    own = clothing
    if person.mean() > _NOBODY:
        own = seen[[names.index(name) for name in alike]].sum(0)
    mask = np.full(clothing.shape, UNKNOWN, np.uint8)
    mask[background > _SURE] = 0
    mask[person > _SURE] = SOMEBODY
    mask[own > _SURE] = GARMENT
    return mask


@one_line_errors()
def main(config: Path) -> None:
    """Draw the masks as a TOML file says; those that are there already stay."""
    settings = read_settings(config, Settings)
    root, output = Path(settings.data), Path(settings.output)
    segmenter = load_segmenter(Path(settings.segmenter))
    output.mkdir(parents=True, exist_ok=True)
    drawn = {photo.path for photo in flat_lay_photos(root, "train")}
    photos = [photo for photo in clothing_photos(root, "train") if photo.path not in drawn]
    for photo in tracked(photos, "photos", len(photos), shown=True):
        place = output / f"{photo.path.stem}.mask.png"
        if place.is_file():
            continue
        image = load_image(photo.path)
        mask = guess(segmenter, image, photo.kinds[0])
        if (mask == GARMENT).mean() >= _LEAST:
            levels = Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST)
            part = place.with_suffix(".part")
            levels.save(part, "png")
            part.replace(place)
    typer.echo(f"{len(list(output.glob('*.mask.png')))} masks in {output}")


if __name__ == "__main__":
    typer.run(main)
