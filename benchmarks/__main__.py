"""Measure, and make the page from what was measured.

python -m benchmarks                       # every section that runs on this machine's CPU
python -m benchmarks encode single         # some of them
python -m benchmarks gpu                   # where there is a GPU
python -m benchmarks.photos colors         # a part of the section `photos`, with a folder of color profiles
python -m benchmarks.serve throughput      # a part of the section `serve`
python -m benchmarks --quick               # a smoke run, under two minutes; its results mean nothing
python -m benchmarks report                # docs/benchmarks.md and its plot, from the committed results
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from datetime import date
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import duplicates, encode, gpu, memory, photos, preprocess, report, serve, single, startup
from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.errors import FashionRetrievalError
from fashion_retrieval.hub.download import EMBEDDED

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "open_clip_torch", "transformers", "openvino", "onnxruntime", "nncf", "pillow")


class Section(StrEnum):
    """What to measure."""

    ENCODE = "encode"
    ENCODE_COMPACT = "encode_compact"
    PREPROCESS = "preprocess"
    SINGLE = "single"
    STARTUP = "startup"
    MEMORY = "memory"
    PHOTOS = "photos"
    SERVE = "serve"
    DUPLICATES = "duplicates"
    GPU = "gpu"
    REPORT = "report"


def sections(cache: Path, quick: bool) -> dict[Section, Callable[[], dict[str, Any]]]:
    """How to measure each section; `quick` measures on next to nothing."""
    few, rounds = (4, 1) if quick else (96, 7)
    return {
        Section.ENCODE: lambda: encode.measure("vit_b_32", cache, "cpu", count=few, rounds=rounds),
        Section.ENCODE_COMPACT: lambda: encode.measure(
            EMBEDDED, cache, "cpu", count=few if quick else 288, rounds=rounds
        ),
        Section.PREPROCESS: lambda: preprocess.measure(cache, count=few, rounds=1 if quick else 15),
        Section.SINGLE: lambda: single.measure(cache, count=few if quick else 24, rounds=rounds),
        Section.STARTUP: lambda: startup.measure(cache, rounds=1 if quick else 5),
        Section.MEMORY: lambda: memory.measure(cache, count=64 if quick else 10_000),
        Section.PHOTOS: lambda: photos.measure(cache, quick=quick),
        Section.SERVE: lambda: serve.measure(cache, quick=quick),
        Section.DUPLICATES: lambda: duplicates.measure(cache, count=12 if quick else 300, bases=6 if quick else 200),
        Section.GPU: lambda: gpu.measure(cache, count=64 if quick else 4_096, rounds=rounds),
    }


def machine() -> dict[str, Any]:
    """Where the results come from: processor, threads, GPU, versions, date, and the load at the start."""
    lines = [line.partition(":") for line in _lines(Path("/proc/cpuinfo"))]
    info = {name.strip(): value.strip() for name, _, value in lines}
    known = "cpu family" in info
    processor = f"{info['model name']}, family {info['cpu family']}, model {info['model']}" if known else None
    return {
        "date": date.today().isoformat(),
        "processor": processor or platform.processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main(
    wanted: Annotated[list[Section] | None, typer.Argument(help="Sections; all of the CPU's without one.")] = None,
    quick: Annotated[bool, typer.Option(help="A smoke run in under two minutes.")] = False,
    cache: Annotated[Path, typer.Option(help="Where weights and int8 models are made.")] = Path("runs/benchmarks"),
    out: Annotated[Path, typer.Option(help="Folder for the JSON files.")] = RESULTS,
) -> None:
    """Time this package and its peers in paired, interleaved rounds; write JSON, or make the page from it."""
    left_out = {Section.GPU, Section.REPORT, *([Section.ENCODE] if quick else [])}  # ViT-B/32 alone takes minutes
    chosen = wanted or [section for section in Section if section not in left_out]
    if Section.GPU in chosen and not torch.cuda.is_available():
        raise typer.BadParameter("the section gpu needs a CUDA GPU, this machine has none")
    out.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    for section in chosen:
        if section == Section.REPORT:
            typer.echo(f"written to {report.write(RESULTS)}")
            continue
        try:
            measured = {"machine": machine(), **sections(cache, quick)[section]()}
        except FashionRetrievalError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        path = out / f"{section}.json"
        with write_atomically(path) as partial:
            partial.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
        typer.echo(f"written to {path}")


if __name__ == "__main__":
    typer.run(main)
