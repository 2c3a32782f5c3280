"""docs/benchmarks.md and its plot, from the committed results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gallery_report import gallery_tables
from benchmarks.photos.report import tables as photo_tables
from benchmarks.serve.report import tables as service_tables
from fashion_retrieval._utils.files import write_atomically

DOCS = Path(__file__).parents[1] / "docs"
README = DOCS.parent / "README.md"
PLOT = "images/benchmarks.png"
_PEERS = ("open_clip batched", "open_clip README loop", "transformers batched", "fashion-clip")
_TITLES = {"vit_b_32": "ViT-B/32, the same random weights for all", "compact": "the embedded model"}


def write(results: Path) -> Path:
    """Make the page and its plot; returns the page."""
    page = DOCS / "benchmarks.md"
    draw(results, DOCS / PLOT)
    for path, text in (
        (page, render(results)),
        (README, with_speed(README.read_text(encoding="utf-8"), results)),
    ):
        with write_atomically(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return page


def with_speed(readme: str, results: Path) -> str:
    """README.md with the fastest of ours in each precision, on ViT-B/32 and each processor, between its marks."""
    heads = ["ViT-B/32, JPEG files to embeddings", "images/s", *(f"against {peer}" for peer in _PEERS)]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for path in (results / "encode.json", *sorted(results.glob("*/encode.json"))):
        data = json.loads(path.read_text(encoding="utf-8"))
        ours = {name: row for name, row in data["rows"].items() if row["ours"] and row["correct"]}
        lines.append(f"| *{data['machine']['processor']}, {data['machine']['date']}* |" + " |" * (len(heads) - 1))
        for precision in ("fp32", "bf16", "int8"):
            of_precision = {name: row for name, row in ours.items() if row["precision"] == precision}
            best = max(of_precision, key=lambda name: float(of_precision[name]["images_per_second"]))
            against = of_precision[best]["against"]
            ratios = [f"{against[peer]['median']:.1f}x" if peer in against else "" for peer in _PEERS]
            lines.append(f"| {best} | {of_precision[best]['images_per_second']:.0f} | " + " | ".join(ratios) + " |")
    before, _, rest = readme.partition("<!-- speed -->\n")
    _, mark, after = rest.partition("<!-- /speed -->")
    return f"{before}<!-- speed -->\n\n" + "\n".join(lines) + f"\n\n{mark}{after}"


def render(results: Path) -> str:
    """The page as Markdown."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    parts = [_HEAD]
    for name, title in (("encode", "vit_b_32"), ("encode_compact", "compact")):
        if name in found:
            heading = f"## From JPEG files to embeddings: {_TITLES[title]}"
            parts += [heading, *_encode(found[name]), _measured(found[name])]
    for path in sorted(results.glob("*/encode*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        heading = f"## On another processor: {_TITLES[data['model']]}"
        parts += [heading, data["note"], *_encode(data), _measured(data)]
    for name, title, section in (
        ("preprocess", "Preprocessing alone, one thread", _preprocess),
        ("single", "One photo at a time, the embedded model", _single),
        ("startup", "Start-up", _startup),
        ("memory", "Memory", _memory),
    ):
        if name in found:
            parts += [f"## {title}", *section(found[name]), _measured(found[name])]
    if "photos" in found:
        photos = found["photos"]
        parts += ["## Photos of every kind", *photo_tables(photos, found.get("photos_before")), _measured(photos)]
    if "serve" in found:
        parts += ["## The service", *service_tables(found["serve"]), _measured(found["serve"])]
    parts += gallery_tables(found, _measured)
    parts.append(_gpu(found.get("gpu")))
    return "\n\n".join(parts) + "\n"


_HEAD = f"""# Benchmarks

Made by `python -m benchmarks report` from the files in `benchmarks/results/`, which `python -m benchmarks` measures
(`python benchmarks/gallery.py` for searches). All contenders of a table run in turn within each round, in an order
drawn anew; a figure is the median over rounds of the quotient within a round, so that a busy moment hits all alike.
The same files and the same weights for all. Embeddings should agree with open_clip's own: a cosine of at least 0.99999
in float32, 0.9999 in bfloat16 and 0.99 in int8, for every photo. Rows of ours that have a photo below that bear a star.

![Images a second from JPEG files]({PLOT})"""


def _measured(data: dict[str, Any]) -> str:
    where = data["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items() if number)
    gpu = f", {where['gpu']}" if where["gpu"] else ""
    return (
        f"*{where['date']}, {where['processor']}, {where['threads']} threads{gpu}, load {where['load_average']} at the "
        f"start; Python {where['python']}, {versions}.*"
    )


def _encode(data: dict[str, Any]) -> Iterator[str]:
    peers = [name for name in _PEERS if name in data["rows"]]
    heads = ["", "precision", "images/s", "share of peak", "least cosine", "centered", *(f"against {p}" for p in peers)]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name, row in sorted(data["rows"].items(), key=lambda item: item[1]["images_per_second"]):
        ratios = [f"{row['against'][p]['median']:.2f}x" if p in row["against"] else "" for p in peers]
        label = f"**{name.rpartition(',')[0]}**" if row["ours"] else name
        cells = [
            label,
            row["precision"],
            f"{row['images_per_second']:.1f}",
            _fraction_of_peak(data, row),
            f"{row['least_cosine']:.6f}{'' if row['correct'] else ' *'}",
        ]
        lines.append("| " + " | ".join([*cells, f"{row['least_centered_cosine']:.5f}", *ratios]) + " |")
    yield "\n".join(lines)
    if limits := data.get("matmul_gflops"):
        yield (
            f"The peak is that of a large matrix product here, {limits['fp32']:.0f} GFLOP/s in float32 and "
            f"{limits['bf16']:.0f} in bfloat16; an image takes {data['gflop_of_an_image']:.2f} GFLOP."
        )
    yield (
        f"{data['photos']} photos ({data['source']}), {data['rounds']} rounds, batches of 32. Cosines are to "
        'open_clip\'s own embedding of the same file, the least of all photos; "centered" with the mean embedding '
        "taken out, which shows differences much larger."
    )
    if data["left_out"]:
        yield "Did not run: " + "; ".join(f"{name} (`{reason}`)" for name, reason in data["left_out"].items()) + "."


def _fraction_of_peak(data: dict[str, Any], row: dict[str, Any]) -> str:
    """Percentage of the machine's peak that the image tower reaches, reading the files included."""
    limit = data.get("matmul_gflops", {}).get(row["precision"])
    return f"{row['images_per_second'] * data['gflop_of_an_image'] / limit:.0%}" if limit else ""


def _preprocess(data: dict[str, Any]) -> Iterator[str]:
    lines = [
        "| input | open_clip's transform, ms | ours, ms | ratio | least cosine |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in data["rows"].items():
        theirs, ours = row["open_clip_ms"]["median"], row["ours_ms"]["median"]
        size = f"{name}, {row['size'][1]} x {row['size'][0]}"
        ratio, cosine = row["ratio"]["median"], row["least_cosine"]
        lines.append(f"| {size} | {theirs:.2f} | {ours:.2f} | {ratio:.2f}x | {cosine:.6f} |")
    yield "\n".join(lines)
    yield f"{data['photos']} photos ({data['source']}), from the bytes of a file, {data['rounds']} rounds."


def _single(data: dict[str, Any]) -> Iterator[str]:
    what = {
        "recognize": "recognize a photo, from its file | its forward passes on ready tensors",
        "compose": "compose, cached reference, new text | its forward passes on ready tensors",
        "labels": "encode a photo and tell it from 76 known labels | encoding the photo alone",
    }
    lines = ["| call | beside | call, ms | beside, ms | times |", "| --- | --- | --- | --- | --- |"]
    for name, words in what.items():
        row = data[name]
        call, bare = row["call_ms"]["median"], row["bare_ms"]["median"]
        lines.append(f"| {words} | {call:.2f} | {bare:.2f} | {row['times_bare']['median']:.2f} |")
    yield "\n".join(lines)
    yield f"{data['count']} photos ({data['photos']}), {data['rounds']} rounds, {data['dtype']}."


def _startup(data: dict[str, Any]) -> Iterator[str]:
    lines = [
        "| a new process | seconds | times torch and torchvision | times those with the weights |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in data["rows"].items():
        seconds, torch, weights = (
            row["seconds"]["median"],
            row["times_torch"]["median"],
            row["times_torch_and_weights"]["median"],
        )
        lines.append(f"| {name} | {seconds:.2f} | {torch:.2f} | {weights:.2f} |")
    yield "\n".join(lines)


def _memory(data: dict[str, Any]) -> Iterator[str]:
    yield (
        f"Encoding {data['photos']:,} photos with the embedded model peaks {data['above_loaded_mb']:.0f} MiB above "
        f"the loaded model ({data['loaded_mb']:.0f} MiB with Python and torch); {data['result_mb']:.0f} MiB of that "
        "are the embeddings themselves."
    )


def _gpu(data: dict[str, Any] | None) -> str:
    if data is None:
        return "## On a GPU\n\nNot measured: no GPU was at hand. `python -m benchmarks gpu` does it where there is one."
    row = data["from_tensors"]
    from_tensors = (
        f"{row['images_per_second']:,.0f} images/s from tensors in batches of {row['batch']}, "
        f"{row['tflops']:.0f} TFLOP/s: {row['share_of_peak']:.0%} of what a large bf16 matrix product reaches there."
    )
    return "\n\n".join([f"## On a GPU: {data['gpu']}", *_encode(data), from_tensors, _measured(data)])


def draw(results: Path, path: Path) -> None:
    """Images a second of every contender, for each model, as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    found = [results / f"{name}.json" for name in ("encode", "encode_compact")]
    data = [json.loads(file.read_text(encoding="utf-8")) for file in found if file.is_file()]
    figure, panels = plt.subplots(1, len(data), figsize=(12, 4.2), dpi=160, layout="constrained", squeeze=False)
    for axes, one in zip(panels[0], data, strict=True):
        rows = sorted((row["images_per_second"], name, row["ours"]) for name, row in one["rows"].items())
        speeds, names, own = zip(*rows, strict=True)
        bars = axes.barh(names, speeds, color=["#2563eb" if mine else "#a8adb8" for mine in own], height=0.72)
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
        axes.set_title(_TITLES[one["model"]], fontsize=10, loc="left")
        axes.set_xlabel("images a second, from JPEG files", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
