"""Time to read a photo with a color profile against the same without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.photos import profiles, scene
from benchmarks.rounds import interleave, paired
from fashion_retrieval import FashionModel
from fashion_retrieval.images.load import load_pixels


def measure(cache: Path, *, rounds: int, quick: bool) -> dict[str, Any]:
    """Milliseconds of `load_pixels` and `encode` for a 12-megapixel JPEG file, and the ratio to an untagged one."""
    width, height = (400, 300) if quick else (4032, 3024)
    drawn = scene.figure(width, height)
    files = {"untagged": cache / "untagged.jpg"}
    files["untagged"].write_bytes(scene.jpeg(drawn))
    for name, primaries in (("Display P3", profiles.DISPLAY_P3), ("sRGB", profiles.BT709)):
        profile = profiles.matrix_profile(name, primaries)  # the same pixels, so that decoders have the same work
        files[name] = cache / f"{name.replace(' ', '_').lower()}.jpg"
        files[name].write_bytes(scene.jpeg(drawn, icc_profile=profile))
    model = FashionModel.from_pretrained("compact")
    calls: dict[str, Callable[[Path], object]] = {
        "load_pixels": load_pixels,
        "encode": lambda file: model.encode(images=[file]),
    }
    rows = {}
    for call, run in calls.items():
        contenders = {name: lambda run=run, file=file: run(file) for name, file in files.items()}
        seconds = interleave(contenders, rounds, label=call)
        for name in files:
            timing = paired(seconds, "untagged", name)
            rows[f"{call}, {name}"] = {"ms": paired(seconds, name, name).milliseconds(), "times": timing.ratio()}
    return {"size": [width, height], "rounds": rounds, "rows": rows}
