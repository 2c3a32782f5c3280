"""New processes until they have done their work: imports, the command's help, the first recognition."""

from __future__ import annotations

import os
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
_LOADED = "import fashion_retrieval as f; m = f.FashionModel.from_pretrained('compact')"
_HELP = """
import sys
from fashion_retrieval.cli import main
sys.argv[1:] = ["--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
TORCH, WEIGHTS = "import torch, torchvision", "torch, torchvision and the weights"


def measure(cache: Path, *, rounds: int) -> dict[str, Any]:
    """Seconds of each, and how many times as long as torch alone, or torch with the weights, it takes."""
    photo = material.photos(1, cache)[0][0].resolve()
    first = first_recognition(photo)
    programs = {
        "python": "pass",
        TORCH: "import torch, torchvision",
        WEIGHTS: _LOAD,
        "import fashion_retrieval": "import fashion_retrieval",
        "import fashion_retrieval.model": "import fashion_retrieval.model",
        "import open_clip": "import open_clip",
        "fashion-retrieval --help": _HELP,
        "load the embedded model": _LOADED,
        "first recognition": first,
        "the same, transformers not installed": f"import sys; sys.modules['transformers'] = None; {first}",
    }
    seconds = interleave({name: partial(run_python, code) for name, code in programs.items()}, rounds, label="start-up")
    rows = {}
    for name in programs:
        rows[name] = {
            "seconds": quartiles(seconds[name]),
            "times_torch": paired(seconds, TORCH, name).ratio(),
            "times_torch_and_weights": paired(seconds, WEIGHTS, name).ratio(),
        }
    return {"rounds": rounds, "rows": rows}


def first_recognition(photo: Path) -> str:
    """The program that loads the embedded model and recognizes a photo."""
    return f"{_LOADED}; m.recognize({str(photo)!r})"


def run_python(code: str) -> None:
    """Start an interpreter, wait until it has run this code, and kill it; its shutdown does not count."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", f"{code}\nimport os; os.write({writing}, b'.')"]
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with (
        os.fdopen(reading, "rb") as ready,
        subprocess.Popen(command, pass_fds=[writing], stdout=null, stderr=pipe) as process,
    ):
        os.close(writing)
        done = ready.read(1)
        process.kill()
        if not done:
            raise RuntimeError((process.communicate()[1]).decode())
