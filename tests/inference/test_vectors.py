"""FashionModel.encode and shorten: fewer dimensions and smaller numbers, and the file of the basis on disk."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sentence_transformers import quantize_embeddings

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.checkpoint.extras import Extras
from fashion_retrieval.errors import InputError, WeightsError
from fashion_retrieval.inference.vectors import quantized, restored
from tests.support.tiny import drawn_photo, tiny_folder

TEXTS = ["a red dress", "blue jeans", "a green shirt with long sleeves"]


def basis(width=16):
    """An orthogonal (D, D) as a file holds it."""
    return np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0].astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return FashionModel.from_pretrained(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def turned(folder):
    bundle = replace(checkpoint.load(folder), extras=Extras(basis=basis()))
    return FashionModel(bundle, model_id="tiny", device="cpu", dtype="float32")


def rows(number, width=48):
    found = np.random.default_rng(1).normal(size=(number, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_dimensions_keep_the_first_numbers_and_normalize_again(model):
    photos = [drawn_photo(seed=seed) for seed in range(3)]
    for given in ({"texts": TEXTS}, {"images": photos}):
        full = model.encode(**given)
        short = model.encode(**given, dimensions=6)
        assert short.dtype == np.float32
        assert short == pytest.approx(full[:, :6] / np.linalg.norm(full[:, :6], axis=1, keepdims=True), abs=1e-7)
        assert np.array_equal(model.encode(**given, dimensions=16), full)
        assert np.array_equal(model.shorten(full, 6), short)
        assert np.array_equal(model.shorten(full[0], 6), short[0])


def test_dimensions_of_a_model_with_a_basis_are_its_first_coordinates(model, turned):
    full = model.encode(texts=TEXTS)
    assert np.array_equal(turned.encode(texts=TEXTS), full)
    assert np.array_equal(turned.encode(texts=TEXTS, dimensions=16), full)
    assert turned.fingerprint == model.fingerprint
    expected = (full @ basis())[:, :5]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert turned.encode(texts=TEXTS, dimensions=5) == pytest.approx(expected, abs=1e-6)


def test_precisions_are_those_they_are_named_after(model):
    full, short = model.encode(texts=TEXTS), model.encode(texts=TEXTS, dimensions=12)
    half = model.encode(texts=TEXTS, precision="float16")
    assert half.dtype == np.float16
    assert np.array_equal(half, full.astype(np.float16))
    codes = model.encode(texts=TEXTS, precision="int8")
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max(axis=1).tolist() == [127] * 3
    assert codes == pytest.approx(full * 127 / np.abs(full).max(axis=1, keepdims=True), abs=0.5 + 1e-4)
    assert np.array_equal(model.encode(texts=TEXTS[1], precision="int8"), codes[1:2])
    for name in ("binary", "ubinary"):
        found = model.encode(texts=TEXTS, precision=name, dimensions=12)
        expected = quantize_embeddings(short, precision=name)
        assert found.shape == (3, 2)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    assert model.encode(images=[], precision="int8").shape == (0, 16)
    assert model.encode(images=[], precision="binary").shape == (0, 2)


@pytest.mark.parametrize("width", [64, 512, 1_152])
def test_binary_is_that_of_sentence_transformers_also_of_zeros(width):
    found = rows(40, width)
    found[0], found[1, ::2] = 0, 0
    for name in ("binary", "ubinary"):
        assert np.array_equal(quantized(found, name), quantize_embeddings(found, precision=name))


@pytest.mark.parametrize("width", [64, 512, 1_152])
def test_restored_rows_are_within_the_stated_bound(width):
    found = rows(200, width)
    found[1] = np.eye(width)[3]
    found[2] = np.full(width, width**-0.5)
    queries = rows(50, width)
    for name, bound in (("float16", 2**-11), ("int8", width**0.5 / 254 * np.abs(found).max(axis=1))):
        back = restored(quantized(found, name))
        assert np.linalg.norm(back, axis=1) == pytest.approx(1, abs=1e-6)
        errors = np.abs(queries @ back.T - queries @ found.T).max(axis=0)
        assert (errors <= bound * 1.01 + 1e-6).all()
    assert not restored(quantized(np.zeros((1, width), np.float32), "int8")).any()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"dimensions": 0}, "dimensions must be a whole number from 1 to 16, got 0"),
        ({"dimensions": 17}, "dimensions must be a whole number from 1 to 16, got 17"),
        ({"dimensions": 8.0}, "dimensions must be a whole number from 1 to 16, got 8.0"),
        ({"dimensions": True}, "dimensions must be a whole number from 1 to 16, got True"),
        ({"precision": "int4"}, "precision must be 'float32', 'float16', 'int8', 'binary' or 'ubinary', got 'int4'"),
        ({"precision": ["int8"]}, r"precision must be .*, got \['int8'\]"),
        ({"precision": None}, "precision must be .*, got None"),
    ],
)
def test_encode_refuses_wrong_dimensions_and_precisions(model, given, told):
    with pytest.raises(InputError, match=f"^{told}$"):
        model.encode(texts="a dress", **given)


def test_shorten_refuses_what_are_no_embeddings_of_the_model(model):
    for wrong in (np.zeros((2, 15), np.float32), np.zeros(16, int), np.zeros((1, 2, 16)), "a dress"):
        with pytest.raises(InputError, match=r"embeddings must be floats of shape \(N, 16\) or \(16,\), got"):
            model.shorten(wrong, 4)
    with pytest.raises(InputError, match="dimensions must be a whole number from 1 to 16, got 17"):
        model.shorten(np.zeros(16, np.float32), 17)


def test_basis_is_saved_and_loaded_and_leaves_with_a_model_without_one(model, turned, tmp_path):
    saved = turned.save_pretrained(tmp_path / "saved")
    again = FashionModel.from_pretrained(saved, device="cpu", dtype="float32")
    assert np.array_equal(again.encode(texts=TEXTS, dimensions=5), turned.encode(texts=TEXTS, dimensions=5))
    assert again.fingerprint == model.fingerprint
    assert (
        again.save_pretrained(tmp_path / "again").joinpath("dimensions.safetensors").read_bytes()
        == (saved / "dimensions.safetensors").read_bytes()
    )
    model.save_pretrained(saved)
    assert not (saved / "dimensions.safetensors").exists()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("altered", "dimensions.safetensors was altered or cut off"),
        ("missing", "expected the file dimensions.safetensors in .*, found none"),
        ("truncated", "dimensions.safetensors is truncated or corrupt"),
        ("shape", "must hold one finite float16 tensor 'basis' of 16 x 16, got float16 .8, 8."),
        ("type", "must hold one finite float16 tensor 'basis' of 16 x 16, got float32 .16, 16."),
        ("infinite", "must hold one finite float16 tensor"),
        ("name", "must hold one finite float16 tensor"),
        ("encoder", "was fitted to another encoder .None…. than the one beside it"),
    ],
)
def test_basis_that_is_damaged_or_of_another_model_is_refused(turned, tmp_path, fault, told):
    path = turned.save_pretrained(tmp_path / "saved") / "dimensions.safetensors"
    config = path.with_name("fashion_retrieval.json")
    content, known = path.read_bytes(), json.loads(config.read_text(encoding="utf-8"))
    good = load_file(path)["basis"]
    if fault in ("altered", "missing"):
        path.unlink()
        if fault == "altered":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        del known["sha256"]["dimensions.safetensors"]
        config.write_text(json.dumps(known), encoding="utf-8")
        infinite = np.full_like(good, np.inf)
        wrong = {"shape": good[:8, :8].copy(), "type": good.astype(np.float32), "infinite": infinite}
        if fault == "truncated":
            path.write_bytes(content[:100])
        else:
            save_file({"bases" if fault == "name" else "basis": wrong.get(fault, good)}, path)
    with pytest.raises(WeightsError, match=told) as caught:
        FashionModel.from_pretrained(path.parent, device="cpu")
    assert "\n" not in str(caught.value)


def test_half_precision_of_a_basis_changes_no_embedding_by_more_than_it_rounds(turned):
    exact = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    full = turned.encode(texts=TEXTS)
    expected = (full @ exact)[:, :8]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = turned.encode(texts=TEXTS, dimensions=8)
    assert torch.from_numpy(np.sum(found * expected, axis=1)).min() > 0.999_99
