"""What a photo can't show, on a drawn pack and a model whose answers are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.images.preprocess import RGB
from fashion_retrieval.inference.recognition import Recognizer
from fashion_retrieval.models.towers import Floats
from fashion_retrieval.taxonomy import Group, Taxonomy
from tests.support.drawn_pack import NOTHING, clear_left, label, write_lines, write_pack
from training.data.cuts import CUTS
from training.data.manifest import labeled_samples
from training.evaluation import visibility
from training.evaluation.visibility import evaluate_visibility, f1

DEFAULT = Taxonomy.load("default")
SAID = {"sleeve": ("short_sleeve", "sleeves_out_of_view"), "length": ("mini_length", "hem_out_of_view"),
        "neckline": ("crew", "none")}  # fmt: skip


class Judge:
    """Takes parts of less than 2,000 pixels for parts that show nothing, and everything for a dress."""

    taxonomy, thresholds = DEFAULT, {"neckline": 0.5}

    def embed(self, images: Sequence[RGB], batch_size: int) -> Floats:
        return np.array([[image.shape[0] * image.shape[1]] for image in images], np.float32)

    def category_probabilities(self, crop: Floats, color: str) -> Floats:
        names = [value.name for value in DEFAULT.category.values]
        return np.eye(len(names), dtype=np.float32)[names.index("dress")] * (0.8 if crop[0] >= 2000 else 0.4)

    def category_context(self, probabilities: Floats) -> None:
        return None

    def attribute_probabilities(self, view: Floats, group: Group, context: None) -> Floats:
        names = [value.name for value in group.values]
        return np.eye(len(names), dtype=np.float32)[names.index(SAID[group.name][int(view[0] < 2000)])]


def found(name: str, probability: float, pixels: int) -> SimpleNamespace:
    return SimpleNamespace(mask=np.arange(100) < pixels, category=SimpleNamespace(name=name, probability=probability))


class Model:
    """A model with a judge; on users' photos it finds a small tee and a large dress, or nothing."""

    def recognizer(self, taxonomy: str, top_k: int) -> Judge:
        return Judge()

    def recognize(self, photo: Path, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(garments=[found("tee", 0.9, 5), found("dress", 0.7, 9)] if photo.stem == "c1" else [])


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    root = write_pack(tmp_path)
    rows = [
        label("products", "1", "tee", "solid", "blue"),
        label("products", "3", "dress", "floral", "red", length="maxi_length"),
        label("clothing", "c1", "dress", "dotted", "green"),
        label("clothing", "c3", "hat", "solid", "white", **NOTHING),
    ]
    write_lines(root / "attributes.jsonl", rows)
    write_lines(root / "clothing_masks.jsonl", [{"id": "c1", "split": "train", "label": "Dress", "worn": False}])
    mask = np.zeros((128, 96), np.uint8)
    mask[24:104, 20:76] = 1
    Image.fromarray(mask).save(root / "clothing/train/c1.mask.png")
    return root


def test_figures_by_hand(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "attribute_view", lambda crop, masked: crop)
    metrics = evaluate_visibility(cast(FashionModel, Model()), pack, "train")
    assert (metrics["garments"], metrics["views"]) == (3, dict.fromkeys(CUTS, 3))
    groups = metrics["groups"]
    # Columns and strips are small: a neckline is missed in the lower half, and taken for hidden in the columns.
    assert {name: row["not_visible_f1"] for name, row in groups.items()} == pytest.approx(
        {"sleeve": 1, "neckline": 6 / 12, "length": 2 / 3}
    )
    assert metrics["not_visible_f1"] == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)
    assert {name: (row["hidden"], row["shown"]) for name, row in groups.items()} == {
        "sleeve": (6, 6), "length": (2, 1), "neckline": (6, 9),
    }  # fmt: skip
    assert {name: row["visible_precision"] for name, row in groups.items()} == {"sleeve": 1, "length": 0, "neckline": 1}
    assert groups["neckline"]["not_visible"] == {
        "whole, shown": 0, "no_hem, shown": 0, "no_neckline, hidden": 0, "no_sleeves, shown": 1, "strip, hidden": 1,
    }  # fmt: skip
    category = metrics["category"]
    assert (category["top1_whole"], category["top1_strip"]) == pytest.approx((2 / 3, 2 / 3))
    assert category["not_visible_f1"] == 1
    assert category["calibration_error_whole"] == pytest.approx(0.8 - 2 / 3)
    assert category["calibration_error_cuts"] == pytest.approx((0.8 - 2 / 3 + 2 / 3 - 0.4) / 2)
    assert metrics["no_garment"] == {"pieces": 0, "mean_probability": None, "at_least_half": None}
    assert metrics["users_photos"] == pytest.approx(
        {"photos": 2, "without_region": 1, "top1": 0.5, "calibration_error": 0.3}
    )


def test_parts_without_a_garment_have_the_probability_of_their_category(tmp_path: Path) -> None:
    samples = labeled_samples(write_pack(tmp_path), "train")
    clear_left(tmp_path, 48)
    found = visibility._no_garment(cast(Recognizer, Judge()), samples)
    assert found["pieces"] >= 1
    assert (found["mean_probability"], found["at_least_half"]) == (pytest.approx(0.4), 0)


def test_a_split_without_labels_is_refused(pack: Path) -> None:
    with pytest.raises(ConfigError, match="has no labeled garments in split 'val'"):
        evaluate_visibility(cast(FashionModel, Model()), pack, "val")


def test_f1_of_nothing_is_zero() -> None:
    none, some = np.zeros(3, bool), np.array([True, True, False])
    assert (f1(none, none), f1(some, some), f1(some, ~some)) == (0, 1, 0)
    assert f1(some, np.ones(3, bool)) == pytest.approx(4 / 5)
