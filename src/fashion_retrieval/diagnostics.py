"""A check of the installation: what is here, what is broken, and how long one photo takes."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from fashion_retrieval._utils.cpu import cores, quota, threads, wanted_threads
from fashion_retrieval._utils.files import verify_digests
from fashion_retrieval.config import CONFIG_NAME, ModelConfig

_PACKAGES = (
    *("huggingface-hub", "numpy", "onnxruntime", "open-clip-torch", "openvino", "pillow", "pyarrow", "pyyaml", "rich"),
    *("safetensors", "segment-anything", "torch", "torchvision", "transformers", "typer"),
)


def doctor(*, device: str = "auto", dtype: str = "auto", backends: bool = False) -> dict[str, Any]:
    """Look at the installation, and recognize one drawn photo with the embedded model.

    Args:
        device: As for `FashionModel.from_pretrained`.
        dtype: As for `FashionModel.from_pretrained`.
        backends: Convert the embedded model to each installed backend, and compare what they compute; takes minutes.

    Returns:
        A JSON-ready dict: `version`, `python`, `platform`, `packages` (name -> version or None), `hardware` (`device`
        and dtype in words, `gpus`), `cpu` (`cores` that this process may run on, the `quota` of its control group in
        CPUs or None, `omp_num_threads` of the environment, and how many `threads` compute), `hub` (`offline`, `cache`,
        `cache_bytes`), `embedded_model` (`folder`, `bytes`), `self_test` (`load_seconds`, `recognize_seconds`,
        `garments`), `near_float32` (what computes -> least cosine of a `picture` and a `text` to torch's float32, and
        whether that is `ok`), and `problems`, one line each; none if all is well. A part that failed, or could not be
        tested after that, is an empty dict.
    """
    problems: list[str] = []
    hardware = _run(lambda: _hardware(device, dtype), problems)
    model = _run(_embedded_model, problems)
    return {
        "version": version("fashion-retrieval"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "hardware": hardware,
        "cpu": _run(lambda: _cpu(problems), problems),
        "hub": _run(_hub, problems),
        "embedded_model": model,
        "self_test": _run(lambda: _time_one_photo(device, dtype), problems) if hardware and model else {},
        "near_float32": _near_float32(Path(model["folder"]), backends, problems) if hardware and model else {},
        "problems": problems,
    }


def _run(check: Callable[[], dict[str, Any]], problems: list[str]) -> dict[str, Any]:
    try:
        return check()
    except Exception as error:  # the other checks still run
        problems.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return {}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hardware(device: str, dtype: str) -> dict[str, Any]:
    import torch

    from fashion_retrieval._utils.device import describe, resolve_device, resolve_dtype

    chosen = resolve_device(device)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"device": describe(chosen, resolve_dtype(dtype, chosen)), "gpus": gpus}


def _cpu(problems: list[str]) -> dict[str, Any]:
    limit, wanted = quota(), wanted_threads()
    if limit and wanted > math.ceil(limit):
        got = f"PyTorch computes on {wanted} threads, but the control group allows the time of {limit:g} CPUs"
        problems.append(f"{got}, so that all of them wait; set OMP_NUM_THREADS={math.ceil(limit)} before Python starts")
    asked = os.environ.get("OMP_NUM_THREADS")
    return {"cores": cores(), "quota": limit, "threads": threads(), "omp_num_threads": asked}


def _hub() -> dict[str, Any]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    return {"offline": constants.HF_HUB_OFFLINE, "cache": str(cache), "cache_bytes": _size(cache)}


def _embedded_model() -> dict[str, Any]:
    from fashion_retrieval.hub.download import EMBEDDED, resolve

    folder = resolve(EMBEDDED)
    config = ModelConfig.read(folder)
    remedy = "reinstall it: pip install --force-reinstall fashion-retrieval"
    verify_digests(folder, config.sha256 if config else {CONFIG_NAME: ""}, remedy=remedy)
    return {"folder": str(folder), "bytes": _size(folder)}


def _time_one_photo(device: str, dtype: str) -> dict[str, Any]:
    """Load the embedded model and recognize a drawn shirt."""
    from PIL import Image, ImageDraw

    from fashion_retrieval.model import FashionModel

    photo = Image.new("RGB", (240, 320), "white")
    outline = [(80, 60), (105, 50), (120, 65), (135, 50), (160, 60), (210, 120), (180, 145), (165, 125)]
    ImageDraw.Draw(photo).polygon([*outline, (165, 270), (75, 270), (75, 125), (60, 145), (30, 120)], fill="navy")
    start = perf_counter()
    model = FashionModel.from_pretrained(device=device, dtype=dtype)
    loaded = perf_counter()
    garments = model.recognize(photo).garments
    seconds = {"load_seconds": loaded - start, "recognize_seconds": perf_counter() - loaded}
    return {name: round(value, 3) for name, value in seconds.items()} | {"garments": len(garments)}


def _near_float32(folder: Path, backends: bool, problems: list[str]) -> dict[str, Any]:
    from fashion_retrieval.backends.examine import examine
    from fashion_retrieval.checkpoint.export_manifest import RUNTIMES

    found: dict[str, Any] = {}
    for backend in ("torch", *RUNTIMES) if backends else ("torch",):
        found |= _run(partial(examine, folder, backend), problems)
    remedy = "use dtype='float32', or another backend"
    problems += [f"{name} computes otherwise on this processor; {remedy}" for name in found if not found[name]["ok"]]
    return found


def _size(folder: Path) -> int:
    """Bytes of all files below; links are not followed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
