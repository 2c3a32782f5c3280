"""Drawn products and pairs in the layout of the open data pack, and a composer's recipe for them."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np

from tests.support.drawn_pack import save_photo, write_lines
from tests.support.tiny import tiny_folder
from training.data.triplets import GROUPS
from training.engine.optimizer import OptimizerConfig
from training.recipes.agcn_settings import Settings, Shape

COLORS = {"red": (200, 30, 40), "green": (30, 150, 60), "blue": (40, 60, 200), "black": (20, 20, 20)}
SLEEVES = {"long_sleeve": (8, 88), "short_sleeve": (24, 72), "sleeveless": (36, 60)}
"""Left and right end of the garment, in pixels."""


def write_products(root: Path) -> Path:
    """Per group one train and one val product a color and sleeve; pairs that change both, and pairs that change one."""
    products, labels, pairs, changes = [], [], [], []
    looks = [(color, sleeve) for color in COLORS for sleeve in SLEEVES]
    for g, group in enumerate(GROUPS):
        for s, split in enumerate(("train", "val")):
            ids = [f"{g}{s}{i:02}" for i in range(len(looks))]
            for name, (color, sleeve) in zip(ids, looks, strict=True):
                pixels = np.full((96, 96, 3), 250, np.uint8)
                left, right = SLEEVES[sleeve]
                pixels[16 + 8 * g : 80, left:right] = COLORS[color]
                save_photo(pixels, root / f"products/{split}/{name}.jpg")
                row = {"id": name, "split": split, "group": group, "base_colour": color.title(), "name": name}
                products.append(row | {"article_type": "Tops", "master_category": "Apparel", "sub_category": "Topwear"})
                labels.append(
                    {"source": "products", "id": name, "split": split, "category": "top", "texture": "solid",
                     "sleeve": sleeve, "length": "no_dress", "neckline": "crew", "fabric": "cotton",
                     "fit": "conventional", "colour": color}
                )  # fmt: skip
            for i, name in enumerate(ids):
                target = (7 * i + 5) % len(looks)
                color, sleeve = looks[target]
                captions = [f"is {color}", f"has {sleeve.replace('_', ' ')}s"]
                row = {"group": group, "split": split, "candidate": name}
                if name != ids[target]:
                    pairs.append(row | {"target": ids[target], "captions": captions})
                other = (i + len(SLEEVES)) % len(looks)
                changes.append(row | {"target": ids[other], "captions": [looks[other][0], f"in {looks[other][0]}"]})
    write_lines(root / "products.jsonl", products)
    write_lines(root / "attributes.jsonl", labels)
    write_lines(root / "street.jsonl", [{"id": "0001", "split": "train"}])
    write_lines(root / "pairs.jsonl", pairs)
    write_lines(root / "pairs_changes.jsonl", changes)
    return root


def recipe(pack: Path, folder: Path) -> Settings:
    """For a tiny encoder, which is written into `folder` too."""
    return Settings(
        data=str(pack),
        source="pairs",
        model=str(tiny_folder(folder / "encoder")),
        output=str(folder / "run"),
        cache=str(folder / "cache"),
        composer=Shape(width=16, depth=1, heads=2, hidden=32, dropout=0.1),
        optimization=OptimizerConfig(steps=120, lr=5e-3, warmup=5, weight_decay=0.01, checkpoint_every=30),
        batch_size=24,
        negatives="gallery",
        derived=200,
        derived_share=0.5,
        held_out=0.2,
        validate_every=10,
        patience=20,
    )


def write_toml(settings: Settings, path: Path) -> Path:
    """A recipe as the commands read it."""
    tables = [field.name for field in fields(settings) if is_dataclass(getattr(settings, field.name))]
    plain = [f.name for f in fields(settings) if f.name not in (*tables, "lr_scales")]
    lines = [f"{name} = {json.dumps(getattr(settings, name))}" for name in plain]
    for table in tables:
        part = getattr(settings, table)
        lines += [f"[{table}]", *(f"{field.name} = {json.dumps(getattr(part, field.name))}" for field in fields(part))]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
