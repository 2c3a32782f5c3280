"""How near a model comes to torch's float32 on this processor, in a backend that is installed and each of its types."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fashion_retrieval._utils import cpu
from fashion_retrieval.backends.attach import open_graphs
from fashion_retrieval.backends.confirm import golden_of, least_of
from fashion_retrieval.backends.convert import convert
from fashion_retrieval.backends.ready import by_torch
from fashion_retrieval.backends.runtimes import runtime_of
from fashion_retrieval.checkpoint.export_manifest import Export
from fashion_retrieval.checkpoint.folder import Bundle, load
from fashion_retrieval.models.towers import Towers


def examine(folder: Path, backend: str) -> dict[str, dict[str, Any]]:
    """What computes -> the least cosine of three drawn pictures and three texts, and whether that is enough.

    "torch" is what the processor multiplies beside float32. Another backend takes the folder's export or, without one,
    converts the model now. Nothing for a backend that is not installed.
    """
    bundle = load(folder, light=True)
    golden, found = golden_of(bundle), {}
    for towers, exported in _towers(bundle, folder, backend):
        near = golden.cosines(towers, len(golden.levels))
        failed, name = near.failed(least_of(exported, towers.dtype)), f"{towers.backend} in {towers.dtype}"
        found[name] = {"picture": round(near.image, 6), "text": round(near.text, 6), "ok": failed is None}
    return found


def _towers(bundle: Bundle, folder: Path, backend: str) -> Iterator[tuple[Towers, Export | None]]:
    fast = "bfloat16" if cpu.multiplies_bfloat16() else "float32"
    if backend == "torch":
        if fast != "float32":
            yield by_torch(bundle, "cpu", fast).towers, None
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
        for dtype in dict.fromkeys(("float32", fast)):
            if dtype in runtime.DTYPES:
                yield open_graphs(bundle, graphs, backend, dtype, precision).towers, exported
