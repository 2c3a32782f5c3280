"""The figures of a model card, from results files of `training.evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion_retrieval.config import COMPOSER_WEIGHTS_NAME, ENCODER_WEIGHTS_NAME, SEGMENTER_WEIGHTS_NAME, Figure
from fashion_retrieval.errors import ConfigError
from training.evaluation.captions import RULES
from training.evaluation.composed import KS
from training.evaluation.results_file import words
from training.evaluation.retrieval import WAYS

Results = Mapping[str, Any]

Row = tuple[str, Results, str, str, str]
"""Name of a figure, the metrics and their key where it stands, name of the metric, and the data."""
_OLD_KEYS = {"colour": "color", "labelled": "labeled", "labelled_garments": "labeled_garments"}
_GALLERIES = {
    "full": "all products",
    "split": "the split's products",
    "changes_full": "all products, from captions of changes alone",
    "changes_split": "the split's products, from captions of changes alone",
    "changes_full_noref": "all products but the reference, from captions of changes alone",
    "changes_split_noref": "the split's products but the reference, from captions of changes alone",
}
"""What figures are called, by protocol."""


def read_figures(paths: Sequence[Path], sha256: Mapping[str, str]) -> dict[str, Figure]:
    """Figures of the model with these weights, by name.

    Raises:
        ConfigError: Files can't be read, lack a figure, or hold none of this model; the message names all.
    """
    figures: dict[str, Figure] = {}
    faults: list[str] = []
    for path in paths:
        try:
            found = dict(_figures_of(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_renamed), sha256))
            if not found:
                faults.append(f"{path} has no figures of these weights")
            figures |= found
        except (OSError, ValueError) as error:
            faults.append(f"{path} can't be read ({error})")
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            faults.append(f"{path} is no results file of training.evaluate ({type(error).__name__}: {error})")
    if faults:
        raise ConfigError(f"{'; '.join(faults)}; measure the exported folder with training.evaluate")
    return figures


def _renamed(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys of an earlier release have their new names."""
    return {_OLD_KEYS.get(key, key): value for key, value in pairs}


def _figures_of(results: Results, sha256: Mapping[str, str]) -> Iterator[tuple[str, Figure]]:
    for run in _runs(results):
        for part, (task, weights, read) in _PARTS.items():
            files = (ENCODER_WEIGHTS_NAME, *weights)
            if part in run and all(run["sha256"].get(name) == sha256.get(name) for name in files):
                for figure, found, key, metric, data in read(run, run[part]):
                    bounds = found.get(f"{key}_interval")
                    interval = (float(bounds[0]), float(bounds[1])) if bounds else None
                    value = float(found[key])
                    yield figure, Figure(value=value, interval=interval, metric=metric, task=task, data=data)


def _runs(results: Results) -> Iterator[Results]:
    """The metrics of one model at a time, each with the "sha256" of its weights."""
    if "parts" not in results:
        yield from (results, *results.get("others", ()))
        return
    for name, parts in results["parts"].items():
        for model, provenance in results["models"].items():
            if model in parts:
                source = "fashioniq" if name.endswith("fashioniq") else "pairs"
                split = "test" if name.endswith("deepfashion") else "val"
                yield {**provenance, "source": source, "split": split, **parts[model]}


def _recognition(run: Results, row: Results) -> Iterator[Row]:
    if "views" in row:
        for view, found in row["views"].items():
            data = f"DeepFashion, {run['split']}: {row['garments']:,} garments"
            yield f"attributes, mean precision, {words(view)}", found, "mean_precision", "accuracy", data
            yield f"attributes, mean macro-F1, {words(view)}", found, "mean_macro_f1", "macro-F1", data
            yield f"category, top-1, {words(view)}", found["category"], "top1", "accuracy", data
        return
    data, groups = f"{_pack(run)}: {row['garments']:,} labeled garments", row["deepfashion"]
    yield "attributes, mean precision of six groups", groups["all"], "mean_precision", "accuracy", data
    yield "attributes, mean macro-F1", groups["all"], "mean_macro_f1", "macro-F1", data
    yield "category, top-1", row["category"], "top1", "accuracy", data
    yield "dominant color, top-1 of 13", row["color"], "top1", "accuracy", data
    if "street" in groups:
        street = f"{_pack(run)}: {groups['street']['texture']['labeled']:,} garments of street photos"
        yield "attributes on street photos, mean precision", groups["street"], "mean_precision", "accuracy", street


def _segmentation(run: Results, row: Results) -> Iterator[Row]:
    photos, end = f"{_pack(run)}: {row['photos']:,} street photos", row["end_to_end"]
    garments = f"{photos}, {row['garments_of_3_percent']:,} garments"
    labeled = f"{photos}, {end['labeled_garments']:,} labeled garments"
    yield "segmenter, clothing IoU", row, "clothing_iou", "IoU", photos
    yield "segmenter, garments found", row, "found", "recall", garments
    yield "end to end recall on street photos", end, "category_right_and_box", "recall", labeled


def _retrieval(run: Results, row: Results) -> Iterator[Row]:
    of_captions = "own" in row
    kinds = {f"captions ({words(rule)} right)": rule for rule in RULES} if of_captions else {"product names": ""}
    source = f"DeepFashion, {run['split']}" if of_captions else _pack(run)
    for kind, rule in kinds.items():
        for way in WAYS:
            found = row[rule][way] if rule else row[way]
            data = f"{source}: {found['queries']:,} queries, {found['gallery']:,} in the gallery"
            for k in KS:
                yield f"{words(way)}, {kind}, R@{k}", found, f"recall_at_{k}", f"recall@{k}", data


def _composed(run: Results, protocols: Results) -> Iterator[Row]:
    fashioniq = run["source"] == "fashioniq"
    source = f"FashionIQ, {run['split']}" if fashioniq else _pack(run)
    for protocol, found in protocols.items():
        where = f"FashionIQ ({protocol})" if fashioniq else _GALLERIES.get(protocol, protocol)
        queries = sum(group["queries"] for group in found["groups"].values())
        data = f"{source}: {queries:,} pairs, {protocol} galleries"
        for k in KS:
            yield (
                f"composed retrieval among {where}, R@{k}",
                found["average"],
                f"recall_at_{k}",
                f"recall@{k}",
                data,
            )


def _pack(run: Results) -> str:
    return f"open data pack, {run['split']}"


_PARTS: dict[str, tuple[str, tuple[str, ...], Callable[[Results, Any], Iterator[Row]]]] = {
    "recognition": ("zero-shot-image-classification", (), _recognition),
    "segmentation": ("image-segmentation", (SEGMENTER_WEIGHTS_NAME,), _segmentation),
    "retrieval": ("image-text-retrieval", (), _retrieval),
    "protocols": ("composed-image-retrieval", (COMPOSER_WEIGHTS_NAME,), _composed),
}
"""Part of a results file -> task, files of the weights it was measured with beside the encoder's, reader."""
