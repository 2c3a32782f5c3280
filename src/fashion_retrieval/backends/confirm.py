"""Confirm that what was loaded computes as torch does in float32, by the golden vectors of `backends.self_check`."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from fashion_retrieval._utils.device import describe, inference_context, resolve_dtype
from fashion_retrieval.backends.runtimes import runtime_of
from fashion_retrieval.backends.self_check import NAME, Cosines, Golden, checked, promised, stamp, warn
from fashion_retrieval.checkpoint.export_manifest import Export
from fashion_retrieval.models.encoder import Encoder

_CPU = torch.device("cpu")


class EncoderTowers:
    """An encoder, called with arrays."""

    def __init__(self, encoder: Encoder, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> None:
        self.encoder = encoder
        self._where = device, dtype

    def encode_images(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(b, h, w, 3) uint8 -> (b, d) float32, L2-normalized."""
        with inference_context(*self._where):
            pixels = self.encoder.preprocessing.batch(list(torch.from_numpy(levels)), self._where[0])
            rows: NDArray[np.float32] = self.encoder.encode_image(pixels).float().cpu().numpy()
        return rows

    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """b texts -> (b, d) float32, L2-normalized."""
        with inference_context(*self._where):
            rows: NDArray[np.float32] = (
                self.encoder.encode_text(self.encoder.tokenize(texts).to(self._where[0])).float().cpu().numpy()
            )
        return rows


def golden_of(encoder: Encoder, count: int = 3) -> Golden:
    """Golden vectors of an encoder that torch computes, as it was loaded: on the CPU, in float32."""
    return Golden.of(EncoderTowers(encoder), encoder.image_size, count)


def graphs_failed(
    opened: Encoder, source: Encoder, folder: Path, backend: str, dtype: str, exported: Export | None
) -> str | None:
    """How far the graphs of a runtime are from torch, in words, None if they are near enough.

    Graphs of an export are compared with its golden vectors; those of one without, and graphs converted now, with what
    torch makes of one picture and one text. A WeightsError tells of golden vectors that can't be read, or of others.
    """
    precision = exported.precision if exported else "fp32"
    key = "".join(sorted(exported.sha256.values())) if exported else stamp(folder)
    golden = Golden.read(folder / backend, exported.encoder) if exported and NAME in exported.sha256 else None
    found = checked(
        lambda: (golden or golden_of(source, 1)).cosines(EncoderTowers(opened)),
        (backend, dtype, key),
        runtime_of(backend).COMPUTES,
    )
    reason = found.failed(least_of(exported, dtype))
    what = f"{backend} {precision}" + (f" in {dtype}" if dtype != "float32" else "")
    return f"{what} computes otherwise on this processor: {reason}" if reason else None


def least_of(exported: Export | None, dtype: str) -> Cosines:
    """What may be expected of an export, or of a model without one, in a dtype."""
    if exported and not (exported.precision == "fp32" and dtype != "float32"):  # else it was measured in another type
        return promised(exported.precision, exported.parity)
    return promised("fp32" if dtype == "float32" else "bf16", {})


def torch_holds(ready: Encoder, source: Encoder, folder: Path, device: torch.device, dtype: str) -> bool:
    """Whether torch's 16-bit types come near enough to its float32; False says that "auto" should be float32.

    A dtype that was asked for by name stays: it is only warned of, as of one that this processor emulates.
    """
    resolved = resolve_dtype(dtype, device)
    if ready.backend != "torch" or resolved == torch.float32:
        return True
    name = str(resolved).removeprefix("torch.")
    where = describe(device, resolved) if device.type == "cuda" else str(device)
    if device.type == "cpu" and resolve_dtype("auto", device) != resolved:
        slower = f"{_times_slower(ready, source, resolved):.0f} times slower than float32"
        warn(f"this processor has no {name} and emulates it, {slower}; use dtype='float32'")
    found = checked(
        lambda: golden_of(source, 1).cosines(EncoderTowers(ready, device, resolved)),
        ("torch", name, stamp(folder)),
        ("torch",),
        where,
    )
    if reason := found.failed(least_of(None, name)):
        told = "float32 is computed instead" if dtype == "auto" else "use dtype='float32'"
        warn(f"torch in {name} computes otherwise on {where}: {reason}; {told}")
    return not reason or dtype != "auto"


def _times_slower(ready: Encoder, source: Encoder, dtype: torch.dtype) -> float:
    """How long one picture takes, relative to float32; the better of two, one that is very slow is run once."""
    levels, best = golden_of(source, 1).levels, []
    for encoder, kind in ((source, torch.float32), (ready, dtype)):
        towers, spent = EncoderTowers(encoder, _CPU, kind), [0.0]
        while len(spent) < 3 and sum(spent) < 0.5:
            start = perf_counter()
            towers.encode_images(levels)
            spent.append(perf_counter() - start)
        best.append(min(spent[1:]))
    return best[1] / best[0]
