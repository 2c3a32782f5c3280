"""A drawn data pack in the layout of the real one, and the log of a training on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STREET_LABELS = ["null", "bag", "boots", "dress", "hair", "jacket", "pants", "ring", "shoes", "skin"]
STREET_COLORS = np.random.default_rng(7).integers(20, 240, (10, 3)).astype(np.uint8)
SCENES = {
    "0001": [("hair", 24, 4, 40, 14), ("skin", 26, 14, 38, 24), ("dress", 18, 24, 46, 70), ("bag", 46, 50, 52, 53),
             ("boots", 20, 82, 44, 92), ("ring", 14, 56, 15, 57)],
    "0002": [("skin", 26, 6, 38, 20), ("jacket", 16, 20, 48, 52), ("pants", 20, 52, 44, 84), ("shoes", 20, 86, 44, 92)],
    "0004": [("dress", 10, 10, 50, 80)],
}  # fmt: skip
"""Label and xyxy box of what is drawn, 64 pixels wide and 96 high."""
PRODUCTS = [
    ("1", "train", "Topwear", "Tshirts", "Blue", "Lark Men Blue T-shirt"),
    ("2", "train", "Topwear", "Shirts", "Navy Blue", "Mara Men Plaid Shirt"),
    ("3", "train", "Dress", "Dresses", "Red", "Ines Women Red Dress"),
    ("4", "train", "Bags", "Handbags", "Black", "Roya Women Black Handbag"),
    ("5", "train", "Bottomwear", "Jeans", "Blue", "Toro Men Blue Jeans"),
    ("6", "train", "Bags", "Handbags", "Khaki", "Noor Women Handbag"),
    ("7", "train", "Topwear", "Tshirts", "Grey", "Lark Women Oversized T-shirt"),
    ("8", "val", "Shoes", "Casual Shoes", "White", "Toro White Shoes"),
]
CLOTHING = [("c1", "train", "Dress"), ("c2", "train", "Shoes"), ("c3", "train", "Hat"), ("c4", "val", "Skirt")]
NOTHING = {"sleeve": "na", "length": "no_dress", "neckline": "none", "fabric": "other", "fit": "conventional"}
WORN = {"sleeve": "short_sleeve", "length": "no_dress", "neckline": "crew", "fabric": "cotton", "fit": "loose"}


def label(source: str, name: str, category: str, texture: str, color: str, **more: Any) -> dict[str, Any]:
    row = {"source": source, "id": name, "split": "train", "category": category, "texture": texture, "colour": color}
    return {**row, **WORN, **more}


LABELLED = [
    label("products", "1", "tee", "solid", "blue"),
    label("products", "2", "button_down", "lattice", "blue"),
    label("products", "3", "dress", "floral", "red", length="maxi_length"),
    label("products", "4", "handbag", "solid", "black", **NOTHING),
    label("clothing", "c1", "dress", "dotted", "green"),
    label("clothing", "c3", "hat", "solid", "white", **NOTHING),
    label("street", "0001", "dress", "solid", "red", region=0),
    label("street", "0002", "jacket", "solid", "green", region=0),
    label("street", "0002", "trousers", "striped", "blue", region=1, **NOTHING),
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def save_photo(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def one_garment(number: int, background: int) -> NDArray[np.uint8]:
    """A studio or bed photo, 96 wide and 128 high: a rectangle of its own color."""
    pixels = np.full((128, 96, 3), background, dtype=np.uint8)
    pixels[24:104, 20:76] = np.random.default_rng(number).integers(20, 170, 3)
    return pixels


GARMENT_MASK = np.zeros((128, 96), dtype=np.uint8)
"""Of `one_garment`."""
GARMENT_MASK[24:104, 20:76] = 1


def street_row(name: str, split: str, scene: list[tuple[str, int, int, int, int]]) -> dict[str, Any]:
    regions = [
        {
            "label": label,
            "label_index": STREET_LABELS.index(label),
            "box": [left, top, right, bottom],
            "area": round((right - left) * (bottom - top) / (64 * 96), 5),
        }
        for label, left, top, right, bottom in scene
        if label not in ("hair", "skin")
    ]
    return {"id": name, "split": split, "width": 64, "height": 96, "regions": regions}


def labels_of(scene: list[tuple[str, int, int, int, int]]) -> NDArray[np.uint8]:
    labels = np.zeros((96, 64), dtype=np.uint8)
    for label, left, top, right, bottom in scene:
        labels[top:bottom, left:right] = STREET_LABELS.index(label)
    return labels


def write_pack(root: Path) -> Path:
    """products, clothing, street, attributes and the street labels: every key of the real files, drawn photos."""
    (root / "street_labels.json").write_text(json.dumps(STREET_LABELS))
    rest = {"gender": "Unisex", "master_category": "Apparel", "season": "Fall", "usage": "Casual", "group": None}
    keys = ("id", "split", "sub_category", "article_type", "base_colour", "name")
    products = [{**dict(zip(keys, row, strict=True)), **rest} for row in PRODUCTS]
    write_lines(root / "products.jsonl", products)
    write_lines(root / "clothing.jsonl", [{"id": i, "split": s, "label": x, "kids": False} for i, s, x in CLOTHING])
    tagged = {"id": "0003", "split": "train", "width": 64, "height": 96, "tags": ["jacket", "pants", "shoes"]}
    street = [street_row(name, "val" if name == "0004" else "train", scene) for name, scene in SCENES.items()]
    write_lines(root / "street.jsonl", [*street, tagged])
    held_back = label("clothing", "c4", "skirt", "solid", "blue", split="val")
    write_lines(root / "attributes.jsonl", [*LABELLED, held_back])
    for number, (name, split, *_) in enumerate(PRODUCTS):
        save_photo(one_garment(number, 252), root / f"products/{split}/{name}.jpg")
    for number, (name, split, _) in enumerate(CLOTHING):
        save_photo(one_garment(10 + number, 200), root / f"clothing/{split}/{name}.jpg")
    masked = [row for row in CLOTHING if row[0] in ("c1", "c4")]
    rows = [{"id": name, "split": split, "label": kind, "worn": False} for name, split, kind in masked]
    write_lines(root / "clothing_masks.jsonl", rows)
    for name, split, _ in masked:
        Image.fromarray(GARMENT_MASK).save(root / f"clothing/{split}/{name}.mask.png")
    for row in street:
        folder, labels = root / "street" / row["split"], labels_of(SCENES[row["id"]])
        save_photo(STREET_COLORS[labels], folder / f"{row['id']}.jpg")
        Image.fromarray(labels).save(folder / f"{row['id']}.mask.png")
    return root


def clear_left(pack: Path, columns: int) -> None:
    """Nothing is worn in the left columns of the street photos, by their masks."""
    for path in (pack / "street").glob("*/*.mask.png"):
        with Image.open(path) as image:
            labels = np.array(image)
        labels[:, :columns] = 0
        Image.fromarray(labels).save(path)


def log_of(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
