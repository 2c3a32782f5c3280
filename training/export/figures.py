"""The figures of a model card, out of results files of `training.evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion_retrieval.config import COMPOSER_WEIGHTS_NAME, ENCODER_WEIGHTS_NAME, SEGMENTER_WEIGHTS_NAME, Figure
from fashion_retrieval.errors import ConfigError

Results = Mapping[str, Any]

_RECOGNISING, _SEGMENTING = "zero-shot-image-classification", "image-segmentation"
_MATCHING, _COMPOSING = "image-text-retrieval", "composed-image-retrieval"
_WEIGHTS = {
    "recognition": (ENCODER_WEIGHTS_NAME,),
    "retrieval": (ENCODER_WEIGHTS_NAME,),
    "segmentation": (ENCODER_WEIGHTS_NAME, SEGMENTER_WEIGHTS_NAME),
    "protocols": (ENCODER_WEIGHTS_NAME, COMPOSER_WEIGHTS_NAME),
}
"""Part of a results file -> files of the weights it was measured with."""
_GALLERIES = {"full": "all products", "split": "the split's products"}


def read_figures(paths: Sequence[Path], sha256: Mapping[str, str]) -> dict[str, Figure]:
    """Figures of the model with these weights, by name.

    Args:
        paths: Results files; those of more than one model, or of `training.evaluate all`, may hold others' figures too.
        sha256: Hex digests of the model's weights, by file name.

    Raises:
        ConfigError: All files that can't be read, lack a figure, or hold none of this model.
    """
    figures: dict[str, Figure] = {}
    faults: list[str] = []
    for path in paths:
        try:
            found = dict(_figures_of(json.loads(path.read_text(encoding="utf-8")), sha256))
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


def _figures_of(results: Results, sha256: Mapping[str, str]) -> Iterator[tuple[str, Figure]]:
    for run in _runs(results):
        for part, read in _READERS.items():
            if part in run and all(run["sha256"].get(name) == sha256.get(name) for name in _WEIGHTS[part]):
                yield from read(run, run[part])


def _runs(results: Results) -> Iterator[Results]:
    """What one model was measured on at a time; "sha256" of its weights is in each."""
    if "parts" not in results:
        yield from (results, *results.get("others", ()))
        return
    for name, parts in results["parts"].items():
        for model, told in results["models"].items():
            if model in parts:
                source = "fashioniq" if name.endswith("fashioniq") else "pairs"
                split = "test" if name.endswith("deepfashion") else "val"
                yield {**told, "source": source, "split": split, **parts[model]}


def _recognition(run: Results, row: Results) -> Iterator[tuple[str, Figure]]:
    if "views" in row:
        data = f"DeepFashion, {run['split']}: {row['garments']:,} garments"
        for view, found in row["views"].items():
            shown = view.replace("_", " ")
            yield _figure(f"attributes, mean precision, {shown}", found, "mean_precision", "accuracy", data)
            yield _figure(f"attributes, mean macro-F1, {shown}", found, "mean_macro_f1", "macro-F1", data)
            yield _figure(f"category, top-1, {shown}", found["category"], "top1", "accuracy", data)
        return
    pack = f"open data pack, {run['split']}"
    data, groups = f"{pack}: {row['garments']:,} labeled garments", row["deepfashion"]
    yield _figure("attributes, mean precision of six groups", groups["all"], "mean_precision", "accuracy", data)
    yield _figure("attributes, mean macro-F1", groups["all"], "mean_macro_f1", "macro-F1", data)
    yield _figure("category, top-1", row["category"], "top1", "accuracy", data)
    yield _figure("dominant color, top-1 of 13", row["color"], "top1", "accuracy", data)
    if "street" in groups:
        street = f"{pack}: {groups['street']['texture']['labeled']:,} garments of street photos"
        name = "attributes on street photos, mean precision"
        yield _figure(name, groups["street"], "mean_precision", "accuracy", street)


def _segmentation(run: Results, row: Results) -> Iterator[tuple[str, Figure]]:
    pack, end = f"open data pack, {run['split']}", row["end_to_end"]
    photos = f"{pack}: {row['photos']:,} street photos"
    garments = f"{photos}, {row['garments_of_3_percent']:,} garments"
    ends = f"{photos}, {end['labeled_garments']:,} labeled garments"
    yield _figure("segmenter, clothing IoU", row, "clothing_iou", "IoU", photos, _SEGMENTING)
    yield _figure("segmenter, garments found", row, "found", "recall", garments, _SEGMENTING)
    yield _figure("end to end recall on street photos", end, "category_right_and_box", "recall", ends, _SEGMENTING)


def _retrieval(run: Results, row: Results) -> Iterator[tuple[str, Figure]]:
    if "own" in row:
        kinds = {f"captions ({rule.replace('_', ' ')} right)": row[rule] for rule in ("own", "same_text")}
    else:
        kinds = {"product names": row}
    data = f"{'DeepFashion' if 'own' in row else 'open data pack'}, {run['split']}"
    for kind, found in kinds.items():
        for way in ("text_to_image", "image_to_text"):
            measured = found[way]
            size = f"{data}: {measured['queries']:,} queries, {measured['gallery']:,} in the gallery"
            for k in (10, 50):
                name = f"{way.replace('_', ' ')}, {kind}, R@{k}"
                yield _figure(name, measured, f"recall_at_{k}", f"recall@{k}", size, _MATCHING)


def _composed(run: Results, protocols: Results) -> Iterator[tuple[str, Figure]]:
    fashioniq = run["source"] == "fashioniq"
    for protocol, found in protocols.items():
        where = f"FashionIQ ({protocol})" if fashioniq else _GALLERIES.get(protocol, protocol)
        queries = sum(group["queries"] for group in found["groups"].values())
        data = (
            f"{'FashionIQ' if fashioniq else 'open data pack'}, {run['split']}: {queries:,} pairs, {protocol} galleries"
        )
        for k in (10, 50):
            name = f"composed retrieval among {where}, R@{k}"
            yield _figure(name, found["average"], f"recall_at_{k}", f"recall@{k}", data, _COMPOSING)


def _figure(name: str, row: Results, key: str, metric: str, data: str, task: str = _RECOGNISING) -> tuple[str, Figure]:
    interval = row.get(f"{key}_interval")
    ends = (float(interval[0]), float(interval[1])) if interval else None
    return name, Figure(value=float(row[key]), interval=ends, metric=metric, task=task, data=data)


_READERS = {
    "recognition": _recognition,
    "segmentation": _segmentation,
    "retrieval": _retrieval,
    "protocols": _composed,
}
