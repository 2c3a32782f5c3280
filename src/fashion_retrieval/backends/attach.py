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
from fashion_retrieval.backends.confirm import graphs_failed
from fashion_retrieval.backends.convert import convert
from fashion_retrieval.backends.runtimes import resolve_backend_dtype, runtime_of
from fashion_retrieval.backends.self_check import warn
from fashion_retrieval.checkpoint.export_manifest import RUNTIMES, Export, choose
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.errors import InputError, UnsupportedError, WeightsError
from fashion_retrieval.models.weights import weights_digest

BACKENDS = ("auto", "torch", *RUNTIMES)


def attach(bundle: Bundle, folder: Path, *, backend: str, device: str | torch.device, dtype: str) -> tuple[Bundle, str]:
    """Put the encoder and the composer of the model in a folder into a runtime.

    "openvino" and "onnx" take the exported model or, without one, float32 converted now. "auto" takes, on a CPU, the
    first exported model that passed its accuracy check and whose runtime is installed, if it was made from these
    weights; otherwise torch. The dtype that comes back is the one computed in; "auto" is the exported precision.

    What a runtime computes must be near enough to torch's float32 on this processor (`backends.confirm`): else "auto"
    takes torch and warns, and a backend that was asked for by name is an UnsupportedError.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend must be 'auto', 'torch', 'openvino' or 'onnx', got {backend!r}; use 'auto'")
    on_cpu, asked, asked_dtype = resolve_device(device).type == "cpu", backend, dtype
    if backend == "auto":
        found = choose(folder, "auto") if on_cpu else None
        exported = Export.read(folder / found) if found else None
        backend = exported.backend if exported and not _mismatch(exported, bundle) else "torch"
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
        opened = open_graphs(bundle, folder / backend, backend, dtype, exported.precision)
    else:
        with TemporaryDirectory() as parent:
            convert(folder, backend, Path(parent))
            opened = open_graphs(bundle, Path(parent), backend, dtype)
    failed = graphs_failed(opened.encoder, bundle.encoder, folder, backend, dtype, exported)
    if failed and asked == "auto":
        warn(f"{failed}; torch computes instead: export the model again on such a processor")
        return bundle, asked_dtype
    if failed:
        raise UnsupportedError(f"{failed}; use backend='torch', or export the model again on such a processor")
    return opened, dtype


def open_graphs(bundle: Bundle, folder: Path, backend: str, dtype: str, precision: str = "fp32") -> Bundle:
    """The model computed by the graphs in a folder, on as many threads as torch uses."""
    runtime = runtime_of(backend)

    def program(name: str) -> Any:  # noqa: ANN401  # either runtime's Program
        path = folder / f"{name}{runtime.SUFFIX}"
        return runtime.Program(path, dtype=dtype, threads=torch.get_num_threads())

    exact = dtype == "float32" and precision != "int8"
    towers = {"image": program("image"), "text": program("text")}
    encoder = CompiledEncoder(bundle.encoder, backend=f"{backend} {precision}", exact=exact, **towers)
    composer = CompiledComposer(bundle.composer, program("composer")).eval() if bundle.composer else None
    return dataclasses.replace(bundle, encoder=encoder.eval(), composer=composer)


def describe(bundle: Bundle, folder: Path, *, backend: str, precision: str) -> Export:
    """The `Export` of the graphs in a folder, before their accuracy is measured."""
    runtime = runtime_of(backend)
    encoder, composer = digests(bundle)
    packages = ("torch", *runtime.PACKAGES, *(runtime.QUANTIZERS if precision == "int8" else ()))
    return Export(
        backend=backend,
        precision=precision,
        encoder=encoder,
        composer=composer,
        sha256={path.name: sha256(path) for path in sorted(folder.iterdir())},
        versions={package: version(package) for package in packages},
    )


def digests(bundle: Bundle) -> tuple[str, str | None]:
    """The encoder's fingerprint, and the SHA-256 of the composer's weights, None for none."""
    return bundle.encoder.fingerprint, weights_digest(bundle.composer) if bundle.composer else None


def _mismatch(exported: Export, bundle: Bundle) -> str | None:
    """In which part an export differs from the weights beside it."""
    made_from = exported.encoder, exported.composer
    for part, expected, got in zip(("encoder", "composer"), made_from, digests(bundle), strict=True):
        if expected != got:
            return f"was exported from another {part} ({str(expected)[:12]}…) than the one beside it ({str(got)[:12]}…)"
    return None
