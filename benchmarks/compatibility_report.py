"""docs/models/compatibility.md, from the committed results of `benchmarks.compatibility` and `benchmarks.loading`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LEAST_COSINE = 0.99999
RUNTIMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
LOADING = Path(__file__).parent / "results/loading.json"


def render(results: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    rows, limit = results["rows"], results["limit"] // 1_000_000
    run = {name: row for name, row in rows.items() if row["shapes"].get("parameters", 0) <= results["limit"]}
    larger = {name: row for name, row in rows.items() if name not in run}
    runtimes = [name for name in RUNTIMES if any(name in row for row in run.values())]
    where = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items() if number)
    done = [row["encode"] for row in run.values() if "encode" in row]
    agree = sum(_agrees(row) for row in done)
    heads = ["architecture", "million parameters", "loads", "photos", "texts", "recognizes"]
    heads += [f"exports to {RUNTIMES[name]}" for name in runtimes]
    table = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    table += ["| " + " | ".join([name, *_cells(row, runtimes)]) + " |" for name, row in run.items()]
    same = [name for name, row in larger.items() if "tensors" in row["shapes"]]
    parts = [
        "# Compatibility",
        _HEAD,
        f"{len(run)} of open_clip's {len(rows)} architectures have up to {limit} million parameters, CoCa's decoder "
        f"aside. {len(done)} were run: {agree} load and agree with open_clip, that is, the cosine of each photo and "
        f"text is at least {LEAST_COSINE}.",
        "\n".join(table),
        "A cosine is the least of two photos, or of three texts, in float32: to open_clip's embedding, and under a "
        "runtime to torch's. An empty cell was not run.",
        "## Larger ones",
        f"Of the {len(larger)} architectures above {limit} million parameters names and shapes of all tensors alone "
        f"were compared, without weights. They are open_clip's in {len(same)}: {', '.join(same)}.",
        "## What is refused",
        _refused(rows),
        _REFUSED,
        *(_loading(json.loads(LOADING.read_text(encoding="utf-8"))) if LOADING.is_file() else ()),
        f"*{where['date']}, {where['processor']}; Python {where['python']}, {versions}.*",
    ]
    return "\n\n".join(parts) + "\n"


_HEAD = """Made by `python -m benchmarks.compatibility report` from `benchmarks/results/compatibility.json`, which the
other steps of that command measure: a walk over all architectures of `open_clip.list_models()`, each from a repository
with random weights that open_clip's own writer wrote. Nothing is downloaded: tokenizers with files of their own are
drawn ones of a few words, text towers of transformers have their true sizes. So the table says that this package
computes what open_clip computes; it says nothing about anyone's trained weights. "Recognizes" is how many garments
came back for a drawn photo with the embedded segmenter."""
_REFUSED = """Whatever the architecture: weights that are only pickled (`fashion-retrieval models convert` makes them
safetensors), code of a repository's own, settings of open_clip 2 that no later release computes
(`global_average_pool`, `input_patchnorm`), and text towers whose sizes neither the repository nor this package knows.
Composing and region features need token features, which towers that pool by attention, or project what they pooled, do
not have: those models encode, recognize and export without."""


def _agrees(row: Mapping[str, Any]) -> bool:
    return all(row.get(f"{kind}_cosine", 0) >= LEAST_COSINE for kind in ("image", "text"))


def _cells(row: Mapping[str, Any], runtimes: list[str]) -> list[str]:
    found = row.get("encode")
    cells = [f"{row['shapes'].get('parameters', 0) / 1e6:.0f}"]
    if found is None:
        cells += [""] * 4
    elif "image_cosine" in found:
        cells += ["yes", *(_cosine(found[f"{kind}_cosine"]) for kind in ("image", "text")), str(found["garments"])]
    else:
        cells += ["no", "", "", ""]
    for name in runtimes:
        exported = row.get(name)
        if exported is None:
            cells.append("")
        elif "image_cosine" in exported:
            cells.append(_cosine(min(exported["image_cosine"], exported["text_cosine"])))
        else:
            cells.append("no")
    return cells


def _cosine(value: float) -> str:
    return f"{min(value, 1.0):.7f}"


def _refused(rows: Mapping[str, Any]) -> str:
    """A line for each step of an architecture that did not go through."""
    reasons = [
        f"- {name}, {step}: {found.get('refused') or found['failed']}"
        for name, row in rows.items()
        for step, found in row.items()
        if "refused" in found or "failed" in found
    ]
    return "\n".join(reasons) or "Of open_clip's architectures that were run: none."


_PEAKS = ("peak_of_weights", "first_peak_of_weights", "own_of_weights")


def _loading(data: Mapping[str, Any]) -> list[str]:
    heads = [
        "",
        "ready, s",
        "of open_clip's",
        "first photo and text, s",
        "of open_clip's",
        "peak, ready",
        "peak, first",
        "own, first",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name, row in data["rows"].items():
        cells = [name]
        for key in ("seconds", "first_seconds"):
            cells += [f"{row[key]['median']:.2f}", f"{row[f'{key}_of_open_clip']['median']:.2f}x"]
        cells += [f"{row[key]:.2f}x" if key in row else "" for key in _PEAKS]
        lines.append("| " + " | ".join(cells) + " |")
    text = (
        "A ViT-B/32 of open_clip's writer, from a folder to a model that is ready, and on to the first embedding of a "
        "photo and a text: the same file, in turns, each in a new process after the same imports, medians of "
        f"{data['rounds']} rounds (`python -m benchmarks.loading`). The peak is that of resident memory above the "
        f"imports, in sizes of the weights ({data['weights_bytes'] / 2**20:.0f} MiB), pages of the mapped file "
        "included; the last column leaves those out, which the system takes back when it needs memory."
    )
    return ["## Time and memory of loading", text, "\n".join(lines)]
