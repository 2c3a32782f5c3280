"""The sections of retrieval: texts against photos, a photo and a wish, and the composer's ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.data.triplets import CaptionMode, ComposedSet, join_captions
from training.evaluation.ablation import evaluate_ablation
from training.evaluation.captions import RULES, evaluate_captions, read_captioned
from training.evaluation.composed import KS, composed_outcomes, evaluate_composed
from training.evaluation.paper import TITLES
from training.evaluation.retrieval import KS as RETRIEVAL_KS
from training.evaluation.retrieval import WAYS, evaluate_retrieval, retrieval_outcomes
from training.evaluation.significance import Figures
from training.reports.recognition_sections import Models, Section, compared, resampling
from training.reports.tables import composed_cells, differences, retrieval_cells, with_paper_rows


def retrieval_of_pack(models: Models, data: Path, split: str, *, seed: int = 0) -> Section:
    """Product names and photos of the open data pack."""
    found = {name: evaluate_retrieval(model, data, split, seed=seed) for name, model in models.items()}
    about = (
        "Recall in percent between product names and photos of the open data pack; an item of the intervals is a "
        "query. The paper's figures are those of DeepFashion's photos and captions by BLIP."
    )
    sections = {name: {"retrieval": row} for name, row in found.items()}
    tables = [about, with_paper_rows("table_2", {name: retrieval_cells(row) for name, row in found.items()})]
    return compared(sections, found, retrieval_outcomes, seed, "queries", tables, _retrieval_lines(found))


def retrieval_of_deepfashion(models: Models, root: Path, split: str, *, seed: int = 0) -> Section:
    """Table 2, by both rules of what is right."""
    data = read_captioned(root, split)
    found = {name: evaluate_captions(model, data, seed=seed) for name, model in models.items()}
    runs = {f"{name}, {rule.replace('_', ' ')}": row[rule] for rule in RULES for name, row in found.items()}
    about = (
        f"Recall in percent between {len(data.texts):,} photos of DeepFashion's {split} split and their captions by "
        f"{data.settings.get('model', 'BLIP')}, {len({*data.texts}):,} of them different; an item of the intervals is "
        "a query. `own`: a photo's own caption alone is right. `same text`: equal captions are one."
    )
    tables = [about, with_paper_rows("table_2", {name: retrieval_cells(row) for name, row in runs.items()})]
    owns = {name: row["own"] for name, row in found.items()}
    sections = {name: {"retrieval": row} for name, row in found.items()}
    return compared(sections, owns, retrieval_outcomes, seed, "queries", tables, _retrieval_lines(runs))


def composed_of(
    models: Models, sets: Sequence[ComposedSet], captions: CaptionMode = CaptionMode.BOTH, *, seed: int = 0
) -> Section:
    """Table 3, by protocol.

    Raises:
        UnsupportedError: A model has no composer; said before anything is measured.
    """
    for model in models.values():
        group = sets[0].groups[0]
        first = group.triplets[0]
        model.compose([group.photos[first.candidate]], [join_captions(first.captions, captions)])
    found = {name: evaluate_composed(model, sets, captions=captions, seed=seed) for name, model in models.items()}
    fashioniq = sets[0].source == "fashioniq"
    whose = "FashionIQ" if fashioniq else "the open data pack's pairs; the paper's figures are those of FashionIQ"
    tables = [f"Recall in percent on {whose}; an item of the intervals is a query, drawn within its group."]
    for one in sets:
        runs = {name: composed_cells(row[one.protocol]) for name, row in found.items()}
        tables += [f"Protocol `{one.protocol}`:", with_paper_rows("table_3", runs)]
    sections = {name: {"protocols": row} for name, row in found.items()}
    return compared(
        sections, found, composed_outcomes, seed, "queries within their group", tables, _composed_lines(found)
    )


def ablation_of(results: Path, runs: Path | None, *, seed: int = 0) -> Section:
    """Table 5, from a comparison of composers."""
    figures = evaluate_ablation(results, runs, seed=seed)
    tables = [
        f"Recall in percent on {figures['source']}, {figures['split']}, with the encoder of {figures['model']}: means "
        "over the seeds, intervals over queries and seeds. The paper's figures are those of FashionIQ."
    ]
    for protocol in figures["variants"]["agcn"]["protocols"]:
        rows = {TITLES[name]: composed_cells(row["protocols"][protocol]) for name, row in figures["variants"].items()}
        tables += [f"Protocol `{protocol}`:", with_paper_rows("table_5", rows)]
    ahead = figures["against_first"]
    tables.append("The intervals of the differences below are over queries and seeds, p is over the queries alone.")
    lines = [
        f"{row['other']} ahead of {row['first']}, {row['measure']}: {100 * row['difference']:+.2f} points"
        for row in ahead
    ]
    how = resampling("queries within their group and seeds", "queries")
    return Section({figures["model"]: figures}, ahead, how, [*tables, *differences(ahead)], lines)


def _retrieval_lines(runs: Mapping[str, Figures]) -> list[str]:
    lines = []
    for run, row in runs.items():
        lines += [run] if len(runs) > 1 else []
        for way in WAYS:
            recalls = "  ".join(f"R@{k} {100 * row[way][f'recall_at_{k}']:5.2f}" for k in RETRIEVAL_KS)
            lines.append(f"{way.replace('_', ' ')}  {recalls}")
    return lines


def _composed_lines(runs: Mapping[str, Figures]) -> list[str]:
    lines = []
    for run, protocols in runs.items():
        lines += [run] if len(runs) > 1 else []
        for name, measured in protocols.items():
            for who, row in {**measured["groups"], "average": measured["average"]}.items():
                recalls = "  ".join(f"R@{k} {100 * row[f'recall_at_{k}']:5.2f}" for k in KS)
                size = f"  gallery {row['gallery']:,}" if "gallery" in row else ""
                lines.append(f"{name:15} {who:8} {recalls}{size}")
    return lines
