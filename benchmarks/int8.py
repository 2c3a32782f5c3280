"""int8 graphs of the embedded model on processors with and without VNNI: cosines to float32, precision, speed.

python -m benchmarks.int8                                   # quantizes, measures, adds to results/int8.json
python -m benchmarks.int8 --label before --openvino DIR …   # graphs that were quantized before

An AVX2-only processor is this one with ONEDNN_MAX_CPU_ISA=AVX2, which OpenVINO honors, and qemu's Haswell for ONNX
Runtime, which has no such switch; the latter is slow, tells nothing of speed, and is given few photos.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks import material
from fashion_retrieval import FashionModel
from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.backends.convert import convert, quantize
from fashion_retrieval.backends.runtimes import runtime_of
from fashion_retrieval.hub.download import EMBEDDED, resolve

RESULT = Path(__file__).parent / "results" / "int8.json"
BACKENDS = ("openvino", "onnx")
_ROUNDS, _EMULATED_PHOTOS = 9, 4


def evenly(folder: str, split: str, count: int) -> list[Path]:
    """`count` photos of a part of the data pack, evenly over their names."""
    files = sorted((material.PACK / folder / split).glob("*.jpg"))
    return files[:: max(1, len(files) // count)][:count]


def measure(label: str, ready: dict[str, Path | None], calibration: int, photos: int, labeled: int) -> dict[str, Any]:
    """Figures of both backends on each processor."""
    model = FashionModel.from_pretrained(EMBEDDED, device="cpu", dtype="float32", backend="torch")
    kept = [photo for part in material.FOLDERS for photo in evenly(part, "train", calibration // 3)]
    held_out = [photo for part in material.FOLDERS for photo in evenly(part, "val", photos // 3)]
    known = {line["id"]: line["label"] for line in map(json.loads, (material.PACK / "clothing.jsonl").open())}
    some = [
        path for path in evenly("clothing", "val", labeled) if known[path.stem] not in ("Not sure", "Other", "Skip")
    ]
    names = sorted({known[path.stem] for path in some})
    truth = np.array([names.index(known[path.stem]) for path in some])
    texts = model.encode(texts=[f"a photo of {name.lower()}" for name in names])
    expected = model.encode(images=[*held_out, *some])
    report: dict[str, Any] = {"calibration": len(kept), "photos": len(held_out), "labeled": len(some)}
    report["precision_float32"] = precision(expected[len(held_out) :], texts, truth)
    with TemporaryDirectory() as scratch:
        pixels = Path(scratch, "pixels.npy")
        np.save(pixels, np.stack([model.encoder.pixels(photo).numpy() for photo in [*held_out, *some]]))
        for backend in BACKENDS:
            graphs = Path(scratch, backend)
            graphs.mkdir()
            convert(resolve(EMBEDDED), backend, graphs)
            floats = graphs / f"float{runtime_of(backend).SUFFIX}"
            for path in list(graphs.glob("image.*")):
                shutil.copy(path, floats.with_suffix(path.suffix))
            graph = graphs / f"image{runtime_of(backend).SUFFIX}"
            if (given := ready[backend]) is not None:
                graph = given / graph.name
            else:
                samples = Path(scratch, "samples.npy")
                np.save(samples, np.stack([model.encoder.pixels(photo).numpy() for photo in kept]))
                quantize(backend, graph, samples, convolutional=True)
            for processor, (command, settings, count) in processors(backend).items():
                found = run_child(command, settings, [backend, str(graph), str(floats), str(pixels), str(count or 0)])
                rows = np.array(found.pop("rows"), dtype=np.float32)
                near = (rows * expected[: len(rows)]).sum(axis=1)[: len(held_out)]
                found |= {"photos": len(near), "cosine_mean": float(near.mean()), "cosine_min": float(near.min())}
                if len(rows) == len(expected):
                    lost = report["precision_float32"] - precision(rows[len(held_out) :], texts, truth)
                    found["precision_lost"] = round(lost, 4)
                report.setdefault(backend, {})[processor] = found
                typer.echo(f"{label} {backend} on {processor}: {found}")
    return report


def precision(rows: NDArray[np.float32], texts: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """The fraction of photos whose nearest label is their own."""
    return float(((rows @ texts.T).argmax(axis=1) == truth).mean())


def processors(backend: str) -> dict[str, tuple[list[str], dict[str, str], int | None]]:
    """Name -> the words before the command, environment variables, and how many photos; None for all."""
    found: dict[str, tuple[list[str], dict[str, str], int | None]] = {"this processor": ([], {}, None)}
    if backend == "openvino":
        found["this processor as AVX2"] = ([], {"ONEDNN_MAX_CPU_ISA": "AVX2"}, None)
    elif emulator := shutil.which("qemu-x86_64"):
        found["Haswell by qemu"] = ([emulator, "-cpu", "Haswell"], {}, _EMULATED_PHOTOS)
    return found


def run_child(command: list[str], settings: dict[str, str], arguments: list[str]) -> dict[str, Any]:
    """What `embed` prints in a process of its own."""
    done = subprocess.run(
        [*command, sys.executable, "-W", "ignore", "-m", "benchmarks.int8", "embed", *arguments],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def embed(backend: str, graph: str, floats: str, pixels: str, count: str) -> None:
    """The child: embeddings one photo at a time, and the time of one beside that of the graph in float32."""
    given, threads = np.load(pixels, mmap_mode="r"), int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()))
    runtime = runtime_of(backend)
    programs = [runtime.Program(Path(path), dtype="float32", threads=threads) for path in (graph, floats)]
    some = [np.ascontiguousarray(one[None]) for one in given[: int(count) or None]]
    rows = np.concatenate([programs[0]("pooled", pixels=one) for one in some])
    told: dict[str, Any] = {"rows": (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()}
    if not int(count):
        seconds: list[list[float]] = [[], []]
        for _ in range(_ROUNDS + 1):
            for program, spent in zip(programs, seconds, strict=True):
                start = time.perf_counter()
                for one in some[:8]:
                    program("pooled", pixels=one)
                spent.append(time.perf_counter() - start)
        ratios = np.array(seconds[1][1:]) / np.array(seconds[0][1:])
        told |= {"milliseconds": round(1e3 * float(np.median(seconds[0][1:])) / 8, 2)}
        told |= {"times_float32": round(float(np.median(ratios)), 2)}
    print(json.dumps(told))


def main(
    label: Annotated[str, typer.Option(help="The name of this run in the results.")] = "now",
    openvino: Annotated[Path | None, typer.Option(help="A folder with image.xml, quantized.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="A folder with image.onnx, quantized.")] = None,
    photos: int = 99,
    labeled: int = 300,
    calibration: int = 300,
) -> None:
    """Measure, and add a run to the results."""
    from benchmarks.__main__ import machine

    report = measure(label, {"openvino": openvino, "onnx": onnx}, calibration, photos, labeled)
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    results[label] = {"machine": machine()} | report
    with write_atomically(RESULT) as path:
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["embed"]:
        embed(*sys.argv[2:])
    else:
        typer.run(main)
