"""Masks of photos whose class is known, drawn with a segmenter, and read for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval.config import SegmenterConfig
from tests.support.drawn_pack import write_pack
from training import guess_masks
from training.data.pixels import CLASSES, EXACT, GARMENT, IGNORED, SOMEBODY, UNKNOWN, bits, guessed_photos, load_photos

SIZE = 32, 40
SHIRT, FACE, TROUSERS, EDGE = (4, 4, 16, 16), (4, 20, 12, 28), (16, 4, 28, 16), (28, 0, 32, 40)


class Sure:
    """Sees a shirt, a face where there is one, trousers and a floor that may be a shirt."""

    config = SegmenterConfig(
        architecture="none", image_size=(32, 32), classes=CLASSES, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )

    def __init__(self, face: float) -> None:
        self.face = face

    def probabilities(self, image: Image.Image) -> NDArray[np.float32]:
        mirrored = image.getpixel((0, 0)) != (255, 255, 255)
        seen = np.zeros((len(CLASSES), *SIZE), np.float32)
        for kind, share, (top, left, bottom, right) in (
            ("upper", 0.9, SHIRT), ("person", self.face, FACE), ("trousers", 0.9, TROUSERS), ("upper", 0.6, EDGE),
        ):  # fmt: skip
            seen[CLASSES.index(kind), top:bottom, left:right] = share
        seen[0] = 1 - seen.sum(0)
        return seen[:, :, ::-1] if mirrored else seen


@pytest.fixture
def photo() -> Image.Image:
    image = Image.new("RGB", (SIZE[1], SIZE[0]), "black")
    image.putpixel((0, 0), (255, 255, 255))
    return image


def at(mask: NDArray[np.uint8], box: tuple[int, int, int, int]) -> list[int]:
    return np.unique(mask[box[0] : box[2], box[1] : box[3]]).tolist()


def test_where_nobody_is_all_clothing_is_the_garment(photo: Image.Image) -> None:
    mask = guess_masks.guess(Sure(face=0.0), photo, "outerwear")
    assert at(mask, SHIRT) == at(mask, TROUSERS) == [GARMENT]
    assert at(mask, FACE) == [0]
    assert at(mask, EDGE) == [UNKNOWN]


def test_on_somebody_other_garments_are_unknown(photo: Image.Image) -> None:
    mask = guess_masks.guess(Sure(face=0.9), photo, "outerwear")
    assert at(mask, SHIRT) == [GARMENT]  # a kind of its family
    assert at(mask, FACE) == [SOMEBODY]
    assert at(mask, TROUSERS) == at(mask, EDGE) == [UNKNOWN]


def test_training_reads_the_masks_with_the_photos_class(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    every = guess_masks.clothing_photos(pack, "train")
    with Image.open(every[0].path) as image:
        size = image.size
    values = np.full((size[1], size[0]), UNKNOWN, np.uint8)
    values[:8], values[8:16], values[16:24] = 0, GARMENT, SOMEBODY
    folder = tmp_path / "guessed"
    folder.mkdir()
    Image.fromarray(values).save(folder / f"{every[0].path.stem}.mask.png")
    (found,) = guessed_photos(pack, "train", folder)
    assert found.path == every[0].path
    _, allowed, tags = load_photos([found], (size[1], size[0]), pack, "drawn")
    assert tags.tolist() == [EXACT]
    rows = [allowed[0, row].unique().tolist() for row in (4, 12, 20, 30)]
    assert rows == [[bits("background")], [bits(*found.kinds)], [bits("person")], [IGNORED]]
