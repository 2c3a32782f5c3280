"""How near a model comes to torch's float32 on this processor, in a backend that is installed and each of its types."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fashion_retrieval._utils.device import resolve_dtype
from fashion_retrieval.backends.attach import open_graphs
from fashion_retrieval.backends.confirm import EncoderTowers, golden_of, least_of
from fashion_retrieval.backends.convert import convert
from fashion_retrieval.backends.runtimes import runtime_of
from fashion_retrieval.checkpoint.export_manifest import Export
from fashion_retrieval.checkpoint.folder import Bundle, load
from fashion_retrieval.models.encoder import Encoder

_CPU = torch.device("cpu")


def examine(folder: Path, backend: str) -> dict[str, dict[str, Any]]:
    """What computes -> the least cosine of three drawn pictures and three texts, and whether that is enough.

    "torch" is what the processor multiplies beside float32. Another backend takes the folder's export or, without one,
    converts the model now. Nothing for a backend that is not installed.
    """
    bundle = load(folder)
    golden, found = golden_of(bundle.encoder), {}
    for what, encoder, dtype, exported in _encoders(bundle, folder, backend):
        kind = getattr(torch, dtype) if backend == "torch" else torch.float32
        near = golden.cosines(EncoderTowers(encoder, _CPU, kind), len(golden.levels))
        failed, name = near.failed(least_of(exported, dtype)), f"{what} in {dtype}"
        found[name] = {"picture": round(near.image, 6), "text": round(near.text, 6), "ok": failed is None}
    return found


def _encoders(bundle: Bundle, folder: Path, backend: str) -> Iterator[tuple[str, Encoder, str, Export | None]]:
    fast = resolve_dtype("auto", _CPU)
    if backend == "torch":
        if fast != torch.float32:
            yield "torch", bundle.encoder.for_inference(_CPU, fast), str(fast).removeprefix("torch."), None
        return
    runtime = runtime_of(backend)
    if not all(map(find_spec, runtime.PACKAGES)):
        return
    with TemporaryDirectory() as parent:
        exported, graphs = Export.read(folder / backend), folder / backend
        if exported:
            exported.verify(graphs)
        else:
            convert(folder, backend, graphs := Path(parent))
        precision = exported.precision if exported else "fp32"
        for dtype in dict.fromkeys((torch.float32, fast)):
            if (name := str(dtype).removeprefix("torch.")) in runtime.DTYPES:
                opened = open_graphs(bundle, graphs, backend, name, precision)
                yield f"{backend} {precision}", opened.encoder, name, exported
