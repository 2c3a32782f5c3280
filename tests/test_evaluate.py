"""`FashionModel.evaluate`: labels in, scores out, as recognition and training's protocol have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval import FashionModel, Taxonomy
from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.inference.recognition import find_photo
from fashion_retrieval.results import Evaluation
from tests.support.tiny import drawn_photo, tiny_folder
from training.evaluation.attribute_groups import predict_group

SLEEVES = ["Long-Sleeve", "sleeveless", None, "short sleeve", "long_sleeve", "sleeveless"]
CATEGORIES = ["tee", "T-Shirt", "dress", None, "jeans", "dress"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FashionModel:
    return FashionModel.from_pretrained(tiny_folder(tmp_path_factory.mktemp("tiny")), device="cpu", dtype="float32")


def photos() -> list[NDArray[np.uint8]]:
    return [np.array(drawn_photo((24, 32), seed=seed)) for seed in range(6)]


def evaluate(model: FashionModel, labels: Any = None, **more: Any) -> Evaluation:
    given = {"category": CATEGORIES, "sleeve": SLEEVES} if labels is None else labels
    return model.evaluate(more.pop("images", None) or photos(), given, segmenter=None, **more)


def test_answers_are_those_of_recognition(model: FashionModel) -> None:
    found = evaluate(model, {"category": CATEGORIES, "color": ["red", None, *["blue"] * 4]})
    assert [answer.index for answer in found.answers if answer.group == "category"] == [0, 1, 2, 4, 5]
    assert [answer.label for answer in found.answers if answer.group == "category"] == [
        "tee", "tee", "dress", "jeans", "dress"]  # fmt: skip
    for answer in found.answers:
        garment = model.recognize(photos()[answer.index], segmenter=None, top_k=99).garments[0]
        if answer.group == "color":
            assert (answer.said, answer.probability) == (garment.color, pytest.approx(garment.colors[0].share))
        else:
            known = {score.name: score.probability for score in garment.categories}
            assert (answer.said, answer.probability) == (
                garment.category.name,
                pytest.approx(known[garment.category.name]),
            )
            assert answer.label_probability == pytest.approx(known[answer.label])
    right = [answer.right for answer in found.answers if answer.group == "color"]
    assert found.groups["color"].accuracy == np.mean(right)


def test_attributes_are_judged_by_trainings_protocol(model: FashionModel) -> None:
    """The likeliest of all values, whatever the category and however low its probability."""
    found = evaluate(model, {"sleeve": SLEEVES})
    recognizer = model.recognizer("default", 1)
    views, categories = recognizer.views([find_photo(photo, None, None) for photo in photos()])
    contexts = [recognizer.category_context(row) for row in categories]
    group = next(group for group in recognizer.taxonomy.attributes if group.name == "sleeve")
    labels = {place: group.words[label.lower().replace("-", " ").replace("_", " ")] for place, label in
              enumerate(SLEEVES) if label}  # fmt: skip
    wanted = predict_group(recognizer, group, views, contexts, labels)
    assert [answer.said for answer in found.answers] == wanted.predicted.tolist()
    np.testing.assert_allclose([answer.probability for answer in found.answers], wanted.probability, rtol=1e-6)
    metrics = wanted.metrics(np.ones(6, dtype=bool))
    assert metrics is not None
    scores = found.groups["sleeve"]
    assert (scores.accuracy, scores.macro_f1) == (metrics["precision"], metrics["macro_f1"])
    assert scores.calibration_error == pytest.approx(metrics["calibration_error"])


def test_a_box_names_the_garment_and_the_board_shows_it(model: FashionModel) -> None:
    left, right = photos()[:2]
    both = np.concatenate([left, right], axis=1)
    alone = evaluate(model, {"category": ["tee", "tee"]}, images=[left, right])
    boxed = evaluate(model, {"category": ["tee", "tee"]}, images=[both, both], boxes=[(0, 0, 24, 32), (24, 0, 48, 32)])
    assert [answer.probability for answer in alone.answers] == pytest.approx(
        [answer.probability for answer in boxed.answers])  # fmt: skip
    assert boxed._photos[1][1] == (24, 0, 48, 32)
    with pytest.raises(InputError, match=r"^boxes\[1\] = "):
        evaluate(model, {"category": ["tee"] * 2}, images=[both, both], boxes=[None, (90, 0, 99, 9)])
    with pytest.raises(InputError, match="images and boxes must be as many, got 6 and 1; None is no box"):
        evaluate(model, boxes=[None])


def test_a_taxonomy_of_ones_own_has_its_values(model: FashionModel) -> None:
    mine = Taxonomy.load("default").with_values("closure", ["zip", "buttons"])
    found = evaluate(model, {"closure": ["zip", *[None] * 4, "Buttons"]}, taxonomy=mine)
    assert [answer.label for answer in found.answers] == ["zip", "buttons"]
    assert {answer.said for answer in found.answers} <= {"zip", "buttons"}


def test_photos_that_cannot_be_read_are_listed(model: FashionModel, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    images = [*photos()[:2], "gone.jpg", str(tmp_path / "bad.jpg")]
    found = evaluate(model, {"category": ["tee"] * 4}, images=images)
    assert [(failure.index, failure.source) for failure in found.failures] == [(2, "gone.jpg"), (3, "bad.jpg")]
    assert found.groups["category"].photos == 2
    assert "gone.jpg" in str(found.to_dict()["failures"])
    with pytest.raises(ImageError, match=r"^images\[2\]: photo 'gone.jpg' does not exist"):
        evaluate(model, {"category": ["tee"] * 4}, images=images, on_error="raise")
    with pytest.raises(InputError, match="at least one labeled photo must be readable, got 1 that can't be read; the"):
        evaluate(model, {"category": ["tee"]}, images=["gone.jpg"])


def test_a_group_whose_photos_cannot_be_read_is_left_out(model: FashionModel) -> None:
    found = evaluate(
        model, {"category": ["tee", None], "sleeve": [None, "long_sleeve"]}, images=[photos()[0], "gone.jpg"]
    )
    assert list(found.groups) == ["category"]


def test_two_models_are_compared_on_the_same_photos(model: FashionModel, tmp_path: Path) -> None:
    other = FashionModel.from_pretrained(tiny_folder(tmp_path / "other", seed=1), device="cpu", dtype="float32")
    first, second = evaluate(model), evaluate(other)
    compared = second.compare(first)
    assert [(row.group, row.measure) for row in compared.differences] == [
        (group, name) for group in ("category", "sleeve") for name in ("accuracy", "macro_f1", "calibration_error")
    ]  # fmt: skip
    for row in compared.differences:
        ahead = getattr(second.groups[row.group], row.measure) - getattr(first.groups[row.group], row.measure)
        assert row.difference == pytest.approx(ahead)
        assert row.interval[0] <= row.difference <= row.interval[1]


def test_a_board_of_pil_photos_shows_them(model: FashionModel) -> None:
    images = [Image.fromarray(photo) for photo in photos()]
    assert "photo not found" not in evaluate(model, images=images).to_html()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "labels must be a mapping from groups to a label for each photo, {'category': [...]}, got none"),
        (CATEGORIES, "labels must be a mapping from groups to a label for each photo, {'category': [...]}, got list"),
        ({"closure": ["zip"] * 6}, "labels must be of the groups category, color, texture, "),
        (
            {"category": ["tee"] * 5},
            "images and labels must be as many, got 6 and 5 of category; use None for no label",
        ),
        ({"category": None}, "labels of category must be a list with a label for each photo, got None"),
        ({"category": "coat"}, "labels of category must be a list with a label for each photo, got 'coat'"),
        ({"category": [3] * 6}, "labels of category must be a value's name or None, got 3"),
        ({"category": [None] * 6}, "category must have a label for at least one photo, got none; leave the group out"),
        (
            {"sleeve": ["long_sleeve", "lnog", "lnog", " ", None, None]},
            "labels of sleeve must be values of the taxonomy or their phrases, got 'lnog' (2x), ' ' (1x); "
            "correct them, or give a taxonomy that has them; this one has long_sleeve, short_sleeve, sleeveless, "
            "sleeves_out_of_view",
        ),
        ({"color": ["navy"] * 6}, "labels of color must be values of the taxonomy or their phrases, got 'navy' (6x)"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_one_line(model: FashionModel, labels: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(model, labels)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "more", [{"batch_size": 0}, {"on_error": "stop"}, {"max_pixels": 0}, {"taxonomy": "none.yaml"}]
)
def test_arguments_that_cannot_be_used_are_refused(model: FashionModel, more: dict[str, Any]) -> None:
    with pytest.raises((InputError, ValueError), match=next(iter(more))):
        evaluate(model, **more)
