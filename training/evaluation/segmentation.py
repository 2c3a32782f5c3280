"""The embedded segmenter on street photos, and recognition end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion_retrieval import FashionModel, Recognition
from training.data.manifest import labeled_samples, read_lines
from training.data.pixels import STREET_KINDS
from training.evaluation.metrics import bootstrap_interval, match_boxes
from training.evaluation.portraits import evaluate_near

_NOT_CLOTHING = frozenset({"null", "hair", "skin"})
_LARGE = 0.03


def evaluate_segmentation(model: FashionModel, root: Path, split: str, names: list[str]) -> dict[str, Any]:
    """Clothing against the rest, garments found, and labeled garments recognized without boxes."""
    rows = [row for row in read_lines(root / "street.jsonl", split) if "regions" in row]
    folder = root / "street" / split
    photos = [folder / f"{row['id']}.jpg" for row in rows]
    clothing = np.array([name not in _NOT_CLOTHING for name in names])
    overlap = union = 0
    found: list[bool] = []
    kinds: list[bool] = []
    recognitions: dict[str, Recognition] = {}
    for row, result in zip(rows, model.recognize_many(list(photos)), strict=True):
        assert isinstance(result, Recognition)  # on_error="raise" yields nothing else
        recognitions[row["id"]] = result
        with Image.open(folder / f"{row['id']}.mask.png") as mask:
            truth = clothing[np.asarray(mask)]
        guess = np.zeros_like(truth)
        for garment in result.garments:
            guess |= garment.mask
        overlap += int((truth & guess).sum())
        union += int((truth | guess).sum())
        large = [r for r in row["regions"] if r["area"] >= _LARGE and r["label"] not in _NOT_CLOTHING]
        matches = match_boxes(_boxes([r["box"] for r in large]), _boxes([g.box for g in result.garments]))
        found += [i in matches for i in range(len(large))]
        kinds += [result.garments[j].kind == STREET_KINDS.get(large[i]["label"], "other") for i, j in matches.items()]
    ends, boxed = _end_to_end(recognitions, root, split)
    return {
        "photos": len(rows),
        "clothing_iou": overlap / union,
        "garments_of_3_percent": len(found),
        "found": float(np.mean(found)),
        "found_interval": _interval(found),
        "kind_right_when_found": float(np.mean(kinds)),
        "end_to_end": {
            "labeled_garments": len(ends),
            "category_right_and_box": float(np.mean(ends)),
            "category_right_and_box_interval": _interval(ends),
            "box": float(np.mean(boxed)),
        },
        "near": evaluate_near(model, root, split, names),
    }


def _end_to_end(recognitions: dict[str, Recognition], root: Path, split: str) -> tuple[list[bool], list[bool]]:
    """For each labeled street garment: whether one of IoU 0.5 has its category, and whether any has the box."""
    ends, boxed = [], []
    for sample in labeled_samples(root, split):
        if sample.source == "street" and sample.id in recognitions:
            garments = recognitions[sample.id].garments
            truth = _boxes([list(sample.box or ())])
            near = [g for g in garments if match_boxes(truth, _boxes([g.box]))]
            boxed.append(bool(near))
            ends.append(any(g.category.name == sample.category for g in near))
    return ends, boxed


def _boxes(rows: list[Any]) -> np.ndarray:
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _interval(hits: list[bool]) -> list[float]:
    values = np.array(hits)
    return bootstrap_interval(len(values), lambda rows: float(values[rows].mean()))
