"""The whole chain by its commands, from drawn data sets in the published layouts to a model folder that is read back.

Each garment is drawn as six bands, one an attribute group, in the color of its value: what a tower of two layers can
learn from a few hundred photos.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from fashion_retrieval import FashionModel
from fashion_retrieval.models.sam import SegmentAnythingSegmenter
from tests.support.deepfashion_tree import SIZE, Drawn, draw_garment, write_tree
from tests.support.drawn_pack import log_of
from tests.support.fashioniq_tree import write_json
from tests.support.tiny import tiny_folder
from tests.support.tiny_sam import filled, tiny_sam
from training import evaluate, train_agcn, train_raf_clip
from training.data.batches import Batches
from training.data.deepfashion_labels import ATTRIBUTES
from training.data.triplets import GROUPS
from training.export.__main__ import app as export
from training.prepare import masks
from training.prepare.__main__ import app as prepare

COUNTS = {"train": 400, "val": 40, "test": 120}
CHANCE = float(np.mean([1 / len(values) for values in ATTRIBUTES.values()]))
"""Mean precision of guessing, 0.285."""
GALLERY = 54
BANDS = [(220, 40, 40), (40, 170, 60), (40, 70, 220), (240, 220, 50), (20, 20, 20), (240, 130, 220), (90, 220, 230)]
"""Color of a band by the place of its value in the group."""

ENCODER = """
data = "{root}/deepfashion"
init = ["{root}/start"]
output = "{root}/encoder"
taxonomy = "deepfashion"
targets = "same_text"
alpha = 0.9
vocabulary_weight = 3.0
smoothing = 0.1
augmentation = false
cache_size = [32, 32]
size_schedule = [[0, 32, 32]]
masked_garments = 24
[optimization]
steps = 90
lr = 4e-3
warmup = 10
ema = 0.9
checkpoint_every = 40
"""
COMPOSER = """
data = "{root}/fashioniq"
source = "fashioniq"
model = "{root}/encoder"
output = "{root}/agcn"
cache = "{root}/features"
batch_size = 32
negatives = "gallery"
held_out = 0.1
validate_every = 20
[composer]
width = 16
depth = 1
heads = 2
hidden = 32
[optimization]
steps = 100
lr = 5e-3
warmup = 5
ema = 0.9
checkpoint_every = 50
"""
EXPORT = """
name = "drawn"
encoders = ["{root}/encoder"]
composer = "{root}/agcn/model"
output = "{root}/published"
taxonomy = "deepfashion"
weights_dtype = "float32"
license = "unknown"
training_data = ["drawn garments"]
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both data sets, the encoder to start from, and Segment Anything with random weights."""
    for split in write_tree(tmp_path / "deepfashion", COUNTS).values():
        for garment in split:
            save(bands(garment), tmp_path / "deepfashion" / garment.path)
    write_fashioniq(tmp_path / "fashioniq")
    tiny_folder(tmp_path / "start")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        segmenter = SegmentAnythingSegmenter(filled(tiny_sam()), device="cpu")
    monkeypatch.setattr(masks, "load_segmenter", lambda *_: segmenter)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def bands(garment: Drawn) -> NDArray[np.uint8]:
    """HWC uint8 RGB of `SIZE`."""
    pixels = np.full((SIZE[1], SIZE[0], 3), 235, dtype=np.uint8)
    left, top, right, bottom = garment.box
    edges = np.linspace(top, bottom, len(ATTRIBUTES) + 1).astype(int)
    for place, (group, values) in enumerate(ATTRIBUTES.items()):
        color = BANDS[values.index(garment.attributes[group])]
        pixels[edges[place] : edges[place + 1], left:right] = color
    return pixels


def save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=92, subsampling=0)


def write_fashioniq(root: Path) -> None:
    """Train and val of the three groups: each photo is changed into another, whose fit, length and sleeves are said."""
    number = 1000
    for group in GROUPS:
        for split in ("train", "val"):
            garments = {f"B{number + place:04}": draw_garment(number + place)[0] for place in range(GALLERY)}
            number += GALLERY
            for name, garment in garments.items():
                save(bands(garment), root / f"images/{name}.jpg")
            ids = list(garments)
            rows = [
                {"candidate": candidate, "target": target, "captions": list(wish(garments[target]))}
                for candidate, target in zip(ids, ids[7:] + ids[:7], strict=True)
            ]
            write_json(root / f"captions/cap.{group}.{split}.json", rows)
            write_json(root / f"image_splits/split.{group}.{split}.json", ids)


def wish(garment: Drawn) -> tuple[str, str]:
    said = {group: value.replace("_", " ") for group, value in garment.attributes.items()}
    return f"is {said['fit']} with {said['dress_length']}", f"has {said['sleeve_length']}"


def config(root: Path, name: str, text: str) -> Path:
    path = root / f"{name}.toml"
    path.write_text(text.format(root=root), encoding="utf-8")
    return path


def run(app: Any, *arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def interrupted(real: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The function, and at its `call`-th call an interruption."""
    left = iter(range(1, call))

    def stopping(*arguments: Any, **keywords: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    return stopping


def measure(root: Path, *arguments: str) -> dict[str, Any]:
    """The results file of `training.evaluate`."""
    path = root / "results.json"
    run(evaluate.app, *arguments, "--output", str(path))
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_from_raw_data_to_a_published_model(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deepfashion, fashioniq = str(root / "deepfashion"), str(root / "fashioniq")
    run(prepare, "check", deepfashion, "--workers", "1")
    run(prepare, "check", fashioniq, "--workers", "1")
    assert "560 masks made, 0 were there, 0 failed" in run(prepare, "masks", deepfashion)
    assert "560 colors" in run(prepare, "colors", deepfashion)

    recipe = config(root, "encoder", ENCODER)
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "draw", interrupted(Batches.draw, 60))
        with pytest.raises(KeyboardInterrupt):
            train_raf_clip.main(recipe)
    assert len(log_of(root / "encoder")) == 59
    train_raf_clip.main(recipe)
    assert [row["step"] for row in log_of(root / "encoder")] == list(range(90))
    found = measure(root, "recognition", "--deepfashion", deepfashion, "--model", str(root / "encoder"))
    recognized = found["recognition"]["views"]["masked_crop"]
    assert recognized["mean_precision"] > CHANCE + 0.07
    assert recognized["mean_precision_interval"][0] > CHANCE

    train_agcn.main(config(root, "composer", COMPOSER))
    found = measure(root, "composed", "--fashioniq", fashioniq, "--model", str(root / "agcn/model"))
    average = found["protocols"]["original"]["average"]
    assert average["recall_at_10"] > 10 / GALLERY + 0.2
    assert average["recall_at_10_interval"][0] > 10 / GALLERY + 0.1

    run(export, "model", str(config(root, "export", EXPORT)))
    published, trained = (FashionModel.from_pretrained(root / name) for name in ("published", "agcn/model"))
    photo = next((root / "fashioniq/images").iterdir())
    for one, other in (
        (published.compose(photo, "has long sleeve"), trained.compose(photo, "has long sleeve")),
        (published.encode(images=photo), trained.encode(images=photo)),
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
