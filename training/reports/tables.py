"""Measured figures as Markdown, in the columns of the paper's tables and above its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.data.triplets import GROUPS
from training.evaluation.composed import KS as COMPOSED_KS
from training.evaluation.paper import read_paper
from training.evaluation.recognition import DEEPFASHION_GROUPS
from training.evaluation.retrieval import KS as RETRIEVAL_KS
from training.evaluation.retrieval import WAYS
from training.evaluation.significance import ROUNDS, Figures
from training.reports.pages import table

Cell = tuple[float, Sequence[float] | None] | None
"""A figure as a share with its 95% interval, where it has one; None where it was not measured."""


def with_paper_rows(name: str, measured: Mapping[str, Sequence[Cell]]) -> str:
    """A table of the paper with measured rows above its own.

    Args:
        name: "table_1" …
        measured: Cells in the order of its columns, by name of the row.
    """
    paper = read_paper()[name]
    percent = paper["unit"] == "percent"
    rows = [[f"**{row}**", *(_cell(cell, percent) for cell in cells)] for row, cells in measured.items()]
    rows += [
        [f"{row}, in the paper", *(_number(f, percent) for f in printed)] for row, printed in paper["rows"].items()
    ]
    return table(["", *paper["columns"]], rows)


def _cell(cell: Cell, percent: bool) -> str:
    if cell is None:
        return ""
    scale = 100.0 if percent else 1.0
    figure, *bounds = (_number(scale * share, percent) for share in (cell[0], *(cell[1] or ())))
    return f"{figure}<br>{' to '.join(bounds)}" if bounds else figure


def _number(value: float, percent: bool) -> str:
    return f"{value:.2f}" if percent else f"{value:.4f}"


def recognition_cells(groups: Figures) -> list[Cell]:
    """Six groups, by the pack's names or by DeepFashion's, and their mean, for Tables 1 and 4."""
    rows = [groups.get(ours) or groups.get(theirs) for ours, theirs in DEEPFASHION_GROUPS.items()]
    return [*(row and _read(row, "precision") for row in rows), _read(groups, "mean_precision")]


def macro_f1_table(runs: Mapping[str, Figures]) -> str:
    """Macro-F1 of the six groups and its mean, by run."""
    rows = []
    for run, groups in runs.items():
        found = [groups.get(ours) or groups.get(theirs) for ours, theirs in DEEPFASHION_GROUPS.items()]
        figures = [*(row and row["macro_f1"] for row in found), groups["mean_macro_f1"]]
        rows.append([f"**{run}**", *("" if figure is None else _number(figure, False) for figure in figures)])
    return table(["", *DEEPFASHION_GROUPS, "mean"], rows)


def retrieval_cells(figures: Figures) -> list[Cell]:
    """Both ways, for Table 2."""
    return [_read(figures[way], f"recall_at_{k}") for way in WAYS for k in RETRIEVAL_KS]


def composed_cells(protocol: Figures) -> list[Cell]:
    """Three groups and their average, for Tables 3 and 5; a group that was not asked is left empty."""
    rows = [*(protocol["groups"].get(group) for group in GROUPS), protocol["average"]]
    return [row and _read(row, f"recall_at_{k}") for row in rows for k in COMPOSED_KS]


def _read(row: Figures, name: str) -> Cell:
    return row[name], row.get(f"{name}_interval")


def differences(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Paragraphs on how far runs are apart; none where there is nothing to compare."""
    if rows:
        lines = [
            [
                row["measure"],
                row["other"],
                row["first"],
                f"{100 * row['difference']:+.2f}",
                " to ".join(f"{100 * bound:+.2f}" for bound in row["interval"]),
                "not tested" if row["p"] is None else f"{row['p']:.4f}",
            ]
            for row in rows
        ]
        yield (
            "How far runs are ahead, in points, with the 95% interval (paired percentile bootstrap) and the two-sided "
            f"p of an approximate randomization ({ROUNDS:,} rounds, not corrected for the number of comparisons):"
        )
        yield table(["measure", "run", "ahead of", "by", "95%", "p"], lines)


def page(title: str, *paragraphs: str) -> str:
    """A Markdown file."""
    return "\n\n".join([f"# {title}", *paragraphs]) + "\n"
