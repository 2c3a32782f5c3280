"""What the commands of `training.evaluate` measure: models on one data set, and how far they are apart.

Here the sections of recognition; those of retrieval are in `training.reports.retrieval_sections`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import InputError
from training.evaluation.attribute_groups import precision_outcomes
from training.evaluation.compact import Part, measure
from training.evaluation.deepfashion import View, evaluate_deepfashion, read_garments
from training.evaluation.significance import ROUNDS, Figures, Outcomes, against_first
from training.reports.pages import table
from training.reports.tables import differences, macro_f1_table, recognition_cells, with_paper_rows

Models = Mapping[str, FashionModel]
"""By what they were asked for, the first one first."""
_MACRO = "Macro-F1 of the same, which the paper does not give:"


@dataclass(frozen=True, slots=True)
class Section:
    """Figures of one data set.

    Attributes:
        figures: By model.
        against_first: How far each later run is ahead of the first.
        resampling: What intervals and p are over.
        paragraphs: The same in Markdown, the paper's figures beside it.
        lines: The same for the terminal.
    """

    figures: dict[str, dict[str, Any]]
    against_first: list[dict[str, Any]]
    resampling: str
    paragraphs: list[str]
    lines: list[str]


def load_models(names: Sequence[str]) -> Models:
    """All models, before anything is measured.

    Raises:
        InputError: One is named twice.
        FashionRetrievalError: One can't be loaded.
    """
    if len({*names}) < len(names):
        raise InputError(f"--model must name each model once, got {', '.join(names)}")
    return {name: FashionModel.from_pretrained(name, dtype="float32") for name in names}


def compared(
    figures: dict[str, dict[str, Any]],
    runs: Mapping[str, Figures],
    outcomes: Callable[[Figures], Mapping[str, Outcomes]],
    seed: int,
    items: str,
    paragraphs: list[str],
    lines: list[str],
) -> Section:
    """A section with each later run against the first.

    Args:
        figures: By model.
        runs: What is compared, by name.
        outcomes: Of a run, by measure.
        seed: Of the tests.
        items: What is drawn with replacement.
        paragraphs: Markdown without the comparisons.
        lines: For the terminal.
    """
    ahead = against_first(runs, outcomes, seed=seed)
    return Section(figures, ahead, resampling(items, items), [*paragraphs, *differences(ahead)], lines)


def resampling(drawn: str, swapped: str) -> str:
    """How intervals and p are made, in words."""
    return (
        f"intervals: 95%, percentile bootstrap over {drawn}, 1,000 rounds; "
        f"p: two-sided, approximate randomization over {swapped}, {ROUNDS:,} rounds"
    )


def recognition_of_pack(models: Models, data: Path, split: str, *, seed: int = 0) -> Section:
    """Recognition of the open data pack's labeled garments, in DeepFashion's vocabulary and in the pack's."""
    found = {}
    for name, model in models.items():
        figures = measure(model, data, split, Part.RECOGNITION, seed=seed)
        found[name] = {part: figures[part] for part in ("recognition", "unseen_words")}
    groups = {name: row["recognition"]["deepfashion"]["all"] for name, row in found.items()}
    marks = {name: row["recognition"] for name, row in found.items()}
    about = (
        "Precision on labeled garments of the open data pack, in the vocabulary of DeepFashion; an item of the "
        "intervals is a garment. The paper's figures are those of DeepFashion."
    )
    tables = [about, _recognized("table_1", groups), _MACRO, macro_f1_table(groups)]
    return compared(found, marks, _precision, seed, "garments", tables, _precision_lines(groups))


def recognition_of_deepfashion(
    models: Models, root: Path, split: str, views: Sequence[View], *, seed: int = 0
) -> Section:
    """Tables 1 and 4: each model with each view is a run."""
    samples = read_garments(root, split, views)
    found: dict[str, dict[str, Any]] = {}
    runs: dict[str, Figures] = {}
    for name, model in models.items():
        by_view = evaluate_deepfashion(model, samples, views, seed=seed)
        found[name] = {"recognition": {"garments": len(samples), "views": {str(v): row for v, row in by_view.items()}}}
        runs |= {f"{name}, {view.replace('_', ' ')}": row for view, row in by_view.items()}
    about = (
        f"Precision on {len(samples):,} photos of DeepFashion's {split} split, zero-shot; an item of the intervals is "
        "a photo."
    )
    tables = [about, _recognized("table_1", runs), _MACRO, macro_f1_table(runs)]
    tables += ["Beside Table 4, training on whole photos and on regions:", _recognized("table_4", runs)]
    return compared(found, runs, _precision, seed, "photos", tables, _precision_lines(runs))


def segmentation_of_pack(models: Models, data: Path, split: str) -> Section:
    """Street photos without boxes: garments found, and recognized."""
    found = {name: measure(model, data, split, Part.SEGMENTATION) for name, model in models.items()}
    sections = {name: {"segmentation": row["segmentation"]} for name, row in found.items()}
    rows = []
    for name, section in sections.items():
        row, end = section["segmentation"], section["segmentation"]["end_to_end"]
        figures = (row["clothing_iou"], row["found"], end["category_right_and_box"])
        rows.append([f"**{name}**", *(f"{figure:.4f}" for figure in figures)])
    header = ["", "clothing, IoU", "garments found", "found with the right category"]
    lines = [f"{name}: {garments} of garments found" for name, _, garments, _ in rows]
    about = "On street photos of the open data pack."
    return Section(sections, [], resampling("garments", "garments"), [about, table(header, rows)], lines)


def _precision(figures: Figures) -> dict[str, Outcomes]:
    return {"mean precision": precision_outcomes(figures["right"])}


def _recognized(name: str, runs: Mapping[str, Figures]) -> str:
    return with_paper_rows(name, {run: recognition_cells(row) for run, row in runs.items()})


def _precision_lines(runs: Mapping[str, Figures]) -> list[str]:
    return [
        f"{run}: mean precision {r['mean_precision']:.4f}, macro-F1 {r['mean_macro_f1']:.4f}" for run, r in runs.items()
    ]
