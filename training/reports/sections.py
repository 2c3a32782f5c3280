"""What the commands of `training.evaluate` measure: models on one data set, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.significance import ROUNDS, ItemScores
from fashion_retrieval.errors import InputError
from training.data.edits import EditSet
from training.data.triplets import CaptionMode, ComposedSet, join_captions
from training.evaluation.ablation import evaluate_ablation
from training.evaluation.attribute_groups import precision_scores
from training.evaluation.captions import RULES, evaluate_captions, read_captioned
from training.evaluation.compact import Part, measure
from training.evaluation.composed import KS, composed_scores, evaluate_composed, remarks
from training.evaluation.deepfashion import View, evaluate_deepfashion, read_garments
from training.evaluation.edits import KS as EDITS_KS
from training.evaluation.edits import MAP, composed_edits, evaluate_edits, evaluate_wordings
from training.evaluation.paper import TITLES
from training.evaluation.queries import DRAWS, Remembering
from training.evaluation.results_file import words
from training.evaluation.retrieval import KS as RETRIEVAL_KS
from training.evaluation.retrieval import WAYS, evaluate_retrieval, retrieval_scores
from training.evaluation.significance import Metrics, compare_with_first
from training.reports.pages import render
from training.reports.tables import comparison_paragraphs, macro_f1_table, paper_table, ways_table

Models = Mapping[str, FashionModel]
"""Models by the names they were asked for by, the first one first."""


@dataclass(frozen=True, slots=True)
class Section:
    """Metrics of models on one data set.

    Attributes:
        results: For the results file, by model.
        against_first: How far each later run is ahead of the first.
        resampling: What intervals and p are computed over.
        paragraphs: Markdown, with the paper's metrics in the same tables.
        lines: What the terminal shows.
    """

    results: dict[str, dict[str, Any]]
    against_first: list[dict[str, Any]]
    resampling: str
    paragraphs: list[str]
    lines: list[str]

    def show(self) -> None:
        """Print the lines."""
        for line in self.lines:
            typer.echo(line)


def load_models(names: Sequence[str]) -> Models:
    """Load all models, before anything is measured.

    Raises:
        InputError: A model is named twice.
        FashionRetrievalError: A model can't be loaded.
    """
    if len({*names}) < len(names):
        raise InputError(f"--model must name each model once, got {', '.join(names)}")
    return {name: FashionModel.from_pretrained(name, dtype="float32") for name in names}


def recognition_of_pack(models: Models, data: Path, split: str, *, seed: int = 0) -> Section:
    """Recognition of the open data pack's labeled garments, in DeepFashion's vocabulary and in the pack's."""
    results, runs = {}, {}
    for name, model in models.items():
        measured = measure(model, data, split, Part.RECOGNITION, seed=seed)
        results[name] = {part: measured[part] for part in ("recognition", "unseen_words")}
        found = measured["recognition"]
        runs[name] = found["deepfashion"]["all"] | {"right": found["right"]}
    return _recognition(results, runs, "garments", seed)


def recognition_of_deepfashion(
    models: Models, root: Path, split: str, views: Sequence[View], *, seed: int = 0
) -> Section:
    """Tables 1 and 4: each model with each view is a run."""
    samples = read_garments(root, split, views)
    results: dict[str, dict[str, Any]] = {}
    runs: dict[str, Metrics] = {}
    for name, model in models.items():
        by_view = evaluate_deepfashion(model, samples, views, seed=seed)
        views_of_model = {str(view): row for view, row in by_view.items()}
        results[name] = {"recognition": {"garments": len(samples), "views": views_of_model}}
        runs |= {f"{name}, {words(view)}": row for view, row in by_view.items()}
    return _recognition(results, runs, "photos", seed, photos=len(samples), split=split)


def _recognition(
    results: dict[str, dict[str, Any]], runs: Mapping[str, Metrics], items: str, seed: int, **values: object
) -> Section:
    tables = {"paper_table": paper_table, "macro_f1_table": macro_f1_table}
    text = render("section_recognition.md", runs=runs, **({"photos": None} | values), **tables)
    lines = [
        f"{run}: mean precision {row['mean_precision']:.4f}, macro-F1 {row['mean_macro_f1']:.4f}"
        for run, row in runs.items()
    ]
    return _compared(
        results, runs, lambda run: {"mean precision": precision_scores(run["right"])}, items, text, lines, seed
    )


def segmentation_of_pack(models: Models, data: Path, split: str) -> Section:
    """Street photos without boxes: garments found, and recognized."""
    runs = {name: measure(model, data, split, Part.SEGMENTATION)["segmentation"] for name, model in models.items()}
    lines = [f"{name}: {row['found']:.4f} of garments found" for name, row in runs.items()]
    text = render("section_segmentation.md", runs=runs)
    return Section(_named("segmentation", runs), [], _resampling("garments", "garments"), [text], lines)


def retrieval_of_pack(models: Models, data: Path, split: str, *, seed: int = 0) -> Section:
    """Product names and photos of the open data pack."""
    runs = {name: evaluate_retrieval(model, data, split, seed=seed) for name, model in models.items()}
    text = render("section_retrieval.md", runs=runs, photos=None, paper_table=paper_table)
    lines = [*_recall_lines(_ways(runs), RETRIEVAL_KS)]
    return _compared(_named("retrieval", runs), runs, retrieval_scores, "queries", text, lines, seed)


def retrieval_of_deepfashion(models: Models, root: Path, split: str, *, seed: int = 0) -> Section:
    """Table 2, by both rules of which captions are correct; models are compared by a photo's own caption."""
    data = read_captioned(root, split)
    found = {name: evaluate_captions(model, data, seed=seed) for name, model in models.items()}
    runs = {f"{name}, {words(rule)}": row[rule] for rule in RULES for name, row in found.items()}
    said = {"split": split, "photos": len(data.texts), "texts": len({*data.texts})}
    captioner = data.settings.get("model", "BLIP")
    text = render("section_retrieval.md", runs=runs, captioner=captioner, paper_table=paper_table, **said)
    own = {name: row["own"] for name, row in found.items()}
    lines = [*_recall_lines(_ways(runs), RETRIEVAL_KS)]
    return _compared(_named("retrieval", found), own, retrieval_scores, "queries", text, lines, seed)


def composed_of(
    models: Models,
    sets: Sequence[ComposedSet],
    captions: CaptionMode = CaptionMode.BOTH,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Section:
    """Table 3 and the ways to ask, by protocol; missing photos and leaked targets are listed on stderr first.

    Raises:
        UnsupportedError: A model has no composer; nothing is measured then.
    """
    for line in remarks(sets):
        typer.echo(line, err=True)
    group = sets[0].groups[0]
    first = group.triplets[0]
    for model in models.values():
        model.compose([group.photos[first.candidate]], [join_captions(first.captions, captions)])
    found = {
        name: evaluate_composed(Remembering(model), sets, captions=captions, draws=draws, seed=seed)
        for name, model in models.items()
    }
    protocols = [one.protocol for one in sets]
    runs = {protocol: {name: row[protocol] for name, row in found.items()} for protocol in protocols}
    tables = {"paper_table": paper_table, "ways_table": ways_table}
    text = render("section_composed.md", source=sets[0].source, protocols=protocols, by_protocol=runs, **tables)
    rows: dict[str, list[tuple[str, Metrics, str]]] = {name: [] for name in found}
    for name, by_protocol in found.items():
        for protocol, metrics in by_protocol.items():
            for place, row in metrics["groups"].items():
                rows[name].append((f"{protocol:15} {place:7}", row, f"  gallery {row['gallery']:,}"))
            rows[name].append((f"{protocol:15} average", metrics["average"], ""))
            rows[name] += [(f"{protocol:15} {words(way):12}", row, "") for way, row in metrics["ways"].items()][1:]
    lines, items = [*_recall_lines(rows, KS)], "queries within their group"
    return _compared(_named("protocols", found), found, composed_scores, items, text, lines, seed)


def edits_of(models: Models, data: EditSet, *, draws: int = DRAWS, seed: int = 0) -> Section:
    """Edits of one attribute, by way to ask.

    Raises:
        UnsupportedError: A model has no composer.
    """
    runs = {name: evaluate_edits(Remembering(model), data, draws=draws, seed=seed) for name, model in models.items()}
    text = render("edits.md", runs=runs, source=data.source, split=data.split, ways_table=ways_table)
    rows = {
        name: [(f"{words(way):12}", row, f"  mAP@10 {100 * row[MAP]:5.2f}") for way, row in found["ways"].items()]
        for name, found in runs.items()
    }
    lines = [*_recall_lines(rows, EDITS_KS)]
    return _compared(_named("edits", runs), runs, composed_edits, "queries", text, lines, seed)


def wordings_of(models: Models, data: EditSet, *, seed: int = 0) -> Section:
    """The wishes of edits in six wordings.

    Raises:
        UnsupportedError: A model has no composer.
    """
    runs = {name: evaluate_wordings(Remembering(model), data, seed=seed) for name, model in models.items()}
    text = render("wordings.md", runs=runs, split=data.split)
    rows = {name: [(f"{w:10}", row, "") for w, row in found["wordings"].items()] for name, found in runs.items()}
    lines = [
        *_recall_lines(rows, (10,)),
        *(f"{name}: spread {found['spread'] or 0:.3f}" for name, found in runs.items()),
    ]
    return Section(_named("wordings", runs), [], _resampling("queries", "queries"), [text], lines)


def ablation_of(comparison: Path, runs: Path | None, *, seed: int = 0) -> Section:
    """Table 5, from a comparison of composers."""
    results = evaluate_ablation(comparison, runs, seed=seed)
    variants, ahead = results["variants"], results["against_first"]
    rows = {TITLES[name]: row for name, row in variants.items()}
    rows |= {f"AGCN, {name}": row for name, row in results["variations"].items()}
    by_protocol = {
        protocol: {title: row["protocols"][protocol] for title, row in rows.items()}
        for protocol in variants["agcn"]["protocols"]
    }
    edited = {title: row["edits"] for title, row in rows.items() if row.get("edits")}
    values = {"by_protocol": by_protocol, "edits": edited, "paper_table": paper_table}
    text = render("section_ablation.md", results=results, **values)
    lines = [
        f"{row['other']} ahead of {row['first']}, {row['measure']}: {100 * row['difference']:+.2f} points"
        for row in ahead
    ]
    resampling = _resampling("queries within their group and seeds", "queries")
    return Section({results["model"]: results}, ahead, resampling, [text, *comparison_paragraphs(ahead)], lines)


def _compared(
    results: dict[str, dict[str, Any]],
    runs: Mapping[str, Metrics],
    scores: Callable[[Metrics], Mapping[str, ItemScores]],
    items: str,
    text: str,
    lines: list[str],
    seed: int,
) -> Section:
    """A section with each later run compared with the first; `scores` and `items` say what is resampled."""
    ahead = compare_with_first(runs, scores, seed=seed)
    return Section(results, ahead, _resampling(items, items), [text, *comparison_paragraphs(ahead)], lines)


def _named(part: str, metrics: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Metrics by model, as a part of its results."""
    return {name: {part: row} for name, row in metrics.items()}


def _resampling(drawn: str, swapped: str) -> str:
    return (
        f"intervals: 95%, percentile bootstrap over {drawn}, 1,000 rounds; "
        f"p: two-sided, approximate randomization over {swapped}, {ROUNDS:,} rounds"
    )


def _ways(runs: Mapping[str, Metrics]) -> dict[str, list[tuple[str, Metrics, str]]]:
    return {run: [(words(way), found[way], "") for way in WAYS] for run, found in runs.items()}


def _recall_lines(runs: Mapping[str, Sequence[tuple[str, Metrics, str]]], ks: Sequence[int]) -> Iterator[str]:
    """A line for each (name, recalls, what else is said) of each run; of several runs, under the name of each."""
    for run, rows in runs.items():
        if len(runs) > 1:
            yield run
        for name, row, end in rows:
            yield f"{name}  " + "  ".join(f"R@{k} {100 * row[f'recall_at_{k}']:5.2f}" for k in ks) + end
