"""Few labeled photos against prompts, on a pack where color tells the values apart."""

from __future__ import annotations

import json
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.inference.recognition import find_photo
from fashion_retrieval.results import Region
from tests.support.tiny import tiny_folder
from training.evaluation.few_shot import evaluate_few_shot, read_label_sets

SHADES = ((240, 20, 20), (20, 20, 240), (20, 240, 20), (240, 240, 20), (30, 30, 30))
VALUES: dict[str, tuple[Any, ...]] = {
    "season": ("Fall", "Summer", "Winter", "Spring"),
    "usage": ("Casual", "Sports", "Formal", "Ethnic"),
    "kids": (True, False),
    "second_colour": ("white", "black", "gray", "blue", "red"),
}


class WholePhoto:
    """A segmenter for which a photo is one garment."""

    def segment(self, image: Image.Image, boxes: Any = None) -> list[Region]:
        return list(find_photo(np.asarray(image), boxes, None, None).regions)


def write(root: Path, file: str, source: str, groups: list[str], count: int) -> list[dict[str, Any]]:
    rows = []
    for split in ("train", "val"):
        folder = root / source / split
        folder.mkdir(parents=True, exist_ok=True)
        for place in range(count):
            row = {"id": f"{file}{place}", "split": split} | {
                group: next(islice(cycle(VALUES[group]), place, None)) for group in groups
            }
            shade = np.array(SHADES[place % len(VALUES[groups[0]])]) + place // 5
            Image.new("RGB", (24, 32), tuple(shade.tolist())).save(folder / f"{row['id']}.jpg")
            rows.append(row | {"source": source} if file == "attributes" else row)
    (root / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    root = tmp_path / "pack"
    write(root, "products", "products", ["season", "usage"], 24)
    write(root, "clothing", "clothing", ["kids"], 8)
    write(root, "attributes", "clothing", ["second_colour"], 25)
    return root


def test_a_probe_is_measured_against_the_prompts(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FashionModel.from_pretrained(tiny_folder(tmp_path / "tiny"), device="cpu", dtype="float32")
    monkeypatch.setattr(model, "_segmenter", WholePhoto())
    found = evaluate_few_shot(model, pack, "val", shots=4, seeds=2, rounds=20)
    season = found["groups"]["season"]
    assert season["values"] == dict.fromkeys(VALUES["season"], 6)
    assert season["probe"]["macro_f1"] == 1.0
    assert season["macro_f1_by_seed"] == [1.0, 1.0]
    assert season["prompts"]["macro_f1"] < 0.5
    assert found["macro_f1_gain"] == season["macro_f1_gain"] == pytest.approx(1 - season["prompts"]["macro_f1"])
    low, high = season["macro_f1_gain_interval"]
    assert low <= season["macro_f1_gain"] <= high
    gains = [group["macro_f1_gain"] for group in found["groups"].values()]
    assert found["mean_macro_f1_gain"] == pytest.approx(np.mean(gains))


def test_draws_are_of_train_alone_distinct_and_repeatable(pack: Path) -> None:
    one = read_label_sets(pack, "val", 4)["season"]
    first, again, other = one.draw(4, 0), one.draw(4, 0), one.draw(4, 1)
    assert first == again != other
    assert len({photo for photo, _ in first}) == 16
    assert {photo.parent.name for photo, _ in first} == {"train"}
    assert {photo.parent.name for photo, _ in one.test} == {"val"}


def test_too_few_photos_are_an_error(pack: Path) -> None:
    expected = r"must have 7 training photos of each season, Fall, Spring, Summer, Winter has fewer"
    with pytest.raises(ConfigError, match=expected):
        read_label_sets(pack, "val", 7)
