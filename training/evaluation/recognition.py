"""Recognition of labeled regions: attributes, category, color, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval._utils.scores import accuracy, macro_f1, mean_interval
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.inference.colors import PixelColors, dominant_colors
from fashion_retrieval.inference.recognition import CategoryContext
from fashion_retrieval.models.towers import Floats
from fashion_retrieval.models.zero_shot import attribute_view
from fashion_retrieval.taxonomy import Taxonomy
from training.data.crops import read_crop
from training.data.io import readable, shown
from training.data.manifest import GROUPS, Sample, labeled_samples, region_mask
from training.evaluation.attribute_groups import (
    Predictions,
    correct_signs,
    group_metrics,
    precision_scores,
    predict_group,
)

# Column of attributes.jsonl -> group of the deepfashion taxonomy, and label -> its value (the pack's README).
DEEPFASHION_GROUPS = {
    "texture": "texture", "sleeve": "sleeve_length", "length": "dress_length",
    "neckline": "neckline", "fabric": "fabric", "fit": "fit",
}  # fmt: skip
DEEPFASHION_VALUES = {
    "texture": dict.fromkeys(["dotted", "animal", "other_print", "colour_block"], "graphic"),
    "neckline": {
        **dict.fromkeys(["crew", "scoop", "boat"], "crew_neckline"), "v": "v_neckline", "square": "square_neckline",
        **dict.fromkeys(["collar", "turtleneck", "hooded", "strapless_halter", "none"], "no_neckline"),
    },
}  # fmt: skip
NOT_IN_PACK = frozenset(
    {"sneakers", "dress_shoes", "heels", "flats", "sandals", "flip_flops", "boots", "handbag", "backpack", "clutch"}
    | {"wallet", "hat", "scarf", "belt", "tie", "sunglasses", "watch", "jewellery", "socks"}
)
"""Categories of the default taxonomy that attributes.jsonl does not label."""
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Garments:
    """The labeled garments of a split as the model sees them; pixels are not kept.

    Attributes:
        samples: Photo, region and labels of each, N of them.
        whole: Embeddings of the whole photos, (N, d) float32, L2-normalized.
        crop: Embeddings of the crops, likewise.
        masked: Embeddings of the crops without background, likewise.
        category: Probability of each category of the default taxonomy, (N, values) float32.
        contexts: The likeliest categories, which attribute prompts name.
        colors: The dominant color that recognition reports.
    """

    samples: list[Sample]
    whole: Floats
    crop: Floats
    masked: Floats
    category: Floats
    contexts: list[CategoryContext]
    colors: list[str]

    @property
    def view(self) -> Floats:
        """Embeddings that attributes are read from, (N, d)."""
        return attribute_view(self.crop, self.masked)

    @property
    def sources(self) -> NDArray[np.str_]:
        """Part of the pack that each comes from, (N,)."""
        return np.array([sample.source for sample in self.samples])

    def labels(self, group: str) -> dict[int, str]:
        """Label of a group by row, of the garments that have one."""
        return {i: s.attributes[group] for i, s in enumerate(self.samples) if group in s.attributes}


def embed_split(model: FashionModel, root: Path, split: str) -> Garments:
    """Encode whole photo, crop and masked crop of each labeled garment, and name its categories and color.

    Photos are read batch by batch, so that memory does not grow with the split.

    Raises:
        ConfigError: Labels have faults, the split has none, or photos or masks can't be read.
    """
    samples = labeled_samples(root, split)
    broken = [f.name for s in samples for f in (s.photo, s.mask) if f is not None and not readable(f)]
    if broken or not samples:
        unread = f"{len(broken)} photos or masks can't be read: {shown(broken)}"
        fault = unread if broken else f"none of split {split!r}"
        raise ConfigError(f"labeled garments in {root}: {fault}; see the pack's README.md")
    starts = range(0, len(samples), _BATCH)
    batches = [
        _embed(model, samples[start : start + _BATCH])
        for start in tracked(starts, "labeled garments", len(starts), shown=True, unit="batches")
    ]
    return Garments(
        samples=samples,
        whole=np.concatenate([batch.whole for batch in batches]),
        crop=np.concatenate([batch.crop for batch in batches]),
        masked=np.concatenate([batch.masked for batch in batches]),
        category=np.concatenate([batch.category for batch in batches]),
        contexts=[context for batch in batches for context in batch.contexts],
        colors=[color for batch in batches for color in batch.colors],
    )


def _embed(model: FashionModel, samples: list[Sample]) -> Garments:
    recognizer = model.recognizer("default", 1)
    photos = [read_crop(replace(sample, box=None), masked=False) for sample in samples]
    crops = [photo.crop(sample.box) if sample.box else photo for photo, sample in zip(photos, samples, strict=True)]
    located = [i for i, sample in enumerate(samples) if sample.mask is not None]
    crop = recognizer.embed(crops, _BATCH)
    whole, masked = crop.copy(), crop.copy()
    masked[located] = recognizer.embed([read_crop(samples[i], masked=True) for i in located], _BATCH)
    whole[located] = recognizer.embed([photos[i] for i in located], _BATCH)
    categories, contexts, colors = [], [], []
    for i, sample in enumerate(samples):
        pixels, mask = np.asarray(photos[i]), region_mask(sample)
        if mask is None and model.segmenter is not None:  # the largest garment found
            mask = next((region.mask for region in model.segmenter.segment(photos[i])), None)
        mask = np.ones(pixels.shape[:2], dtype=bool) if mask is None else mask
        categories.append(recognizer.category_probabilities(crop[i], dominant_colors(pixels, mask)[0].name))
        contexts.append(recognizer.category_context(categories[i]))
        colors.append(recognizer.colors(PixelColors.compute(pixels, mask), masked[i], contexts[i][0][0])[0].name)
    return Garments(samples, whole, crop, masked, np.stack(categories), contexts, colors)


def evaluate_recognition(model: FashionModel, garments: Garments, *, seed: int = 0) -> dict[str, Any]:
    """All metrics of a split's labeled garments."""
    sources, every = garments.sources, np.ones(len(garments.samples), dtype=bool)
    predictions = _predict_deepfashion(model, garments, garments.view)
    parts = {"all": every, **{name: sources == name for name in np.unique(sources).tolist()}}
    deepfashion = {name: group_metrics(predictions, chosen) for name, chosen in parts.items()}
    signs = correct_signs(predictions, len(sources))
    deepfashion["all"]["mean_precision_interval"] = precision_scores(signs).interval(seed=seed)
    recognizer = model.recognizer("default", 1)
    default = {
        group.name: predict_group(recognizer, group, garments.view, garments.contexts, garments.labels(group.name))
        for group in recognizer.taxonomy.attributes
        if group.name in GROUPS
    }
    return {
        "garments": len(sources),
        "deepfashion": deepfashion,
        "right": signs,
        "views_on_street": _views_on_street(model, garments),
        "category": _category_metrics(garments, seed),
        "color": _top1([sample.color for sample in garments.samples], garments.colors, sources, seed),
        "default": group_metrics(default, every),
    }


def _predict_deepfashion(model: FashionModel, garments: Garments, embeddings: Floats) -> dict[str, Predictions]:
    """Predictions by column of the pack, in the vocabulary of DeepFashion."""
    recognizer = model.recognizer("deepfashion", 1)
    groups = {group.name: group for group in recognizer.taxonomy.attributes}
    predictions = {}
    for column in GROUPS:
        values = DEEPFASHION_VALUES.get(column, {})
        labels = {i: values.get(label, label) for i, label in garments.labels(column).items()}
        group = groups[DEEPFASHION_GROUPS[column]]
        predictions[column] = predict_group(recognizer, group, embeddings, garments.contexts, labels)
    return predictions


def _views_on_street(model: FashionModel, garments: Garments) -> dict[str, float]:
    """Mean precision on street photos by what the model is shown, as in the paper's Table 4."""
    street = garments.sources == "street"
    if not street.any():
        return {}
    views = {"whole_photo": garments.whole, "crop": garments.crop, "masked_crop": garments.masked}
    views["as_recognized"] = garments.view
    means: dict[str, float] = {
        name: group_metrics(_predict_deepfashion(model, garments, view), street)["mean_precision"]
        for name, view in views.items()
    }
    return means | {"region_over_whole_photo": means["masked_crop"] - means["whole_photo"]}


def _category_metrics(garments: Garments, seed: int) -> dict[str, Any]:
    """Top-1 among the categories that the pack labels, and among all of the default taxonomy."""
    names = np.array([value.name for value in Taxonomy.load("default").category.values])
    among_all = names[garments.category.argmax(axis=1)]
    among_pack = names[(garments.category * ~np.isin(names, [*NOT_IN_PACK])).argmax(axis=1)]
    truth = [sample.category or "" for sample in garments.samples]
    more = {"top1_of_all": accuracy(truth, among_all), "macro_f1": macro_f1(truth, among_pack)}
    return _top1(truth, among_pack, garments.sources, seed) | more


def _top1(
    truth: Sequence[str | None], predicted: Sequence[str] | NDArray[np.str_], sources: NDArray[np.str_], seed: int
) -> dict[str, Any]:
    """Fraction of equal labels with its 95% interval, and by source."""
    correct = np.array([label == name for label, name in zip(truth, predicted, strict=True)])
    by_source = {name: float(correct[sources == name].mean()) for name in np.unique(sources).tolist()}
    return {"top1": float(correct.mean()), "top1_interval": mean_interval(correct, seed=seed), **by_source}
