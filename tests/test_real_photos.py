"""The embedded model on real photos: far looser than the measured figures, but no broken step gets through."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval import FashionModel, Recognition
from tests.support.paths import ROOT
from training.data.crops import read_crop
from training.data.manifest import labeled_samples, read_lines
from training.data.pixels import clothing_photos, flat_lay_photos, street_photos
from training.evaluation.segmentation import evaluate_segmentation

DATA = ROOT.parent / "shared/data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"REAL PHOTOS NOT CHECKED: no open data pack at {DATA}")


@pytest.fixture(scope="module")
def model() -> FashionModel:
    return FashionModel.from_pretrained(device="cpu", dtype="float32")


def test_garments_of_street_photos_are_found(model: FashionModel) -> None:
    names = json.loads((DATA / "street_labels.json").read_text(encoding="utf-8"))
    rows = [row for row in read_lines(DATA / "street.jsonl", "val") if "regions" in row][:12]
    clothing = np.array([name not in ("null", "hair", "skin") for name in names])
    both = either = 0
    for row in rows:
        photo = DATA / "street/val" / f"{row['id']}.jpg"
        recognition = model.recognize(photo)
        with Image.open(photo.with_name(f"{row['id']}.mask.png")) as mask:
            truth = clothing[np.asarray(mask)]
        found = np.logical_or.reduce([garment.mask for garment in recognition.garments])
        both, either = both + (truth & found).sum(), either + (truth | found).sum()
    assert both / either > 0.75


def test_products_get_their_category_and_attributes(model: FashionModel) -> None:
    samples = [s for s in labeled_samples(DATA, "val") if s.source == "products"][:32]
    found = list(model.recognize_many([read_crop(s, masked=False) for s in samples], segmenter=None))
    garments = [result.garments[0] for result in found if isinstance(result, Recognition)]
    category = np.mean([g.category.name == s.category for g, s in zip(garments, samples, strict=True)])
    sleeves = [
        g.attributes["sleeve"].alternatives[0].name == s.attributes["sleeve"]
        for g, s in zip(garments, samples, strict=True)
        if "sleeve" in s.attributes and g.attributes["sleeve"].alternatives
    ]
    assert category > 0.6
    assert len(sleeves) >= 10
    assert np.mean(sleeves) > 0.75


def test_the_evaluation_runs_on_real_photos(model: FashionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in read_lines(DATA / "street.jsonl", "val") if "regions" in row][:4]
    monkeypatch.setattr("training.evaluation.segmentation.read_lines", lambda path, split: rows)
    for name, photos in (
        ("street_photos", street_photos), ("clothing_photos", clothing_photos), ("flat_lay_photos", flat_lay_photos),
    ):  # fmt: skip
        first = photos(DATA, "val")[:4]
        monkeypatch.setattr(f"training.evaluation.portraits.{name}", lambda root, split, first=first: first)
    names = json.loads((DATA / "street_labels.json").read_text(encoding="utf-8"))
    figures = evaluate_segmentation(model, DATA, "val", names)
    assert figures["photos"] == 4
    assert 0.6 < figures["clothing_iou"] < 1
    assert figures["end_to_end"]["labeled_garments"] >= 4
    assert figures["near"]["portraits"]["photos"] == figures["near"]["one_garment"]["photos"] == 4
    assert figures["near"]["portraits"]["clothing_iou"] > 0.6
    assert figures["near"]["flat_lay"]["iou"] > 0.6


def test_text_weight_goes_from_what_the_photo_has_to_what_the_text_asks(model: FashionModel) -> None:
    samples = [s for s in labeled_samples(DATA, "val") if s.source == "products" and "sleeve" in s.attributes][:160]
    references = model.reference([read_crop(sample, masked=False) for sample in samples])
    gallery = np.stack([reference.embedding for reference in references])
    sleeves = np.array([sample.attributes["sleeve"] for sample in samples])
    colors = np.array([sample.color for sample in samples])
    shares = []
    for values, old, new, text in (
        (sleeves, "short_sleeve", "long_sleeve", "with long sleeves"),
        (sleeves, "long_sleeve", "short_sleeve", "with short sleeves"),
        (colors, "blue", "white", "in white"),
        (colors, "white", "blue", "in blue"),
    ):
        chosen = np.flatnonzero(values == old)[:24]
        given = [references[index] for index in chosen], [text] * len(chosen)
        for weight in (0, 0.25, 0.5, 0.75, 1):
            scores = model.compose(*given, text_weight=weight) @ gallery.T
            scores[np.arange(len(chosen)), chosen] = -2  # the reference itself
            top = values[np.argsort(-scores, axis=1)[:, :10]]
            shares.append([(top == new).mean(), (top == old).mean()])
    wanted, kept = np.reshape(shares, (4, 5, 2)).mean(axis=0).T
    assert (np.diff(wanted)[:2] > 0.1).all(), wanted
    assert (np.diff(kept)[:2] < -0.1).all(), kept
    # Past what was composed the photo fades and all references get the same ten: some fall back, by at most a tenth.
    assert (np.diff(wanted)[2:] > -0.1).all(), wanted
    assert (np.diff(kept)[2:] < 0.1).all(), kept
    assert wanted[-1] > wanted[0] + 0.5
    assert kept[-1] < kept[0] - 0.4
