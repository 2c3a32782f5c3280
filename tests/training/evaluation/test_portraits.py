"""How the segmenter does on photos taken from near, on a drawn pack with an answer known beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval.results import Region
from tests.support.drawn_pack import CLOTHING, GARMENT_MASK, STREET_LABELS, write_pack
from training.evaluation.portraits import evaluate_close_ups, portrait


def test_portrait_is_head_and_chest_enlarged() -> None:
    truth = np.zeros((100, 60), np.int64)
    truth[10:20, 25:35] = 1
    truth[20:90, 20:40] = 2
    image, classes = portrait(Image.new("RGB", (60, 100)), truth)
    assert classes.shape == (10 + round(0.38 * 80) - 7, 24)
    assert image.size == (3 * classes.shape[1], 3 * classes.shape[0])
    assert (classes == 1).any()
    assert (classes == 2).any()


class Half:
    """Takes the left half of any photo for a dress."""

    def segment(self, image: Image.Image, boxes: NDArray[np.float32] | None = None) -> list[Region]:
        mask = np.zeros((image.height, image.width), bool)
        mask[:, : image.width // 2] = True
        return [Region((0, 0, image.width / 2, image.height), mask, 0.9, "dress")]


def test_figures_by_hand(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    found = evaluate_close_ups(SimpleNamespace(segmenter=Half()), pack, "train", STREET_LABELS)  # type: ignore[arg-type]  # a segmenter is all it asks of a model
    kinds = [kind for _, split, kind in CLOTHING if split == "train"]
    assert found["one_garment"] == {
        "photos": len(kinds), "kind_of_largest_region": pytest.approx(kinds.count("Dress") / len(kinds)),
        "one_region": 1.0,
    }  # fmt: skip
    truth, guess = GARMENT_MASK > 0, np.arange(96) < 48
    overlap = (truth & guess).sum() / (truth | guess).sum()
    assert found["flat_lay"] == {
        "photos": 1, "kind_of_largest_region": 1.0, "one_region": 1.0, "iou": pytest.approx(overlap), "iou_of_80": 0.0,
    }  # fmt: skip
    assert found["portraits"]["photos"] == 2
    assert found["portraits"]["regions"] == 1
    assert 0.2 < found["portraits"]["clothing_iou"] < 0.6
    json.dumps(found)
