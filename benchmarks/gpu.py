"""Images a second on a GPU, from JPEG files and from tensors, and the share of its bf16 peak that the towers reach."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import contenders, encode, material, peak
from fashion_retrieval import FashionModel


def measure(cache: Path, *, count: int, rounds: int, batch: int = 512) -> dict[str, Any]:
    """`encode`'s rows on "cuda", and the image tower alone on a batch of ready tensors in bf16."""
    report = encode.measure("vit_b_32", cache, "cuda", count=count, rounds=rounds)
    model = FashionModel.from_pretrained(material.vit_b_32(cache)[material.OPEN_CLIP], device="cuda", dtype="bfloat16")
    encoder = contenders.modules(model)
    pixels = torch.randn(batch, 3, *encoder.image_size, device="cuda")
    work = peak.gflop_of_an_image(model) * 1e9 * batch
    run = partial(contenders.from_tensors, encoder.encode_image, pixels, torch.bfloat16)
    seconds, limit = peak.seconds_of(run, rounds), report["matmul_gflops"]["bf16"] * 1e9
    return report | {
        "gpu": torch.cuda.get_device_name(),
        "from_tensors": {
            "batch": batch,
            "images_per_second": round(batch / seconds, 1),
            "tflops": round(work / seconds / 1e12, 1),
            "matmul_peak_tflops": round(limit / 1e12, 1),
            "share_of_peak": round(work / seconds / limit, 3),
            "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        },
    }
