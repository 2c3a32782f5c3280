"""`backend=` of `FashionModel.from_pretrained`: the model in another runtime, exported before or converted now.

MODEL/openvino/export.json    what was exported: precision, weights it was made from, parity (`Export`)
MODEL/openvino/image.xml      and text.xml, composer.xml, each with its .bin: the graphs of `_graphs`
MODEL/onnx/…                  the same for ONNX Runtime, in image.onnx …
"""

from __future__ import annotations

import dataclasses
import hashlib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fashion_retrieval._utils.device import resolve_device, resolve_dtype
from fashion_retrieval._utils.files import sha256
from fashion_retrieval.backends.compiled import CompiledComposer, CompiledEncoder
from fashion_retrieval.backends.trace import trace
from fashion_retrieval.checkpoint.export_manifest import RUNTIMES, Export, choose
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.errors import InputError, UnsupportedError, WeightsError
from fashion_retrieval.models.composer import Composer

BACKENDS = ("auto", "torch", *RUNTIMES)
_DTYPES = {"openvino": ("float32", "bfloat16"), "onnx": ("float32",)}


def attach(bundle: Bundle, folder: Path, *, backend: str, device: str | torch.device, dtype: str) -> tuple[Bundle, str]:
    """Put the encoder and the composer of a model into a runtime.

    Args:
        bundle: What `checkpoint.load` gave for the folder.
        folder: The model's, where an exported model may lie.
        backend: "torch"; "openvino" or "onnx" for the exported model or, without one, float32 converted now; "auto"
            for the exported model that kept its parity, on a CPU where its runtime is installed, else torch.
        device: As for `FashionModel`; other runtimes than torch compute on the CPU.
        dtype: As for `FashionModel`; "auto" is the exported precision.

    Returns:
        The model, and the type that it is computed in.

    Raises:
        InputError: An unknown backend, or a device or type that it does not have.
        MissingExtraError: The runtime is not installed.
        ConfigError: A damaged export.json.
        WeightsError: An exported model of other weights, or with files missing or altered.
        UnsupportedError: A model that can't be converted.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend must be 'auto', 'torch', 'openvino' or 'onnx', got {backend!r}; use 'auto'")
    if backend == "auto":
        backend = (choose(folder, "auto") if resolve_device(device).type == "cpu" else None) or "torch"
    if backend == "torch":
        return bundle, dtype
    if resolve_device(device).type != "cpu":
        raise InputError(f"backend {backend!r} computes on the CPU, got device {str(device)!r}; use device='cpu'")
    exported = Export.read(folder / backend)
    dtype = resolve(backend, exported.precision if exported else "fp32", dtype)
    if exported is not None:
        _check(exported, bundle, folder / backend)
        return open_graphs(bundle, folder / backend, backend, dtype, exported.precision), dtype
    with TemporaryDirectory() as parent:
        convert(bundle, backend, Path(parent))
        return open_graphs(bundle, Path(parent), backend, dtype), dtype


def convert(bundle: Bundle, backend: str, folder: Path) -> None:
    """Write the graphs of a model, float32, into an existing folder.

    Raises:
        MissingExtraError: The runtime is not installed.
        UnsupportedError: A part that can't be converted.
    """
    runtime = runtime_of(backend)
    runtime.require(quantize=False)
    for graph in trace(bundle.encoder, bundle.composer):
        try:
            runtime.convert(graph, folder / f"{graph.name}{runtime.SUFFIX}")
        except Exception as error:  # converters raise kinds of their own
            reason = str(error).strip().partition("\n")[0]
            raise UnsupportedError(
                f"the {graph.name} part can't be converted to {backend} ({reason}); use backend='torch'"
            ) from error


def open_graphs(bundle: Bundle, folder: Path, backend: str, dtype: str, precision: str = "fp32") -> Bundle:
    """The model computed by graphs of this precision in a folder, on as many threads as torch uses."""
    runtime = runtime_of(backend)

    def program(name: str) -> Any:  # noqa: ANN401  # either runtime's Program
        path = folder / f"{name}{runtime.SUFFIX}"
        return runtime.Program(path, dtype=dtype, threads=torch.get_num_threads())

    told = f"{backend} {precision}"
    exact = dtype == "float32" and precision != "int8"
    image, text = program("image"), program("text")
    encoder = CompiledEncoder(bundle.encoder, backend=told, image=image, text=text, exact=exact).eval()
    composer = CompiledComposer(bundle.composer, program("composer")).eval() if bundle.composer else None
    return dataclasses.replace(bundle, encoder=encoder, composer=composer)


def describe(bundle: Bundle, folder: Path, *, backend: str, precision: str) -> Export:
    """The `Export` of graphs in a folder, before its parity is measured."""
    runtime = runtime_of(backend)
    packages = ("torch", *runtime.PACKAGES, *(runtime.QUANTISERS if precision == "int8" else ()))
    return Export(
        backend=backend,
        precision=precision,
        encoder=bundle.encoder.fingerprint,
        composer=digest_of(bundle.composer),
        sha256={path.name: sha256(path) for path in sorted(folder.iterdir())},
        versions={package: version(package) for package in packages},
    )


def runtime_of(backend: str) -> Any:  # noqa: ANN401  # a module
    """`_runtime_openvino` or `_runtime_onnx`.

    Raises:
        MissingExtraError: What it needs is not installed.
    """
    return import_module(f"fashion_retrieval.backends.{backend}")


def resolve(backend: str, precision: str, dtype: str) -> str:
    """The type that a runtime computes in: as asked for or, for "auto", that of the exported precision.

    Raises:
        InputError: A type that it does not have.
    """
    if dtype == "auto" and (precision == "fp32" or backend == "onnx"):
        return "float32"
    name = str(resolve_dtype(dtype, torch.device("cpu"))).removeprefix("torch.")
    if name not in _DTYPES[backend]:
        expected = " or ".join(map(repr, _DTYPES[backend]))
        raise InputError(f"backend {backend!r} computes in {expected}, got dtype {name!r}; use dtype='auto'")
    return name


def _check(exported: Export, bundle: Bundle, folder: Path) -> None:
    for part, expected, got in (
        ("encoder", exported.encoder, bundle.encoder.fingerprint),
        ("composer", exported.composer, digest_of(bundle.composer)),
    ):
        if expected != got:
            raise WeightsError(
                f"{folder} was exported from another {part} ({str(expected)[:12]}…) than the one beside it "
                f"({str(got)[:12]}…); export the model again"
            )
    exported.verify(folder)


def digest_of(composer: Composer | None) -> str | None:
    """SHA-256 of a composer's weights."""
    if composer is None:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(composer.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
