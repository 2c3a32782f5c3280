"""Galleries of fewer dimensions and smaller numbers: what they give, how far it is from float32, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.checkpoint.extras import Extras
from fashion_retrieval.errors import GalleryError, InputError
from fashion_retrieval.gallery.engines.base import Settings
from fashion_retrieval.gallery.engines.lancedb import LanceStore
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.inference.vectors import quantized, restored
from fashion_retrieval.shards import encode_shards
from tests.support.galleries import clustered, rows, settings, tiny_model
from tests.support.tiny import drawn_photo, tiny_folder

PHOTOS = [drawn_photo(seed=seed) for seed in range(6)]
IDS = [f"p{seed}" for seed in range(6)]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """The same model with a basis."""
    bundle = checkpoint.load(tiny_folder(tmp_path_factory.mktemp("model")))
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0].astype(np.float16).astype(np.float32)
    return FashionModel(replace(bundle, extras=Extras(basis=basis)), model_id="tiny", device="cpu", dtype="float32")


@pytest.mark.parametrize(("precision", "bound"), [("float16", 0.0005), ("int8", 0.01)])
def test_gallery_of_smaller_numbers_gives_the_float32_answers_within_the_bound(model, tmp_path, precision, bound):
    with (
        Gallery.create(tmp_path / "a", model) as whole,
        Gallery.create(tmp_path / "b", model, precision=precision) as small,
    ):
        for gallery in (whole, small):
            assert gallery.add(PHOTOS, IDS).added == 6
        query = model.encode(texts="a red dress")
        expected = {match.id: match.score for match in whole.search(query)}
        found = {match.id: match.score for match in small.search(query)}
        assert found.keys() == expected.keys()
        assert all(abs(found[name] - expected[name]) <= bound for name in expected)
        vectors = small.embeddings(IDS)
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, restored(quantized(model.encode(images=PHOTOS), precision)))
        assert small.info.precision == precision
        assert small.add(PHOTOS, IDS).unchanged == 6
        assert small.search(vectors[2])[0].id == "p2"
    with Gallery.open(tmp_path / "b", model) as again:
        assert np.array_equal(again.embeddings(IDS), vectors)
        again.add(PHOTOS[:1], IDS[:1], None)
        assert np.array_equal(again.embeddings(IDS), vectors)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_rows_read_and_written_again_keep_their_numbers(tmp_path, precision):
    with_precision = replace(settings(), precision=precision)
    store = LanceStore.create(str(tmp_path / "g"), with_precision)
    store.write(rows(clustered(500)))
    first = store.read([f"p{number:05}" for number in range(500)])
    for _ in range(3):
        store.write(list(store.read(list(first)).values()))
    again = store.read(list(first))
    assert all(np.array_equal(again[name].vector, first[name].vector) for name in first)
    assert all(np.linalg.norm(row.vector) == pytest.approx(1, abs=1e-6) for row in first.values())


def test_float16_vectors_take_half_the_bytes_on_disk(tmp_path):
    sizes, vectors = {}, np.random.default_rng(0).normal(size=(4_000, 256)).astype(np.float32)
    for precision in ("float32", "float16", "int8"):
        store = LanceStore.create(
            str(tmp_path / precision), replace(settings(), embedding_dim=256, precision=precision)
        )
        store.write(rows(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
        sizes[precision] = sum(
            path.stat().st_size for path in (tmp_path / precision).rglob("*.lance") if path.is_file()
        )
    others = sizes["float32"] - vectors.nbytes
    assert 0 <= others < 0.1 * vectors.nbytes
    assert sizes["float16"] - others == pytest.approx(vectors.nbytes / 2, rel=0.02)
    assert sizes["int8"] - others == pytest.approx(vectors.nbytes / 4, rel=0.02)


def test_gallery_of_fewer_dimensions_takes_queries_of_both_widths(turned, tmp_path):
    with Gallery.create(tmp_path / "g", turned, dimensions=6, precision="float16") as gallery:
        gallery.add(PHOTOS, IDS)
        assert gallery.info.embedding_dim == 6
        full = turned.encode(images=PHOTOS[2])
        short = turned.encode(images=PHOTOS[2], dimensions=6)
        assert gallery.search(full) == gallery.search(short) == gallery.search(full[0])
        assert gallery.search(full)[0].id == "p2"
        assert gallery.search(full, negative=full) == gallery.search(short, negative=short)
        assert gallery.search(full[0].tolist(), negative=full.tolist()) == gallery.search(short, negative=short)
        assert gallery.embeddings(["p2"]) == pytest.approx(short, abs=0.001)
        with pytest.raises(InputError, match=r"a query must be floats of shape \(6,\) or \(1, 6\), got float32 \(7,\)"):
            gallery.search(full[0][:7])
        with pytest.raises(InputError, match="a query must hold finite numbers"):
            gallery.search(full[0] * np.nan)


def test_gallery_of_fewer_dimensions_belongs_to_the_basis(model, turned, tmp_path):
    Gallery.create(tmp_path / "g", turned, dimensions=6).close()
    Gallery.open(tmp_path / "g", turned).close()
    with pytest.raises(GalleryError, match="holds 6 dimensions by another basis than the model's"):
        Gallery.open(tmp_path / "g", model)
    Gallery.create(tmp_path / "full", turned, dimensions=16).close()
    Gallery.open(tmp_path / "full", model).close()


def test_gallery_that_exists_with_other_precision_or_dimensions_is_refused(model, tmp_path):
    Gallery.create(tmp_path / "g", model, precision="float16", dimensions=8).close()
    Gallery.create(tmp_path / "g", model, precision="float16", dimensions=8, exist_ok=True).close()
    for given, other in (({"precision": "float16"}, "dimensions"), ({"dimensions": 8}, "precision")):
        with pytest.raises(GalleryError, match=f"was made with other {other}; pass the same, or another place"):
            Gallery.create(tmp_path / "g", model, exist_ok=True, **given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"precision": "binary"}, "precision must be 'float32', 'float16' or 'int8', got 'binary'"),
        ({"precision": None}, "precision must be 'float32', 'float16' or 'int8', got None"),
        ({"dimensions": 17}, "dimensions must be a whole number from 1 to 16, got 17"),
        ({"memory_budget": -1}, "memory_budget must be a whole number from 0 to .*, got -1"),
        ({"memory_budget": "2 GB"}, "memory_budget must be a whole number from 0 to .*, got '2 GB'"),
        ({"memory_budget": 1e9}, "memory_budget must be a whole number from 0 to .*, got 1000000000.0"),
    ],
)
def test_create_refuses_wrong_arguments_and_writes_nothing(model, tmp_path, given, told):
    with pytest.raises(InputError, match=f"^{told}$"):
        Gallery.create(tmp_path / "g", model, **given)
    assert not (tmp_path / "g").exists()


def test_milvus_refuses_other_precisions_and_a_memory_budget(model):
    with pytest.raises(InputError, match="a gallery in Milvus stores float32, got precision 'float16'"):
        Gallery.create("http://127.0.0.1:1/g", model, precision="float16")
    with pytest.raises(InputError, match="memory_budget is of LanceDB galleries"):
        Gallery.open("http://127.0.0.1:1/g", model, memory_budget=1)


def test_gallery_beyond_its_memory_budget_is_searched_on_disk_but_not_of_int8(model, tmp_path, caplog):
    for precision in ("float32", "float16", "int8"):
        with Gallery.create(tmp_path / precision, model, precision=precision, memory_budget=100) as gallery:
            gallery.add(PHOTOS, IDS)
            query = model.encode(images=PHOTOS[3])
            if precision == "int8":
                with pytest.raises(GalleryError, match="can't search int8 on disk; open it with a larger"):
                    gallery.search(query)
            else:
                assert gallery.search(query)[0].id == "p3"
            gallery.optimize()
    assert sum("more than its memory_budget of 100" in message for message in caplog.messages) == 2
    with Gallery.open(tmp_path / "int8", model) as gallery:
        assert gallery.search(query)[0].id == "p3"


def test_settings_of_a_plain_gallery_are_what_they_were():
    kept = json.loads(settings().to_json())["fashion_retrieval_gallery"]
    assert not kept.keys() & {"precision", "basis", "probes"}
    given = replace(settings(), precision="int8", basis="0" * 64)
    assert Settings.from_json(given.to_json(), "x") == given
    with pytest.raises(GalleryError, match="precision"):
        Settings.from_json(given.to_json().replace('"int8"', '"int4"'), "x")


def test_shards_are_added_as_the_gallery_stores_them(turned, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, photo in enumerate(PHOTOS):
        photo.save(photos / f"{seed}.png")
    folder = turned.save_pretrained(tmp_path / "model")
    encode_shards([str(photos)], tmp_path / "shards", model=str(folder), loading={"dtype": "float32"})
    loaded = FashionModel.from_pretrained(folder, dtype="float32")
    paths = sorted(map(str, photos.iterdir()))
    with Gallery.create(tmp_path / "g", loaded, dimensions=6, precision="int8") as gallery:
        assert gallery.add_shards(tmp_path / "shards").added == 6
        expected = restored(loaded.encode(images=paths, dimensions=6, precision="int8"))
        names = [match.id for match in gallery.search(expected[0])]
        assert gallery.embeddings(sorted(names)) == pytest.approx(expected, abs=0.01)
