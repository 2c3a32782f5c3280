"""Text towers of transformers and image towers with a classifier of their own in other runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.errors import UnsupportedError
from tests.support.open_clip_families import TEXTS, family_folder, shrink_trunks, small
from tests.support.tiny import drawn_photo


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_trunks(monkeypatch)


@pytest.mark.parametrize(("name", "backend"), [("mt5-base-ViT-B-32", "onnx"), ("nllb-clip-base", "openvino")])
def test_a_text_tower_of_transformers_is_converted_on_loading(tmp_path: Path, name: str, backend: str) -> None:
    family_folder(tmp_path, small(name))
    models = [
        FashionModel.from_pretrained(tmp_path, device="cpu", dtype="float32", backend=each)
        for each in ("torch", backend)
    ]
    texts, found = (model.encode(texts=TEXTS) for model in models)
    assert (texts @ texts.T)[0, 1] < 0.999
    np.testing.assert_allclose(found, texts, atol=1e-5)
    photos, found = (model.encode(images=[drawn_photo()]) for model in models)
    np.testing.assert_allclose(found, photos, atol=1e-5)


@pytest.mark.parametrize("name", ["MobileCLIP2-S0", "PE-Core-T-16-384"])
def test_a_tower_that_projects_what_it_pooled_has_no_token_features(tmp_path: Path, name: str) -> None:
    family_folder(tmp_path, small(name))
    encoder = checkpoint.load(tmp_path).encoder
    with pytest.raises(UnsupportedError, match="token features need"), torch.inference_mode():
        encoder.image_tokens(encoder.preprocess(drawn_photo())[None])
