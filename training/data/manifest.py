"""The open data pack: products, clothing and street photos with their labels, as samples of one garment each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import ConfigError
from training.data.io import read_json, read_label_image, read_rows, shown

COLORS = (
    "red", "orange", "yellow", "green", "cyan", "blue", "purple", "black", "gray", "white", "pink", "brown", "beige",
)  # fmt: skip
GROUPS = ("texture", "sleeve", "length", "neckline", "fabric", "fit")
UNINFORMATIVE = {"sleeve": {"na"}, "fabric": {"other"}}
"""Labels that say nothing about the group."""

LABELS: dict[str, dict[str, str]] = tomllib.loads((Path(__file__).parent / "labels.toml").read_text(encoding="utf-8"))
"""How labels of the pack map to categories of the default taxonomy, and to the segmenter's classes."""
BASE_COLORS = {"grey": "gray", "navy blue": "blue"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One garment of one photo."""

    source: str  # "products", "clothing", "street" or "deepfashion"
    id: str  # unique within the source
    photo: Path
    box: tuple[int, int, int, int] | None = None  # xyxy in pixels of the upright photo; None is the whole photo
    mask: Path | None = None  # label image
    mask_value: int | None = None  # the garment's value in it
    category: str | None = None  # of the taxonomy
    color: str | None = None  # one of `COLORS`
    attributes: dict[str, str] = field(default_factory=dict)  # by group; unusable labels are left out
    texts: tuple[str, ...] = ()  # free texts that describe the photo, the most specific first (name, caption …)
    soft_labels: dict[str, dict[str, float]] = field(default_factory=dict)  # a model's probabilities by value


def read_lines(path: Path, split: str | None = None) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file, of one split or all."""
    rows: list[dict[str, Any]] = read_json(path, lines=True)
    wrong = [n for n, row in enumerate(rows, 1) if not isinstance(row, dict) or (split and "split" not in row)]
    if wrong:
        raise ConfigError(f"{path} must hold JSON objects with a split, row {wrong[0]} is none; correct or remove it")
    return rows if split is None else [row for row in rows if row["split"] == split]


def read_held_out(path: Path) -> dict[str, dict[str, Any]]:
    """Held-out attribute words, each with the labels that it should retrieve."""
    words: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["words"]
    return words


def read_synonyms(path: Path, held_out: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Other phrases by group and value, none of which may contain a held-out word."""
    synonyms: dict[str, dict[str, list[str]]] = tomllib.loads(path.read_text(encoding="utf-8"))
    phrases = [phrase for group in synonyms.values() for value in group.values() for phrase in value]
    forbidden = sorted(set(phrases) - set(without_held_out(phrases, list(held_out))))
    if forbidden:
        raise ConfigError(f"{path} contains held-out words: {', '.join(forbidden)}; take them out")
    return synonyms


def without_held_out(texts: list[str], words: list[str]) -> list[str]:
    """Drop every text that contains a held-out word, also in the plural or with a space for a hyphen."""
    spelled = (r"[\s-]".join(map(re.escape, re.split(r"[\s-]", word))) for word in words)
    pattern = re.compile(r"\b(?:" + "|".join(spelled) + r")(?:e?s)?\b", re.IGNORECASE)
    return [text for text in texts if not pattern.search(text)]


def read_captions(root: Path, split: str) -> dict[str, list[str]]:
    """Captions of the targets of pairs.jsonl by product id: both captions of a pair as one text."""
    captions: dict[str, list[str]] = {}
    path = root / "pairs.jsonl"
    for row in read_lines(path, split) if path.is_file() else []:
        captions.setdefault(row["target"], []).append(" and ".join(row["captions"]))
    return captions


def labeled_samples(root: Path, split: str) -> list[Sample]:
    """Garments of attributes.jsonl, in its order; one ConfigError names all faults of the files."""
    faults: list[str] = []
    labeled = ("source", "id", "split", "category", "colour", *GROUPS)
    rows = read_rows(root / "attributes.jsonl", labeled, faults)
    names = {row["id"]: row["name"] for row in read_rows(root / "products.jsonl", ("id", "split", "name"), faults)}
    street = read_rows(root / "street.jsonl", ("id", "split"), faults)
    regions = {row["id"]: row.get("regions", []) for row in street if row["split"] == split}
    rows = [row for row in rows if row["split"] == split]
    known: set[tuple[str, Any, int | None]] = {("products", name, None) for name in names}
    known |= {("street", name, place) for name, found in regions.items() for place in range(len(found))}
    places = [(row["source"], row["id"], row.get("region")) for row in rows if row["source"] != "clothing"]
    absent = [place[1] for place in places if place not in known]
    if absent and not faults:
        faults.append(f"attributes.jsonl labels {len(absent)} products or regions that aren't there: {shown(absent)}")
    if faults:
        raise ConfigError(f"labels in {root}: {'; '.join(faults)}")
    captions = read_captions(root, split)
    samples = []
    for row in rows:
        sample = Sample(
            row["source"],
            row["id"],
            root / row["source"] / split / f"{row['id']}.jpg",
            category=row["category"],
            color=row["colour"],
            attributes={group: row[group] for group in GROUPS if row[group] not in UNINFORMATIVE.get(group, ())},
            texts=(names[row["id"]], *captions.get(row["id"], ())) if row["source"] == "products" else (),
        )
        located = row["source"] == "street"
        samples.append(_with_region(sample, regions[row["id"]][row["region"]]) if located else sample)
    return samples


def extra_samples(root: Path, split: str) -> list[Sample]:
    """Photos and street regions without attribute labels: category, color and free texts where known."""
    labeled = {(row["source"], row["id"]) for row in read_lines(root / "attributes.jsonl", split)}
    captions = read_captions(root, split)
    samples = []
    for row in read_lines(root / "products.jsonl", split):
        if ("products", row["id"]) not in labeled:
            words = row["base_colour"].lower()
            color = BASE_COLORS.get(words, words)
            names = (row["name"], *captions.get(row["id"], ()), f"a photo of {words} {row['article_type'].lower()}")
            category = LABELS["product_categories"].get(row["article_type"])
            photo = root / "products" / split / f"{row['id']}.jpg"
            known = color if color in COLORS else None
            samples.append(Sample("products", row["id"], photo, category=category, color=known, texts=names))
    for row in read_lines(root / "clothing.jsonl", split):
        if ("clothing", row["id"]) not in labeled:
            photo = root / "clothing" / split / f"{row['id']}.jpg"
            texts = (f"a photo of {row['label'].lower()}",)
            category = LABELS["clothing_categories"].get(row["label"])
            samples.append(Sample("clothing", row["id"], photo, category=category, texts=texts))
    for row in read_lines(root / "street.jsonl", split):
        for region in row.get("regions", []):
            if region["label"] in LABELS["street_categories"] and region["area"] >= 0.003:
                photo = root / "street" / split / f"{row['id']}.jpg"
                texts = (f"a photo of {region['label']}",)
                category = LABELS["street_categories"][region["label"]] or None
                samples.append(_with_region(Sample("street", row["id"], photo, category=category, texts=texts), region))
    return samples


def _with_region(sample: Sample, region: dict[str, Any]) -> Sample:
    mask = sample.photo.with_name(f"{sample.id}.mask.png")
    return replace(sample, box=tuple(region["box"]), mask=mask, mask_value=region["label_index"])


def region_mask(sample: Sample) -> NDArray[np.bool_] | None:
    """The garment's mask, (H, W) bool, or None if it has none."""
    if sample.mask is None:
        return None
    mask: NDArray[np.bool_] = read_label_image(sample.mask) == sample.mask_value
    return mask
