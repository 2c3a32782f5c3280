"""Peak memory of encoding many photos, over that of the loaded model; in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import material

_PROGRAM = """
import json, resource, sys
from itertools import cycle, islice
from fashion_retrieval import FashionModel
files, count = json.loads(sys.argv[1]), int(sys.argv[2])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
model = FashionModel.from_pretrained("compact")
model.encode(images=files[:1])
loaded = peak()
rows = model.encode(images=islice(cycle(files), count))
print(json.dumps({"photos": len(rows), "loaded_mb": loaded, "peak_mb": peak(), "result_mb": rows.nbytes / 2**20}))
"""


def measure(cache: Path, *, count: int) -> dict[str, Any]:
    """Peak resident MiB after loading and one photo, and after all photos; the size of the result beside it."""
    files, source = material.photos(min(count, 300), cache)
    names = json.dumps([str(file.resolve()) for file in files])
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, names, str(count)], check=True, capture_output=True, text=True, timeout=3600
    )
    figures: dict[str, float] = json.loads(ran.stdout)
    rounded = {name: round(value, 1) for name, value in figures.items()}
    return rounded | {"above_loaded_mb": round(figures["peak_mb"] - figures["loaded_mb"], 1), "source": source}
