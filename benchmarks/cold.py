"""What a call costs at once: whole processes, many photos, and loading, beside another checkout of this repository.

python -m benchmarks.cold --before FOLDER       # FOLDER: a checkout of the commit to compare with

Needs the packages of both; exports the embedded model for OpenVINO and ONNX Runtime first. All sides take turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks import material, startup
from benchmarks.__main__ import RESULTS, machine
from benchmarks.rounds import interleave, paired, quartiles
from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.export.export import export_model
from fashion_retrieval.hub.download import EMBEDDED, resolve

HERE = Path(__file__).parent
PHOTO = HERE.parent / "docs/images/portrait.jpg"
COMMAND = "import sys; from fashion_retrieval.cli import main; sys.argv[1:] = {arguments!r}; main()"
MANY = """
import json, sys, time
from pathlib import Path
from fashion_retrieval import FashionModel
model = FashionModel.from_pretrained({model!r}, device="cpu", **{options!r})
photos = json.loads(Path({photos!r}).read_text())
list(model.recognize_many(photos[:8]))
for line in sys.stdin:
    start = time.perf_counter()
    found = sum(len(one.garments) for one in model.recognize_many(photos))
    print(json.dumps([time.perf_counter() - start, found]), flush=True)
"""
LOAD = """
import time
from fashion_retrieval import FashionModel
start = time.perf_counter()
FashionModel.from_pretrained({model!r}, device="cpu")
print(time.perf_counter() - start)
"""


def main(
    before: Annotated[Path, typer.Option(help="A checkout of the commit to compare with.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of whole processes.")] = 7,
    photos: Annotated[int, typer.Option(min=8, help="Street photos for recognize_many.")] = 200,
    turns: Annotated[int, typer.Option(min=1, help="Rounds of recognize_many.")] = 3,
    cache: Annotated[Path, typer.Option(help="Folder for the exports.")] = Path("runs/benchmarks/cold"),
    out: Annotated[Path, typer.Option(help="The JSON file.")] = RESULTS / "cold.json",
) -> None:
    """Time both sides and write JSON."""
    exports = {backend: exported(backend, cache) for backend in ("openvino", "onnx")}
    head = subprocess.run(["git", "-C", str(before), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    measured: dict[str, Any] = {"machine": machine(), "before": head.stdout.strip() or None}
    measured["processes"] = processes(before, exports, rounds)
    measured["first_recognition"] = first_recognition(rounds)
    measured["self_check"] = self_check(exports, rounds)
    measured["recognize_many"] = many(before, exports, material.photos(photos, cache)[0], turns)
    with write_atomically(out) as part:
        part.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"written to {out}")


def exported(backend: str, cache: Path) -> Path:
    """A folder with the embedded model and its export in float32, made once for each state of the model."""
    folder = cache / backend
    if not (folder / backend / "export.json").is_file():
        export_model(resolve(EMBEDDED), folder, backend=backend, precision="fp32", model_id=EMBEDDED)
    return folder


def processes(before: Path, exports: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    """Seconds and memory of the command for one photo, and of importing torch, each from its start to its end."""
    plain = ["recognize", str(PHOTO), "--json"]
    programs: dict[str, tuple[Path, str]] = {
        "import torch": (HERE.parent, "import torch"),
        "before": (before, COMMAND.format(arguments=plain)),
        "torch": (HERE.parent, COMMAND.format(arguments=plain)),
    }
    for backend, folder in exports.items():
        programs[backend] = HERE.parent, COMMAND.format(arguments=[*plain, "--model", str(folder)])
    peaks: dict[str, list[int]] = {name: [] for name in programs}

    def run(name: str) -> None:
        checkout, code = programs[name]
        peaks[name].append(peak(checkout, code))

    seconds = interleave({name: partial(run, name) for name in programs}, rounds, label="processes")
    rows = {}
    for name, spent in seconds.items():
        rows[name] = {
            "seconds": quartiles(spent),
            "of_before": paired(seconds, "before", name).ratio()["median"],
            "of_import_torch": paired(seconds, "import torch", name).ratio()["median"],
            "peak_mib": round(median(peaks[name]) / 1024, 1),
            "peak_of_before": round(median(peaks[name]) / median(peaks["before"]), 3),
        }
    return {"rounds": rounds, "rows": rows}


def first_recognition(rounds: int) -> dict[str, Any]:
    """Seconds until a new process has recognized a photo, of those until it has imported torch."""
    first = startup.first_recognition(PHOTO)
    programs = {name: partial(startup.run_python, code) for name, code in (("torch", "import torch"), ("first", first))}
    seconds = interleave(programs, rounds, label="first recognition")
    ratio = paired(seconds, "torch", "first").ratio()
    return {"seconds": quartiles(seconds["first"]), "of_import_torch": ratio}


def peak(checkout: Path, code: str) -> int:
    """Run a program with a checkout's package, and give the peak of its resident memory in KiB.

    By Linux' own count, since `getrusage` begins with that of the process which started it.
    """
    told = f"try:\n    exec({code!r})\nexcept SystemExit as end:\n    assert not end.code\n"
    told += "import sys; print(*(line for line in open('/proc/self/status') if 'VmHWM' in line), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=paths(checkout))
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stderr.split()[-2])


def self_check(exports: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    """Seconds of loading in a new process, with the self-check made anew and found in its cache."""
    rows = {}
    for backend, folder in exports.items():
        code = LOAD.format(model=str(folder))

        def load(code: str = code, **more: str) -> float:
            env = paths(HERE.parent) | more
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
            return float(done.stdout)

        load()
        pairs = [(load(), load(HF_ASSETS_CACHE="/dev/null")) for _ in range(rounds)]
        rows[backend] = {
            "seconds": quartiles([kept for kept, _ in pairs]),
            "made_anew_of_kept": round(median(anew / kept for kept, anew in pairs), 3),
        }
    return rows


def many(before: Path, exports: Mapping[str, Path], photos: Sequence[Path], turns: int) -> dict[str, Any]:
    """Seconds of `recognize_many` on both sides and with the exports, in turn."""
    listed = Path("runs/benchmarks/cold/photos.json")
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text(json.dumps([str(photo.resolve()) for photo in photos]), encoding="utf-8")
    sides: dict[str, tuple[Path, str, dict[str, str]]] = {
        "before": (before, EMBEDDED, {}),
        "torch": (HERE.parent, EMBEDDED, {}),
    }
    sides |= {backend: (HERE.parent, str(folder), {"backend": backend}) for backend, folder in exports.items()}
    running = {}
    for name, (checkout, model, options) in sides.items():
        code = MANY.format(model=model, options=options, photos=str(listed))
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", code]
        running[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=paths(checkout))
    garments: dict[str, int] = {}

    def turn(name: str) -> None:
        process = running[name]
        assert process.stdin is not None
        assert process.stdout is not None
        print("", file=process.stdin, flush=True)
        garments[name] = json.loads(process.stdout.readline())[1]

    seconds = interleave({name: partial(turn, name) for name in sides}, turns, warm_ups=0, label="recognize_many")
    for process in running.values():
        process.kill()
    return {
        "photos": len(photos),
        "turns": turns,
        "rows": {
            name: {
                "photos_per_second": round(len(photos) / median(spent), 2),
                "times_as_fast_as_before": paired(seconds, name, "before").ratio(),
                "garments": garments[name],
            }
            for name, spent in seconds.items()
        },
    }


def paths(checkout: Path) -> dict[str, str]:
    """The environment of a checkout's process."""
    return dict(os.environ) | {"PYTHONPATH": str(checkout.absolute() / "src")}


if __name__ == "__main__":
    typer.run(main)
