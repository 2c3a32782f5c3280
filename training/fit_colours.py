"""Fit the naming of colours on the labelled garments of the open data pack, and measure it.

    python -m training.fit_colours --data ../shared/data

Every labelled garment is a bag of pixels; the network names each pixel, and the mean over the bag should be the
garment's colour (with a part for its second colour). Products without a label add their metadata's base colour at a
lower weight. `--folds 4` cross-validates on `train` instead of writing the weights.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.colours import ColourModel, dominant_colours, sample, to_lab
from fashion_retrieval.taxonomy import Taxonomy
from training.data.manifest import COLOURS, read_lines
from training.data.regions import Mask, studio_mask, subject_mask

ASSET = Path(__file__).parents[1] / "src/fashion_retrieval/assets/colours.json"
SKIN_INDEX = 41
BASE_COLOURS = {
    **{name.capitalize(): name for name in COLOURS if name not in ("gray", "cyan")},
    **{"Grey": "gray", "Grey Melange": "gray", "Charcoal": "gray", "Navy Blue": "blue", "Maroon": "red"},
    **{"Burgundy": "red", "Olive": "green", "Sea Green": "green", "Lavender": "purple", "Khaki": "beige"},
    **{"Cream": "beige", "Mustard": "yellow", "Teal": "cyan", "Turquoise Blue": "cyan", "Peach": "pink", "Tan": "brown"},
}
BASE_KINDS = {
    **{"Topwear": "upper", "Bottomwear": "trousers", "Dress": "dress", "Saree": "dress", "Shoes": "footwear"},
    **{"Sandal": "footwear", "Flip Flops": "footwear", "Bags": "bag", "Headwear": "headwear", "Ties": "other"},
    **{"Scarves": "other", "Mufflers": "other", "Socks": "other"},
}
"""Sub-categories of products whose base colour is used, and their kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `fit` can be told; chosen by cross-validation on `train`."""

    hidden: int = 32
    epochs: int = 14
    lr: float = 5e-3
    weight_decay: float = 1e-3
    smoothing: float = 0.06
    second_share: float = 0.25
    extra_weight: float = 0.3
    light_jitter: float = 2.0
    plain_share: float = 0.05
    pixels: int = 96
    batch: int = 64
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Bags:
    """Garments as pixels: CIELAB (N, P, 3), which count (N, P), the photo's light (N, 6), targets (N, 13), weights."""

    pixels: Tensor
    counts: Tensor
    around: Tensor
    target: Tensor
    weight: Tensor
    fold: NDArray[np.int64]


def garment_mask(row: dict[str, Any], rgb: NDArray[np.uint8], path: Path, kind: str | None) -> Mask:
    """The garment of a labelled row: its pixel mask (street), or the best estimate without one."""
    if row["source"] == "street":
        mask: Mask = np.asarray(Image.open(path.with_suffix(".mask.png"))) == row["label_index"]
        return mask
    return product_mask(rgb, kind) if row["source"] == "products" else subject_mask(rgb)


def product_mask(rgb: NDArray[np.uint8], kind: str | None) -> Mask:
    """The part of a studio photo where a garment of this kind is, on a person (who has a face) or alone."""
    subject = studio_mask(rgb)
    rows = np.flatnonzero(subject.any(axis=1))
    top, height = int(rows[0]), int(rows[-1] - rows[0]) + 1
    head = subject[top : top + height // 4]
    face = _skin_hue(rgb[top : top + height // 4])[head].mean() > 0.12 if head.any() else False
    if kind in ("trousers", "shorts", "skirt", "legwear"):
        first, last = 0.18, 0.85
    elif kind not in ("upper", "outerwear", "dress") or not face:
        first, last = 0.0, 1.0
    else:
        first, last = (0.22, 0.80) if kind == "dress" else (0.24, 0.68)
    band = np.zeros_like(subject)
    band[top + int(first * height) : top + int(last * height)] = True
    return subject & band if (subject & band).any() else subject


def _skin_hue(rgb: NDArray[np.uint8]) -> Mask:
    lab = to_lab(rgb)
    chroma, hue = np.hypot(lab[..., 1], lab[..., 2]), np.degrees(np.arctan2(lab[..., 2], lab[..., 1]))
    skin: Mask = (lab[..., 0] > 25) & (hue > 22) & (hue < 75) & (chroma > 12) & (chroma < 48)
    return skin


def labelled(data: Path, split: str) -> list[dict[str, Any]]:
    """Rows of attributes.jsonl with a colour; street rows know their label index."""
    regions = {row["id"]: row["regions"] for row in read_lines(data / "street.jsonl") if "regions" in row}
    rows = [row for row in read_lines(data / "attributes.jsonl", split) if row.get("colour") in COLOURS]
    for row in rows:
        if row["source"] == "street":
            row["label_index"] = regions[row["id"]][row["region"]]["label_index"]
    return rows


def with_metadata(data: Path, known: set[str]) -> list[dict[str, Any]]:
    """Unlabelled train products as rows whose colour is the base colour of the shop."""
    return [
        {"source": "products", "id": row["id"], "split": "train", "kind": BASE_KINDS[row["sub_category"]], "extra": True}
        | {"colour": BASE_COLOURS[row["base_colour"]]}
        for row in read_lines(data / "products.jsonl", "train")
        if row["id"] not in known and row["base_colour"] in BASE_COLOURS and row["sub_category"] in BASE_KINDS
    ]


def load(data: Path, row: dict[str, Any], kinds: dict[str, str | None]) -> tuple[NDArray[np.uint8], Mask]:
    """Photo and garment mask of a row."""
    path = data / row["source"] / row["split"] / f"{row['id']}.jpg"
    rgb = np.asarray(Image.open(path).convert("RGB"))
    return rgb, garment_mask(row, rgb, path, row.get("kind") or kinds.get(row.get("category", "")))


def read_bags(data: Path, cache: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], list[dict[str, Any]]]:
    """Pixels (N, 512, 3) and light (N, 6) in CIELAB of all train rows, kept in `cache` between runs."""
    rows = labelled(data, "train")
    rows += with_metadata(data, {row["id"] for row in rows if row["source"] == "products"})
    if cache.exists():
        with np.load(cache) as stored:
            if len(stored["around"]) == len(rows):
                return stored["pixels"].astype(np.float32), stored["around"], rows
    kinds = category_kinds()
    pixels, around = np.empty((len(rows), 512, 3), dtype=np.float16), np.empty((len(rows), 6), dtype=np.float32)
    for index, row in enumerate(rows):
        rgb, mask = load(data, row, kinds)
        chosen, around[index] = sample(rgb, mask)
        draw = np.random.default_rng(index)
        pixels[index] = to_lab(chosen)[draw.choice(len(chosen), 512, replace=len(chosen) < 512)]
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, pixels=pixels, around=around)
    return pixels.astype(np.float32), around, rows


def category_kinds() -> dict[str, str | None]:
    """Kind of region by category."""
    return {value.name: value.kind for value in Taxonomy.load("default").category.values}
