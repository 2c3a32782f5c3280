"""Results are validated, compare by value, and become JSON, text and pictures."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval import results
from fashion_retrieval.errors import FashionRetrievalError, ImageError, InputError
from fashion_retrieval.results import Attribute, Color, Failure, Garment, Recognition, Region, Score


def disc(height=6, width=4):
    mask = np.zeros((height, width), dtype=bool)
    mask[1:3, 1:3] = True
    return mask


def garment(**changes):
    sleeve = Attribute("sleeve", "long_sleeve", 0.91, alternatives=(Score("long_sleeve", 0.91),))
    fields = {
        "box": (1, 1, 3, 3),
        "mask": disc(),
        "score": 0.98,
        "kind": "dress",
        "category": Score("shirt_dress", 0.93),
        "categories": (Score("shirt_dress", 0.93), Score("top", 0.04)),
        "attributes": {
            "sleeve": sleeve,
            "texture": Attribute("texture", "floral", 0.6),
            "neckline": Attribute("neckline", "v", 0.5),
            "length": Attribute("length", None, 0.7, "not_visible"),
            "fabric": Attribute("fabric", None, 1.0, "not_applicable"),
        },
        "colors": (Color("blue", "#1f3b6e", 0.7), Color("white", "#fafafa", 0.3)),
    }
    return Garment(**(fields | changes))


def recognition(**changes):
    fields = {"width": 4, "height": 6, "garments": (garment(),), "model_id": "compact", "source": "photo.jpg"}
    return Recognition(**(fields | changes))


def test_repr_of_results_is_a_report():
    assert repr(recognition()) == (
        "photo.jpg · 4x6 · compact · 1 garment\n1. blue shirt dress 0.93  [1 1 3 3]  long sleeve · floral · v neckline"
    )
    assert repr(recognition(garments=(), source=None)) == "photo · 4x6 · compact · no garments"
    assert repr(garment(colors=(), attributes={})) == "Garment(shirt dress 0.93  [1 1 3 3])"
    assert recognition(garments=[garment(), garment()]).__repr__().count("\n") == 2


def test_attribute_label_is_in_words():
    assert Attribute("sleeve", "sleeveless", 0.5).label == "sleeveless"
    assert Attribute("fit", "loose", 0.5).label == "loose fit"
    assert Attribute("occasion", "garden_party", 0.5).label == "garden party"
    assert Attribute("neckline", None, 0.5, "not_visible").label == "neckline not visible"
    assert Attribute("length", None, 0.5, "not_applicable").label == "length not applicable"


def test_garment_and_region_derive_color_and_area():
    assert garment().color == "blue"
    assert garment(colors=()).color is None
    assert garment().area == pytest.approx(4 / 24)
    assert Region((1, 1, 3, 3), disc(), 0.5).area == pytest.approx(4 / 24)


def test_recognition_to_dict_is_json():
    data = json.loads(json.dumps(recognition().to_dict()))
    assert list(data) == ["source", "width", "height", "model_id", "garments"]
    only = data["garments"][0]
    assert only["box"] == [1, 1, 3, 3]
    assert (only["kind"], only["color"], only["score"], only["area"]) == ("dress", "blue", 0.98, 0.166667)
    assert only["category"] == {"name": "shirt_dress", "probability": 0.93}
    assert only["categories"][1] == {"name": "top", "probability": 0.04}
    assert only["colors"][0] == {"name": "blue", "hex": "#1f3b6e", "share": 0.7}
    assert only["attributes"]["sleeve"] == {
        "group": "sleeve",
        "value": "long_sleeve",
        "probability": 0.91,
        "status": "visible",
        "alternatives": [{"name": "long_sleeve", "probability": 0.91}],
    }
    assert only["attributes"]["length"]["value"] is None
    assert "mask" not in only


def decode(mask):
    values = np.repeat(np.arange(len(mask["counts"])) % 2 == 1, mask["counts"])
    return values.reshape(mask["size"], order="F")


@pytest.mark.parametrize("corner", [False, True])
def test_garment_to_dict_has_masks_as_coco_run_lengths(corner):
    mask = disc()
    mask[0, 0] = corner
    data = garment(mask=mask).to_dict(masks=True)["mask"]
    assert data == {"size": [6, 4], "counts": [0, 1, 6, 2, 4, 2, 9] if corner else [7, 2, 4, 2, 9]}
    np.testing.assert_array_equal(decode(json.loads(json.dumps(data))), mask)


@pytest.mark.parametrize("value", [False, True])
def test_recognition_to_dict_of_an_even_mask_has_one_run(value):
    mask = np.full((6, 4), value)
    data = recognition(garments=(garment(mask=mask),)).to_dict(masks=True)["garments"][0]["mask"]
    assert data["counts"] == ([0, 24] if value else [24])


def test_numpy_numbers_become_plain_numbers():
    score = Score("top", np.float32(0.25))
    region = Region(np.array([0, 1, 2, 3], dtype=np.float32), disc(), np.float32(1.000001))
    assert type(score.probability) is float
    assert region.box == (0.0, 1.0, 2.0, 3.0)
    assert {type(value) for value in region.box} == {float}
    assert region.score == 1.0


def test_results_are_equal_by_value_masks_included():
    assert recognition() == recognition()
    assert recognition(image=Image.new("RGB", (4, 6))) == recognition()
    assert garment() != garment(mask=~disc())
    assert garment() != garment(score=0.5)
    assert Region((1, 1, 3, 3), disc(), 0.5) == Region((1, 1, 3, 3), disc(), 0.5)
    assert Region((1, 1, 3, 3), disc(), 0.5) != Region((1, 1, 3, 3), disc(), 0.5, "dress")
    assert Region((1, 1, 3, 3), disc(), 0.98, "dress") != garment()


def test_results_survive_pickling():
    assert pickle.loads(pickle.dumps(recognition())) == recognition()


def test_old_spellings_work_and_warn():
    with pytest.warns(DeprecationWarning, match="Garment.colour is now color; the old name goes in release 0.3"):
        assert garment().colour == "blue"
    with pytest.warns(DeprecationWarning, match="Garment.colours is now colors"):
        assert garment().colours == garment().colors
    fields = {name: getattr(garment(), name) for name in ("mask", "score", "category", "categories", "attributes")}
    with pytest.warns(DeprecationWarning, match=r"Garment.__init__\(colours=\) is now colors="):
        assert Garment((1, 1, 3, 3), kind="dress", colours=garment().colors, **fields) == garment()
    with pytest.warns(DeprecationWarning, match="results.Colour is now results.Color"):
        assert results.Colour is Color


def test_results_are_frozen():
    with pytest.raises(AttributeError):
        garment().score = 0.1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Score("top", 1.1), "Score.probability must be in [0, 1], got 1.1"),
        (lambda: Score("top", float("nan")), "got nan"),
        (lambda: Color("blue", "blue", 0.5), "Color.hex must be '#rrggbb', got 'blue'"),
        (lambda: Color("blue", "", 0.5), "got ''"),
        (lambda: Color("blue", "#0000fg", 0.5), "#rrggbb"),
        (lambda: Color("blue", "#0000ff", -0.5), "Color.share"),
        (
            lambda: Attribute("fit", "loose", 0.5, "hidden"),
            "status must be one of visible, not_applicable, not_visible",
        ),
        (lambda: Attribute("fit", None, 0.5), "got None with 'visible' for 'fit'"),
        (lambda: Attribute("fit", "loose", 0.5, "not_visible"), "Attribute.value must be a name exactly when"),
        (lambda: Attribute("fit", "loose", 2), "Attribute.probability"),
        (lambda: Region((1, 1, 3, 3), disc().astype(int), 0.5), "Region.mask must be an (H, W) bool array, got int64"),
        (lambda: Region((1, 1, 3, 3), disc()[0], 0.5), "got bool (4,)"),
        (lambda: Region((1, 1, 3, 3), [[True]], 0.5), "got list"),
        (lambda: Region((1, 1, 5, 3), disc(), 0.5), "Region.box must be x1 y1 x2 y2 inside the 4x6 photo"),
        (lambda: Region((1, 3, 3, 3), disc(), 0.5), "Region.box"),
        (lambda: Region((1, 1, float("nan"), 3), disc(), 0.5), "Region.box"),
        (lambda: Region((1, 1, 3), disc(), 0.5), "Region.box"),
        (lambda: Region((1, 1, 3, 3), disc(), 1.5), "Region.score"),
        (lambda: garment(box=(-1, 1, 3, 3)), "Garment.box"),
        (lambda: garment(score=-1), "Garment.score"),
        (lambda: garment(categories=()), "must start with the category, 'shirt_dress'"),
        (lambda: garment(categories=(Score("top", 0.93),)), "must start with the category"),
        (lambda: garment(categories=(Score("shirt_dress", 0.93), Score("top", 0.95))), "Garment.categories must be in"),
        (lambda: garment(colors=garment().colors[::-1]), "Garment.colors must be in falling order, got [0.3, 0.7]"),
        (lambda: garment(attributes={"fit": Attribute("sleeve", "long", 0.5)}), "Garment.attributes['fit'] must be of"),
        (lambda: recognition(width=5), "garments[0].mask must have the photo's shape (6, 5), got (6, 4)"),
        (lambda: recognition(image=Image.new("RGB", (6, 4))), "Recognition.image must be 4x6, got (6, 4)"),
    ],
)
def test_invalid_results_are_refused(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value)


def test_failure_to_dict_has_the_message():
    failure = Failure(3, "b.jpg", ImageError("photo 'b.jpg' is empty"))
    assert isinstance(failure.error, FashionRetrievalError)
    assert json.loads(json.dumps(failure.to_dict())) == {
        "index": 3,
        "source": "b.jpg",
        "error": "photo 'b.jpg' is empty",
    }


def test_the_notebook_picture_is_the_card():
    shown = recognition(image=Image.new("RGB", (4, 6), "navy"))
    assert shown._repr_png_().startswith(b"\x89PNG")
    assert recognition()._repr_png_() is None
    with pytest.raises(InputError, match="has no photo"):
        recognition().draw()
