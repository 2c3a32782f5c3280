"""Measured metrics as Markdown, in the columns of the paper's tables and above its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fashion_retrieval._utils.significance import ROUNDS
from training.data.triplets import GROUPS
from training.evaluation.composed import KS as COMPOSED_KS
from training.evaluation.paper import read_paper
from training.evaluation.queries import COMPOSED
from training.evaluation.recognition import DEEPFASHION_GROUPS
from training.evaluation.results_file import words
from training.evaluation.retrieval import KS as RETRIEVAL_KS
from training.evaluation.retrieval import WAYS
from training.evaluation.significance import Metrics
from training.reports.pages import interval, table

_RECOGNITION = (*((group, "precision") for group in DEEPFASHION_GROUPS), ("", "mean_precision"))
_MACRO_F1 = (*((group, "macro_f1") for group in DEEPFASHION_GROUPS), ("", "mean_macro_f1"))
_RETRIEVAL = tuple((way, f"recall_at_{k}") for way in WAYS for k in RETRIEVAL_KS)
_COMPOSED = tuple((row, f"recall_at_{k}") for row in (*GROUPS, "average") for k in COMPOSED_KS)
_COLUMNS = {
    "table_1": _RECOGNITION, "table_2": _RETRIEVAL, "table_3": _COMPOSED, "table_4": _RECOGNITION, "table_5": _COMPOSED
}  # fmt: skip
"""(row of the metrics, metric) of each column, by table of the paper."""
_MEASURES = {"map_at_10": "mAP@10", **{f"recall_at_{k}": f"R@{k}" for k in (1, 10, 50)}}


def paper_table(name: str, runs: Mapping[str, Metrics], *, printed: bool = True) -> str:
    """A table of the paper with measured rows above its own, or in its columns alone."""
    paper = read_paper()[name]
    scale, digits = (100, 2) if paper["unit"] == "percent" else (1, 4)
    rows = _rows(runs, _COLUMNS[name], scale, digits)
    for row, figures in paper["rows"].items() if printed else ():
        rows.append([f"{row}, in the paper", *(f"{figure:.{digits}f}" for figure in figures)])
    return table(["", *paper["columns"]], rows)


def macro_f1_table(runs: Mapping[str, Metrics]) -> str:
    """Macro-F1 of the six groups and its mean, by run."""
    return table(["", *DEEPFASHION_GROUPS, "mean"], _rows(runs, _MACRO_F1, 1, 4))


def _rows(runs: Mapping[str, Metrics], columns: Sequence[tuple[str, str]], scale: int, digits: int) -> list[list[str]]:
    return [[f"**{run}**", *(_cell(row, *column, scale, digits) for column in columns)] for run, row in runs.items()]


def _cell(metrics: Metrics, row: str, metric: str, scale: int, digits: int) -> str:
    """A metric, with its 95% interval where it has one."""
    rows = {"": metrics, **metrics, **metrics.get("groups", {})}
    found = rows.get(row) or rows.get(DEEPFASHION_GROUPS.get(row, row))
    if found is None:
        return ""
    bounds = found.get(f"{metric}_interval")
    return f"{scale * found[metric]:.{digits}f}" + (f"<br>{interval(bounds, scale, digits)}" if bounds else "")


def ways_table(ways: Mapping[str, Metrics]) -> str:
    """Metrics in percent of each way to ask (`training.evaluation.queries`) and, below each, how far it is behind."""
    measures = [name for name in ways[COMPOSED] if not name.endswith("_interval")]
    rows = []
    for way, found in ways.items():
        rows.append([f"**{words(way)}**", *(_cell(found, "", measure, 100, 2) for measure in measures)])
        ahead = found.get("composed_is_ahead_by", {})
        cells = [
            f"{100 * row['difference']:+.2f}<br>{interval(row['interval'], 100, 2, '+')}" for row in ahead.values()
        ]
        rows += [["composed is ahead by", *cells]] if cells else []
    return table(["", *(_MEASURES.get(name, name) for name in measures)], rows)


def comparison_paragraphs(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Paragraphs on how far runs are ahead of the first; none where there is nothing to compare."""
    if rows:
        yield (
            "How far runs are ahead, in points, with the 95% interval (paired percentile bootstrap) and the two-sided "
            f"p of an approximate randomization ({ROUNDS:,} rounds, not corrected for the number of comparisons):"
        )
        lines = []
        for row in rows:
            ahead, bounds = f"{100 * row['difference']:+.2f}", interval(row["interval"], 100, 2, "+")
            p = "not tested" if row["p"] is None else f"{row['p']:.4f}"
            lines.append([row["measure"], row["other"], row["first"], ahead, bounds, p])
        yield table(["measure", "run", "ahead of", "by", "95%", "p"], lines)


def page(title: str, *paragraphs: str) -> str:
    """A Markdown file."""
    return "\n\n".join([f"# {title}", *paragraphs]) + "\n"
