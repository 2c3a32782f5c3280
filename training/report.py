"""Write measured figures into README.md, the model's page and the method's.

python -m training.report training/results/compact_val.json
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import typer

from fashion_retrieval.config import VARIANTS
from fashion_retrieval.hub import resolve
from training.data.io import read_json
from training.engine.errors import one_line_errors
from training.evaluation.compact import targets as measured_targets
from training.evaluation.edits import MAP
from training.evaluation.paper import TITLES
from training.recipes.losses import Targets
from training.reports.pages import ROOT, fill, render
from training.reports.plots import plot_groups
from training.reports.tables import ways_table


@one_line_errors()
def main(results: Path) -> None:
    """Replace what stands between the marks of the three pages, and draw the chart."""
    folder, figures = results.parent, read_json(results)
    recognition = figures["recognition"]
    composed, variants, retrieval = (
        read_json(folder / name) for name in ("composed_val.json", "compare_variants.json", "retrieval_val.json")
    )
    composers, names = variants["composers"], retrieval["retrieval"]
    edited, wordings = (read_json(folder / f"{part}_val.json")[part] for part in ("edits", "wordings"))
    agcn, text = (composers[name] for name in ("agcn", "only_text"))
    described, changes = (composed["protocols"][protocol] for protocol in ("full", "changes_full"))
    worth, ahead = (
        changes["ways"][way]["composed_is_ahead_by"]["recall_at_10"]["difference"]
        for way in ("wrong_photo", "text_branch")
    )
    lead = [row["protocols"]["changes_full"]["average"]["recall_at_10"] for row in (agcn, text)]
    targets = [
        *measured_targets(figures, resolve(figures["model"])),
        ("composed retrieval among all products, R@10", described["average"]["recall_at_10"], 0.44),
        ("composed retrieval among all products, R@50", described["average"]["recall_at_50"], 0.82),
        ("with captions of changes alone, R@10", changes["average"]["recall_at_10"], 0.45),
        ("with captions of changes alone, R@50", changes["average"]["recall_at_50"], 0.8),
        ("what a wrong photo costs there, R@10", worth, 0.2),
        ("AGCN over its own text branch there, R@10", ahead, 0.06),
        ("AGCN over a text branch trained alone there, R@10", lead[0] - lead[1], 0.06),
        ("the same on edits, mAP@10", agcn["edits"][MAP] - text["edits"][MAP], 0.08),
        ("six wordings of a wish, spread of R@10 (at most 0.15)", wordings["spread"], 0.15),
        ("text to image on product names, R@10", names["text_to_image"]["recall_at_10"], 0.45),
    ]
    compared = {of: read_json(folder / f"compare_{of}_val.json")["recognition"] for of in get_args(Targets)}
    model_page = ROOT / "docs/models/compact.md"
    fill(ROOT / "README.md", "figures", render("targets.md", targets=targets))
    fill(model_page, "figures", render("compact.md", targets=targets, results=figures))
    visibility = read_json(folder / "visibility_val.json")
    fill(model_page, "visibility", render("visibility.md", results=visibility))
    of_composing = {"composed": composed, "composers": composers, "variants": VARIANTS, "names": names}
    of_composing |= {"edits": edited, "wordings": wordings}
    fill(model_page, "composed", render("composed.md", titles=TITLES, ways_table=ways_table, **of_composing))
    fill(model_page, "typed", render("typed_words.md", typed=read_json(folder / "typed_words.json")))
    fill(ROOT / "docs/method.md", "compare", render("targets_compared.md", compared=compared))
    plot_groups(recognition["deepfashion"], recognition["annotators_agree"], ROOT / "docs/images/compact_groups.png")


if __name__ == "__main__":
    typer.run(main)
