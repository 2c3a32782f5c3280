"""Several photos of an item are one entry; values and paths that only look plain are stored as what they are."""

import enum
import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.gallery.gallery import AddReport, Gallery
from fashion_retrieval.gallery.items import garment_fields
from tests.support.galleries import FIELDS, tiny_model
from tests.support.tiny import drawn_photo


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def gallery(tmp_path, model):
    with Gallery.create(tmp_path / "gallery", model, fields=FIELDS) as gallery:
        yield gallery


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for index, path in enumerate(paths):
        drawn_photo((24, 32), seed=index).save(path)
    return paths


@pytest.fixture
def encoded(model, monkeypatch):
    counter, encode_images = Counter(), model.towers.encode_images

    def counting(levels):
        counter["photos"] += len(levels)
        return encode_images(levels)

    monkeypatch.setattr(model.towers, "encode_images", counting)
    return counter


def test_an_entry_is_the_mean_of_its_photos(gallery, files, model):
    assert gallery.add([files[:3], files[3], tuple(files[4:])], ["a", "b", "c"]) == AddReport(3, 0, 0, ())
    rows = model.encode(images=files)
    means = np.stack([rows[:3].mean(0), rows[3], rows[4:].mean(0)])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    assert np.abs(gallery.embeddings(["a", "b", "c"]) - expected).max() < 1e-6
    found = {match.id: match for match in gallery.search(expected[0], 3)}
    assert found["a"].score == pytest.approx(1, abs=1e-6)
    assert (found["a"].photo, found["a"].views) == (str(files[0]), (str(files[1]), str(files[2])))
    assert (found["b"].photo, found["b"].views) == (str(files[3]), ())
    assert gallery.get("c").to_dict()["views"] == [str(files[5])]
    digests = "\n".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in files[4:])
    assert gallery._store.read(["c"])["c"].digest == hashlib.sha256(digests.encode()).hexdigest()


def test_a_list_of_one_is_that_photo(gallery, files):
    gallery.add([[files[0]]])
    assert gallery.get(str(files[0])).views == ()
    assert gallery.add([files[0]]) == AddReport(0, 0, 1, ())


def test_entries_that_did_not_change_are_not_encoded_again(gallery, files, encoded):
    items, names = [files[:3], files[3:]], ["a", "b"]
    gallery.add(items, names)
    assert encoded["photos"] == 6
    assert gallery.add(items, names) == AddReport(0, 0, 2, ())
    assert encoded["photos"] == 6
    drawn_photo((24, 32), seed=9).save(files[1])
    assert gallery.add(items, names) == AddReport(0, 1, 1, ())
    assert encoded["photos"] == 9
    assert gallery.add([files[:2], files[3:]], names) == AddReport(0, 1, 1, ())  # one photo fewer
    assert gallery.add([files[1::-1], files[3:]], names) == AddReport(0, 1, 1, ())  # another one first


def test_an_entry_fails_as_a_whole_and_says_which_photo(gallery, files, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no photo")
    items = [
        files[0],
        [files[1], tmp_path / "bad.png", tmp_path / "none.png"],
        files[2:4],
        [tmp_path / "gone", files[4]],
    ]
    report = gallery.add(items, ["a", "b", "c", "d"], on_error="skip")
    assert (report.added, len(gallery)) == (2, 2)
    assert [(failure.index, failure.source) for failure in report.failures] == [(1, "bad.png"), (3, "gone")]
    assert "bad.png" in str(report.failures[0].error)
    with pytest.raises(ImageError, match=r"^images\[1\]\[1\]: photo .*bad\.png"):
        gallery.add(items, ["e", "f", "g", "h"])
    assert "e" in gallery
    assert "f" not in gallery


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([], r"images\[1\] must be a photo, or a list of photos of one item, got none"),
        ([["a.png"]], r"images\[1\] must be .*, got a list in a list"),
    ],
)
@pytest.mark.parametrize("kind", [list, iter])
def test_lists_that_are_no_item_are_refused(gallery, files, item, message, kind):
    with pytest.raises(InputError, match=message):
        gallery.add(kind([files[0], item]), ["a", "b"])
    assert len(gallery) == (0 if kind is list else 1)


def test_a_gallery_of_an_earlier_release_refuses_views(gallery, files, monkeypatch):
    store = gallery._store
    monkeypatch.setattr(store, "settings", replace(store.settings, schema_version=1))
    with pytest.raises(InputError, match="has 2 photos, and this gallery was made by a release that keeps one"):
        gallery.add([files[0], files[1:3]], ["a", "b"])
    monkeypatch.undo()
    assert len(gallery) == 0


def test_the_first_photo_is_recognized(tmp_path, files, model):
    with Gallery.create(tmp_path / "recognized", model, recognize=True) as gallery:
        gallery.add([[files[1], files[0], files[2]], files[1]], ["several", "one"])
        expected = garment_fields(model.recognize(files[1]))
        fields = gallery.get("several").fields
        assert fields == gallery.get("one").fields == dict.fromkeys(fields) | expected


def test_paths_stay_right_when_the_process_changes_its_folder(tmp_path, model, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Gallery.create("relative", model, fields=FIELDS) as gallery:
        gallery.add(["0.png", ["1.png", "2.png"]])
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert len(gallery.search(model.encode(images=files[0]))) == 2
        assert gallery.add([files[3]], ["d"]).added == 1
        assert len(gallery.search(model.encode(images=files[0]))) == 3
        match = gallery.get("1.png")
        assert (match.photo, match.views) == (str(files[1]), (str(files[2]),))
    assert not (tmp_path / "elsewhere" / "relative").exists()
    monkeypatch.chdir(tmp_path)
    with Gallery.open("relative", model) as gallery:
        assert gallery.add(["0.png", ["1.png", "2.png"]]) == AddReport(0, 0, 2, ())


class Shade(enum.StrEnum):
    RED = "red"


class Loud(str):
    def __str__(self):
        return "LOUD"


class Odd(int):
    def __int__(self):
        return -1


def test_values_that_only_look_plain_are_stored_as_what_they_are(gallery, files):
    given = [
        {"category": Shade.RED, "price": np.float32(0.5), "stock": np.int16(3), "sale": np.bool_(True)},
        {"category": Loud("quiet"), "price": -0.0, "stock": Odd(7)},
        {"category": np.str_("numpy"), "price": 2**70, "stock": np.uint64(2**63 - 1)},
    ]
    gallery.add(files[:3], [Loud("a"), Shade.RED, np.str_("c")], given)
    a, red, c = (gallery.get(name).fields for name in ("a", "red", "c"))
    assert (a["category"], a["price"], a["stock"], a["sale"]) == ("red", 0.5, 3, True)
    assert (red["category"], str(red["price"]), red["stock"]) == ("quiet", "0.0", 7)
    assert (c["category"], c["price"], c["stock"]) == ("numpy", float(2**70), 2**63 - 1)
    assert {type(value) for value in a.values() if value is not None} == {str, float, int, bool}


@pytest.mark.parametrize(
    "values",
    [
        {"stock": 2**63},
        {"stock": -(10**5000)},
        {"price": 10**400},
        {"price": float("nan")},
        {"stock": np.uint64(2**63)},
    ],
)
def test_numbers_that_do_not_fit_are_refused_in_one_line(gallery, files, values):
    name = next(iter(values))
    with pytest.raises(InputError, match=rf"metadata\[0\]\['{name}'\] must be a .*number.*, got \w+ .*") as caught:
        gallery.add(files[:1], ["a"], [values])
    assert len(str(caught.value)) < 200
    assert len(gallery) == 0
