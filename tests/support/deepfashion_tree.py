"""Drawn trees in the layout of DeepFashion's fine annotations: garments whose labels can be seen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from training.data.deepfashion_labels import ATTRIBUTES, CATEGORIES, PUBLISHED

SIZE = (96, 128)
"""(width, height) of a photo in pixels."""
COLORS = {
    "red": (205, 30, 40), "orange": (240, 130, 25), "yellow": (240, 215, 40), "green": (45, 145, 60),
    "cyan": (40, 190, 200), "blue": (35, 75, 170), "purple": (120, 55, 150), "black": (25, 25, 28),
    "gray": (130, 132, 136),
}  # fmt: skip
KINDS = ("Tee", "Blouse", "Jacket", "Jeans", "Skirt", "Dress")
"""The categories that are drawn; the merged Sundress is written for every fifth dress."""
SMALL = {"train": 12, "val": 4, "test": 6}
_HEM = (250, 215, 175, 110, 70, 35)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A garment and its labels.

    Attributes:
        box: xyxy in pixels as drawn; the annotation of every seventh passes the photo's edge.
    """

    path: str
    category: str
    color: str
    attributes: dict[str, str]
    box: tuple[int, int, int, int]


def photo_path(number: int) -> str:
    """As the first release names it; hyphens are part of item names."""
    return f"img/Drawn_Two-Tone_Garment_{number // 5:03d}/img_{number % 5 + 1:08d}.jpg"


def draw_garment(number: int) -> tuple[Drawn, Image.Image]:
    """Labels drawn by chance from `number`, and the photo that shows them."""
    chance = np.random.default_rng(number)
    labels = {group: values[int(chance.integers(len(values)))] for group, values in ATTRIBUTES.items()}
    category, color = KINDS[int(chance.integers(len(KINDS)))], [*COLORS][int(chance.integers(len(COLORS)))]
    half = {"tight": 14, "conventional": 20, "loose": 26}[labels["fit"]] + KINDS.index(category) % 3
    bottom = {"no_dress": 72, "mini_length": 92, "maxi_length": 116}[labels["dress_length"]]
    x1, y1, x2, y2 = 48 - half, 24 + KINDS.index(category), 48 + half, bottom
    light = int(chance.integers(215, 250))
    image = Image.new("RGB", SIZE, (light, light, light - 6))
    draw = ImageDraw.Draw(image)
    _draw_texture(draw, (x1, y1, x2, y2), COLORS[color], labels["texture"])
    sleeve = {"sleeveless": 0, "short_sleeve": 16, "long_sleeve": 44}[labels["sleeve_length"]]
    box = (x1, y1, x2, y2)
    if sleeve:
        for left in (x1 - 8, x2):
            draw.rectangle((left, y1, left + 7, min(y1 + sleeve, y2 - 1)), fill=COLORS[color])
        box = (x1 - 8, y1, x2 + 8, y2)
    neck = {"crew_neckline": draw.ellipse, "square_neckline": draw.rectangle}.get(labels["neckline"])
    if neck is not None:
        neck((40, y1 - 8, 56, y1 + 8), fill=(225, 180, 150))
    elif labels["neckline"] == "v_neckline":
        draw.polygon(((40, y1), (56, y1), (48, y1 + 18)), fill=(225, 180, 150))
    shade = _HEM[ATTRIBUTES["fabric"].index(labels["fabric"])]
    draw.rectangle((x1, y2 - 7, x2 - 1, y2 - 1), fill=(shade, shade, shade))
    return Drawn(photo_path(number), category, color, labels, box), image


def _draw_texture(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], fill: tuple[int, int, int], name: str
) -> None:
    x1, y1, x2, y2 = box
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=fill)
    ink = (255, 255, 255) if sum(fill) < 380 else (0, 0, 0)
    if name in ("striped", "lattice"):
        for y in range(y1 + 4, y2, 9):
            draw.line((x1, y, x2 - 1, y), fill=ink)
    if name in ("pleated", "lattice"):
        for x in range(x1 + 4, x2, 9):
            draw.line((x, y1, x, y2 - 1), fill=ink)
    if name == "graphic":
        draw.rectangle((43, y1 + 20, 53, y1 + 30), fill=ink)
    if name in ("floral", "embroidered"):
        radius = 2 if name == "floral" else 1
        for y in range(y1 + 24, y2 - 10, 12):
            for x in range(x1 + 4, x2 - 3, 10):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def annotated_box(number: int, garment: Drawn) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = garment.box
    return (x1, y1, x2, SIZE[1] + 9) if number % 7 == 0 else (x1, y1, x2, y2)


def write_tree(
    root: Path, counts: dict[str, int] = SMALL, *, annotations: str = "Anno_fine", photos: str = ""
) -> dict[str, list[Drawn]]:
    """Draw a tree; `photos` is what stands before img/ on disk, "Img" in one release. Returns the garments by split."""
    folder, number, trees = root / annotations, 0, {}
    for split, count in counts.items():
        drawn = []
        for _ in range(count):
            garment, image = draw_garment(number)
            drawn.append((number, garment))
            path = root / photos / garment.path
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=92, subsampling=0)
            number += 1
        write_annotations(folder, split, drawn)
        trees[split] = [garment for _, garment in drawn]
    write_lists(folder, [garment for drawn in trees.values() for garment in drawn])
    return trees


def labels_line(attributes: dict[str, str], negative: int = 0) -> str:
    marks = (1 if attributes.get(group) == v else negative for group, values in ATTRIBUTES.items() for v in values)
    return " ".join(map(str, marks))


def category_number(number: int, category: str) -> int:
    written = "Sundress" if category == "Dress" and number % 5 == 0 else category
    return CATEGORIES.index(written) + 1


def write_annotations(folder: Path, split: str, drawn: list[tuple[int, Drawn]]) -> None:
    """The five files of a split; rows of labels end in a space, as published."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        "": [garment.path for _, garment in drawn],
        "_attr": [labels_line(garment.attributes) + " " for _, garment in drawn],
        "_cate": [str(category_number(number, garment.category)) for number, garment in drawn],
        "_bbox": [" ".join(map(str, annotated_box(number, garment))) for number, garment in drawn],
        "_landmarks": [" ".join(map(str, range(16)))] * len(drawn),
    }
    for part, lines in rows.items():
        (folder / f"{split}{part}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_lists(folder: Path, garments: list[Drawn]) -> None:
    """The lists with a header; photos in the other release's spelling, labels as -1 and 1."""
    values = [(value, kind) for kind, group in enumerate(ATTRIBUTES.values(), start=1) for value in group]
    spelled = [garment.path.replace("img/", "img_highres_subset/").replace("/img_", "-img_") for garment in garments]
    rows = {
        "list_attr_cloth": [f"{value:<20}{kind}" for value, kind in values],
        "list_category_cloth": [f"{category:<20}1" for category in CATEGORIES],
        "list_attr_img": [
            f"{path}  {labels_line(garment.attributes, -1)}" for path, garment in zip(spelled, garments, strict=True)
        ],
    }
    for name, lines in rows.items():
        (folder / f"{name}.txt").write_text(f"{len(lines)}\nname value\n" + "\n".join(lines) + "\n", encoding="utf-8")


def write_stubs(root: Path) -> None:
    """A tree of the published size: every photo is a link to one file of `SIZE`."""
    garment, image = draw_garment(1)
    root.mkdir(parents=True, exist_ok=True)
    image.save(root / "stub.jpg")
    number = 0
    for split, count in PUBLISHED.items():
        numbers = range(number, number + count)
        drawn = [(n, Drawn(photo_path(n), garment.category, "red", garment.attributes, garment.box)) for n in numbers]
        write_annotations(root / "Anno_fine", split, drawn)
        for _, stub in drawn:
            path = root / stub.path
            if path.name == "img_00000001.jpg":
                path.parent.mkdir(parents=True)
            os.link(root / "stub.jpg", path)
        number += count
