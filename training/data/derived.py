"""Triplets made from labels: two products and, in words, what the target has and the candidate lacks.

They teach a composer the meaning of words, the captions of pairs.jsonl how people write. Only the train split is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from training.data.garments import GARMENTS, read_garments
from training.data.manifest import GROUPS as ATTRIBUTES
from training.data.manifest import labeled_samples, read_lines
from training.data.triplets import GROUPS, Triplet

_MIN_PROBABILITY = 0.7
"""Of a soft label that counts as known."""

_DRAWN = 17
"""Products among which the most similar pair is found."""

_SHADES = {"grey": "grey", "navy blue": "navy", "multi": "colourful", "off white": "off-white"}
_CATEGORIES = {"button_down": "button-up shirt", "tee": "t-shirt", "polo": "polo shirt"}
_SAID: dict[str, dict[str, tuple[str, ...]]] = {
    "texture": {
        "solid": ("plain", "solid", "without a print"), "graphic": ("with a graphic print", "with a slogan"),
        "striped": ("striped", "with stripes"), "lattice": ("checked", "with checks"),
        "other_print": ("printed", "patterned"), "floral": ("floral", "with a floral print"),
        "colour_block": ("with contrast blocks",), "embroidered": ("embroidered", "with embroidery"),
        "pleated": ("pleated", "gathered"), "animal": ("with an animal print",), "dotted": ("with dots",),
    },
    "sleeve": {
        "long_sleeve": ("with long sleeves", "with longer sleeves"),
        "short_sleeve": ("with short sleeves", "short sleeved"), "sleeveless": ("sleeveless", "with no sleeves"),
    },
    "length": {"mini_length": ("shorter",), "maxi_length": ("longer", "full length")},
    "neckline": {
        "collar": ("with a collar", "collared"), "crew": ("with a round neck", "with a crew neck"),
        "v": ("with a v neck",), "scoop": ("with a scoop neck",), "hooded": ("with a hood", "hooded"),
        "square": ("with a square neck",), "boat": ("with a wide neck",), "turtleneck": ("with a high neck",),
        "strapless_halter": ("strapless",),
    },
    "fabric": {"knit": ("knit", "knitted"), "denim": ("in denim",), "chiffon": ("in a flowing fabric",)},
    "fit": {"tight": ("fitted", "tighter"), "loose": ("looser", "with a loose fit")},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Product:
    """Known labels of a product: its group, and values by attribute group, "category" and "color"."""

    id: str
    group: str
    values: Mapping[str, str] = field(default_factory=dict)


def read_products(root: Path, pseudo_labels: Path | None) -> list[Product]:
    """Train products of the three groups with their labels or, without any, confident soft labels."""
    named = [sample for sample in labeled_samples(root, "train") if sample.source == "products"]
    labels = {sample.id: {"category": sample.category or "", **sample.attributes} for sample in named}
    if pseudo_labels is not None and (pseudo_labels / GARMENTS).is_file():
        for sample in read_garments(pseudo_labels):
            if sample.source == "products" and sample.id not in labels:
                best = {
                    group: max(shares.items(), key=lambda item: item[1]) for group, shares in sample.soft_labels.items()
                }
                sure = {group: value for group, (value, probability) in best.items() if probability >= _MIN_PROBABILITY}
                labels[sample.id] = {"category": sample.category or ""} | sure
    products = []
    for row in read_lines(root / "products.jsonl", "train"):
        if row["group"] in GROUPS:
            shade = row["base_colour"].lower()
            values = {"color": _SHADES.get(shade, shade), **labels.get(row["id"], {})}
            products.append(Product(row["id"], row["group"], {k: v for k, v in values.items() if v}))
    return products


def derive(products: Sequence[Product], count: int, generator: torch.Generator) -> list[Triplet]:
    """Make `count` triplets, equally many of each group; pairs without a known difference are skipped.

    In every other triplet the two products are similar and the captions say only what differs, so that the reference
    is needed for the rest.
    """
    by_group = {name: [p for p in products if p.group == name] for name in GROUPS}
    groups = [of_group for of_group in by_group.values() if len(of_group) > 1]
    triplets: list[Triplet] = []
    while groups and len(triplets) < count:
        of_group, alike = groups[len(triplets) % len(groups)], len(triplets) // len(groups) % 2 == 1
        drawn = torch.randperm(len(of_group), generator=generator)[: _DRAWN if alike else 2].tolist()
        candidate, *others = (of_group[row] for row in drawn)
        target = min(others, key=lambda other: len(_differing(candidate, other)) or len(ATTRIBUTES) + 2)
        captions = describe(candidate, target, generator, whole=not alike)
        if captions is not None:
            triplets.append(Triplet(candidate.id, target.id, captions))
    return triplets


def describe(
    candidate: Product, target: Product, generator: torch.Generator, *, whole: bool = True
) -> tuple[str, str] | None:
    """Two captions, "is red with long sleeves" and "has a collar": differences first, then, if `whole`, the rest."""
    new = _differing(candidate, target)
    old = [g for g in ("color", *ATTRIBUTES) if _phrases(target, g) and g not in new] if whole else []
    if not new:
        return None
    order = [*_shuffled(new, generator), *_shuffled(old, generator)]
    size = 2 + int(torch.randint(3, (), generator=generator))
    said = [_one(_phrases(target, group), generator) for group in order[:size]]
    category = target.values.get("category", "")
    if category and whole and float(torch.rand((), generator=generator)) < 0.5:
        noun = _CATEGORIES.get(category, category.replace("_", " "))
        said.insert(0, f"a {noun}")
    half = max(1, len(said) // 2)
    first, second = said[:half], said[half:] or said[:1]
    return f"is {' '.join(first)}", _one((f"is {' and '.join(second)}", f"{', '.join(second)}"), generator)


def _differing(candidate: Product, target: Product) -> list[str]:
    """Groups with a phrase for the target's value, which the candidate isn't known to have."""
    groups = ("color", *ATTRIBUTES)
    return [g for g in groups if _phrases(target, g) and target.values[g] != candidate.values.get(g)]


def _phrases(product: Product, group: str) -> tuple[str, ...]:
    value = product.values.get(group, "")
    return (value,) * bool(value) if group == "color" else _SAID[group].get(value, ())


def _shuffled(groups: list[str], generator: torch.Generator) -> list[str]:
    return [groups[int(i)] for i in torch.randperm(len(groups), generator=generator)]


def _one(phrases: tuple[str, ...], generator: torch.Generator) -> str:
    return phrases[int(torch.randint(len(phrases), (), generator=generator))]
