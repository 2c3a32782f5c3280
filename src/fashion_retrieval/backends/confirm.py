"""Confirm that what was loaded computes as torch does in float32, by the golden vectors of `backends.self_check`."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from fashion_retrieval.backends.ready import Ready, by_torch
from fashion_retrieval.backends.runtimes import runtime_of
from fashion_retrieval.backends.self_check import NAME, Cosines, Golden, checked, promised, stamp, warn
from fashion_retrieval.checkpoint.export_manifest import Export
from fashion_retrieval.checkpoint.layout import EXTRAS
from fashion_retrieval.config import ModelConfig
from fashion_retrieval.errors import WeightsError

if TYPE_CHECKING:
    import torch

    from fashion_retrieval.checkpoint.folder import Bundle
    from fashion_retrieval.models.towers import Towers


def golden_of(bundle: Bundle, count: int = 3) -> Golden:
    """Golden vectors of an encoder that torch computes, as it was loaded: on the CPU, in float32."""
    return Golden.of(_plain(bundle), bundle.encoder.preprocessing.size, count)


def graphs_failed(ready: Ready, folder: Path, exported: Export | None) -> str | None:
    """How far the graphs of a runtime are from torch, in words, None if they are near enough.

    Graphs of an export are compared with its golden vectors; those of one without, and graphs converted now, with what
    torch makes of one picture and one text. A WeightsError tells of golden vectors that can't be read, or of others.
    """
    towers = ready.towers
    backend, _, precision = towers.backend.partition(" ")
    runtime = runtime_of(backend)
    key = "".join(sorted(exported.sha256.values())) if exported else stamp(folder)
    golden = None
    if exported and NAME in exported.sha256:
        size, width = towers.preprocessing.size, towers.embedding_dim
        golden = Golden.read(folder / backend, exported.encoder, size, width)
    found = checked(
        lambda: (golden or golden_of(ready.bundle(), 1)).cosines(towers),
        (backend, towers.dtype, key),
        runtime.COMPUTES if exported else ("torch", *runtime.PACKAGES),  # they convert
    )
    reason = found.failed(least_of(exported, towers.dtype))
    what = f"{backend} {precision}" + (f" in {towers.dtype}" if towers.dtype != "float32" else "")
    return f"{what} computes otherwise on this processor: {reason}" if reason else None


def least_of(exported: Export | None, dtype: str) -> Cosines:
    """What may be expected of an export, or of a model without one, in a dtype."""
    if exported and not (exported.precision == "fp32" and dtype != "float32"):  # else it was measured in another type
        return promised(exported.precision, exported.parity)
    return promised("fp32" if dtype == "float32" else "bf16", {})


def torch_in(dtype: str, bundle: Bundle, folder: Path, device: str | torch.device) -> Ready:
    """A model by torch; in "auto", where its 16-bit type is too far from float32 here, in float32, with a warning.

    A dtype that was asked for by name stays: it is only warned of, as of one that this processor emulates.
    """
    from fashion_retrieval._utils.device import describe, resolve_device, resolve_dtype
    from fashion_retrieval.checkpoint.folder import load

    made_of = _files(bundle.config)

    def again() -> Bundle:
        found = load(folder, light=True)
        if _files(found.config) != made_of:
            raise changed(folder)
        return found

    ready = by_torch(bundle, device, dtype, again=again)
    name = ready.towers.dtype
    if name == "float32":
        return ready
    on = resolve_device(device)
    where = describe(on, resolve_dtype(name, on)) if on.type == "cuda" else str(on)
    if on.type == "cpu" and str(resolve_dtype("auto", on)) != f"torch.{name}":
        slower = f"{_times_slower(ready.towers, bundle):.0f} times slower than float32"
        warn(f"this processor has no {name} and emulates it, {slower}; use dtype='float32'")
    key = ("torch", name, stamp(folder))
    found = checked(lambda: golden_of(bundle, 1).cosines(ready.towers), key, ("torch",), where)
    if not (reason := found.failed(least_of(None, name))):
        return ready
    told = "float32 is computed instead" if dtype == "auto" else "use dtype='float32'"
    warn(f"torch in {name} computes otherwise on {where}: {reason}; {told}")
    return by_torch(bundle, device, "float32", again=again) if dtype == "auto" else ready


def changed(folder: Path) -> WeightsError:
    """Told instead of giving the modules of another model than the one that was loaded."""
    return WeightsError(f"{folder} holds another model than when it was loaded; load it again")


def _files(config: ModelConfig | None) -> dict[str, str]:
    """The digests of what a model can't change by itself: all but what `fit_attribute` and training add."""
    return {name: digest for name, digest in (config.sha256 if config else {}).items() if name not in EXTRAS}


def _times_slower(towers: Towers, bundle: Bundle) -> float:
    """How long one picture takes, relative to float32; the better of two, one that is very slow is run once."""
    plain, best = _plain(bundle), []
    levels = list(Golden.of(plain, bundle.encoder.preprocessing.size, 1).levels)
    for one in (plain, towers):
        spent = [0.0]
        while len(spent) < 3 and sum(spent) < 0.5:
            start = perf_counter()
            one.encode_images(levels)
            spent.append(perf_counter() - start)
        best.append(min(spent[1:]))
    return best[1] / best[0]


def _plain(bundle: Bundle) -> Towers:
    """The towers alone, by torch on the CPU in float32."""
    import torch

    from fashion_retrieval.models.torch_towers import TorchTowers

    return TorchTowers(bundle.encoder, torch.device("cpu"), torch.float32)
