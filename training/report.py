"""Write measured figures into README.md, the model's page and the method's.

python -m training.report training/results/compact_val.json
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import typer

from fashion_retrieval.config import VARIANTS
from fashion_retrieval.hub.download import resolve
from training.engine.errors import one_line_errors
from training.evaluation.compact import bars
from training.evaluation.composed import KS
from training.evaluation.paper import TITLES
from training.recipes.losses import Targets
from training.reports.plots import plot_groups
from training.reports.tables import table

ROOT = Path(__file__).parents[1]


@one_line_errors()
def main(results: Path) -> None:
    """Replace what stands between the marks of the three pages, and draw the chart."""
    figures = json.loads(results.read_text(encoding="utf-8"))
    goals = bars(figures, resolve(figures["model"])) + composed_bars(results.parent)
    summary = table(
        ("figure", "measured", "goal"), [(what, f"{measured:.3f}", f"{goal:g}") for what, measured, goal in goals]
    )
    _fill(ROOT / "README.md", "figures", summary)
    _fill(ROOT / "docs/models/compact.md", "figures", "\n\n".join([summary, *_details(figures)]))
    recognition = figures["recognition"]
    plot_groups(recognition["deepfashion"], recognition["annotators_agree"], ROOT / "docs/images/compact_groups.png")
    _fill(ROOT / "docs/method.md", "compare", _compare(results.parent))
    _fill(ROOT / "docs/models/compact.md", "composed", "\n\n".join(_composed(results.parent)))


def composed_bars(folder: Path) -> list[tuple[str, float, float]]:
    """(what, measured, wanted) of composed retrieval."""
    average = _read(folder / "composed_val.json")["protocols"]["full"]["average"]
    ablation = _read(folder / "compare_variants.json")["composers"]
    agcn, text = (ablation[n]["protocols"]["full"]["average"]["recall_at_10"] for n in ("agcn", "only_text"))
    names = _read(folder / "retrieval_val.json")["retrieval"]
    return [
        ("composed retrieval among all products, R@10", average["recall_at_10"], 0.34),
        ("composed retrieval among all products, R@50", average["recall_at_50"], 0.66),
        ("AGCN over its text branch alone, R@10", agcn - text, 0.02),
        ("text to image on product names, R@10", names["text_to_image"]["recall_at_10"], 0.45),
    ]


def _composed(folder: Path) -> list[str]:
    """Composed retrieval in both galleries, AGCN beside its ablations, and text against image."""
    measured, ablation = _read(folder / "composed_val.json"), _read(folder / "compare_variants.json")
    rows = []
    for gallery, found in measured["protocols"].items():
        groups = [*found["groups"].items(), ("average", found["average"])]
        rows += [(gallery, name, str(row.get("gallery", "")), *_recalls(row)) for name, row in groups]
    variants = [
        (TITLES[name], *_recalls(ablation["composers"][name]["protocols"]["full"]["average"]), f"{parameters:,}")
        for name in VARIANTS
        for parameters in [ablation["composers"][name]["parameters"]]
    ]
    names = _read(folder / "retrieval_val.json")["retrieval"]
    ways = [
        (way.replace("_", " "), *(f"{100 * names[way][f'recall_at_{k}']:.1f}" for k in (3, 5, 10, 50)))
        for way in ("text_to_image", "image_to_text")
    ]
    return [
        table(("gallery", "group", "photos", "R@10 (95%)", "R@50 (95%)"), rows),
        "AGCN and its ablations (the paper's Table 5), trained alike, in the `full` galleries:",
        table(("variant", "R@10 (95%)", "R@50 (95%)", "parameters"), variants),
        "Product names against the photos of `val` and the other way round:",
        table(("from, to", "R@3", "R@5", "R@10", "R@50"), ways),
    ]


def _recalls(row: dict[str, Any]) -> list[str]:
    return [
        f"{100 * row[f'recall_at_{k}']:.1f} ({' to '.join(f'{100 * x:.1f}' for x in row[f'recall_at_{k}_interval'])})"
        for k in KS
    ]


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _compare(folder: Path) -> str:
    """The two short runs of `training/configs/compare_*.toml`, side by side."""
    rows = []
    for targets in get_args(Targets):
        found = json.loads((folder / f"compare_{targets}_val.json").read_text(encoding="utf-8"))["recognition"]
        every, street = found["deepfashion"]["all"], found["deepfashion"]["street"]
        category = found["category"]["top1"]
        numbers = (every["mean_precision"], every["mean_macro_f1"], street["mean_precision"], category)
        rows.append((targets, *(f"{number:.3f}" for number in numbers)))
    return table(("targets", "mean precision", "mean macro-F1", "mean precision on street", "category, top-1"), rows)


def _details(figures: dict[str, Any]) -> list[str]:
    recognition, words, near = figures["recognition"], figures["unseen_words"], figures["segmentation"]["near"]
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
        table(header, rows),
        "### Whole photo, crop and masked crop on street photos",
        table(("view", "mean precision"), [(name.replace("_", " "), f"{value:.3f}") for name, value in views.items()]),
        "### Category and color, top-1",
        table(
            ("what", "all", *sources),
            [
                (what, *(f"{recognition[what][key]:.3f}" for key in ("top1", *sources)))
                for what in ("category", "color")
            ],
        ),
        "### Photos taken from near, without boxes\n\n"
        f"{near['portraits']['photos']} portraits (head and chest) cut from the street photos with masks, and "
        f"{near['one_garment']['photos']} users' photos of one garment.",
        table(
            ("figure", "measured"),
            [
                ("portraits, clothing IoU", f"{near['portraits']['clothing_iou']:.3f}"),
                ("portraits, regions a photo", f"{near['portraits']['regions']:.2f}"),
                (
                    "one garment, kind of its largest region right",
                    f"{near['one_garment']['kind_of_largest_region']:.3f}",
                ),
                ("one garment, found as one region", f"{near['one_garment']['one_region']:.3f}"),
            ],
        ),
        "### Words never trained on\n\n"
        "Each word stands in a taxonomy in the place of the values that it means, or joins the colors; garments are "
        'ranked by its probability. Precision is that of the top n, n the garments it is true of; "alone" ranks by '
        f"the cosine to the word's prompt. {words['count']} words: mean precision {words['precision']:.3f}, "
        f"{words['over_chance']:.1f} times chance; alone {words['by_word_alone']:.3f}.",
        table(("word", "precision", "alone", "chance", "garments"), unseen),
    ]


def _fill(page: Path, name: str, text: str) -> None:
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    page.write_text(
        marks.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page.read_text(encoding="utf-8")), encoding="utf-8"
    )


if __name__ == "__main__":
    typer.run(main)
