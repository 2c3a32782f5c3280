"""Recognition on DeepFashion by the paper's protocol (its Tables 1 and 4).

Zero-shot, group by group: of the prompts "a photo of {attribute} {category}" that with the highest probability, over
the photos that carry a label of the group; the category is the likeliest by "a photo of {color} {category}".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.zero_shot import attribute_view
from fashion_retrieval.taxonomy import Taxonomy
from training.data.crops import read_crop
from training.data.deepfashion import COLORS, MASKS, read_samples
from training.data.deepfashion_labels import MERGED
from training.data.io import readable, shown
from training.data.manifest import Sample
from training.evaluation.attribute_groups import Nouns, group_figures, guess_group, marks, precision_outcomes
from training.evaluation.significance import Outcomes

TAXONOMY = "deepfashion"
_BATCH = 64


class View(StrEnum):
    """What the model is shown of a photo."""

    MASKED_CROP = "masked_crop"
    """The paper's: the crop for the category, the crop without what the mask leaves out for attributes."""
    CROP = "crop"
    WHOLE_PHOTO = "whole_photo"
    """For both, the other row of Table 4."""
    AS_RECOGNISED = "as_recognized"
    """As `FashionModel.recognize`: attributes from both crops, prompts with the three likeliest categories."""


NEED_MASKS = {View.MASKED_CROP, View.AS_RECOGNISED}


def read_garments(root: Path, split: str, views: Sequence[View]) -> list[Sample]:
    """The garments of a split with prepared colors and, if a view needs them, masks.

    Raises:
        ConfigError: As `read_samples`, and photos or masks that can't be decoded.
    """
    masks = root / MASKS if NEED_MASKS & {*views} else None
    return decodable(root, read_samples(root, [split], masks=masks, colors=root / COLORS))


def decodable(root: Path, samples: list[Sample]) -> list[Sample]:
    """The same samples, once all their files were decoded.

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
    """Figures by view.

    Args:
        model: Any dual encoder.
        samples: Of `read_garments`.
        views: What it is shown.
        seed: Of the bootstrap over photos.
    """
    embedded = _embed(model, samples, views)
    return {view: _figures(model, samples, embedded, view, seed) for view in views}


def _embed(model: FashionModel, samples: Sequence[Sample], views: Sequence[View]) -> dict[View, Tensor]:
    """(N, d) by way of cutting, each only if a view needs it."""
    recognizer = model._recognizer(TAXONOMY, 1)
    needed = {View.WHOLE_PHOTO} & {*views}
    needed |= {View.CROP} if {*views} - needed else set()
    needed |= {View.MASKED_CROP} if NEED_MASKS & {*views} else set()
    rows: dict[View, list[Tensor]] = {view: [] for view in sorted(needed)}
    for start in track(range(0, len(samples), _BATCH), "encoding garments"):
        for view, found in rows.items():
            cut = [_cut(sample, view) for sample in samples[start : start + _BATCH]]
            found.append(recognizer.embed(cut, _BATCH))
    return {view: torch.cat(found) for view, found in rows.items()}


def _cut(sample: Sample, view: View) -> Any:  # noqa: ANN401  # a PIL image
    whole = replace(sample, box=None, mask=None)
    return read_crop(whole if view == View.WHOLE_PHOTO else sample, masked=view == View.MASKED_CROP)


def _figures(
    model: FashionModel, samples: Sequence[Sample], embedded: dict[View, Tensor], view: View, seed: int
) -> dict[str, Any]:
    recognizer, vocabulary = model._recognizer(TAXONOMY, 1), Taxonomy.load(TAXONOMY)
    crop = embedded[View.WHOLE_PHOTO if view == View.WHOLE_PHOTO else View.CROP]
    shown = attribute_view(crop, embedded[View.MASKED_CROP]) if view == View.AS_RECOGNISED else embedded[view]
    shares = [recognizer.category_probabilities(row, s.color or "") for row, s in zip(crop, samples, strict=True)]
    nouns: list[Nouns] = [recognizer.nouns(of_one) for of_one in shares]
    best = [found[0][0] for found in nouns]
    if view != View.AS_RECOGNISED:
        nouns = [[(value, 1.0)] for value in best]
    guesses = {}
    for group in vocabulary.attributes:
        truths = {i: s.attributes[group.name] for i, s in enumerate(samples) if group.name in s.attributes}
        guesses[group.name] = guess_group(recognizer, group, shown, nouns, truths)
    right = marks(guesses, len(samples))
    figures = group_figures(guesses, np.ones(len(samples), dtype=bool))
    for name, line in _intervals(right, seed):
        figures[name]["precision_interval"] = line
    figures["mean_precision_interval"] = precision_outcomes(right).interval(seed=seed)
    hits = np.array([MERGED.get(v.name, v.name) == s.category for v, s in zip(best, samples, strict=True)])
    figures["category"] = {"top1": float(hits.mean()), "top1_interval": Outcomes.of_groups([hits]).interval(seed=seed)}
    return figures | {"right": right}


def _intervals(right: dict[str, str], seed: int) -> Iterator[tuple[str, list[float]]]:
    for name, line in right.items():
        if line.strip("-"):
            yield name, precision_outcomes({name: line}).interval(seed=seed)
