"""Preprocessing alone, on one thread: the bytes of a JPEG file -> (3, h, w), ours against open_clip's transform."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import image_transform_v2
from PIL import Image

from benchmarks import material
from benchmarks.rounds import interleave, paired
from fashion_retrieval import FashionModel
from fashion_retrieval.hub import EMBEDDED

THEIRS, OURS = "open_clip transform", "ours"


def measure(cache: Path, *, count: int, rounds: int) -> dict[str, Any]:
    """Photos a second, ratios, and how near the embeddings of the two are, for both models' input sizes."""
    files, source = material.photos(count, cache)
    payloads = [file.read_bytes() for file in files]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = {
            name: _measure(folder, payloads, rounds)
            for name, folder in (("vit_b_32", material.vit_b_32(cache)[material.OPEN_CLIP]), (EMBEDDED, EMBEDDED))
        }
    finally:
        torch.set_num_threads(threads)
    return {"photos": count, "source": source, "rounds": rounds, "threads": 1, "rows": rows}


def _measure(folder: Path | str, payloads: list[bytes], rounds: int) -> dict[str, Any]:
    encoder = FashionModel.from_pretrained(folder, device="cpu", dtype="float32").encoder
    transform = image_transform_v2(encoder.preprocess_config, is_train=False)

    def theirs(payload: bytes) -> torch.Tensor:
        made: torch.Tensor = transform(Image.open(BytesIO(payload)))
        return made

    def run(make: Callable[[bytes], torch.Tensor]) -> None:
        for payload in payloads:
            make(payload)

    makers: dict[str, Callable[[bytes], torch.Tensor]] = {THEIRS: theirs, OURS: encoder.pixels}
    with torch.inference_mode():
        first, second = (encoder.encode_image(torch.stack([*map(make, payloads)])) for make in makers.values())
    seconds = interleave({name: partial(run, make) for name, make in makers.items()}, rounds, label="preprocess")
    height, width = encoder.image_size
    return {
        "size": [height, width],
        "least_cosine": round(float((first * second).sum(1).min()), 7),
        "open_clip_ms": paired(seconds, THEIRS, THEIRS).milliseconds(len(payloads)),
        "ours_ms": paired(seconds, OURS, THEIRS).milliseconds(len(payloads)),
        "ratio": paired(seconds, OURS, THEIRS).ratio(),
    }
