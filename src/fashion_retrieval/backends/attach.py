"""`backend=` of `FashionModel.from_pretrained`: a model in torch or another runtime, exported before or converted now.

MODEL/openvino/export.json    what was exported: precision, weights it was made from, measured accuracy (`Export`)
MODEL/openvino/image.xml      and text.xml, composer.xml, segmenter.xml, each with its .bin: `backends.trace`
MODEL/openvino/bpe_…          the vocabulary, where the tokenizer is CLIP's own
MODEL/onnx/…                  the same for ONNX Runtime, in image.onnx …

An exported model whose files are those that it was made from is opened without torch.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

from fashion_retrieval._utils.cpu import surely_cpu, threads
from fashion_retrieval._utils.files import sha256, verify_digests
from fashion_retrieval._utils.optional import check_torch
from fashion_retrieval.backends.compiled import Graphs, Program, ProgramComposer, ProgramSegmenter, ProgramTowers
from fashion_retrieval.backends.confirm import changed, graphs_failed, torch_in
from fashion_retrieval.backends.convert import convert
from fashion_retrieval.backends.ready import Ready
from fashion_retrieval.backends.runtimes import resolve_backend_dtype, runtime_of
from fashion_retrieval.backends.self_check import warn
from fashion_retrieval.checkpoint.export_manifest import RUNTIMES, About, Export, choose
from fashion_retrieval.checkpoint.extras import Extras
from fashion_retrieval.checkpoint.layout import EXTRAS
from fashion_retrieval.config import (
    COMPOSER_WEIGHTS_NAME,
    ENCODER_CONFIG_NAME,
    ENCODER_WEIGHTS_NAME,
    SEGMENTER_WEIGHTS_NAME,
    ModelConfig,
)
from fashion_retrieval.errors import InputError, UnsupportedError, WeightsError
from fashion_retrieval.models.tokenizer import VOCABULARY, ClipTokenizer

if TYPE_CHECKING:
    import torch

    from fashion_retrieval.checkpoint.folder import Bundle
    from fashion_retrieval.results import Segmenter

BACKENDS = ("auto", "torch", *RUNTIMES)
_PARTS = (ENCODER_CONFIG_NAME, ENCODER_WEIGHTS_NAME, COMPOSER_WEIGHTS_NAME, SEGMENTER_WEIGHTS_NAME)
_REMEDY = "download the model again"


def open_model(folder: Path, *, backend: str, device: str | torch.device, dtype: str) -> Ready:
    """The model in a folder, ready in a runtime.

    "openvino" and "onnx" take the exported model or, without one, float32 converted now. "auto" takes, on a CPU, the
    first exported model that passed its accuracy check and whose runtime is installed, if it was made from these
    weights; otherwise torch. The dtype is the one computed in; "auto" is the exported precision.

    What is computed must be near enough to torch's float32 on this processor (`backends.confirm`): else "auto" takes
    torch, and float32, and warns; a backend that was asked for by name is an UnsupportedError.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend must be 'auto', 'torch', 'openvino' or 'onnx', got {backend!r}; use 'auto'")
    on_cpu = backend == "torch" or is_cpu(device)
    chosen = choose(folder, backend, fetched=True) if on_cpu and backend != "torch" else None
    exported = Export.read(folder / chosen) if chosen else None
    if exported and exported.about and _is_of(exported, folder):
        kind = resolve_backend_dtype(exported.backend, exported.precision, dtype)
        ready = _open_export(folder, exported, exported.about, kind)
        if _holds(ready, folder, exported, forced=backend != "auto"):
            return ready
        backend, exported = "torch", None
    check_torch()
    from fashion_retrieval.checkpoint.folder import load

    bundle, asked = load(folder, light=True), backend
    if backend == "auto":
        backend = exported.backend if exported and not _mismatch(exported, bundle) else "torch"
    if backend == "torch":
        return torch_in(dtype, bundle, folder, device)
    if not on_cpu:
        raise InputError(f"backend {backend!r} computes on the CPU, got device {str(device)!r}; use device='cpu'")
    kind = resolve_backend_dtype(backend, exported.precision if exported else "fp32", dtype)
    if exported is not None:
        if mismatch := _mismatch(exported, bundle):
            raise WeightsError(f"{folder / backend} {mismatch}; export the model again")
        exported.verify(folder / backend)
        ready = open_graphs(bundle, folder / backend, backend, kind, exported.precision)
    else:
        with TemporaryDirectory(ignore_cleanup_errors=True) as parent:  # Windows removes no file that is mapped
            convert(folder, backend, Path(parent))
            ready = open_graphs(bundle, Path(parent), backend, kind, at_once=True)
    if _holds(ready, folder, exported, forced=asked != "auto"):
        return ready
    return torch_in(dtype, bundle, folder, device)


def is_cpu(device: str | torch.device) -> bool:
    """Whether a device, "auto" among others, is the CPU; torch is asked only where it must be."""
    if surely_cpu(device):
        return True
    check_torch()
    from fashion_retrieval._utils.device import resolve_device

    return resolve_device(device).type == "cpu"


def embedded_segmenter(folder: Path, device: str) -> Segmenter | None:
    """The segmenter of a model folder, and nothing else of it, in torch."""
    check_torch()
    import torch

    from fashion_retrieval.checkpoint.folder import load_segmenter
    from fashion_retrieval.models.torch_towers import ready_segmenter

    found = load_segmenter(folder)
    return ready_segmenter(found, torch.device(device)) if found else None


def open_graphs(
    bundle: Bundle, folder: Path, backend: str, dtype: str, precision: str = "fp32", *, at_once: bool = False
) -> Ready:
    """The model computed by the graphs in a folder, on as many threads as torch uses.

    Graphs are read when they are first needed, or `at_once`, from a folder that will be gone. What there is no graph
    of, as in earlier exports, torch computes.
    """
    import torch

    from fashion_retrieval.models.torch_towers import TorchComposer, ready_segmenter
    from fashion_retrieval.models.weights import weights_digest

    cpu, finder = torch.device("cpu"), bundle.segmenter
    graph = _opener(folder, backend, dtype, at_once=at_once)
    own = finder is not None and (folder / f"segmenter{runtime_of(backend).SUFFIX}").is_file()
    return Ready(
        towers=ProgramTowers(
            about(bundle),
            fingerprint=bundle.encoder.fingerprint,
            backend=f"{backend} {precision}",
            dtype=dtype,
            tokenize=lambda texts: np.asarray(bundle.encoder.tokenizer(texts)),
            graph=graph,
        ),
        composer=ProgramComposer(graph, TorchComposer(bundle.composer, cpu)) if bundle.composer else None,
        segmenter=ProgramSegmenter(finder.config, graph) if own and finder else finder and ready_segmenter(finder, cpu),
        composer_digest=lambda: weights_digest(bundle.composer) if bundle.composer else None,
        bundle=lambda: bundle,
        config=bundle.config,
        extras=bundle.extras,
    )


def describe(bundle: Bundle, folder: Path, *, backend: str, precision: str) -> Export:
    """The `Export` of the graphs in a folder, before their accuracy is measured.

    A tokenizer that is CLIP's own is put beside the graphs.
    """
    from fashion_retrieval.models.weights import weights_digest

    runtime = runtime_of(backend)
    sees = (folder / f"segmenter{runtime.SUFFIX}").is_file()
    alone = bundle.encoder.has_clip_tokenizer and (sees or bundle.segmenter is None)
    if alone:
        shutil.copyfile(ClipTokenizer.of_open_clip(1).vocabulary, folder / VOCABULARY)
    encoder, composer = digests(bundle)
    packages = ("torch", *runtime.PACKAGES, *(runtime.QUANTIZERS if precision == "int8" else ()))
    return Export(
        backend=backend,
        precision=precision,
        encoder=encoder,
        composer=composer,
        segmenter=weights_digest(bundle.segmenter) if bundle.segmenter and sees else None,
        about=about(bundle) if alone else None,
        sha256={path.name: sha256(path) for path in sorted(folder.iterdir())},
        versions={package: version(package) for package in packages},
    )


def sources(folder: Path) -> dict[str, str]:
    """The digests of the files that an exported model is made from."""
    return {name: sha256(folder / name) for name in _PARTS if (folder / name).is_file()}


def about(bundle: Bundle) -> About:
    """What inference has to know of a model's encoder."""
    encoder = bundle.encoder
    how = {name: getattr(encoder.preprocessing, name) for name in About.OF_PHOTOS}
    return About(
        embedding_dim=encoder.embedding_dim,
        context_length=encoder.context_length,
        logit_scale=encoder.logit_scale,
        causal=encoder.is_causal,
        **how,
    )


def digests(bundle: Bundle) -> tuple[str, str | None]:
    """The encoder's fingerprint, and the SHA-256 of the composer's weights, None for none."""
    from fashion_retrieval.models.weights import weights_digest

    return bundle.encoder.fingerprint, weights_digest(bundle.composer) if bundle.composer else None


def _open_export(folder: Path, exported: Export, encoder: About, dtype: str) -> Ready:
    """An exported model beside the files that it was made from, without torch."""
    config = ModelConfig.read(folder)
    beside = {name: digest for name, digest in (config.sha256 if config else {}).items() if name in EXTRAS}
    verify_digests(folder, beside, remedy=_REMEDY)
    exported.verify(folder / exported.backend)
    graph = _opener(folder / exported.backend, exported.backend, dtype)
    tokenizer = ClipTokenizer(folder / exported.backend / VOCABULARY, encoder.context_length)
    finder = config.segmenter if config and exported.segmenter else None

    def bundle() -> Bundle:
        check_torch()
        if not _is_of(exported, folder):
            raise changed(folder)
        from fashion_retrieval.checkpoint.folder import load

        return load(folder, light=True)

    return Ready(
        towers=ProgramTowers(
            encoder,
            fingerprint=exported.encoder,
            backend=f"{exported.backend} {exported.precision}",
            dtype=dtype,
            tokenize=tokenizer,
            graph=graph,
        ),
        composer=ProgramComposer(graph) if exported.composer else None,
        segmenter=ProgramSegmenter(finder, graph) if finder else None,
        composer_digest=lambda: exported.composer,
        bundle=bundle,
        config=config,
        extras=Extras.read(folder, config, exported.encoder, encoder.embedding_dim),
    )


def _opener(folder: Path, backend: str, dtype: str, *, at_once: bool = False) -> Graphs:
    """What gives the program of a graph by its name, one at a time; a segmenter computes in float32 always."""
    runtime = runtime_of(backend)
    opened: dict[str, Program] = {}
    lock = RLock()

    def program(name: str) -> Program:
        with lock:
            if name not in opened:
                kind = "float32" if name == "segmenter" else dtype
                opened[name] = runtime.Program(folder / f"{name}{runtime.SUFFIX}", dtype=kind, threads=threads())
            return opened[name]

    names = [path.stem for path in folder.glob(f"*{runtime.SUFFIX}")] if at_once else ["image"]
    for name in names:  # one at least, so that what is missing is told now
        program(name)
    return program


def _holds(ready: Ready, folder: Path, exported: Export | None, *, forced: bool) -> bool:
    """Whether graphs compute here what torch does; where not, an UnsupportedError if `forced`, else a warning."""
    if failed := graphs_failed(ready, folder, exported):
        if forced:
            raise UnsupportedError(f"{failed}; use backend='torch', or export the model again on such a processor")
        warn(f"{failed}; torch computes instead: export the model again on such a processor")
    return not failed


def _is_of(exported: Export, folder: Path) -> bool:
    """Whether the files in a model's folder are those that an export was made from."""
    return bool(exported.sources) and exported.sources == sources(folder)


def _mismatch(exported: Export, bundle: Bundle) -> str | None:
    """In which part an export differs from the weights beside it."""
    made_from = exported.encoder, exported.composer
    for part, expected, got in zip(("encoder", "composer"), made_from, digests(bundle), strict=True):
        if expected != got:
            return f"was exported from another {part} ({str(expected)[:12]}…) than the one beside it ({str(got)[:12]}…)"
    return None
