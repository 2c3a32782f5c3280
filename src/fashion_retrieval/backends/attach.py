"""`backend=` of `FashionModel.from_pretrained`: a model in another runtime, exported before or converted on loading.

MODEL/openvino/export.json    what was exported: precision, weights it was made from, measured accuracy (`Export`)
MODEL/openvino/image.xml      and text.xml, composer.xml, each with its .bin: the graphs of `backends.trace`
MODEL/onnx/…                  the same for ONNX Runtime, in image.onnx …
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fashion_retrieval._utils.device import resolve_device
from fashion_retrieval._utils.files import sha256
from fashion_retrieval.backends.compiled import CompiledComposer, CompiledEncoder
from fashion_retrieval.backends.convert import convert
from fashion_retrieval.backends.runtimes import resolve_backend_dtype, runtime_of
from fashion_retrieval.checkpoint.export_manifest import RUNTIMES, Export, choose
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.errors import InputError, WeightsError
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.weights import weights_digest

BACKENDS = ("auto", "torch", *RUNTIMES)


def attach(bundle: Bundle, folder: Path, *, backend: str, device: str | torch.device, dtype: str) -> tuple[Bundle, str]:
    """Put the encoder and the composer of a model into a runtime.

    Args:
        bundle: What `checkpoint.load` gave for the folder.
        folder: The model's folder, which may hold exported models.
        backend: "torch"; "openvino" or "onnx" for the exported model or, without one, for float32 converted now; "auto"
            for the first exported model that passed its accuracy check and whose runtime is installed, on a CPU and if
            it was made from these weights; otherwise torch.
        device: As for `FashionModel`; runtimes other than torch compute on the CPU.
        dtype: As for `FashionModel`; "auto" is the exported precision.

    Returns:
        The model, and the dtype that it is computed in.

    Raises:
        InputError: An unknown backend, or a device or dtype that it does not have.
        MissingExtraError: The runtime is not installed.
        ConfigError: A damaged export.json.
        WeightsError: An exported model whose files are missing or altered, or one asked for by name that was made from
            other weights.
        UnsupportedError: A model that can't be converted.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend must be 'auto', 'torch', 'openvino' or 'onnx', got {backend!r}; use 'auto'")
    on_cpu = resolve_device(device).type == "cpu"
    if backend == "auto":
        backend = _default(bundle, folder) if on_cpu else "torch"
    if backend == "torch":
        return bundle, dtype
    if not on_cpu:
        raise InputError(f"backend {backend!r} computes on the CPU, got device {str(device)!r}; use device='cpu'")
    exported = Export.read(folder / backend)
    dtype = resolve_backend_dtype(backend, exported.precision if exported else "fp32", dtype)
    if exported is not None:
        if mismatch := _mismatch(exported, bundle):
            raise WeightsError(f"{folder / backend} {mismatch}; export the model again")
        exported.verify(folder / backend)
        return open_graphs(bundle, folder / backend, backend, dtype, exported.precision), dtype
    with TemporaryDirectory() as parent:
        convert(folder, backend, Path(parent))
        return open_graphs(bundle, Path(parent), backend, dtype), dtype


def open_graphs(bundle: Bundle, folder: Path, backend: str, dtype: str, precision: str = "fp32") -> Bundle:
    """The model computed by the graphs in a folder, on as many threads as torch uses."""
    runtime = runtime_of(backend)

    def program(name: str) -> Any:  # noqa: ANN401  # either runtime's Program
        path = folder / f"{name}{runtime.SUFFIX}"
        return runtime.Program(path, dtype=dtype, threads=torch.get_num_threads())

    encoder = CompiledEncoder(
        bundle.encoder,
        backend=f"{backend} {precision}",
        image=program("image"),
        text=program("text"),
        exact=dtype == "float32" and precision != "int8",
    ).eval()
    composer = CompiledComposer(bundle.composer, program("composer")).eval() if bundle.composer else None
    return dataclasses.replace(bundle, encoder=encoder, composer=composer)


def describe(bundle: Bundle, folder: Path, *, backend: str, precision: str) -> Export:
    """The `Export` of the graphs in a folder, before their accuracy is measured."""
    runtime = runtime_of(backend)
    packages = ("torch", *runtime.PACKAGES, *(runtime.QUANTIZERS if precision == "int8" else ()))
    return Export(
        backend=backend,
        precision=precision,
        encoder=bundle.encoder.fingerprint,
        composer=digest_of(bundle.composer),
        sha256={path.name: sha256(path) for path in sorted(folder.iterdir())},
        versions={package: version(package) for package in packages},
    )


def digest_of(composer: Composer | None) -> str | None:
    """SHA-256 of a composer's weights, None for none."""
    return weights_digest(composer) if composer else None


def _default(bundle: Bundle, folder: Path) -> str:
    backend = choose(folder, "auto")
    exported = Export.read(folder / backend) if backend else None
    return exported.backend if exported and not _mismatch(exported, bundle) else "torch"


def _mismatch(exported: Export, bundle: Bundle) -> str | None:
    """In which part an export differs from the weights beside it."""
    for part, expected, got in (
        ("encoder", exported.encoder, bundle.encoder.fingerprint),
        ("composer", exported.composer, digest_of(bundle.composer)),
    ):
        if expected != got:
            return f"was exported from another {part} ({str(expected)[:12]}…) than the one beside it ({str(got)[:12]}…)"
    return None
