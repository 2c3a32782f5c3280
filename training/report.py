"""Write measured figures into README.md and the model's page.

python -m training.report training/results/compact_val.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from fashion_retrieval.hub import resolve
from training.evaluate import bars

ROOT = Path(__file__).parents[1]


def main(results: Path) -> None:
    """Replace what stands between the `figures` marks of both pages."""
    figures = json.loads(results.read_text(encoding="utf-8"))
    summary = _table(
        ("figure", "measured", "goal"),
        [(what, f"{measured:.3f}", f"{goal:g}") for what, measured, goal in bars(figures, resolve(figures["model"]))],
    )
    _fill(ROOT / "README.md", summary)
    _fill(ROOT / "docs/models/compact.md", "\n\n".join([summary, *_details(figures)]))


def _details(figures: dict[str, Any]) -> list[str]:
    recognition, words = figures["recognition"], figures["unseen_words"]
    groups = recognition["deepfashion"]
    sources = [name for name in groups if name != "all"]
    names = [name for name, row in groups["all"].items() if isinstance(row, dict)]
    rows = [
        (
            name,
            *(f"{groups['all'][name][key]:.3f}" for key in ("precision", "macro_f1", "calibration_error")),
            *(f"{groups[source][name]['precision']:.3f}" for source in sources),
        )
        for name in names
    ]
    every = groups["all"]
    means = (f"{every[f'mean_{key}']:.3f}" for key in ("precision", "macro_f1", "calibration_error"))
    rows.append(("mean", *means, *(f"{groups[source]['mean_precision']:.3f}" for source in sources)))
    views = recognition["views_on_street"]
    unseen = [
        (w, *(f"{r[key]:.2f}" for key in ("precision", "by_word_alone")), f"{r['chance']:.3f}", str(r["true"]))
        for w, r in words["words"].items()
    ]
    header = ("group", "precision", "macro-F1", "calibration error", *(f"precision, {source}" for source in sources))
    low, high = every["mean_precision_interval"]
    return [
        f"### Attributes, `deepfashion` taxonomy\n\n95% interval of the mean precision: {low:.3f} to {high:.3f}.",
        _table(header, rows),
        "### Whole photo, crop and masked crop on street photos",
        _table(("view", "mean precision"), [(name.replace("_", " "), f"{value:.3f}") for name, value in views.items()]),
        "### Category and colour, top-1",
        _table(
            ("what", "all", *sources),
            [
                (what, *(f"{recognition[what][key]:.3f}" for key in ("top1", *sources)))
                for what in ("category", "colour")
            ],
        ),
        "### Words never trained on\n\n"
        "Each word stands in a taxonomy in the place of the values that it means, or joins the colours; garments are "
        'ranked by its probability. Precision is that of the top n, n the garments it is true of; "alone" ranks by '
        f"the cosine to the word's prompt. {words['count']} words: mean precision {words['precision']:.3f}, "
        f"{words['over_chance']:.1f} times chance; alone {words['by_word_alone']:.3f}.",
        _table(("word", "precision", "alone", "chance", "garments"), unseen),
    ]


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fill(page: Path, text: str) -> None:
    marks = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.DOTALL)
    page.write_text(
        marks.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page.read_text(encoding="utf-8")), encoding="utf-8"
    )


if __name__ == "__main__":
    typer.run(main)
