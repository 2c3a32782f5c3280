"""Write measured figures into README.md, the model's page and the method's.

python -m training.report training/results/compact_val.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import typer

from fashion_retrieval.hub import resolve
from training.evaluate import bars
from training.losses import Targets
from training.plots import plot_groups

ROOT = Path(__file__).parents[1]


def main(results: Path) -> None:
    """Replace what stands between the marks of the three pages, and draw the chart."""
    figures = json.loads(results.read_text(encoding="utf-8"))
    summary = _table(
        ("figure", "measured", "goal"),
        [(what, f"{measured:.3f}", f"{goal:g}") for what, measured, goal in bars(figures, resolve(figures["model"]))],
    )
    _fill(ROOT / "README.md", "figures", summary)
    _fill(ROOT / "docs/models/compact.md", "figures", "\n\n".join([summary, *_details(figures)]))
    recognition = figures["recognition"]
    plot_groups(recognition["deepfashion"], recognition["annotators_agree"], ROOT / "docs/images/compact_groups.png")
    _fill(ROOT / "docs/method.md", "compare", _compare(results.parent))


def _compare(folder: Path) -> str:
    """The two short runs of `training/configs/compare_*.toml`, side by side."""
    rows = []
    for targets in get_args(Targets):
        found = json.loads((folder / f"compare_{targets}_val.json").read_text(encoding="utf-8"))["recognition"]
        every, street = found["deepfashion"]["all"], found["deepfashion"]["street"]
        category = found["category"]["top1"]
        numbers = (every["mean_precision"], every["mean_macro_f1"], street["mean_precision"], category)
        rows.append((targets, *(f"{number:.3f}" for number in numbers)))
    return _table(("targets", "mean precision", "mean macro-F1", "mean precision on street", "category, top-1"), rows)


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
        "![Precision per group and source, with the annotators' agreement](../images/compact_groups.png)",
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


def _fill(page: Path, name: str, text: str) -> None:
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    page.write_text(
        marks.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page.read_text(encoding="utf-8")), encoding="utf-8"
    )


if __name__ == "__main__":
    typer.run(main)
