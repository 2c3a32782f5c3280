"""Recognition on DeepFashion by the paper's protocol (its Tables 1 and 4).

Zero-shot, group by group, over the photos with a label of the group: the likeliest of the prompts
"a photo of {attribute} {category}", where the category is the likeliest of "a photo of {color} {category}".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval._utils.scores import mean_interval
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.towers import Floats
from fashion_retrieval.models.zero_shot import attribute_view
from training.data.crops import read_crop
from training.data.deepfashion import COLORS, MASKS, read_samples
from training.data.deepfashion_labels import MERGED
from training.data.io import readable, shown
from training.data.manifest import Sample
from training.evaluation.attribute_groups import correct_signs, group_metrics, precision_scores, predict_group

TAXONOMY = "deepfashion"
_BATCH = 64


class View(StrEnum):
    """What the model is shown of a photo."""

    MASKED_CROP = "masked_crop"
    """As in the paper: the crop for the category, the crop without its background for attributes."""
    CROP = "crop"
    WHOLE_PHOTO = "whole_photo"
    """For category and attributes, the other row of Table 4."""
    AS_RECOGNIZED = "as_recognized"
    """As `FashionModel.recognize`: attributes from both crops, prompts with the three likeliest categories."""


NEED_MASKS = {View.MASKED_CROP, View.AS_RECOGNIZED}


def read_garments(root: Path, split: str, views: Sequence[View]) -> list[Sample]:
    """The garments of a split with prepared colors and, if a view needs them, masks.

    Raises:
        ConfigError: The faults of `read_samples`, or photos or masks can't be decoded.
    """
    masks = root / MASKS if NEED_MASKS & {*views} else None
    return decodable(root, read_samples(root, [split], masks=masks, colors=root / COLORS))


def decodable(root: Path, samples: list[Sample]) -> list[Sample]:
    """Check that photos and masks of samples can be decoded, and return the samples.

    Raises:
        ConfigError: Some can't be; the message names them.
    """
    broken = [s.id for s in samples if not all(readable(f) for f in (s.photo, s.mask) if f)]
    if broken:
        raise ConfigError(f"{root}: {len(broken)} photos can't be read: {shown(broken)}; copy or prepare them again")
    return samples


def evaluate_deepfashion(
    model: FashionModel, samples: Sequence[Sample], views: Sequence[View], *, seed: int = 0
) -> dict[View, dict[str, Any]]:
    """Metrics by view."""
    embedded = _embed(model, samples, views)
    return {view: _metrics(model, samples, embedded, view, seed) for view in views}


def _embed(model: FashionModel, samples: Sequence[Sample], views: Sequence[View]) -> dict[View, Floats]:
    """Embeddings (N, d) float32 of each way to cut that a view needs."""
    recognizer = model.recognizer(TAXONOMY, 1)
    needed = {View.WHOLE_PHOTO} & {*views}
    needed |= {View.CROP} if {*views} - needed else set()
    needed |= {View.MASKED_CROP} if NEED_MASKS & {*views} else set()
    rows: dict[View, list[Floats]] = {view: [] for view in sorted(needed)}
    starts = range(0, len(samples), _BATCH)
    for start in tracked(starts, "encoding garments", len(starts), shown=True, unit="batches"):
        for view, found in rows.items():
            found.append(recognizer.embed([_cut(s, view) for s in samples[start : start + _BATCH]], _BATCH))
    return {view: np.concatenate(found) for view, found in rows.items()}


def _cut(sample: Sample, view: View) -> Image.Image:
    whole = replace(sample, box=None, mask=None)
    return read_crop(whole if view == View.WHOLE_PHOTO else sample, masked=view == View.MASKED_CROP)


def _metrics(
    model: FashionModel, samples: Sequence[Sample], embedded: dict[View, Floats], view: View, seed: int
) -> dict[str, Any]:
    recognizer = model.recognizer(TAXONOMY, 1)
    crop = embedded[View.WHOLE_PHOTO if view == View.WHOLE_PHOTO else View.CROP]
    shown = attribute_view(crop, embedded[View.MASKED_CROP]) if view == View.AS_RECOGNIZED else embedded[view]
    contexts = [
        recognizer.category_context(recognizer.category_probabilities(row, sample.color or ""))
        for row, sample in zip(crop, samples, strict=True)
    ]
    best = [context[0][0] for context in contexts]
    if view != View.AS_RECOGNIZED:
        contexts = [[(value, 1.0)] for value in best]
    predictions = {}
    for group in recognizer.taxonomy.attributes:
        labels = {i: s.attributes[group.name] for i, s in enumerate(samples) if group.name in s.attributes}
        predictions[group.name] = predict_group(recognizer, group, shown, contexts, labels)
    signs = correct_signs(predictions, len(samples))
    metrics = group_metrics(predictions, np.ones(len(samples), dtype=bool))
    for name, line in signs.items():
        if name in metrics:
            metrics[name]["precision_interval"] = precision_scores({name: line}).interval(seed=seed)
    metrics["mean_precision_interval"] = precision_scores(signs).interval(seed=seed)
    correct = np.array([MERGED.get(v.name, v.name) == s.category for v, s in zip(best, samples, strict=True)])
    metrics["category"] = {"top1": float(correct.mean()), "top1_interval": mean_interval(correct, seed=seed)}
    return metrics | {"right": signs}
