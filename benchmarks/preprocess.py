"""Preprocessing alone, on one thread: the bytes of a JPEG file -> (3, h, w), ours against open_clip's transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from fashion_retrieval.hub.download import EMBEDDED
from fashion_retrieval.images.load import load_pixels

THEIRS = "open_clip transform"


def measure(cache: Path, *, count: int, rounds: int) -> dict[str, Any]:
    """Photos a second, ratios, and how near the embeddings of the two are, for both models' input sizes."""
    files, source = material.photos(count, cache)
    payloads = [file.read_bytes() for file in files]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = {
            name: row
            for folder, model in ((material.vit_b_32(cache)[material.OPEN_CLIP], "vit_b_32"), (EMBEDDED, EMBEDDED))
            for name, row in _measure(folder, model, payloads, rounds).items()
        }
    finally:
        torch.set_num_threads(threads)
    return {"photos": count, "source": source, "rounds": rounds, "threads": 1, "rows": rows}


def _measure(folder: Path | str, name: str, payloads: list[bytes], rounds: int) -> dict[str, dict[str, Any]]:
    """Rows of both of our ways: the faster types' and, "exact", float32's."""
    encoder = FashionModel.from_pretrained(folder, device="cpu", dtype="float32").encoder
    transform = image_transform_v2(encoder.preprocess_config, is_train=False)

    def theirs(payload: bytes) -> torch.Tensor:
        made: torch.Tensor = transform(Image.open(BytesIO(payload)))
        return made

    def ours(payload: bytes, *, exact: bool) -> torch.Tensor:
        return torch.from_numpy(replace(encoder.preprocessing, exact=exact)(load_pixels(payload)))

    def run(make: Callable[[bytes], torch.Tensor]) -> None:
        for payload in payloads:
            make(payload)

    makers: dict[str, Callable[[bytes], torch.Tensor]] = {
        THEIRS: theirs,
        name: partial(ours, exact=False),
        f"{name}, exact": partial(ours, exact=True),
    }
    with torch.inference_mode():
        found = {one: encoder.encode_image(torch.stack([*map(make, payloads)])) for one, make in makers.items()}
    seconds = interleave({one: partial(run, make) for one, make in makers.items()}, rounds, label="preprocess")
    height, width = encoder.image_size
    return {
        one: {
            "size": [height, width],
            "least_cosine": round(float((found[one] * found[THEIRS]).sum(1).min()), 7),
            "open_clip_ms": paired(seconds, THEIRS, THEIRS).milliseconds(len(payloads)),
            "ours_ms": paired(seconds, one, THEIRS).milliseconds(len(payloads)),
            "ratio": paired(seconds, one, THEIRS).ratio(),
        }
        for one in makers
        if one != THEIRS
    }
