"""The basis of shorter embeddings: orthogonal, what tells most first, and measured by what it keeps."""

import json

import numpy as np
import pytest

from fashion_retrieval import FashionModel
from fashion_retrieval.inference.vectors import normalized, shortened
from tests.support.drawn_pack import one_garment, save_photo, write_pack
from tests.support.tiny import tiny_folder
from training import fit_dimensions
from training.fit_dimensions import Embedded, compare, embed, fit_basis


def flat(number, seed, *, width=16, rank=6):
    """L2-normalized rows in a subspace, the same for every seed, that no single coordinate shows."""
    turned = np.linalg.qr(np.random.default_rng(5).normal(size=(width, width)))[0][:, :rank]
    rows = np.random.default_rng(seed).normal(size=(number, rank)) @ turned.T
    return normalized(rows.astype(np.float32))


def test_basis_is_orthogonal_and_keeps_a_subspace_whole():
    photos, texts = flat(400, 0), flat(100, 1)
    basis = fit_basis(photos, texts)
    assert basis.dtype == np.float32
    assert np.array_equal(basis, basis.astype(np.float16))
    assert basis.T @ basis == pytest.approx(np.eye(16), abs=2e-3)
    short = shortened(photos, 6, basis)
    assert short @ short.T == pytest.approx(photos @ photos.T, abs=2e-3)
    assert np.array_equal(shortened(photos, 16, basis), photos)


def test_compare_gives_a_basis_its_due_and_full_width_everything():
    photos = flat(60, 2, rank=4)
    numbers = np.arange(40)
    split = Embedded(photos, photos[:40], numbers, numbers // 2)
    found = compare(split, fit_basis(photos, photos[:40]))
    assert list(found) == ["16", "8", "4", "2"]
    assert found["16"]["full"]["text_to_photo_recall_at_10"] == found["16"]["full"]["overlap_at_10"] == 1
    assert found["4"]["basis"]["overlap_at_10"] > 0.99
    assert found["4"]["cut"]["overlap_at_10"] < 0.9
    assert found["4"]["basis"]["photo_to_photo_recall_at_10"] == found["16"]["full"]["photo_to_photo_recall_at_10"]


def test_main_writes_the_model_with_its_basis_and_the_figures(tmp_path, monkeypatch):
    pack = write_pack(tmp_path)
    save_photo(one_garment(3, 200), pack / "street/train/0003.jpg")  # the pack's readers of masks need none of it
    folder, made, output = tiny_folder(tmp_path / "tiny"), tmp_path / "made", tmp_path / "found.json"
    monkeypatch.setattr(fit_dimensions, "compare", lambda split, basis: {"8": {"cut": {"overlap_at_10": 0.5}}})
    given = {"data": pack, "model": str(folder), "out": made, "cache": tmp_path / "cache", "output": output}
    fit_dimensions.main(**given)
    plain, model = FashionModel.from_pretrained(folder), FashionModel.from_pretrained(made)
    train = embed(plain, pack, "train", tmp_path / "cache")
    assert model.fingerprint == plain.fingerprint
    basis = fit_basis(train.photos, train.names)
    assert np.array_equal(model.encode(texts="a dress"), plain.encode(texts="a dress"))
    assert model.encode(texts="a dress", dimensions=3) == pytest.approx(
        shortened(plain.encode(texts="a dress"), 3, basis), abs=1e-6
    )
    results = json.loads(output.read_text(encoding="utf-8"))
    assert results["8"] == {"cut": {"overlap_at_10": 0.5}}
    assert results["train_photos"] == len(train.photos)
