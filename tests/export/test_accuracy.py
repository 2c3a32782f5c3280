"""The accuracy check of an export: recall, correct labels, and when an export may stand in for torch."""

import numpy as np
import pytest

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.export import accuracy
from fashion_retrieval.export.accuracy import failed_criterion
from tests.support.tiny import drawn_photo, tiny_folder

LABELED = {"photos": 200, "categories": 5, "precision_torch": 0.8, "precision_lost_high": 0.015}


@pytest.fixture
def bundle(tmp_path):
    return checkpoint.load(tiny_folder(tmp_path))


@pytest.mark.parametrize(
    ("precision", "metrics", "reason"),
    [
        ("int8", LABELED | {"precision": 0.791, "image_cosine_mean": 0.98}, None),
        ("int8", LABELED | {"precision": 0.789}, "precision lost must be at most 0.01 (at most 0.02), got 0.0110"),
        ("int8", LABELED | {"precision": 0.8, "precision_lost_high": 0.021}, "got 0.0000 (at most 0.0210)"),
        ("int8", LABELED | {"precision": 0.8, "photos": 199}, "categories with 10 photos each, got 199 of 5"),
        ("int8", LABELED | {"precision": 0.8, "categories": 4}, "got 200 of 4"),
        ("int8", {"photos": 400, "image_cosine_mean": 1.0}, "got 0 of 0"),
        ("bf16", {"image_cosine_mean": 0.99991, "text_cosine_mean": 0.9999}, None),
        ("bf16", {"image_cosine_mean": 0.99991, "text_cosine_mean": 0.99989}, "mean cosines must be at least 0.9999"),
        ("bf16", LABELED | {"precision": 0.8, "photos": 6, "image_cosine_mean": 0.99995}, None),
    ],
)  # fmt: skip
def test_failed_criterion_names_what_is_missing(precision, metrics, reason):
    failed = failed_criterion(precision, metrics)
    assert failed is None if reason is None else reason in failed


def test_measure_counts_categories_with_enough_photos(bundle):
    model = FashionModel(bundle, model_id="tiny", device="cpu", dtype="float32")
    photos, labels = [drawn_photo(seed=seed) for seed in range(21)], ["dress"] * 10 + ["skirt"] * 10 + ["shoes"]
    metrics = accuracy.measure(model, model, [], accuracy.Labeled(photos, labels))
    assert (metrics["photos"], metrics["categories"]) == (21, 2)
    assert metrics["precision_lost_high"] == 0


def test_recall_at_10_is_relative_to_what_ten_can_hold():
    angles = np.radians(np.arange(12))
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # All others but the furthest are among the ten nearest: for six rows that is the only "b", for five an "a".
    assert accuracy._recall_at_10(rows, ["a"] * 11 + ["b"]) == pytest.approx((6 * 1.0 + 5 * 0.9) / 11)
    assert accuracy._recall_at_10(rows[:4], ["a", "b", "a", "b"]) == 1.0
