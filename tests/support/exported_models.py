"""A tiny model with a composer, and its graphs for both runtimes: recorded and converted once a session."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import nn

from fashion_retrieval import checkpoint
from fashion_retrieval.backends import attach
from fashion_retrieval.backends.trace import Graph, trace
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.config import ComposerConfig, ModelConfig
from fashion_retrieval.models.composer import Composer
from tests.support.tiny import altered, tiny_folder

BACKENDS = ("openvino", "onnx")


def model_folder(folder: Path) -> Path:
    """Write the model, always the same, and return its folder."""
    with TemporaryDirectory() as plain:
        config = altered(vision_cfg={"layers": 1}, text_cfg={"layers": 1, "width": 8})
        bundle = checkpoint.load(tiny_folder(Path(plain), config))
    sizes = {"embedding_dim": 16, "width": 8, "depth": 1, "heads": 2, "hidden": 8}
    shape = ComposerConfig(**sizes, variant="only_image", encoder=bundle.encoder.fingerprint)
    composer = Composer(shape).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in composer.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    checkpoint.save(replace(bundle, composer=composer, config=ModelConfig(name="tiny", composer=shape)), folder)
    return folder


def write_graphs(bundle: Bundle, backend: str, folder: Path) -> None:
    """What `convert` writes for the model."""
    for name, content in _files(backend).items():
        (folder / name).write_bytes(content)


@cache
def _graphs() -> list[Graph]:
    with TemporaryDirectory() as folder:
        bundle = checkpoint.load(model_folder(Path(folder)))
    return trace(bundle.encoder, bundle.composer)


@cache
def _files(backend: str) -> dict[str, bytes]:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        bundle = checkpoint.load(model_folder(Path(folder, "model")))
        patch.setattr(attach, "trace", lambda encoder, composer: _graphs())
        converted = Path(folder, backend)
        converted.mkdir()
        attach.convert(bundle, backend, converted)
        return {path.name: path.read_bytes() for path in converted.iterdir()}
