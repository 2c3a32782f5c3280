"""`encode` and `index` with --dimensions and --precision."""

import numpy as np
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from fashion_retrieval import FashionModel, Gallery
from fashion_retrieval.cli import app
from tests.support.tiny import drawn_photo, tiny_folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with three photos in `photos`, a text in `texts.txt` and a model in `model`."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "photos").mkdir()
    for seed in range(3):
        drawn_photo(seed=seed).save(folder / "photos" / f"{seed}.png")
    (folder / "texts.txt").write_text("a red dress\nblue jeans\n", encoding="utf-8")
    tiny_folder(folder / "model")
    return folder


@pytest.fixture(scope="module")
def model(shelf):
    return FashionModel.from_pretrained(shelf / "model", device="cpu", dtype="float32")


def run(shelf, *arguments):
    given = [*map(str, arguments), "--model", str(shelf / "model"), "--dtype", "float32"]
    return CliRunner().invoke(app, given)


def test_encode_writes_fewer_and_smaller_numbers(shelf, model, tmp_path):
    photos = sorted((shelf / "photos").iterdir())
    smaller = {"dimensions": 12, "precision": "binary"}
    done = run(
        shelf, "encode", shelf / "photos", "--out", tmp_path / "x.npy", "--dimensions", 12, "--precision", "binary"
    )
    assert (done.exit_code, done.stderr) == (0, f"3 embeddings of 2 numbers in {tmp_path / 'x.npy'}\n")
    assert np.array_equal(np.load(tmp_path / "x.npy"), model.encode(images=photos, **smaller))
    done = run(shelf, "encode", shelf / "photos", "--out", tmp_path / "x.parquet", "--precision", "float16")
    assert done.exit_code == 0
    column = parquet.read_table(tmp_path / "x.parquet")["embedding"].combine_chunks()
    found = column.flatten().to_numpy(zero_copy_only=False).reshape(3, 16)
    assert np.array_equal(found, model.encode(images=photos, precision="float16"))
    run(shelf, "encode", "--texts", shelf / "texts.txt", "--out", tmp_path / "t.npy", "--precision", "int8")
    assert np.array_equal(
        np.load(tmp_path / "t.npy"), model.encode(texts=["a red dress", "blue jeans"], precision="int8")
    )


def test_encode_iter_gives_what_encode_gives_and_ends_with_its_generator(shelf, model):
    photos = sorted((shelf / "photos").iterdir())
    for smaller in ({"dimensions": 5}, {"precision": "int8"}, {"dimensions": 9, "precision": "ubinary"}):
        rows = [one.embedding for one in model.encode_iter(photos, **smaller)]
        assert np.array_equal(np.stack(rows), model.encode(images=photos, **smaller))
    bad = [photos[0], b"no photo", photos[1]]
    found = list(model.encode_iter(bad, on_error="skip", precision="int8"))
    assert [type(one.embedding).__name__ for one in found] == ["ndarray", "Failure", "ndarray"]
    stream = model.encode_iter(photos, dimensions=5)
    next(stream)
    stream.close()


def test_index_makes_a_gallery_of_them(shelf, model, tmp_path):
    arguments = ["index", shelf / "photos", tmp_path / "g", "--no-recognize"]
    assert run(shelf, *arguments, "--dimensions", 8, "--precision", "float16").exit_code == 0
    with Gallery.open(tmp_path / "g", model) as gallery:
        assert (gallery.info.embedding_dim, gallery.info.precision, len(gallery)) == (8, "float16", 3)
    done = run(shelf, *arguments)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "was made with other dimensions" in done.stderr


def test_index_adds_to_a_gallery_with_fields_of_its_own(shelf, model, tmp_path):
    Gallery.create(tmp_path / "g", model, fields={"price": float}).close()
    done = run(shelf, "index", shelf / "photos", tmp_path / "g", "--no-recognize")
    assert (done.exit_code, done.stderr) == (0, "")
    with Gallery.open(tmp_path / "g", model) as gallery:
        assert [match.fields for match in gallery.search(model.encode(texts="a"))] == [{"price": None}] * 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "x.npy", "--precision", "int4"], "'int4' is not one of"),
        (["--out", "x.npy", "--dimensions", 17], "dimensions must be a whole number from 1 to 16, got 17"),
        (["--out", "x.npy", "--dimensions", 0], "should be greater than or equal to 1"),
        (["--out", "shards/", "--dimensions", 8], "--dimensions and --precision go with --out FILE"),
        (["--out", "shards/", "--precision", "int8"], "--dimensions and --precision go with --out FILE"),
    ],
)
def test_encode_refuses_what_it_cannot_write(shelf, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    done = run(shelf, "encode", shelf / "photos", *arguments)
    assert done.exit_code in (1, 2)
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
