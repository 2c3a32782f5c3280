"""What a gallery refuses, in one line that says what to do."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
import torch

from fashion_retrieval import gallery as gallery_module
from fashion_retrieval.errors import GalleryError, ImageError, InputError, MissingExtraError
from fashion_retrieval.gallery.engines.base import Settings
from fashion_retrieval.gallery.engines.lancedb import LanceStore
from fashion_retrieval.gallery.gallery import AddReport, Gallery
from fashion_retrieval.gallery.refinement import Refinement
from fashion_retrieval.model import FashionModel
from fashion_retrieval.results import Match
from tests.support.galleries import milvus_address
from tests.support.tiny import drawn_photo, tiny_folder

FIELDS = {"price": float, "shop": str, "sale": bool, "stock": int}
PHOTO = drawn_photo((24, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("errors")


@pytest.fixture(scope="module")
def model(folder):
    return FashionModel.from_pretrained(tiny_folder(folder / "model"), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def gallery(folder, model):
    with Gallery.create(folder / "gallery", model, fields=FIELDS) as gallery:
        gallery.add([PHOTO], ["a"])
        yield gallery


def refused(kind, message, call, *arguments, **options):
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is kind


def test_gallery_at_a_wrong_place_is_refused(tmp_path, folder, model, gallery):
    refused(GalleryError, "there is no gallery at", Gallery.open, tmp_path / "nothing", model)
    assert not (tmp_path / "nothing").exists()
    refused(GalleryError, "there is already a gallery at", Gallery.create, folder / "gallery", model)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("hello")
    refused(GalleryError, "is no gallery; give the folder", Gallery.open, tmp_path / "notes", model)
    refused(GalleryError, "is no gallery; give the folder", Gallery.create, tmp_path / "notes", model)
    refused(GalleryError, "must be a folder, got", Gallery.open, tmp_path / "notes" / "a.txt", model)
    refused(GalleryError, "is no gallery; give the folder", Gallery.open, tmp_path, model)
    refused(InputError, "uri must be a folder or an address, got 7", Gallery.open, 7, model)
    (tmp_path / "half" / "photos.lance" / "data").mkdir(parents=True)
    refused(GalleryError, "there is no gallery at", Gallery.open, tmp_path / "half", model)
    with Gallery.create(tmp_path / "half", model) as whole:
        assert len(whole) == 0


def test_gallery_in_a_table_of_something_else_is_refused(tmp_path, model):
    schema = pa.schema([pa.field("id", pa.string())])
    lancedb.connect(tmp_path / "other").create_table("photos", schema=schema)
    refused(GalleryError, "holds data that is no gallery", Gallery.open, tmp_path / "other", model)


def test_search_of_a_damaged_gallery_is_refused(tmp_path, model):
    with Gallery.create(tmp_path / "g", model) as gallery:
        gallery.add([PHOTO], ["a"])
    for path in (tmp_path / "g" / "photos.lance" / "data").iterdir():
        path.write_bytes(b"")
    with Gallery.open(tmp_path / "g", model) as gallery:
        refused(GalleryError, "could not be searched", gallery.search, model.encode(texts="a dress"))


def test_gallery_of_a_newer_version_is_refused(tmp_path, model):
    settings = Settings(model.model_id, model.fingerprint, model.embedding_dim, None, {}, schema_version=3)
    with pytest.raises(GalleryError, match="must have schema version 1 to 2, got 3; upgrade"):
        LanceStore.create(str(tmp_path / "g"), settings)
    refused(GalleryError, "must have schema version 1 to 2, got 3", Gallery.open, tmp_path / "g", model)


def test_gallery_of_another_model_is_refused(folder, gallery):
    other = FashionModel.from_pretrained(tiny_folder(folder / "other", seed=1), device="cpu")
    for call in (Gallery.open, lambda uri, model: Gallery.create(uri, model, fields=FIELDS, exist_ok=True)):
        refused(GalleryError, "load that model, or build a new gallery", call, folder / "gallery", other)


def test_gallery_of_another_precision_can_be_searched_and_not_added_to(tmp_path, folder, model):
    uri = tmp_path / "g"
    half = FashionModel.from_pretrained(folder / "model", device="cpu", dtype="bfloat16")
    with Gallery.create(uri, model, fields=FIELDS) as gallery:
        gallery.add([PHOTO], ["a"])
        assert Gallery.peek(uri).dtype == gallery.info.dtype == "float32"
    with Gallery.open(uri, half) as gallery:
        assert gallery.search(half.encode(images=PHOTO))[0].id == "a"
        message = "embeddings computed in float32, got a model that computes in bfloat16; load the model with "
        refused(GalleryError, message + "dtype='float32', backend='torch', or build", gallery.add, [PHOTO], ["b"])
    place = str(tmp_path / "mixed")
    settings = replace(gallery_settings(uri), dtype="float32 by openvino int8")
    LanceStore.create(place, settings)
    with Gallery.open(place, model) as gallery:
        refused(GalleryError, "dtype='float32', backend='openvino', or", gallery.add, [PHOTO], ["b"])
    for name, dtype, one in (("unknown", None, half), ("exact", "float32 by openvino fp32", model)):
        LanceStore.create(str(tmp_path / name), replace(settings, dtype=dtype))
        with Gallery.open(tmp_path / name, one) as gallery:
            assert gallery.add([PHOTO], ["b"]).added == 1


def gallery_settings(uri):
    return LanceStore.open(str(uri)).settings


def test_gallery_remembers_the_revision_and_the_absolute_folder_of_its_model(tmp_path, folder, model, monkeypatch):
    monkeypatch.chdir(folder)
    local = FashionModel.from_pretrained("model", device="cpu", dtype="float32")
    Gallery.create(tmp_path / "local", local).close()
    assert (Gallery.peek(tmp_path / "local").model_id, local.revision) == (str(folder / "model"), None)
    monkeypatch.setattr(model, "revision", "0123abc")
    monkeypatch.setattr(model, "model_id", "org/name")
    Gallery.create(tmp_path / "hub", model).close()
    asked = []

    def load(model_id, **options):
        asked.append((model_id, options["revision"], options["dtype"], options["backend"]))
        return model

    monkeypatch.setattr(FashionModel, "from_pretrained", load)
    for options in ({}, {"revision": "main"}, {"model_id": "org/copy", "dtype": "float32", "backend": "torch"}):
        Refinement.open(tmp_path / "hub", **options).gallery.close()
    assert asked == [
        ("org/name", "0123abc", "auto", "auto"),
        ("org/name", "main", "auto", "auto"),
        ("org/copy", None, "float32", "torch"),
    ]


def test_create_over_other_settings_is_refused(folder, model, gallery):
    uri = folder / "gallery"
    refused(GalleryError, "other fields", Gallery.create, uri, model, fields={"price": int}, exist_ok=True)
    refused(GalleryError, "other fields", Gallery.create, uri, model, fields={}, exist_ok=True)
    told = "other recognition or taxonomy"
    refused(GalleryError, told, Gallery.create, uri, model, recognize=True, exist_ok=True)
    refused(InputError, "pass recognize=True with it", Gallery.create, uri, model, taxonomy="default")
    for fields, message in (
        ({"id": str}, "must be named by a text other than id, photo, score"),
        ({"": str}, "must be named by a text"),
        ({"price": list}, "must be str, int, float or bool"),
        (["price"], "fields must be a dict of types by name, as {'price': float}, got list"),
        ({f"f{index}": str for index in range(31)}, "at most 30 fields, got 31"),
    ):
        refused(InputError, message, Gallery.create, folder / "new", model, fields=fields)
    clash = {"category": str}
    refused(InputError, "which recognition gives", Gallery.create, folder / "new", model, recognize=True, fields=clash)
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.ones(15, np.float32), "shape (16,) or (1, 16), got float32 (15,)"),
        (np.ones((2, 16), np.float32), "got float32 (2, 16)"),
        (np.ones(16, np.int64), "must be floats of shape"),
        (["a"] * 16, "must be floats of shape"),
        (np.full(16, np.nan, np.float32), "must hold finite numbers"),
        (np.full(16, np.inf, np.float32), "must hold finite numbers"),
        (np.zeros(16, np.float32), "not all 0"),
        ([[1.0], [1.0, 2.0]], "a query must be"),
        (
            "a red dress",
            "a query must be an embedding, got the text 'a red dress'; FashionModel.encode",
        ),
        (Path("a.jpg"), "must be an embedding, got a P"),
        (Match("a", 1.0, None), "must be an embedding, got a Match; "),
    ],
)
def test_search_refuses_a_wrong_query(gallery, query, message):
    refused(InputError, message, gallery.search, query)


def test_search_get_and_delete_refuse_wrong_arguments(gallery):
    query = np.ones(16, np.float32)
    refused(InputError, "top_k must be a whole number from 1 to", gallery.search, query, 0)
    refused(InputError, "top_k must be a whole number from 1 to", gallery.search, query, 2.5)
    refused(
        InputError,
        "top_k must be a whole number from 1 to 16382, got 16383",
        gallery.search,
        query,
        16383,
        exclude=["a"],
    )
    many = [str(number) for number in range(16383)]
    refused(InputError, "exclude must name fewer than 16383 ids", gallery.search, query, exclude=many)
    refused(InputError, "exclude must be a collection of ids", gallery.search, query, exclude="a")
    refused(InputError, "unknown field 'color'", gallery.search, query, where="color = 'red'")
    refused(InputError, "has no photo with id 'b'", gallery.get, "b")
    refused(InputError, "has no photo with id 7", gallery.get, 7)
    refused(InputError, "ids must be a collection", gallery.delete, "a")
    refused(InputError, "ids[0] must be a text", gallery.delete, [7])


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("photo.jpg", {}, "images must be several photos, got str; put one photo in a list"),
        (b"bytes", {}, "got bytes"),
        (PHOTO, {"ids": ["b"]}, "got Image"),
        (np.zeros((8, 8, 3), np.uint8), {"ids": ["b"]}, "got ndarray"),
        (torch.zeros((3, 8, 8), dtype=torch.uint8), {"ids": ["b"]}, "got Tensor"),
        (7, {}, "got int"),
        ([PHOTO], {}, "images[0] is no path but a Image, so it needs a name; pass ids="),
        (iter([PHOTO]), {}, "images[0] is no path"),
        ([PHOTO], {"ids": "b"}, "ids must be a sequence, got the text 'b'"),
        ([PHOTO], {"ids": [""]}, "ids[0] must be a text of 1 to 4096 bytes"),
        ([PHOTO], {"ids": [3]}, "ids[0] must be a text"),
        ([PHOTO], {"ids": ["é" * 2049]}, "ids[0] must be a text of 1 to 4096 bytes"),
        ([PHOTO], {"ids": ["\udcff"]}, "ids[0] must be a text"),
        ([PHOTO], {"ids": ["a\0b"]}, "ids[0] must be a text"),
        ([PHOTO], {"ids": ["b", "c"]}, "one entry a photo each, got 1 images, 2 ids"),
        ([PHOTO] * 2, {"ids": ["b", "c"], "metadata": [{}]}, "got 2 images, 2 ids, 1 metadata"),
        ([PHOTO] * 2, {"ids": ["b", "b"]}, "ids must be distinct, got 'b' twice"),
        (["b.jpg", "b.jpg"], {}, "ids must be distinct, got 'b.jpg' twice"),
        ([PHOTO], {"ids": ["b"], "metadata": {"price": 1}}, "metadata must be a sequence"),
        ([PHOTO], {"ids": ["b"], "metadata": [3]}, "metadata[0] must be a dict of fields, got int"),
        (
            [PHOTO],
            {"ids": ["b"], "metadata": [{"color": "red"}]},
            "unknown field 'color'; this gallery's fields are: price",
        ),
        (
            [PHOTO],
            {"ids": ["b"], "metadata": [{"price": "5"}]},
            "metadata[0]['price'] must be a finite number, or None, got str",
        ),
        ([PHOTO], {"ids": ["b"], "metadata": [{"price": float("nan")}]}, "must be a finite number"),
        ([PHOTO], {"ids": ["b"], "metadata": [{"price": True}]}, "must be a finite number"),
        ([PHOTO], {"ids": ["b"], "metadata": [{"stock": 1.0}]}, "must be a whole number of 64 bits"),
        ([PHOTO], {"ids": ["b"], "metadata": [{"stock": 2**63}]}, "must be a whole number of 64 bits"),
        ([PHOTO], {"ids": ["b"], "metadata": [{"sale": 1}]}, "must be True or False"),
        (
            [PHOTO],
            {"ids": ["b"], "metadata": [{"shop": 5}]},
            "of UTF-8, or None, got int 5",
        ),
        ([PHOTO], {"ids": ["b"], "metadata": [{"shop": "x" * 65536}]}, "must be a text of at most 65535 bytes"),
        ([PHOTO], {"ids": ["b"], "batch_size": 0}, "batch_size must be a whole number from 1 to 1024, got 0"),
        ([PHOTO], {"ids": ["b"], "on_error": "ignore"}, "on_error must be 'raise' or 'skip'"),
    ],
)
def test_add_refuses_wrong_arguments(gallery, images, options, message):
    refused(InputError, message, gallery.add, images, **options)
    assert len(gallery) == 1


def test_add_refuses_what_is_no_image(gallery, tmp_path):
    refused(ImageError, "images[0]: photo 'https://x/a.jpg' is a URL", gallery.add, ["https://x/a.jpg"])
    refused(ImageError, "is a folder", gallery.add, [tmp_path])
    refused(InputError, "images[0]: a photo array must be uint8", gallery.add, [np.zeros((4, 4, 3))], ["b"])
    refused(InputError, "a photo must be a path, bytes", gallery.add, [7], ["b"])
    closed = (tmp_path / "x").open("wb")
    closed.close()
    refused(InputError, "can't be read", gallery.add, [closed], ["b"])
    assert len(gallery) == 1


def test_add_takes_numbers_of_numpy_as_metadata(tmp_path, model):
    values = {"price": np.float32(1.5), "stock": np.int64(7), "sale": np.bool_(True), "shop": np.str_("x")}
    with Gallery.create(tmp_path / "g", model, fields=FIELDS) as gallery:
        assert gallery.add([PHOTO], ["a"], [values]) == AddReport(1, 0, 0)
        assert gallery.get("a").fields == {"price": 1.5, "stock": 7, "sale": True, "shop": "x"}


def test_closed_gallery_refuses_every_call(tmp_path, model):
    gallery = Gallery.create(tmp_path / "g", model)
    gallery.close()
    gallery.close()
    refused(GalleryError, "this gallery is closed; open it again", gallery.search, np.ones(16, np.float32))
    refused(GalleryError, "this gallery is closed", len, gallery)
    assert repr(gallery) == "Gallery(closed)"


def test_milvus_gallery_at_a_wrong_address_is_refused(model, monkeypatch):
    refused(InputError, "the collection of letters, digits and _", Gallery.open, "http://127.0.0.1:1/a/b", model)
    refused(InputError, "must be http://host:port/collection", Gallery.open, "http://127.0.0.1:x/a", model)
    monkeypatch.setattr("fashion_retrieval.gallery.engines.milvus._TIMEOUT", 0.2)
    refused(
        GalleryError,
        "no Milvus server answers at http://127.0.0.1:1 ",
        Gallery.open,
        "http://me:secret@127.0.0.1:1",
        model,
    )
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    refused(MissingExtraError, "pip install 'fashion-retrieval[milvus]'", Gallery.open, "http://127.0.0.1:1/a", model)


def test_milvus_gallery_without_its_collection_is_refused(model):
    refused(
        GalleryError,
        "/nothing; check the path",
        Gallery.open,
        f"{milvus_address()}/nothing",
        model,
    )


def test_import_of_gallery_is_light():
    heavy = "{'lancedb', 'pyarrow', 'pymilvus', 'sqlglot', 'torch', 'rich'}"
    code = f"import sys, {gallery_module.__name__}; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
