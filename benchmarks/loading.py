"""From a folder to a model that is ready: this package and open_clip on the same ViT-B/32 file, in turns.

python -m benchmarks.loading        # benchmarks/results/loading.json

Each load has a process of its own, after the same imports, and the file is in the system's cache. Memory is the peak of
resident pages above those after the imports, the mapped pages of the file included; "own" leaves those out, which the
system takes back when it needs memory, and is what remains at the end.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from open_clip.factory import get_model_config

from benchmarks.__main__ import RESULTS, machine
from benchmarks.rounds import paired, quartiles
from fashion_retrieval._utils.files import write_atomically
from tests.support.open_clip_families import family_folder

_PROGRAM = """
import json, sys, time
from pathlib import Path
import open_clip, torch, transformers
from PIL import Image
import fashion_retrieval.backends.attach, fashion_retrieval.checkpoint.folder
from fashion_retrieval import FashionModel
folder, photo = sys.argv[1], Image.new("RGB", (300, 400), "olive")

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) * 1024

FashionModel
Path("/proc/self/clear_refs").write_text("5")
before, own, start = memory("VmRSS"), memory("RssAnon"), time.perf_counter()
CREATE
ready, peak = time.perf_counter() - start, memory("VmHWM") - before
FIRST
first, last, own = time.perf_counter() - start, memory("VmHWM") - before, memory("RssAnon") - own
print(json.dumps({"seconds": ready, "first_seconds": first, "peak": peak, "first_peak": last, "own": own}))
"""
_OURS = """
model = FashionModel.from_pretrained(folder, device="cpu", dtype="DTYPE", backend="torch")
"""
_OURS_FIRST = "model.encode(images=[photo]); model.encode(texts=['a photo of a red dress'])"
_THEIRS = """
model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
model.eval()
"""
_THEIRS_FIRST = """
with torch.inference_mode():
    model.encode_image(transform(photo)[None])
    model.encode_text(open_clip.tokenize(["a photo of a red dress"]))
"""
OURS, OURS_AUTO, THEIRS = "fashion-retrieval, float32", "fashion-retrieval, dtype='auto'", "open_clip"
PROGRAMS = {
    OURS: _PROGRAM.replace("CREATE", _OURS.replace("DTYPE", "float32")).replace("FIRST", _OURS_FIRST),
    OURS_AUTO: _PROGRAM.replace("CREATE", _OURS.replace("DTYPE", "auto")).replace("FIRST", _OURS_FIRST),
    THEIRS: _PROGRAM.replace("CREATE", _THEIRS).replace("FIRST", _THEIRS_FIRST),
}


def load(program: str, folder: Path) -> dict[str, float]:
    """Seconds and bytes of one load in a new process: until it is ready, and until the first photo and text."""
    command = [sys.executable, "-W", "ignore", "-c", program, str(folder)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def measure(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Medians of each, what ours takes of open_clip's time in the same round, and the peaks in sizes of the weights."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    order, rng = list(PROGRAMS), random.Random(0)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in order}
    for number in range(rounds + 1):
        rng.shuffle(order)
        for name in order:
            row = load(PROGRAMS[name], folder)
            if number:  # the first round brings the files into the system's cache
                found[name].append(row)
    rows: dict[str, Any] = {}
    for name, runs in found.items():
        rows[name] = {}
        for key in ("seconds", "first_seconds"):
            seconds = {each: [row[key] for row in found[each]] for each in (name, THEIRS)}
            rows[name][key] = quartiles(seconds[name])
            rows[name][f"{key}_of_open_clip"] = paired(seconds, THEIRS, name).ratio()
        for key in ("peak", "first_peak", "own"):
            rows[name][f"{key}_of_weights"] = round(median(row[key] for row in runs) / size, 3)
    return {"weights_bytes": size, "rounds": rounds, "rows": rows}


def main(
    rounds: Annotated[int, typer.Option(help="How many times each is loaded.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder for the JSON file.")] = RESULTS,
) -> None:
    """Load a ViT-B/32 that open_clip wrote, with random weights, by this package and by open_clip."""
    with TemporaryDirectory() as parent:
        folder = Path(parent, "vit_b_32")
        family_folder(folder, get_model_config("ViT-B-32"))
        measured = {"machine": machine(), **measure(folder, rounds=rounds)}
    with write_atomically(out / "loading.json") as partial:
        partial.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    for name, row in measured["rows"].items():
        typer.echo(f"{name}: {json.dumps(row)}")


if __name__ == "__main__":
    typer.run(main)
