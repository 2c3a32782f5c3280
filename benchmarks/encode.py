"""JPEG files to embeddings: ours against open_clip, transformers and fashion-clip on the same weights and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import contenders, material, peak
from benchmarks.contenders import Encode
from benchmarks.rounds import interleave, paired
from fashion_retrieval import FashionModel
from fashion_retrieval._utils.files import sha256
from fashion_retrieval.hub.download import EMBEDDED, resolve

BASELINE = "open_clip batched"
LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.9999, "int8": 0.99}
"""Of a row of ours to open_clip's own embedding of the same file, or its time does not count."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way to encode; `ours` are gated on correctness."""

    name: str
    precision: str
    make: Callable[[], Encode]
    ours: bool = False


def rows(model: str, cache: Path, device: str, calibration: Sequence[Path]) -> list[Row]:
    """Everything that may run for ViT-B/32 ("vit_b_32") or the embedded model ("compact")."""
    folders = {material.OPEN_CLIP: resolve(EMBEDDED)} if model == EMBEDDED else material.vit_b_32(cache)
    plain = folders[material.OPEN_CLIP]
    listed = [
        Row(BASELINE, "fp32", partial(contenders.batched, plain, device)),
        Row("open_clip README loop", "fp32", partial(contenders.readme_loop, plain, device)),
        Row("open_clip batched, precision bf16", "bf16", partial(contenders.batched, plain, device, bf16=True)),
    ]
    if material.HF in folders:
        hf = folders[material.HF]
        listed += [
            Row("transformers batched", "fp32", partial(contenders.transformers_batched, hf, device)),
            Row("fashion-clip", "fp32", partial(contenders.fashion_clip, hf, device)),
        ]
    for backend in ("torch", "openvino", "onnx") if device == "cpu" else ("torch",):
        for dtype, precision in (("float32", "fp32"), ("bfloat16", "bf16")):
            if (backend, precision) != ("onnx", "bf16"):
                make = partial(contenders.ours, plain, device, backend=backend, dtype=dtype)
                listed.append(Row(f"ours, {backend}", precision, make, ours=True))
    if device == "cpu":
        for backend in ("openvino", "onnx"):
            make = partial(_quantized, plain, cache, backend, model, calibration)
            listed.append(Row(f"ours, {backend}", "int8", make, ours=True))
    return listed


def _quantized(plain: Path, cache: Path, backend: str, model: str, calibration: Sequence[Path]) -> Encode:
    """Ours with an int8 model, calibrated on photos that are not timed."""
    from fashion_retrieval.export.export import export_model

    weights = sha256(plain / "open_clip_model.safetensors")  # of other weights there is another copy
    folder = cache / f"{model}_{weights[:12]}_{backend}_int8"
    if not folder.is_dir():
        export_model(plain, folder, backend=backend, precision="int8", model_id=model, calibrate=calibration)
    return contenders.ours(folder, "cpu", backend=backend, dtype="auto")


def measure(model: str, cache: Path, device: str, *, count: int, rounds: int) -> dict[str, Any]:
    """Time every row that runs; those that don't are listed with the reason."""
    files, source = material.photos(count + 96, cache)
    files, calibration = files[:count], files[count:]
    ready: dict[str, Encode] = {}
    kinds: dict[str, Row] = {}
    left_out: dict[str, str] = {}
    for row in rows(model, cache, device, calibration):
        name = f"{row.name}, {row.precision}" if row.ours else row.name
        try:
            encode = row.make()
            encode(files[:2])
        except Exception as error:  # a peer that isn't installed or doesn't run with this transformers
            if row.name == BASELINE:
                raise
            reason = str(error).strip().splitlines()
            left_out[name] = f"{type(error).__name__}: {reason[0][:160]}" if reason else type(error).__name__
            continue
        ready[name], kinds[name] = encode, row
    limits = peak.matmul_gflops(device)
    found = {name: encode(files) for name, encode in ready.items()}
    seconds = interleave({name: partial(encode, files) for name, encode in ready.items()}, rounds, label=model)
    table = {}
    for name, row in kinds.items():
        cosine, centered = agreement(found[name], found[BASELINE])
        table[name] = {
            "precision": row.precision,
            "ours": row.ours,
            "least_cosine": round(cosine, 7),
            "least_centered_cosine": round(centered, 7),
            "correct": not row.ours or cosine >= LEAST_COSINE[row.precision],
            "images_per_second": round(count / float(np.median(seconds[name])), 1),
            "against": {
                other: paired(seconds, name, other).ratio()
                for other in ready
                if not kinds[other].ours and other != name
            },
        }
    folder = resolve(EMBEDDED) if model == EMBEDDED else material.vit_b_32(cache)[material.OPEN_CLIP]
    work = peak.gflop_of_an_image(FashionModel.from_pretrained(folder, device=device, backend="torch"))
    settings = {"model": model, "photos": count, "source": source, "rounds": rounds, "gflop_of_an_image": work}
    return settings | {"matmul_gflops": limits, "rows": table, "left_out": left_out}


def agreement(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> tuple[float, float]:
    """The least cosine of rows, (N, D) L2-normalized, and the same with the mean embedding taken out of both.

    Embeddings of photos of one kind lie close together; without their mean a difference shows much larger.
    """
    mean = wanted.mean(axis=0)
    moved, target = found - mean, wanted - mean
    norms = np.linalg.norm(moved, axis=1) * np.linalg.norm(target, axis=1)
    return float((found * wanted).sum(axis=1).min()), float(((moved * target).sum(axis=1) / norms).min())
