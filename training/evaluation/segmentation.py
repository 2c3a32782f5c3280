"""The segmenter on street photos, and recognition end to end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval import FashionModel, Recognition
from fashion_retrieval._utils.scores import mean_interval
from training.data.manifest import labeled_samples, read_lines
from training.data.pixels import STREET_KINDS
from training.evaluation.metrics import match_boxes
from training.evaluation.portraits import evaluate_close_ups, union_of

_NOT_CLOTHING = frozenset({"null", "hair", "skin"})
_LARGE = 0.03
"""Least area of a garment that must be found, as a fraction of the photo."""
Box = tuple[float, float, float, float]


def evaluate_segmentation(model: FashionModel, root: Path, split: str, names: list[str]) -> dict[str, Any]:
    """Clothing against the rest, garments found, and labeled garments recognized without boxes."""
    rows = [row for row in read_lines(root / "street.jsonl", split) if "regions" in row]
    folder = root / "street" / split
    photos = [folder / f"{row['id']}.jpg" for row in rows]
    clothing = np.array([name not in _NOT_CLOTHING for name in names])
    overlap = union = 0
    found: list[bool] = []
    kinds: list[bool] = []
    garments: dict[str, list[tuple[Box, str]]] = {}
    for row, result in zip(rows, model.recognize_many(photos), strict=True):
        assert isinstance(result, Recognition)  # on_error="raise" yields nothing else
        garments[row["id"]] = [(garment.box, garment.category.name) for garment in result.garments]
        with Image.open(folder / f"{row['id']}.mask.png") as mask:
            truth = clothing[np.asarray(mask)]
        guess = union_of([garment.mask for garment in result.garments], truth.shape)
        overlap += int((truth & guess).sum())
        union += int((truth | guess).sum())
        large = [r for r in row["regions"] if r["area"] >= _LARGE and r["label"] not in _NOT_CLOTHING]
        matches = match_boxes(_boxes([r["box"] for r in large]), _boxes([g.box for g in result.garments]))
        found += [i in matches for i in range(len(large))]
        kinds += [result.garments[j].kind == STREET_KINDS.get(large[i]["label"], "other") for i, j in matches.items()]
    ends, boxed = _end_to_end(garments, root, split)
    return {
        "photos": len(rows),
        "clothing_iou": overlap / union,
        "garments_of_3_percent": len(found),
        "found": float(np.mean(found)),
        "found_interval": mean_interval(np.array(found)),
        "kind_right_when_found": float(np.mean(kinds)),
        "end_to_end": {
            "labeled_garments": len(ends),
            "category_right_and_box": float(np.mean(ends)),
            "category_right_and_box_interval": mean_interval(np.array(ends)),
            "box": float(np.mean(boxed)),
        },
        "near": evaluate_close_ups(model, root, split, names),
    }


def _end_to_end(garments: dict[str, list[tuple[Box, str]]], root: Path, split: str) -> tuple[list[bool], list[bool]]:
    """For each labeled street garment: whether a found one of IoU 0.5 has its category, and whether any has its box."""
    ends, boxed = [], []
    for sample in labeled_samples(root, split):
        if sample.source == "street" and sample.id in garments:
            truth = _boxes([sample.box or ()])
            near = [category for box, category in garments[sample.id] if match_boxes(truth, _boxes([box]))]
            boxed.append(bool(near))
            ends.append(sample.category in near)
    return ends, boxed


def _boxes(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array(rows, dtype=np.float64).reshape(-1, 4)
