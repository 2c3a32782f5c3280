"""Galleries made before release 0.2, which spelled the field "colour", are used like new ones."""

import json

import pytest
from lancedb import connect

from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.engines import lancedb
from fashion_retrieval.gallery.engines.base import Row
from fashion_retrieval.gallery.gallery import AddReport, Gallery
from fashion_retrieval.gallery.refinement import Refinement
from fashion_retrieval.model import FashionModel
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.paths import ROOT

PHOTO = sorted((ROOT / "examples").glob("*.jpg"))[0]


@pytest.fixture(scope="module")
def model():
    return FashionModel.from_pretrained(device="cpu", dtype="float32", backend="torch")


@pytest.fixture
def old(tmp_path, model):
    """The place of an old gallery with a red and a blue row; what the old code did not write is left out."""
    with Gallery.create(tmp_path / "new", model, recognize=True, fields={"price": float}) as gallery:
        settings = gallery._store.settings
    content = json.loads(settings.to_json())
    for name in ("dtype", "revision"):
        del content["fashion_retrieval_gallery"][name]
    text = json.dumps(content).replace('"color": "str"', '"colour": "str"').replace("{color}", "{colour}")
    assert '"colour": "str"' in text
    assert "{colour}" in text
    schema = lancedb._schema(settings).with_metadata({b"fashion_retrieval": text.encode()})
    store = lancedb.LanceStore(str(tmp_path / "old"), connect(tmp_path / "old").create_table("photos", schema=schema))
    vectors = model.encode(texts=["red", "blue"])
    for name, vector in zip(("red", "blue"), vectors, strict=True):
        fields = dict.fromkeys(settings.fields) | {"category": "dress", "color": name}
        store.write([Row(name, vector, "d", None, fields)])
    return tmp_path / "old"


def test_old_gallery_opens_with_the_new_name_of_its_field(old, model):
    info = Gallery.peek(old)
    assert list(info.fields)[:2] == ["category", "color"]
    assert (info.count, info.dtype, info.revision) == (2, None, None)
    with Gallery.create(old, model, recognize=True, fields={"price": float}, exist_ok=True) as gallery:
        assert gallery.taxonomy == Taxonomy.load("default")


def test_old_gallery_is_filtered_by_either_name(old, model):
    query = model.encode(texts="a dress")
    with Gallery.open(old, model) as gallery:
        assert [match.id for match in gallery.search(query, where="color = 'red'")] == ["red"]
        with pytest.warns(DeprecationWarning, match=r"^the field 'colour' is now 'color'; the old name goes in"):
            found = gallery.search(query, where="not colour = 'red'")
        assert [match.id for match in found] == ["blue"]
        assert found[0].fields["color"] == "blue"
        with pytest.warns(DeprecationWarning, match="the field 'colour' is now 'color'"):
            assert found[0].fields["colour"] == "blue"
        with pytest.raises(InputError, match="unknown field 'hue'"):
            gallery.search(query, where="hue = 'red'")
        with pytest.raises(KeyError, match="hue"):
            found[0].fields["hue"]


def test_old_gallery_is_added_to_refined_and_drawn(old, model):
    with Gallery.open(old, model) as gallery:
        with pytest.warns(DeprecationWarning, match="metadata's field 'colour' is now 'color'"):
            report = gallery.add([PHOTO, PHOTO], ["one", "two"], [{"price": 5.0}, {"colour": "green"}])
        assert report == AddReport(2, 0, 0)
        garment = max(model.recognize(PHOTO).garments, key=lambda garment: garment.area)
        assert gallery.get("one").fields["color"] == garment.color
        assert gallery.get("two").fields["color"] == "green"
        table = connect(old).open_table("photos").to_arrow()
        assert dict(zip(table["id"].to_pylist(), table["f1"].to_pylist(), strict=True)) == {
            **{"red": "red", "blue": "blue"},
            **{"one": garment.color, "two": "green"},
        }
        turns = Refinement(model, gallery)
        assert {match.id for match in turns.ask("longer", "one", top_k=3)} == {"two", "red", "blue"}
        assert turns.draw().width >= 670


def test_new_gallery_takes_the_old_name_of_its_field_with_a_warning(tmp_path, model):
    with Gallery.create(tmp_path / "g", model, recognize=True) as gallery:
        gallery.add([PHOTO], ["a"])
        color = gallery.get("a").fields["color"]
        with pytest.warns(DeprecationWarning, match="the field 'colour' is now 'color'"):
            assert len(gallery.search(model.encode(texts="x"), where=f"colour = '{color}'")) == 1


def test_gallery_with_a_field_colour_of_the_user_keeps_it(tmp_path, model):
    with Gallery.create(tmp_path / "g", model, fields={"colour": str}) as gallery:
        gallery.add([PHOTO], ["a"], [{"colour": "teal"}])
        assert gallery.search(model.encode(texts="x"), where="colour = 'teal'")[0].fields == {"colour": "teal"}
        with pytest.raises(InputError, match="unknown field 'color'"):
            gallery.search(model.encode(texts="x"), where="color = 'teal'")


def test_old_spellings_of_gallery_methods_warn(tmp_path, model):
    with pytest.warns(DeprecationWarning, match=r"^Gallery.create\(recognise=\) is now recognize="):
        gallery = Gallery.create(tmp_path / "g", model, recognise=True)
    with gallery, pytest.warns(DeprecationWarning, match=r"^Gallery.optimise\(\) is now Gallery.optimize\(\)"):
        gallery.optimise()
    assert gallery.taxonomy is not None
