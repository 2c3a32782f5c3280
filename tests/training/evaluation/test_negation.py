"""Wishes that say what is not wanted, on photos of one color each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from tests.support.drawn_pack import NOTHING, write_lines
from training.evaluation import negation

SHADES = {"red": (200, 32, 47), "blue": (42, 79, 158)}
WORDS = """
least = 3
[instead]
color = ["black", "white"]
[color]
red = ["red", "red"]
blue = ["blue", "blue"]
[shown]
"""


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven red and seven blue shirts."""
    root, rows = tmp_path / "pack", []
    for place in range(14):
        color = ("red", "blue")[place % 2]
        row = {"source": "clothing", "id": f"c{place}", "split": "val", "category": "tee", "texture": "solid"}
        rows.append({**row, **NOTHING, "colour": color})
        pixels = np.full((96, 96, 3), 245, np.uint8)
        pixels[12:84, 20:76] = np.array(SHADES[color]) + place
        (root / "clothing/val").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"clothing/val/c{place}.jpg")
    write_lines(root / "attributes.jsonl", rows)
    write_lines(root / "products.jsonl", [{"id": "1", "split": "val", "name": "Mara Red Shirt"}])
    write_lines(root / "street.jsonl", [{"id": "0001", "split": "val"}])
    (tmp_path / "words.toml").write_text(WORDS, encoding="utf-8")
    monkeypatch.setattr(negation, "CONFIG", tmp_path / "words.toml")
    return root


def test_evaluate_negation_counts_what_was_not_wanted(pack: Path) -> None:
    model = FashionModel.from_pretrained(dtype="float32")
    found = negation.evaluate_negation(model, pack, "val", references=2, photos=14)
    assert (found["photos"], found["values"], found["wishes"], found["pairs"]) == (14, 2, 20, None)
    assert found["chance"] == 0.5
    shares = {way: measured["share"] for way, measured in found["ways"].items()}
    assert shares["read and recognized"] == pytest.approx(0.3)  # seven of ten are of the other color, three are left
    assert shares["read and recognized"] < shares["read"] <= shares["as text"]
    assert found["ways"]["as text"]["of_as_text"] == 1
    assert found["ways"]["read"]["same_category"] == 1
    assert set(found["ways"]["read"]["by_wording"]) == set(negation.WORDINGS)
    assert json.dumps(found)


def test_evaluate_negation_with_too_few_photos_is_refused(pack: Path) -> None:
    model = FashionModel.from_pretrained(dtype="float32")
    with pytest.raises(ConfigError, match=r"^no value of words\.toml has 3 labeled photos; take a larger split$"):
        negation.evaluate_negation(model, pack, "val", photos=2)
