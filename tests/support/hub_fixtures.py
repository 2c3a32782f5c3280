"""A Hub on this machine, and nothing of the machine's own Hub settings.

A test file takes both: `server, surroundings = hub_fixtures.server, hub_fixtures.surroundings`.
"""

import dataclasses
import hashlib
import json

import pytest
from huggingface_hub import constants

from fashion_retrieval.checkpoint.export_manifest import Export
from tests.support.hub_server import HubServer

REPO = "house/model"
WEIGHTS = bytes(range(256)) * 40
OPEN_CLIP = {
    "README.md": b"# A model\n",
    "open_clip_config.json": b'{"model_cfg": {}}',
    "tokenizer.json": b"{}",
    "vocab.txt": b"dress\n",
    "open_clip_model.safetensors": WEIGHTS,
}
"""Files of a repository, by name."""


def exported(backend, *, default=True):
    """Files of an exported model, by their path in the repository."""
    graphs = {"openvino": {"image.xml": b"<net/>", "image.bin": WEIGHTS[:99]}, "onnx": {"image.onnx": b"graph"}}[
        backend
    ]
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()}
    told = Export(backend=backend, precision="fp32", default=default, encoder="0" * 64, composer=None, sha256=digests)
    text = json.dumps(dataclasses.asdict(told)).encode()
    return {f"{backend}/{name}": data for name, data in {"export.json": text, **graphs}.items()}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """No token, no telemetry and no cache of the machine the tests run on."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(monkeypatch):
    with HubServer() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running
