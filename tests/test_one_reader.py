"""One reader: encode, encode_iter, galleries, shards and the command give the same rows for the same images."""

from __future__ import annotations

import dataclasses
import json
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner

from fashion_retrieval import FashionModel, Gallery, Recognition
from fashion_retrieval.cli import app
from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.images.load import load_pixels
from fashion_retrieval.models import garments
from fashion_retrieval.shards import encode_shards
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.drawn_files import drawn_bitmaps
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo, tiny_folder

OLD = json.loads((ROOT / "tests/fixtures/rows_of_0_1.json").read_text(encoding="utf-8"))
"""Digest and embedding of drawn photos, as release 0.1 kept them in a gallery."""
OWN = {
    "category": {"values": ["coat", "dress", "boots"]},
    "attributes": {"era": {"values": ["modern", "medieval"]}, "fit": {"values": ["tight", "wide"]}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("reader") / "model")


@pytest.fixture
def model(folder: Path) -> FashionModel:
    return FashionModel.from_pretrained(folder, device="cpu", dtype="float32")


def test_all_callers_give_the_same_rows_bit_for_bit(folder: Path, model: FashionModel, tmp_path: Path) -> None:
    paths = drawn_bitmaps(tmp_path / "photos", 7)
    given: Any = [*map(str, paths)]
    rows = model.encode(images=paths)
    digests = [one.digest for one in model.encode_iter(paths)]
    np.testing.assert_array_equal([one.embedding for one in model.encode_iter(paths)], rows)
    with Gallery.create(tmp_path / "gallery", model) as gallery:
        gallery.add(paths)
        kept = gallery._store.read(given)
        np.testing.assert_array_equal([kept[name].vector for name in given], rows)
        assert [kept[name].digest for name in given] == digests
    encode_shards(given, tmp_path / "shards", model=folder, loading={"device": "cpu", "dtype": "float32"})
    table = parquet.read_table(next((tmp_path / "shards").glob("*.parquet")))
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), rows)
    assert table["digest"].to_pylist() == digests
    options = ["--model", str(folder), "--device", "cpu", "--dtype", "float32"]
    done = CliRunner().invoke(app, ["encode", *given, "--out", str(tmp_path / "rows.npy"), *options])
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), rows)


def test_digests_and_embeddings_are_those_of_the_release_before(model: FashionModel, tmp_path: Path) -> None:
    images: Any = [*drawn_bitmaps(tmp_path, 4), drawn_photo((30, 20), seed=9)]
    found = list(model.encode_iter(images))
    assert [one.digest for one in found] == [row["digest"] for row in OLD.values()]
    np.testing.assert_allclose([one.embedding for one in found], [row["embedding"] for row in OLD.values()], atol=3e-4)


def test_pillows_settings_stay_as_they_are_while_other_threads_load(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = BytesIO()
    drawn_photo((40, 30)).save(buffer, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    stop, warned = threading.Event(), []

    def host() -> None:
        while not stop.is_set():
            with pytest.raises(Image.DecompressionBombError):
                Image.open(BytesIO(buffer.getvalue()))
            warned.append(Image.MAX_IMAGE_PIXELS)

    with warnings.catch_warnings(), ThreadPoolExecutor(3) as pool:
        warnings.simplefilter("error")
        before = list(warnings.filters)
        other = pool.submit(host)
        shapes = {pixels.shape for pixels in pool.map(load_pixels, [buffer.getvalue()] * 200)}
        stop.set()
        other.result()
        assert warnings.filters == before
    assert shapes == {(30, 40, 3)}
    assert set(warned) == {500}


def test_a_text_stream_that_cannot_seek_raises_an_input_error() -> None:
    class Pipe(StringIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(InputError, match="is a text file object; open it in binary mode"):
        load_pixels(Pipe("words"))  # type: ignore[arg-type]
    closed = BytesIO(b"x")
    closed.close()
    with pytest.raises(InputError, match=r"can't be read .*; open it again"):
        load_pixels(closed)


@pytest.mark.parametrize("box", [(2.4, 3.6, 20.2, 30.5), (0.0, 0.0, 39.5, 47.9), (5.1, 5.1, 5.2, 5.2)])
def test_a_fractional_box_without_a_segmenter_is_one_crop(
    model: FashionModel, monkeypatch: pytest.MonkeyPatch, box: tuple[float, ...]
) -> None:
    encoded, encode_images = [], model.towers.encode_images
    monkeypatch.setattr(
        model.towers, "encode_images", lambda levels: encoded.append(len(levels)) or encode_images(levels)
    )
    garment = model.recognize(drawn_photo((40, 48)), boxes=[box], segmenter=None, taxonomy=OWN).garments[0]
    rows, columns = np.flatnonzero(garment.mask.any(1)), np.flatnonzero(garment.mask.any(0))
    covered = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert covered == (np.floor(box[0]), np.floor(box[1]), np.ceil(box[2]), np.ceil(box[3]))
    assert encoded == [1]  # crop and masked crop are the same


def test_results_without_images_are_equal_and_small(model: FashionModel) -> None:
    photo = drawn_photo((400, 300))
    whole = model.recognize(photo, segmenter=None, taxonomy=OWN)
    small = model.recognize(photo, segmenter=None, taxonomy=OWN, keep_image=False)
    assert small.image is None
    assert small.to_dict(masks=True) == whole.to_dict(masks=True)
    assert small.garments == whole.garments
    assert len(small.garments[0]._packed[2]) < 200  # type: ignore[index]
    (many,) = model.recognize_many([photo], segmenter=None, taxonomy=OWN, keep_image=False)
    assert many.to_dict(masks=True) == whole.to_dict(masks=True)  # type: ignore[union-attr, call-arg]


def test_a_result_without_its_photo_is_drawn_from_the_file(model: FashionModel, tmp_path: Path) -> None:
    path = tmp_path / "dress.png"
    drawn_photo((400, 300)).save(path)
    whole = model.recognize(path, segmenter=None, taxonomy=OWN)
    assert whole.image is not None
    assert whole.image.tobytes() == drawn_photo((400, 300)).tobytes()
    (many,) = model.recognize_many([path], segmenter=None, taxonomy=OWN)
    assert isinstance(many, Recognition)
    assert many.image is None
    assert many.draw().tobytes() == whole.draw().tobytes()
    assert pickle.loads(pickle.dumps(many)).draw().tobytes() == whole.draw().tobytes()
    assert dataclasses.replace(many, source="other").draw().size == whole.draw().size
    with pytest.raises(InputError, match=r"expects several photos, got one; put it into a list or use recognize$"):
        model.recognize_many(str(path), segmenter=None)  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(whole)).image.tobytes() == whole.image.tobytes()
    assert pickle.loads(pickle.dumps(many)).garments[0]._packed == many.garments[0]._packed
    assert len(pickle.dumps(many)) < 5_000
    drawn_photo((500, 400)).save(path)
    with pytest.raises(InputError, match="has changed since"):
        many.draw()
    drawn_photo((30, 30)).save(path)
    with pytest.raises(InputError, match=r"dress.png' has changed since it was recognized; recognize it again$"):
        many.draw()
    path.unlink()
    with pytest.raises(ImageError, match="does not exist"):
        many.draw()
    assert whole.draw().size[0] == 840


def test_a_large_photo_keeps_small_masks_and_its_own_pixels_once(
    model: FashionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garments, "_LARGE", 0)
    with Image.open(ROOT / "examples/wardrobe/pink-polo.jpg") as opened:
        photo = opened.resize((1200, 1600))
    expected = model.recognize(photo, taxonomy=OWN)
    assert expected.garments
    assert all(garment._packed for garment in expected.garments)
    monkeypatch.undo()
    found = model.recognize(photo, taxonomy=OWN)
    assert found.to_dict(masks=True) == expected.to_dict(masks=True)


def test_threads_may_share_a_model(model: FashionModel) -> None:
    photos = [drawn_photo((40, 48), seed=seed) for seed in range(12)]
    taxonomies = [OWN, "deepfashion"]

    def recognize(number: int) -> dict[str, Any]:
        found = model.recognize(photos[number], segmenter=None, taxonomy=taxonomies[number % 2])
        model.encode(texts=[f"text {number}", "a text of all"])
        return found.to_dict()

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(recognize, range(12)))
    for number, found in enumerate(together):
        expected = recognize(number)
        assert [g["category"]["name"] for g in found["garments"]] == [
            g["category"]["name"] for g in expected["garments"]
        ]


def test_texts_of_users_go_by_their_batch_size_and_leave_the_prompts(
    model: FashionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.recognize(drawn_photo(), segmenter=None, taxonomy=OWN)
    prompts = len(model._prompts)
    sizes, encode_texts = [], model.towers.encode_texts
    monkeypatch.setattr(model.towers, "encode_texts", lambda texts: sizes.append(len(texts)) or encode_texts(texts))
    model.encode(texts=[f"number {number}" for number in range(600)], batch_size=400)
    assert sizes == [400, 200]
    assert len(model._prompts) == prompts


def test_a_taxonomy_file_is_parsed_once_for_each_content(model: FashionModel, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(OWN), encoding="utf-8")
    assert Taxonomy.load(path) is Taxonomy.load(path)
    first = model.recognizer(path)
    assert model.recognizer(path) is first
    assert model.recognizer(path, top_k=1)._classifiers is first._classifiers
    assert model.recognizer(OWN) is model.recognizer(dict(OWN))
    path.write_text(json.dumps(OWN | {"name": "other"}), encoding="utf-8")
    assert model.recognizer(path).taxonomy.name == "other"


def test_a_photo_that_is_too_large_is_named_with_the_limit() -> None:
    buffer = BytesIO()
    drawn_photo((40, 30)).save(buffer, "WEBP", lossless=True)
    with pytest.raises(ImageError, match="40x30 pixels, over max_pixels=1000"):
        load_pixels(buffer.getvalue(), max_pixels=1000)
