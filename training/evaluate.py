"""Measure a model and write the figures.

python -m training.evaluate                                  # recognition by the embedded model, `val` of the data pack
python -m training.evaluate --data ROOT --split test --output figures.json
python -m training.evaluate composed                         # a photo and a wish, on the data pack's pairs
python -m training.evaluate composed --fashioniq ROOT --protocol all --missing report
python -m training.evaluate retrieval                        # product names and photos
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from fashion_retrieval import FashionModel, __version__
from fashion_retrieval.errors import FashionRetrievalError, InputError
from fashion_retrieval.hub import EMBEDDED, resolve
from training.data.fashioniq import Protocol, read_fashioniq
from training.data.manifest import GROUPS
from training.data.pairs import Gallery, read_pairs
from training.data.triplets import GROUPS as PRODUCT_GROUPS
from training.data.triplets import CaptionMode, ComposedSet, Missing
from training.eval_composed import KS, evaluate_composed
from training.eval_recognition import embed_split, evaluate_recognition, evaluate_words
from training.eval_retrieval import KS as RETRIEVAL_KS
from training.eval_retrieval import evaluate_retrieval
from training.eval_segmentation import evaluate_segmentation

HELD_OUT = Path(__file__).parent / "configs/held_out.toml"
RESULTS = Path(__file__).parent / "results"
app = typer.Typer(help="Measure a model and write its figures.", add_completion=False, pretty_exceptions_enable=False)

Model = Annotated[str, typer.Option(help="A model id or folder.")]
Data = Annotated[Path, typer.Option(help="The open data pack.")]
Split = Annotated[str, typer.Option(help="A split of it.")]
Seed = Annotated[int, typer.Option(help="Of the intervals.")]
Output = Annotated[Path | None, typer.Option(help="Where to write the figures.")]


class Part(StrEnum):
    """What to measure."""

    ALL = "all"
    RECOGNITION = "recognition"
    SEGMENTATION = "segmentation"


def measure(model: FashionModel, data: Path, split: str, part: Part) -> dict[str, Any]:
    """Figures of a model on a split; see the module's files for what each means."""
    figures: dict[str, Any] = {"model": model.model_id, "sha256": dict(model.config.sha256), "split": split}
    figures["versions"] = _versions()
    if part in (Part.ALL, Part.RECOGNITION):
        garments = embed_split(model, data, split)
        figures["recognition"] = evaluate_recognition(model, garments)
        figures["recognition"]["annotators_agree"] = _agreement(data)
        figures["unseen_words"] = evaluate_words(model, garments, data, split, HELD_OUT)
    if part in (Part.ALL, Part.SEGMENTATION):
        names = json.loads((data / "street_labels.json").read_text(encoding="utf-8"))
        figures["segmentation"] = evaluate_segmentation(model, data, split, names)
    return _rounded(figures)  # type: ignore[no-any-return]


def _agreement(data: Path) -> dict[str, float]:
    """How often two annotation passes of the pack gave the same label, by group, in the `deepfashion` vocabulary."""
    rows = json.loads((data / "agreement.json").read_text(encoding="utf-8"))
    return {group: rows.get(f"{group}_deepfashion", rows[group])["agreement"] for group in GROUPS}


def bars(figures: dict[str, Any], folder: Path) -> list[tuple[str, float, float]]:
    """(what, measured, wanted) for each figure the embedded model must reach."""
    recognition, segmentation = figures["recognition"], figures["segmentation"]
    every = recognition["deepfashion"]["all"]
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return [
        ("mean precision of six groups", every["mean_precision"], 0.88),
        ("mean macro-F1", every["mean_macro_f1"], 0.72),
        ("mean precision on street", recognition["deepfashion"]["street"]["mean_precision"], 0.77),
        ("category, top-1 of the pack's", recognition["category"]["top1"], 0.75),
        ("dominant colour, top-1 of 13", recognition["colour"]["top1"], 0.80),
        ("region over whole photo on street", recognition["views_on_street"]["region_over_whole_photo"], 0.08),
        ("segmenter, clothing IoU", segmentation["clothing_iou"], 0.80),
        ("segmenter, garments found", segmentation["found"], 0.75),
        ("end to end recall on street", segmentation["end_to_end"]["category_right_and_box"], 0.50),
        ("unseen words, precision over chance", figures["unseen_words"]["over_chance"], 2.5),
        ("embedded files, MB (at most 60)", round(size, 1), 60.0),
    ]


def _rounded(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def provenance(model: FashionModel, id_or_path: str, config: dict[str, Any]) -> dict[str, Any]:
    """What a figure can be traced to: model, SHA-256 of its weights, settings, versions, commit."""
    weights = sorted(resolve(id_or_path).rglob("*.safetensors"))
    return {
        "model": model.model_id,
        "fingerprint": model.fingerprint,
        "sha256": {path.name: _sha256(path) for path in weights},
        "versions": _versions(),
        "commit": _commit(),
        "config": config,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    return {
        "fashion_retrieval": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _commit() -> str | None:
    """The commit of this file's repository, "-dirty" behind it where files differ from it; None outside of one."""
    describe = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(
            describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None


def write_figures(figures: dict[str, Any], path: Path) -> None:
    """Write figures as JSON, a list of numbers or texts on one line; a kill leaves the old file or the new one."""
    text = json.dumps(_rounded(figures), indent=2)
    text = re.sub(r"\[\n\s*([^\[\]{}]+?)\n\s*\]", lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    typer.echo(f"written to {path}")


def _destination(kind: str, *more: str, model: str, split: str) -> Path:
    """A file of its own for all that isn't usual: `more` and, unless it is the embedded one, the model."""
    name = "" if model == EMBEDDED else Path(model).name
    return RESULTS / ("_".join(word for word in (kind, *more, name, split) if word) + ".json")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except FashionRetrievalError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command("parts")
def main(
    part: Annotated[Part, typer.Argument(help="What to measure.")] = Part.ALL,
    model: Model = EMBEDDED,
    data: Data = Path("../shared/data"),
    split: Split = "val",
    output: Output = None,
) -> None:
    """Recognition and segmentation; "parts" may be left out."""
    with _one_line_errors():
        figures = measure(FashionModel.from_pretrained(model, dtype="float32"), data, split, part)
    path = output or RESULTS / f"{Path(model).name}_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if part == Part.ALL:
        for what, measured, wanted in bars(figures, resolve(model)):
            typer.echo(f"{what:40} {measured:8.3f}   bar {wanted:g}")
    typer.echo(f"written to {path}")


@app.command()
def composed(
    model: Model = EMBEDDED,
    data: Data = Path("../shared/data"),
    fashioniq: Annotated[Path | None, typer.Option(help="FashionIQ's folder, instead of the data pack.")] = None,
    protocol: Annotated[str | None, typer.Option(help="FashionIQ's: original, original_noref, val_split, all.")] = None,
    split: Split = "val",
    group: Annotated[list[str] | None, typer.Option(help="dress, shirt or toptee; all unless given.")] = None,
    captions: Annotated[CaptionMode, typer.Option(help="How two captions become one text.")] = CaptionMode.BOTH,
    missing: Annotated[Missing, typer.Option(help="Refuse missing photos, or go on and list them.")] = Missing.ERROR,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """A reference photo and a text against a gallery."""
    root = fashioniq or data
    with _one_line_errors():
        sets = read_sets(data, fashioniq, protocol, split, group or PRODUCT_GROUPS, missing)
        for one in sets:
            for line in _remarks(one):
                typer.echo(line, err=True)
        loaded = FashionModel.from_pretrained(model, dtype="float32")
        config = {"root": str(root), "groups": list(group or PRODUCT_GROUPS), "missing": str(missing)}
        figures = provenance(loaded, model, config)
        figures |= {"source": sets[0].source, "split": split, "caption_mode": str(captions), "seed": seed}
        figures["protocols"] = evaluate_composed(loaded, sets, captions=captions, seed=seed)
    for name, measured in figures["protocols"].items():
        for who, row in {**measured["groups"], "average": measured["average"]}.items():
            recalls = "  ".join(f"R@{k} {100 * row[f'recall_at_{k}']:5.2f}" for k in KS)
            size = f"  gallery {row['gallery']:,}" if "gallery" in row else ""
            typer.echo(f"{name:15} {who:8} {recalls}{size}")
    more = [(protocol or Protocol.ORIGINAL) if fashioniq else "", *(group or [])]
    more += [captions] if captions != CaptionMode.BOTH else []
    usual = _destination("fashioniq" if fashioniq else "composed", *more, model=model, split=split)
    write_figures(figures, output or usual)


def read_sets(
    data: Path, fashioniq: Path | None, protocol: str | None, split: str, groups: Sequence[str], missing: str
) -> list[ComposedSet]:
    """The pack's pairs against both galleries or, where its folder is given, FashionIQ under the wanted protocols."""
    if fashioniq is not None:
        wanted = list(Protocol) if protocol == "all" else [protocol or Protocol.ORIGINAL]
        return [read_fashioniq(fashioniq, split, protocol=p, groups=groups, missing=missing) for p in wanted]
    if protocol is not None:
        raise InputError(f"protocol {protocol!r} is one of FashionIQ's; give its folder with --fashioniq")
    return [read_pairs(data, split, gallery=g, groups=groups, missing=missing) for g in Gallery]


def _remarks(data: ComposedSet) -> list[str]:
    """What a reader of the figures must know, said before they are measured."""
    lines = []
    for group in data.groups:
        where = f"{data.protocol} {group.name}:"
        if group.missing:
            lines.append(f"{where} {len(group.missing)} photos missing, {len(group.left_out)} queries left out")
        if group.leaked:
            lines.append(f"{where} {len(group.leaked)} photos of the gallery are in the train split of another group")
    return lines


@app.command()
def retrieval(
    model: Model = EMBEDDED,
    data: Data = Path("../shared/data"),
    split: Split = "val",
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Product names against photos, and photos against names."""
    with _one_line_errors():
        loaded = FashionModel.from_pretrained(model, dtype="float32")
        figures = provenance(loaded, model, {"root": str(data)}) | {"split": split, "seed": seed}
        figures["retrieval"] = evaluate_retrieval(loaded, data, split, seed=seed)
    for way in ("text_to_image", "image_to_text"):
        recalls = "  ".join(f"R@{k} {100 * figures['retrieval'][way][f'recall_at_{k}']:5.2f}" for k in RETRIEVAL_KS)
        typer.echo(f"{way.replace('_', ' ')}  {recalls}")
    write_figures(figures, output or _destination("retrieval", model=model, split=split))


def run(arguments: Sequence[str]) -> None:
    """The command line; without the name of a command it is `parts`."""
    named = [*arguments[:1]] in (["parts"], ["composed"], ["retrieval"], ["--help"])
    app([*arguments] if named else ["parts", *arguments])


if __name__ == "__main__":
    run(sys.argv[1:])
