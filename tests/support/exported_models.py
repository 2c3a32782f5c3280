"""A tiny model with a composer, and its graphs for both runtimes: traced and converted once a session."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from fashion_retrieval import checkpoint
from fashion_retrieval.backends.runtimes import runtime_of
from fashion_retrieval.backends.trace import Graph, trace
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


def write_graphs(source: Path, backend: str, out: Path) -> None:
    """Write what `convert` writes for the model, without its child process."""
    for name, content in _files(backend).items():
        (out / name).write_bytes(content)


@cache
def _graphs() -> list[Graph]:
    with TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        bundle = checkpoint.load(model_folder(Path(folder)))
        return trace(bundle.encoder, bundle.composer, bundle.segmenter)


@cache
def _files(backend: str) -> dict[str, bytes]:
    runtime = runtime_of(backend)
    with TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        for graph in _graphs():
            runtime.convert(graph, Path(folder, f"{graph.name}{runtime.SUFFIX}"))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
