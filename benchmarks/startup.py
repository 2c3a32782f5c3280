"""Processes from start to end: imports, the command's help, the first recognition. Each run is a new interpreter."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.rounds import interleave, paired, quartiles

_LOAD = (
    "import torch, torchvision; from safetensors.torch import load_file; from fashion_retrieval.hub import resolve; "
    "[load_file(path) for path in sorted(resolve('compact').glob('*.safetensors'))]"
)
_HELP = "import sys; sys.argv[1:] = ['--help']; from fashion_retrieval.cli import main; main()"
TORCH, WEIGHTS = "import torch, torchvision", "torch, torchvision and the weights"


def measure(cache: Path, *, rounds: int) -> dict[str, Any]:
    """Seconds of each, and how many times as long as torch alone, or torch with the weights, it takes."""
    photo = material.photos(1, cache)[0][0].resolve()
    programs = {
        "python": "pass",
        TORCH: "import torch, torchvision",
        WEIGHTS: _LOAD,
        "import fashion_retrieval": "import fashion_retrieval",
        "import fashion_retrieval.model": "import fashion_retrieval.model",
        "import open_clip": "import open_clip",
        "fashion-retrieval --help": _HELP,
        "load the embedded model": "import fashion_retrieval as f; f.FashionModel.from_pretrained('compact')",
        "first recognition": (
            f"import fashion_retrieval as f; m = f.FashionModel.from_pretrained('compact'); m.recognize({str(photo)!r})"
        ),
    }
    seconds = interleave({name: partial(_python, code) for name, code in programs.items()}, rounds, label="start-up")
    rows = {}
    for name in programs:
        rows[name] = {
            "seconds": quartiles(seconds[name]),
            "times_torch": paired(seconds, TORCH, name).ratio(),
            "times_torch_and_weights": paired(seconds, WEIGHTS, name).ratio(),
        }
    return {"rounds": rounds, "rows": rows}


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
