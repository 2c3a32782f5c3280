"""What a photo can't show must be "not visible": cuts of garments whose extent is known, and users' photos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval._utils.scores import accuracy, expected_calibration_error, macro_f1
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.inference.recognition import CategoryContext, Recognizer
from fashion_retrieval.models.towers import Floats
from fashion_retrieval.models.zero_shot import attribute_view
from fashion_retrieval.taxonomy import Group, Value
from training.data.cuts import CUTS, SHAPE, cut_views, fold_of, holds, pieces, with_masks
from training.data.manifest import Sample, labeled_samples

HIDDEN = ""
"""The label, and the answer, of what is not visible."""
_UNCERTAIN = 0.5
_NO_VALUE = {"sleeve": frozenset({"na"}), "length": frozenset({"no_dress"}), "neckline": frozenset({"none"})}
_BATCH = 32


@dataclass(frozen=True, slots=True)
class View:
    """A part of a garment, by the name of its cut, as the model sees it."""

    sample: Sample
    cut: str
    category: Floats  # (values,) probabilities
    context: CategoryContext
    view: Floats  # (d,), what attributes are read from


def evaluate_visibility(model: FashionModel, root: Path, split: str, fold: int | None = None) -> dict[str, Any]:
    """All metrics on a split, or on one of the `FOLDS` parts of its photos.

    Raises:
        ConfigError: Labels have faults, or the split has no labeled garments.
    """
    samples = [s for s in labeled_samples(root, split) if fold is None or fold_of(s.photo) == fold]
    if not samples:
        raise ConfigError(f"{root} has no labeled garments in split {split!r}; see the pack's README.md")
    known = [s for s in samples if s.source != "clothing"] + with_masks(root, samples, split)
    views = [*_views(model, known)]
    recognizer = model.recognizer("default", 1)
    groups = {group.name: group for group in recognizer.taxonomy.attributes if group.name in SHAPE}
    found = {name: _group_metrics(recognizer, group, views) for name, group in groups.items()}
    return {
        "garments": len(known),
        "views": {name: sum(view.cut == name for view in views) for name in CUTS},
        "groups": found,
        "not_visible_f1": float(np.mean([row["not_visible_f1"] for row in found.values()])),
        "visible_precision": float(np.mean([row["visible_precision"] for row in found.values()])),
        "visible_macro_f1": float(np.mean([row["visible_macro_f1"] for row in found.values()])),
        "category": _category_metrics(recognizer, views),
        "no_garment": _no_garment(recognizer, known),
        "users_photos": _users_photos(model, [s for s in samples if s.source == "clothing"]),
    }


def _views(model: FashionModel, samples: Sequence[Sample]) -> Iterator[View]:
    """Each garment's views, read and embedded garments by garments."""
    recognizer = model.recognizer("default", 1)
    starts = range(0, len(samples), _BATCH)
    for start in tracked(starts, "cut garments", len(starts), shown=True, unit="batches"):
        batch = [(one, *view) for one in samples[start : start + _BATCH] for view in cut_views(one, CUTS)]
        crops = recognizer.embed([crop for *_, crop, _ in batch], _BATCH)
        masked = recognizer.embed([inside for *_, inside in batch], _BATCH)
        for (sample, name, color, _, _), crop, inside in zip(batch, crops, masked, strict=True):
            category = recognizer.category_probabilities(crop, color)
            context = recognizer.category_context(category)
            yield View(sample, name, category, context, attribute_view(crop, inside))


def _group_metrics(recognizer: Recognizer, group: Group, views: Sequence[View]) -> dict[str, Any]:
    """F1 of "not visible" over all views, its share by view, and precision and macro-F1 on whole ones."""
    categories = {value.name: value for value in recognizer.taxonomy.category.values}
    labels = [(view, label_of(view.sample, view.cut, group, categories)) for view in views]
    rows = [(view.cut, label, _answer(recognizer, group, view)) for view, label in labels if label is not None]
    if not rows:
        raise ConfigError(f"no labeled garment has a {group.name} that can be hidden; see the pack's README.md")
    cuts, truth, said = (np.array(column) for column in zip(*rows, strict=True))
    whole = cuts == "whole"
    return {
        "not_visible_f1": f1(truth == HIDDEN, said == HIDDEN),
        "hidden": int((truth == HIDDEN).sum()),
        "shown": int((truth != HIDDEN).sum()),
        "visible_precision": accuracy(truth[whole], said[whole]),
        "visible_macro_f1": macro_f1(truth[whole], said[whole]),
        "not_visible": {
            f"{name}, {'hidden' if hidden else 'shown'}": float((said[chosen] == HIDDEN).mean())
            for name in CUTS
            for hidden in (True, False)
            if (chosen := (cuts == name) & ((truth == HIDDEN) == hidden)).any()
        },
    }


def label_of(sample: Sample, cut: str, group: Group, categories: Mapping[str, Value]) -> str | None:
    """The value that a view of a garment shows, `HIDDEN`, or None where it counts for nothing."""
    value, category = sample.attributes.get(group.name), categories.get(sample.category or "")
    if value is None or value in _NO_VALUE[group.name] or category is None or not group.applies(category):
        return None
    if holds(CUTS[cut].hides, group.name, value):
        return HIDDEN
    return value if holds(CUTS[cut].shows, group.name, value) else None


def _answer(recognizer: Recognizer, group: Group, view: View) -> str:
    """What recognition reports: the name of a value, or `HIDDEN`."""
    found = recognizer.attribute_probabilities(view.view, group, view.context)
    value = group.values[int(found.argmax())]
    unsure = float(found.max()) < recognizer.thresholds.get(group.name, 0.0)
    return HIDDEN if value.absent or unsure else value.name


def _category_metrics(recognizer: Recognizer, views: Sequence[View]) -> dict[str, Any]:
    names = [value.name for value in recognizer.taxonomy.category.values]
    kept = [view for view in views if view.sample.category in names]
    probability = np.array([float(view.category.max()) for view in kept])
    right = np.array([names[int(view.category.argmax())] == view.sample.category for view in kept])
    cuts = np.array([view.cut for view in kept])
    strip, whole = cuts == "strip", cuts == "whole"
    judged = strip | whole
    return {
        "top1_whole": float(right[whole].mean()),
        "top1_strip": float(right[strip].mean()),
        "calibration_error_whole": expected_calibration_error(probability[whole], right[whole]),
        "calibration_error_cuts": expected_calibration_error(probability[~whole], right[~whole]),
        "calibration_error_strip": expected_calibration_error(probability[strip], right[strip]),
        "not_visible_f1": f1(strip[judged], probability[judged] < _UNCERTAIN),
    }


def _no_garment(recognizer: Recognizer, samples: Sequence[Sample]) -> dict[str, Any]:
    """What is said of parts of the photos that show no garment, taken for regions."""
    empty = list(pieces(samples, np.random.default_rng(0)))
    rows = recognizer.embed((crop for *_, crop in empty), _BATCH)
    found = [
        recognizer.category_probabilities(row, color).max() for row, (_, color, _) in zip(rows, empty, strict=True)
    ]
    sure = np.array(found, np.float64)
    return {
        "pieces": len(sure),
        "mean_probability": float(sure.mean()) if empty else None,
        "at_least_half": float((sure >= _UNCERTAIN).mean()) if empty else None,
    }


def _users_photos(model: FashionModel, samples: Sequence[Sample]) -> dict[str, Any]:
    """Category of the largest region found, without boxes."""
    names = {value.name for value in model.recognizer("default", 1).taxonomy.category.values}
    kept = [sample for sample in samples if sample.category in names]
    truth, answers, probability = [], [], []
    for sample in tracked(kept, "users' photos", len(kept), shown=True):
        found = model.recognize(sample.photo, taxonomy="default", keep_image=False)
        garment = max(found.garments, key=lambda one: int(one.mask.sum()), default=None)
        truth.append(sample.category or "")
        answers.append(garment.category.name if garment else HIDDEN)
        probability.append(garment.category.probability if garment else np.nan)
    right, sure = np.array(truth) == np.array(answers), np.array(probability)
    answered = ~np.isnan(sure)
    metrics: dict[str, Any] = {"photos": len(kept), "without_region": int((~answered).sum())}
    return metrics | {
        "top1": float(right.mean()) if kept else None,
        "calibration_error": expected_calibration_error(sure[answered], right[answered]) if kept else None,
    }


def f1(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """F1 of (N,) bools; 0 where nothing is true or found."""
    return float(2 * (truth & found).sum() / max(1, truth.sum() + found.sum()))
