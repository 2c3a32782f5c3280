"""Measure a model on a split of the open data pack and write the figures.

python -m training.evaluate                                  # the embedded model on `val`
python -m training.evaluate --data ROOT --split test --output figures.json
"""

from __future__ import annotations

import json
import platform
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from fashion_retrieval import FashionModel, __version__
from fashion_retrieval.errors import FashionRetrievalError
from fashion_retrieval.hub import resolve
from training.data.manifest import GROUPS
from training.eval_recognition import embed_split, evaluate_recognition, evaluate_words
from training.eval_segmentation import evaluate_segmentation

HELD_OUT = Path(__file__).parent / "configs/held_out.toml"
RESULTS = Path(__file__).parent / "results"


class Part(StrEnum):
    """What to measure."""

    ALL = "all"
    RECOGNITION = "recognition"
    SEGMENTATION = "segmentation"


def measure(model: FashionModel, data: Path, split: str, part: Part) -> dict[str, Any]:
    """Figures of a model on a split; see the module's files for what each means."""
    figures: dict[str, Any] = {"model": model.model_id, "sha256": dict(model.config.sha256), "split": split}
    figures["versions"] = {
        "fashion_retrieval": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
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


def main(
    part: Annotated[Part, typer.Argument(help="What to measure.")] = Part.ALL,
    model: Annotated[str, typer.Option(help="A model id or folder.")] = "compact",
    data: Annotated[Path, typer.Option(help="The open data pack.")] = Path("../shared/data"),
    split: Annotated[str, typer.Option(help="A split of it.")] = "val",
    output: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
) -> None:
    """Measure a model and write its figures."""
    try:
        figures = measure(FashionModel.from_pretrained(model, dtype="float32"), data, split, part)
    except FashionRetrievalError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    path = output or RESULTS / f"{Path(model).name}_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if part == Part.ALL:
        for what, measured, wanted in bars(figures, resolve(model)):
            typer.echo(f"{what:40} {measured:8.3f}   bar {wanted:g}")
    typer.echo(f"written to {path}")


if __name__ == "__main__":
    typer.run(main)
