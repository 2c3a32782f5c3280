"""The embedded model's shorter embeddings find what the whole ones find."""

import numpy as np

from fashion_retrieval import FashionModel
from tests.support.paths import ROOT


def test_half_the_width_of_the_embedded_model_keeps_the_order_of_texts():
    model = FashionModel.from_pretrained("compact", device="cpu", dtype="float32", backend="torch")
    assert model.basis_digest is not None
    words = [f"a photo of {color} {kind}" for color in ("red", "navy", "beige") for kind in ("dress", "jeans", "boots")]
    texts, photos = model.encode(texts=words), model.encode(images=sorted((ROOT / "examples").rglob("*.jpg")))
    half = [model.shorten(rows, model.embedding_dim // 2) for rows in (texts, photos)]
    assert np.abs(half[0] @ half[1].T - texts @ photos.T).max() < 0.05
    cut = [rows[:, : model.embedding_dim // 2] for rows in (texts, photos)]
    cut = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in cut]
    assert np.abs(cut[0] @ cut[1].T - texts @ photos.T).max() > np.abs(half[0] @ half[1].T - texts @ photos.T).max()
