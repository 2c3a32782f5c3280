"""Every architecture of open_clip, each from a repository that open_clip wrote: does it work here?

python -m benchmarks.compatibility shapes     # names and shapes of all tensors, of all architectures
python -m benchmarks.compatibility encode     # up to the limit: loads, encodes, recognizes; hours on two cores
python -m benchmarks.compatibility onnx       # up to the limit: ONNX Runtime gives what torch gives
python -m benchmarks.compatibility openvino   # the same of OpenVINO
python -m benchmarks.compatibility report     # the results in benchmarks/results/, and docs/models/compatibility.md

Weights are random. Each architecture has a process of its own, smallest first, and a line of a file in `runs/`: started
again, a step goes on where it stopped. Needs about 4 GB of disk and 8 GB of memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import open_clip
import torch
import typer
from open_clip.factory import get_model_config
from PIL import Image
from torch.nn import functional
from transformers import AutoConfig, PreTrainedConfig

from benchmarks.__main__ import machine
from benchmarks.compatibility_report import render
from benchmarks.report import DOCS
from fashion_retrieval import FashionModel
from fashion_retrieval._utils.files import asset, write_atomically
from fashion_retrieval.errors import FashionRetrievalError
from fashion_retrieval.models.open_clip_encoder import build_encoder
from fashion_retrieval.models.open_clip_spelling import current_weights
from tests.support.open_clip_families import TEXTS, family_folder, open_clip_model
from tests.support.tiny import drawn_photo

GARMENT = Path(__file__).parents[1] / "examples/wardrobe/pink-polo.jpg"
RESULTS = Path(__file__).parent / "results/compatibility.json"
PAGE = DOCS / "models/compatibility.md"
LIMIT = 510_000_000
"""Parameters of what is run, both towers together; NLLB's smallest text tower is just within."""
SECONDS = 3600
_TOWERS = json.loads(asset("transformers/text_towers.json"))


class Step(StrEnum):
    """What to do with all architectures."""

    SHAPES = "shapes"
    ENCODE = "encode"
    ONNX = "onnx"
    OPENVINO = "openvino"
    REPORT = "report"


# One architecture, in a process of its own


def shapes(name: str, folder: Path) -> dict[str, Any]:
    """Parameters of both towers; a fault where this package's tensors are others than open_clip's."""
    config = get_model_config(name)
    with torch.device("meta"):
        theirs = open_clip_model(folder, config, text_tower)
        ours = build_encoder({"model_cfg": config}, folder)
    state = current_weights(ours.clip, theirs.state_dict(), captions="multimodal_cfg" in config)
    wanted, found = (
        {key: tuple(value.shape) for key, value in each.items()} for each in (state, ours.clip.state_dict())
    )
    if wanted != found:
        raise AssertionError(f"other tensors: {sorted(dict(wanted.items() ^ found.items()))[:3]}")
    return {"parameters": sum(value.numel() for value in ours.clip.parameters()), "tensors": len(found)}


def text_tower(name: str) -> PreTrainedConfig:
    """The settings of a text tower of transformers at its true sizes."""
    config: PreTrainedConfig = AutoConfig.for_model(**_TOWERS[name])
    return config


def written(name: str, folder: Path) -> None:
    """A repository of an architecture with random weights, written by open_clip."""
    config = get_model_config(name)
    convolved = "_mci" in config["vision_cfg"].get("timm_model_name", "")  # of MobileCLIP; under more it overflows
    family_folder(folder, config, text_tower, gain=0.8 if convolved else 1.5)


def as_published(name: str, folder: Path) -> None:
    """Let a repository name its text tower instead of bringing the settings, as those of open_clip do."""
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    if tower := get_model_config(name)["text_cfg"].get("hf_model_name"):
        config["model_cfg"]["text_cfg"]["hf_model_name"] = tower
        (folder / "config.json").unlink()
        (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")


def photos() -> list[Image.Image]:
    """Two drawn photos."""
    return [drawn_photo((300, 200), seed=0), drawn_photo((210, 280), seed=1)]


def theirs(folder: Path) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Embeddings of the photos and of the texts as open_clip loads and computes them."""
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    pixels = torch.stack([transform(photo) for photo in photos()])
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    with torch.inference_mode():
        found = model.eval().encode_image(pixels), model.encode_text(tokens)
    return [functional.normalize(rows, dim=-1).numpy() for rows in found]


def encode(name: str, folder: Path) -> dict[str, Any]:
    """Least cosines to open_clip's embeddings, the likeness of what is told apart, and the garments of a photo."""
    written(name, folder)
    wanted = theirs(folder)
    as_published(name, folder)
    start = time.perf_counter()
    model = FashionModel.from_pretrained(folder, device="cpu", dtype="float32", backend="torch")
    loaded = time.perf_counter() - start
    found = [model.encode(images=photos()), model.encode(texts=TEXTS)]
    return {
        "embedding_dim": model.embedding_dim,
        "image_size": list(model.encoder.image_size),
        "load_seconds": round(loaded, 2),
        **agreement(found, wanted),
        "garments": len(model.recognize(GARMENT).garments),
    }


def export(name: str, folder: Path, backend: str) -> dict[str, Any]:
    """Least cosines between a runtime's embeddings and torch's."""
    written(name, folder)
    as_published(name, folder)
    rows = []
    for each in ("torch", backend):
        start = time.perf_counter()
        model = FashionModel.from_pretrained(folder, device="cpu", dtype="float32", backend=each)
        spent = time.perf_counter() - start
        rows.append([model.encode(images=photos()), model.encode(texts=TEXTS)])
        del model
    return {**agreement(*rows), "load_seconds": round(spent, 1)}


def agreement(found: list[Any], wanted: list[Any]) -> dict[str, float]:
    """The least cosine of photos and of texts to what is wanted; the largest between two that are not the same."""
    figures = {}
    for kind, mine, other in zip(("image", "text"), found, wanted, strict=True):
        rows = other.astype(np.float64)
        figures[f"{kind}_cosine"] = float((mine * rows).sum(axis=1).min())
        alike = rows @ rows.T
        figures[f"{kind}_others"] = float(alike[~np.eye(len(alike), dtype=bool)].max())
    return {key: round(value, 8) for key, value in figures.items()}


DO: dict[Step, Callable[[str, Path], dict[str, Any]]] = {
    Step.SHAPES: shapes,
    Step.ENCODE: encode,
    Step.ONNX: lambda name, folder: export(name, folder, "onnx"),
    Step.OPENVINO: lambda name, folder: export(name, folder, "openvino"),
}


def child(step: Step, name: str, folder: Path) -> dict[str, Any]:
    """Do a step; what is refused or goes wrong is a row too."""
    try:
        return DO[step](name, folder)
    except FashionRetrievalError as error:
        return {"refused": f"{type(error).__name__}: {error}".replace(str(folder), "FOLDER")}
    except Exception as error:  # whatever a library raises is what the page has to tell
        return {"failed": f"{type(error).__name__}: {error}".replace(str(folder), "FOLDER")[:300]}


# All of them


def lines(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by architecture, of a file with one in a line."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {row.pop("name"): row for row in map(json.loads, text.splitlines())}


def walk(step: Step, cache: Path, *, largest_first: bool) -> Iterator[str]:
    """Do a step for all architectures that are not done; yields a line for each."""
    log = cache / f"{step}.jsonl"
    done = lines(log)
    sizes = {name: row.get("parameters", 0) for name, row in lines(cache / "shapes.jsonl").items()}
    names = sorted(open_clip.list_models(), key=lambda name: (sizes.get(name, 0), name), reverse=largest_first)
    if step != Step.SHAPES:
        names = [name for name in names if sizes[name] <= LIMIT]
    for name in names:
        if name in done:
            continue
        with TemporaryDirectory(dir=cache) as parent:
            folder = Path(parent, "model")
            folder.mkdir()
            alone = step != Step.SHAPES  # which computes nothing
            row = {"name": name} | (_in_a_child if alone else child)(step, name, folder)
        text = json.dumps(row)
        with write_atomically(log) as partial:
            before = log.read_text(encoding="utf-8") if log.is_file() else ""
            partial.write_text(f"{before}{text}\n", encoding="utf-8")
        yield text


def _in_a_child(step: Step, name: str, folder: Path) -> dict[str, Any]:
    row, start = folder.with_name("row.json"), time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.compatibility", step, "--one", name, "--cache", str(folder)]
    try:
        ran = subprocess.run(
            [*command, "--row", str(row)], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {SECONDS} seconds"}
    if not row.is_file():
        return {"failed": f"exit status {ran.returncode}: {(ran.stderr.strip().splitlines() or [''])[-1][:200]}"}
    found: dict[str, Any] = json.loads(row.read_text(encoding="utf-8"))
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def collected(cache: Path) -> dict[str, Any]:
    """The committed results with all lines in the cache, which is put above them."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"rows": {}}
    rows: dict[str, dict[str, Any]] = found["rows"]
    for step in DO:
        for name, row in lines(cache / f"{step}.jsonl").items():
            rows.setdefault(name, {})[step] = row
    order = sorted(rows, key=lambda name: (rows[name]["shapes"].get("parameters", 0), name))
    where = {"machine": machine()} if any(cache.glob("*.jsonl")) else {}
    return found | where | {"limit": LIMIT, "rows": {name: rows[name] for name in order}}


def main(
    step: Annotated[Step, typer.Argument(help="What to do with all architectures.")],
    cache: Annotated[Path, typer.Option(help="Where lines are kept and models written.")] = Path("runs/compatibility"),
    one: Annotated[str | None, typer.Option(help="Only this architecture, with its model in the cache folder.")] = None,
    row: Annotated[Path | None, typer.Option(help="Where its row is written.")] = None,
    largest_first: Annotated[bool, typer.Option(help="In a cache folder of its own, to meet another walk.")] = False,
) -> None:
    """Walk all architectures of open_clip, or write the page of what was found."""
    cache.mkdir(parents=True, exist_ok=True)
    if one:
        text = json.dumps(child(step, one, cache))
        (row or cache / "row.json").write_text(text, encoding="utf-8")
        return
    if step == Step.REPORT:
        results = collected(cache)
        for path, text in ((RESULTS, json.dumps(results, indent=1) + "\n"), (PAGE, render(results))):
            with write_atomically(path) as partial:
                partial.write_text(text, encoding="utf-8")
        return
    for line in walk(step, cache, largest_first=largest_first):
        typer.echo(line)


if __name__ == "__main__":
    typer.run(main)
