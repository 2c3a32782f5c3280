"""Each model that the list calls "layout tested": a small one with its files loads from a Hub and encodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fashion_retrieval import FashionModel, hub
from tests.support import hub_fixtures
from tests.support.hub_server import HubServer
from tests.support.listed import ARCHITECTURES, repository, shrink
from tests.support.tiny import drawn_photo

server, surroundings = hub_fixtures.server, hub_fixtures.surroundings
TESTED = [model for model in hub.list_models() if model.state == "layout tested"]


def test_every_layout_that_is_called_tested_is() -> None:
    assert {model.id for model in TESTED} == ARCHITECTURES.keys()


@pytest.mark.parametrize("model", TESTED, ids=lambda model: model.id)
def test_a_small_model_with_a_listed_ones_files_loads_and_encodes(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: hub.ModelInfo
) -> None:
    shrink(monkeypatch)
    files = repository(model.id, tmp_path / "source")
    oid = server.repositories[model.id].commit(files)
    fashion = FashionModel.from_pretrained(model.id, device="cpu", dtype="float32", backend="torch")
    weights = {"open_clip": "open_clip_model.safetensors", "transformers": "model.safetensors"}[model.layout]
    assert {name for name in server.served if name.endswith(".safetensors")} == {weights}
    assert not [name for name in server.served if name.endswith((".bin", ".py", ".onnx"))]
    photos = fashion.encode(images=[drawn_photo((90, 70), seed=seed) for seed in range(3)])
    texts = fashion.encode(texts=["a photo of a red dress", "jeans"])
    for embeddings in (photos, texts):
        assert embeddings.shape[1] == fashion.embedding_dim == 32
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
        assert float((embeddings @ embeddings.T)[0, 1]) < 0.9999
    server.stop()
    again = FashionModel.from_pretrained(model.id, revision=oid, device="cpu", dtype="float32", local_files_only=True)
    assert (again.revision, again.fingerprint) == (oid, fashion.fingerprint)
