"""Triplets made from labels: two products and, in words, what the target has and the candidate lacks.

They teach a composer the meaning of words, the captions of pairs.jsonl how people write. Only the train split is read.
"""

from __future__ import annotations

import tomllib
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

_WORDS = tomllib.loads((Path(__file__).parent / "phrases.toml").read_text(encoding="utf-8"))
"""Words for labels: "shades", "categories", and phrases "said" by group and value."""


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
                best = {group: max(shares, key=lambda v: shares[v]) for group, shares in sample.soft_labels.items()}
                sure = {g: v for g, v in best.items() if sample.soft_labels[g][v] >= _MIN_PROBABILITY}
                labels[sample.id] = {"category": sample.category or ""} | sure
    products = []
    for row in read_lines(root / "products.jsonl", "train"):
        if row["group"] in GROUPS:
            shade = row["base_colour"].lower()
            values = {"color": _WORDS["shades"].get(shade, shade), **labels.get(row["id"], {})}
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
    order = [groups[i] for groups in (new, old) for i in torch.randperm(len(groups), generator=generator).tolist()]
    size = 2 + int(torch.randint(3, (), generator=generator))
    said = [_one(_phrases(target, group), generator) for group in order[:size]]
    category = target.values.get("category", "")
    if category and whole and float(torch.rand((), generator=generator)) < 0.5:
        said.insert(0, f"a {_WORDS['categories'].get(category, category.replace('_', ' '))}")
    half = max(1, len(said) // 2)
    first, second = said[:half], said[half:] or said[:1]
    return f"is {' '.join(first)}", _one((f"is {' and '.join(second)}", f"{', '.join(second)}"), generator)


def _differing(candidate: Product, target: Product) -> list[str]:
    """Groups with a phrase for the target's value, which the candidate isn't known to have."""
    groups = ("color", *ATTRIBUTES)
    return [g for g in groups if _phrases(target, g) and target.values[g] != candidate.values.get(g)]


def _phrases(product: Product, group: str) -> list[str]:
    value = product.values.get(group, "")
    return [value] * bool(value) if group == "color" else _WORDS["said"][group].get(value, [])


def _one(phrases: Sequence[str], generator: torch.Generator) -> str:
    return phrases[int(torch.randint(len(phrases), (), generator=generator))]
