"""Garments that nobody labeled: found, labeled by a model, written, read, and trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.results import Region
from tests.support.drawn_pack import SCENES, STREET_COLORS, labels_of, log_of, save_photo, write_pack
from tests.support.tiny import tiny_folder
from training import train_raf_clip
from training.data.crops import read_crop
from training.data.garments import read_garments, write_garments
from training.data.manifest import Sample, extra_samples
from training.engine.optimizer import OptimizerConfig
from training.pseudo_label import label, street_garments


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_pack(tmp_path_factory.mktemp("pack"))
    save_photo(STREET_COLORS[labels_of(SCENES["0002"])], root / "street/train/0003.jpg")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FashionModel:
    return FashionModel.from_pretrained(tiny_folder(tmp_path_factory.mktemp("model")), device="cpu")


@dataclass
class Scene:
    """A segmenter that sees a jacket, trousers too small to be of use, a bag, and a skirt that nobody tagged."""

    def segment(self, image: Image.Image) -> list[Region]:
        found = [("outerwear", (16, 20, 48, 52)), ("bag", (2, 20, 14, 52)), ("trousers", (20, 52, 24, 60)),
                 ("skirt", (50, 60, 62, 90))]  # fmt: skip
        regions = []
        for kind, (left, top, right, bottom) in found:
            mask = np.zeros((image.height, image.width), dtype=bool)
            mask[top:bottom, left:right] = True
            regions.append(Region((left, top, right, bottom), mask, 0.9, kind))
        return regions


def test_street_photos_without_masks_give_garments(pack: Path, tmp_path: Path) -> None:
    ((jacket, kind),) = street_garments(Scene(), pack, tmp_path)
    assert kind == "outerwear"
    assert (jacket.source, jacket.id, jacket.box, jacket.mask_value) == ("street", "0003", (16, 20, 48, 52), 1)
    crop, masked = (np.asarray(read_crop(jacket, masked=masked)) for masked in (False, True))
    assert crop.shape == (32, 32, 3)
    np.testing.assert_array_equal(crop, masked)
    with Image.open(tmp_path / "street/0003.mask.png") as image:
        assert sorted(np.unique(np.asarray(image))) == [0, 1, 2]  # neither the bag nor the skirt


def test_beliefs_are_the_models_probabilities_of_what_applies(
    pack: Path, model: FashionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.pseudo_label._MIN_CATEGORY", 0.0)
    samples = extra_samples(pack, "train")
    recognizer = model.recognizer("default", 1)
    told = list(label(model, [(sample, None) for sample in samples]))
    jeans = told[0]
    assert (jeans.id, jeans.category) == ("5", "jeans")
    assert set(jeans.soft_labels) == {"texture", "fabric", "fit"}  # trousers have no sleeves, and the category is known
    assert not {"6", "0001"} & {s.id for s in told}  # a handbag and boots
    category = next(v for v in recognizer.taxonomy.category.values if v.name == "jeans")
    fit = next(g for g in recognizer.taxonomy.attributes if g.name == "fit")
    crop = recognizer.embed([read_crop(samples[0], masked=False)], 1)[0]
    wanted = recognizer.attribute_probabilities(crop, fit, [(category, 1.0)]).tolist()
    assert list(jeans.soft_labels["fit"].values()) == pytest.approx(wanted, abs=1e-5)
    for sample in told:
        assert all(sum(shares.values()) == pytest.approx(1, abs=1e-4) for shares in sample.soft_labels.values())
        assert ("category" in sample.soft_labels) == (sample.category is None)
    write_garments(told, tmp_path)
    assert read_garments(tmp_path) == told


def test_unsure_categories_are_left_out(pack: Path, model: FashionModel) -> None:
    told = list(label(model, [(sample, None) for sample in extra_samples(pack, "train")]))
    assert [sample.id for sample in told] == ["5"]  # a random model is sure of nothing


def test_training_learns_from_beliefs(pack: Path, tmp_path: Path) -> None:
    jeans = next(s for s in extra_samples(pack, "train") if s.id == "5")
    ((jacket, _),) = street_garments(Scene(), pack, tmp_path)
    said = {"category": {"jacket": 1.0}, "fit": {"loose": 0.8, "tight": 0.2}}
    write_garments([replace(jeans, soft_labels={"fit": {"tight": 1.0}}), replace(jacket, soft_labels=said)], tmp_path)
    plan = OptimizerConfig(steps=1, lr=1e-3)
    settings = train_raf_clip.Settings(
        data=str(pack), init=[str(tiny_folder(tmp_path / "start"))], output=str(tmp_path / "plain"),
        taxonomy="default", targets="same_text", alpha=0.5, optimization=plan, vocabulary_weight=1.0,
        lock_text=True, cache_size=[40, 36], size_schedule=[[0, 32, 32]], masked_garments=4, extra_garments=6,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="4 of 3 garments"):
        train_raf_clip.train(settings)  # four street garments are wanted, and three are labeled
    train_raf_clip.train(replace(settings, pseudo_labels=str(tmp_path)))
    assert np.isfinite(log_of(tmp_path / "plain")[0]["V_fit"])


def test_reading_before_labeling_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.pseudo_label"):
        read_garments(tmp_path)


def test_read_garments_takes_files_of_the_release_before(tmp_path: Path) -> None:
    row = {"source": "products", "id": "7", "photo": "7.jpg", "box": [1, 2, 3, 4], "mask": None, "mask_value": None}
    row |= {"category": "tee", "colour": "gray", "attributes": {}, "texts": ["a tee"]}
    (tmp_path / "garments.jsonl").write_text(json.dumps(row | {"beliefs": {"fit": {"tight": 1.0}}}) + "\n")
    (sample,) = read_garments(tmp_path)
    assert sample == Sample(
        "products", "7", Path("7.jpg"), (1, 2, 3, 4), None, None, "tee", "gray", {}, ("a tee",), {"fit": {"tight": 1.0}}
    )
