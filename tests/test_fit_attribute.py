"""`FashionModel.fit_attribute`: labels in, a group that is recognized, saved and loaded; bad labels in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from fashion_retrieval import FashionModel, Gallery, Taxonomy
from fashion_retrieval.checkpoint import save
from fashion_retrieval.checkpoint.extras import Extras
from fashion_retrieval.errors import ConfigError, GalleryError, ImageError, InputError, WeightsError
from fashion_retrieval.inference.recognition import find_photo
from fashion_retrieval.models.probe import softmax
from fashion_retrieval.results import AttributeFit, Region
from tests.support.tiny import contents, tiny_folder

COLORS = {"zip": (250, 20, 20), "buttons": (20, 20, 250)}
Photo = NDArray[np.uint8]


@pytest.fixture
def model(tmp_path: Path) -> FashionModel:
    return FashionModel.from_pretrained(tiny_folder(tmp_path / "tiny"), device="cpu", dtype="float32")


def labeled(count: int = 6) -> tuple[list[Any], list[str | None]]:
    """Photos that are plainly told apart, and their labels in turn."""
    generator = np.random.default_rng(0)
    labels = ["zip", "buttons"] * count
    noise = generator.integers(-20, 20, (len(labels), 24, 24, 3))
    photos = [np.clip(COLORS[label] + noise[i], 0, 255).astype(np.uint8) for i, label in enumerate(labels)]
    return photos, list(labels)


def fit(model: FashionModel, **more: Any) -> AttributeFit:
    return model.fit_attribute("closure", *labeled(), segmenter=None, **more)


def closure(model: FashionModel, photo: Photo, **more: Any) -> tuple[str | None, float]:
    found = model.recognize(photo, segmenter=None, **more).garments[0].attributes["closure"]
    return found.value, found.probability


def test_a_new_group_is_learned_and_joins_the_models_taxonomy(model: FashionModel) -> None:
    fitted = fit(model)
    assert (fitted.group, fitted.examples, fitted.new_values) == (
        "closure", {"buttons": 6, "zip": 6}, ("buttons", "zip"))  # fmt: skip
    assert (fitted.fitted.accuracy, fitted.fitted.macro_f1) == (1.0, 1.0)
    assert fitted.prompts.accuracy == pytest.approx(0.5, abs=0.5)
    photos, labels = labeled()
    assert [closure(model, photo)[0] for photo in photos[:4]] == labels[:4]
    assert [group.name for group in model.recognizer().taxonomy.attributes][-2:] == ["fit", "closure"]
    assert "closure" not in model.recognize(photos[0], segmenter=None, taxonomy="default").garments[0].attributes
    assert str(fitted).splitlines()[0] == "closure: 12 photos (buttons 6, zip 6)"
    assert json.loads(json.dumps(fitted.to_dict()))["fitted"]["accuracy"] == 1.0


def test_an_edited_taxonomy_keeps_the_probe_and_a_value_without_examples_its_words(model: FashionModel) -> None:
    fit(model)
    probe = model.recognizer().probes["closure"]
    edited = Taxonomy.load(model.config.taxonomy).with_values("closure", ["hook and eye"])
    photo = labeled()[0][0]
    value, _ = closure(model, photo, taxonomy=edited, top_k=3)
    assert value == "zip"
    recognizer = model.recognizer(edited)
    group = edited.attributes[-1]
    assert [one.name for one in group.values] == ["buttons", "zip", "hook and eye"]
    views, categories = recognizer.views([find_photo(photo, None, None)])
    by_prompts = recognizer.by_prompts(views, categories, group)[0]
    context = recognizer.category_context(categories[0])
    both = recognizer.attribute_probabilities(views[0], group, context)
    logits = probe.scale * np.log(by_prompts)
    logits[:2] += probe.weight @ views[0] + probe.bias
    np.testing.assert_allclose(both, softmax(logits), rtol=1e-5)


class WholePhoto:
    """A segmenter for which a photo is one garment."""

    def segment(self, image: Image.Image, boxes: Any = None) -> list[Region]:
        return list(find_photo(np.asarray(image), boxes, None).regions)


def test_labels_are_matched_with_the_taxonomys_names_and_phrases(model: FashionModel) -> None:
    photos, _ = labeled()
    words = ["V-Neck", "crew", "v", "Crew neck", "halter neck", "halter neck"]
    fitted = model.fit_attribute("neckline", photos[:6], words, segmenter=None)
    assert fitted.examples == {"crew": 2, "v": 2, "halter neck": 2}
    assert fitted.new_values == ("halter neck",)
    values = [value.name for group in Taxonomy.load(model.config.taxonomy).attributes for value in group.values]
    assert {"halter neck", "square"} <= set(values)


def test_a_group_of_a_shipped_taxonomy_leaves_its_name_in_the_configuration(model: FashionModel) -> None:
    photos, _ = labeled()
    model.fit_attribute("sleeve", photos[:4], ["sleeveless", "short_sleeve"] * 2, segmenter=None)
    assert model.config.taxonomy == "default"


def test_a_model_is_saved_with_its_probes_and_loaded_again(model: FashionModel, tmp_path: Path) -> None:
    fit(model)
    photos, _ = labeled()
    folder = model.save_pretrained(tmp_path / "mine")
    again = FashionModel.from_pretrained(folder, device="cpu", dtype="float32")
    assert closure(again, photos[0]) == closure(model, photos[0])
    assert again.config.probes["closure"].values == ("buttons", "zip")
    assert again.config.figures["closure, accuracy"].value == 1.0
    assert "closure, accuracy" in (folder / "README.md").read_text(encoding="utf-8")
    other = again.save_pretrained(tmp_path / "other", card_id=model.model_id)
    assert contents(other) == contents(folder)
    plain = FashionModel.from_pretrained(tiny_folder(tmp_path / "plain"), device="cpu", dtype="float32")
    plain.save_pretrained(folder)
    assert not (folder / "probes.safetensors").exists()


def test_a_second_fit_replaces_the_first(model: FashionModel) -> None:
    fit(model)
    photos, labels = labeled()
    swapped = ["buttons" if label == "zip" else "zip" for label in labels]
    model.fit_attribute("closure", photos, swapped, segmenter=None)
    assert [closure(model, photo)[0] for photo in photos[:2]] == swapped[:2]
    assert list(model.config.probes) == ["closure"]


def test_what_is_not_visible_stays_so_where_other_values_are_learned(model: FashionModel, tmp_path: Path) -> None:
    photos, _ = labeled()
    hidden = ["sleeves_out_of_view", "short_sleeve"] * 6
    model.fit_attribute("sleeve", photos, hidden, segmenter=None)
    earlier = model.recognizer().probes["sleeve"]
    model.fit_attribute("sleeve", photos[2:8], ["long_sleeve", "short_sleeve"] * 3, segmenter=None)
    probe = model.recognizer().probes["sleeve"]
    assert probe.values == ("long_sleeve", "short_sleeve", "sleeves_out_of_view")
    place = earlier.values.index("sleeves_out_of_view")
    np.testing.assert_array_equal(probe.weight[2], earlier.weight[place])
    assert probe.bias[2] == earlier.bias[place]
    again = FashionModel.from_pretrained(model.save_pretrained(tmp_path / "mine"), device="cpu", dtype="float32")
    assert again.recognizer().probes["sleeve"].digest == probe.digest


def test_probes_of_another_encoder_are_refused(model: FashionModel, tmp_path: Path) -> None:
    fit(model)
    folder = model.save_pretrained(tmp_path / "mine")
    other = FashionModel.from_pretrained(tiny_folder(tmp_path / "seed", seed=1), device="cpu", dtype="float32")
    strange = other.save_pretrained(tmp_path / "strange")
    shutil.copy(folder / "probes.safetensors", strange)
    mine, path = json.loads((folder / "fashion_retrieval.json").read_text()), strange / "fashion_retrieval.json"
    theirs = json.loads(path.read_text())
    theirs["sha256"]["probes.safetensors"] = mine["sha256"]["probes.safetensors"]
    path.write_text(json.dumps(theirs | {"probes": mine["probes"]}))
    with pytest.raises(WeightsError, match=r"^the probe of 'closure' in .* was trained on another encoder \("):
        FashionModel.from_pretrained(strange)


def test_altered_or_missing_probes_are_refused(model: FashionModel, tmp_path: Path) -> None:
    fit(model)
    path = model.save_pretrained(tmp_path / "mine") / "probes.safetensors"
    state = load_file(path)
    assert state.keys() == {"0.weight", "0.bias", "0.scale"}
    save_file({name: tensor + 1 for name, tensor in state.items()}, path)
    with pytest.raises(WeightsError, match=r"probes.safetensors was altered or cut off"):
        FashionModel.from_pretrained(path.parent)
    path.unlink()
    with pytest.raises(WeightsError, match=r"expected the file probes.safetensors in .*, found none"):
        FashionModel.from_pretrained(path.parent)


def test_photos_without_a_label_or_that_cannot_be_read_are_left_out(model: FashionModel) -> None:
    photos, labels = labeled()
    given, named = [photos[0], "gone.jpg", *photos], [None, "zip", *labels]
    fitted = model.fit_attribute("closure", given, named, segmenter=None)
    assert (fitted.unlabeled, len(fitted.failures), sum(fitted.examples.values())) == (1, 1, 12)
    assert (fitted.failures[0].index, str(fitted.failures[0].error)) == (
        1, "photo 'gone.jpg' does not exist; check the path")  # fmt: skip
    assert "photos that can't be read: 1" in str(fitted)
    with pytest.raises(ImageError, match=r"^images\[1\]: photo 'gone.jpg' does not exist"):
        model.fit_attribute("closure", given, named, segmenter=None, on_error="raise")


def test_boxes_say_which_garment_is_meant(model: FashionModel) -> None:
    photos, labels = labeled()
    pairs, boxes = [], []
    for place, photo in enumerate(photos):  # now left, now right of one of the other color
        sides, start = [photo, np.flip(photo, -1)], 24 * (place // 2 % 2)
        pairs.append(np.concatenate(sides[::-1] if start else sides, axis=1))
        boxes.append((start, 0, start + 24, 24))
    fitted = model.fit_attribute("closure", pairs, labels, boxes=boxes, segmenter=None)
    assert fitted.fitted.accuracy == 1.0
    assert model.fit_attribute("closure", pairs, labels, segmenter=None).fitted.accuracy < 1.0
    with pytest.raises(InputError, match=r"^boxes\[1\] = .* lies outside the photo of 48x24 pixels"):
        model.fit_attribute("closure", pairs, labels, boxes=[None, (60, 0, 70, 9), *boxes[2:]], segmenter=None)
    with pytest.raises(InputError, match=r"^boxes\[1\] must be in pixels, got fractions of the photo"):
        model.fit_attribute("closure", pairs, labels, boxes=[None, (0.5, 0, 1, 1), *boxes[2:]], segmenter=None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["zip"] * 4, "closure needs labels of at least two values, got only 'zip'; label photos of another value too"),
        ([None] * 4, "closure needs labels of at least two values, got none; label photos of another value too"),
        (["zip", "zip", "zip", "hook"], "closure needs at least 2 photos of each value, got 1 of hook; add photos or"),
        (["zip", "hook", "zip"], "images and labels must be as many, got 4 and 3; use None for no label"),
        (["zip", 3, "zip", 3], "labels[1] must be a value's name or None, got 3"),
        (["zip", " ", "zip", " "], "labels[1] must be a value's name or None, got ' '"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_one_line(
    model: FashionModel, labels: list[Any], message: str
) -> None:
    before = model.config
    with pytest.raises(InputError) as caught:
        model.fit_attribute("closure", labeled()[0][:4], labels, segmenter=None)
    assert str(caught.value).startswith(message)
    assert model.config is before


def test_a_value_whose_photos_cannot_be_read_is_refused(model: FashionModel) -> None:
    photos = [*labeled()[0][:3], "gone.jpg"]
    with pytest.raises(InputError, match="needs at least 2 photos of each value, got 1 of hook"):
        model.fit_attribute("closure", photos, ["zip", "hook", "zip", "hook"], segmenter=None)


@pytest.mark.parametrize("name", ["category", "color", "", None])
def test_a_name_that_is_no_attribute_is_refused(model: FashionModel, name: Any) -> None:
    with pytest.raises(InputError, match="an attribute must be named by a text other than category, color, id, "):
        model.fit_attribute(name, *labeled())


def test_boxes_must_be_as_many_as_photos(model: FashionModel) -> None:
    with pytest.raises(InputError, match="images and boxes must be as many, got 12 and 1; None is no box"):
        fit(model, boxes=[None])


def test_a_gallery_is_filled_by_one_probe_alone(
    model: FashionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, labels = labeled()
    monkeypatch.setattr(model, "_segmenter", WholePhoto())
    fit(model)
    with Gallery.create(tmp_path / "gallery", model, recognize=True) as gallery:
        gallery.add(photos[:2], ids=["a", "b"])
        assert [gallery.get(name).fields["closure"] for name in "ab"] == labels[:2]
        query = model.encode(images=photos[0])
        assert [match.id for match in gallery.search(query, where="closure = 'buttons'")] == ["b"]
        model.fit_attribute("closure", photos[:8], labels[:8], segmenter=None)
        with pytest.raises(GalleryError, match="holds attributes that were fitted to other labels than this model's"):
            gallery.add(photos[2:3], ids=["c"])


def test_a_gallery_without_probes_remembers_none(model: FashionModel, tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "gallery", model, recognize=True) as gallery:
        assert gallery._store.settings.probes is None
        assert "probes" not in json.loads(gallery._store.settings.to_json())["fashion_retrieval_gallery"]


def test_a_configuration_with_other_probes_than_the_model_is_not_saved(model: FashionModel, tmp_path: Path) -> None:
    fit(model)
    bundle = replace(model._bundle, extras=Extras(), config=model.config)
    with pytest.raises(ConfigError, match="describe each probe of the model and no other"):
        save(bundle, tmp_path / "mine")
