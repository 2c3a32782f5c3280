"""Images a second on a GPU, from JPEG files and from tensors, and the share of its bf16 peak that the towers reach."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import contenders, encode, material
from fashion_retrieval import FashionModel

_SIDE = 8192


def measure(cache: Path, *, count: int, rounds: int, batch: int = 512) -> dict[str, Any]:
    """`encode`'s rows on "cuda", and the image tower alone on a batch of ready tensors in bf16."""
    report = encode.measure("vit_b_32", cache, "cuda", count=count, rounds=rounds)
    model = FashionModel.from_pretrained(material.vit_b_32(cache)[material.OPEN_CLIP], device="cuda", dtype="bfloat16")
    pixels = torch.randn(batch, 3, *model.encoder.image_size, device="cuda")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.encoder.encode_image(pixels[:1])
    work = counter.get_total_flops() * batch
    seconds = _median(partial(contenders.from_tensors, model.encoder.encode_image, pixels, torch.bfloat16), rounds)
    peak = bf16_peak(rounds)
    return report | {
        "gpu": torch.cuda.get_device_name(),
        "from_tensors": {
            "batch": batch,
            "images_per_second": round(batch / seconds, 1),
            "tflops": round(work / seconds / 1e12, 1),
            "matmul_peak_tflops": round(peak / 1e12, 1),
            "share_of_peak": round(work / seconds / peak, 3),
            "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        },
    }


def bf16_peak(rounds: int) -> float:
    """Floating-point operations a second of a large bf16 matrix product on this GPU."""
    left, right = (torch.randn(_SIDE, _SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        left @ right
        torch.cuda.synchronize()

    return float(2 * _SIDE**3 / _median(product, rounds))


def _median(run: partial[Any] | Any, rounds: int) -> float:  # noqa: ANN401
    times = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times[2:])
