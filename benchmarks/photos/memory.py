"""Peak memory of a call on large photos over that of the loaded model, each call in a process of its own.

Before the call the process gives back what it has freed (`malloc_trim`) and the kernel's high-water mark is set to
what it holds (`/proc/self/clear_refs`); afterwards the mark tells what the call took at most. So neither a peak while
loading nor memory that the allocator kept from it hides a part. `getrusage` can't do that: its mark is never lowered,
and a new process inherits its parent's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.photos import scene

ORIENTATIONS = (1, 3, 6, 8)
COUNT = 16
"""Photos of `recognize_many`, one batch."""

_PROGRAM = """
import ctypes, gc, json, pathlib, re, sys
from fashion_retrieval import FashionModel
call, small, *files = sys.argv[1:]
model = FashionModel.from_pretrained("compact")
calls = {
    "recognize": lambda files: [model.recognize(file) for file in files],
    "encode": lambda files: model.encode(images=files),
    "recognize_many, keep_image=True": lambda files: list(model.recognize_many(files, keep_image=True)),
    "recognize_many, keep_image=False": lambda files: list(model.recognize_many(files, keep_image=False)),
}

def memory(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\\s*(\\d+) kB", status)[1]) / 1024

calls[call]([small])
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
pathlib.Path("/proc/self/clear_refs").write_text("5")
loaded = memory("VmRSS")
found = calls[call](files)
peak = memory("VmHWM")
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
garments = [len(one.garments) for one in found] if call != "encode" else None
print(json.dumps({"loaded_mb": loaded, "peak_mb": peak, "kept_mb": memory("VmRSS") - loaded, "garments": garments}))
"""


def measure(cache: Path, *, quick: bool) -> dict[str, Any]:
    """Peak MiB over the loaded model of each call, and how many times the decoded photos (3 bytes a pixel) that is."""
    width, height = (1008, 756) if quick else (8064, 6048)
    large, small = {number: _file(cache, width, height, number) for number in ORIENTATIONS}, _file(cache, 400, 300, 1)
    decoded = 3 * width * height / 2**20
    cases = [(call, number, 1) for call in ("recognize", "encode") for number in ORIENTATIONS]
    cases += [
        (call, 1, 2 if quick else COUNT)
        for call in ("recognize_many, keep_image=True", "recognize_many, keep_image=False")
    ]
    rows = []
    for call, number, count in cases[-1:] if quick else cases:
        found = _run(call, small, [large[number]] * count)
        above = found["peak_mb"] - found["loaded_mb"]
        figures = {name: round(found[name], 1) for name in ("loaded_mb", "peak_mb", "kept_mb")}
        row = {"call": call, "orientation": number, "photos": count, "garments": found["garments"], **figures}
        rows.append(row | {"above_loaded_mb": round(above, 1), "times_decoded": round(above / count / decoded, 2)})
    size = large[1].stat().st_size
    return {"size": [width, height], "file_mb": round(size / 2**20, 1), "decoded_mb": round(decoded, 1), "rows": rows}


def _file(cache: Path, width: int, height: int, orientation: int) -> Path:
    """A drawn photo of this stored size; a figure stands upright in it once it is turned."""
    path = cache / f"figure_{width}_{height}_{orientation}.jpg"
    if not path.exists():
        upright = scene.figure(*((height, width) if orientation > 4 else (width, height)))
        path.write_bytes(scene.jpeg(upright, orientation=orientation))
    return path


def _run(call: str, small: Path, files: list[Path]) -> dict[str, Any]:
    names = [str(file.resolve()) for file in (small, *files)]
    command = [sys.executable, "-c", _PROGRAM, call, *names]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found
