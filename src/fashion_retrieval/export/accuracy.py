"""Accuracy and speed of an exported model against torch in float32: cosines, and metrics on labeled images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.files import asset
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    from PIL import Image

    from fashion_retrieval.model import FashionModel

TEXTS, MODIFICATION_TEXTS = json.loads(asset("export_texts.json")).values()
LEAST_LABELED, LEAST_CATEGORIES, LEAST_OF_EACH = 200, 5, 10
"""Fewer labeled images or categories say too little about precision; a category counts if it has so many images."""
MOST_PRECISION_LOST, MOST_PRECISION_LOST_HIGH = 0.01, 0.02
"""The measured loss, and the upper end of its interval."""
LEAST_COSINE = 0.9999
_ONE_SIDED_95 = 1.645
_ROUNDS, _BATCH_SIZE = 5, 32


class Labeled(NamedTuple):
    """Files of images, and the label of each."""

    photos: list[Path]
    labels: list[str]


def measure(
    torch_model: FashionModel, exported: FashionModel, photos: Sequence[Path | Image.Image], labeled: Labeled | None
) -> dict[str, float]:
    """Metrics by name of an exported model, on `photos` if there are no labeled images; "…_torch": of the torch model.

    - photos, and with labels categories: how many; categories of at least `LEAST_OF_EACH` photos.
    - image_, text_ and query_cosine_min and _mean: between both models' embeddings of the same image, text (`TEXTS`) or
      image with a modification text (only with a composer).
    - precision: fraction of labeled images whose own label is the nearest of all labels. A label that is a category of
      the taxonomy is written as "a photo of" with the taxonomy's phrase.
    - precision_lost_high: upper end of the one-sided 95% interval of the lost precision, from paired images.
    - recall_at_10: an image's own label among its ten nearest images, relative to the most that ten can hold; the mean
      over the labeled images.
    - images_per_second, speed_ratio: from files to embeddings; medians of rounds in which the two models alternate. The
      ratio is the median of the rounds' ratios.
    """
    images = labeled.photos if labeled else list(photos)
    models = (torch_model, exported)
    pairs = [(model.encode(images=images), model.encode(texts=TEXTS)) for model in models]
    metrics = {"photos": float(len(images))}
    for name, expected, got in zip(("image", "text"), *pairs, strict=True):
        metrics |= _cosines(name, expected, got)
    if torch_model.config.composer is not None:
        some = images[:_BATCH_SIZE]
        texts = [MODIFICATION_TEXTS[index % len(MODIFICATION_TEXTS)] for index in range(len(some))]
        metrics |= _cosines("query", *(model.compose(some, texts) for model in models))
    if labeled is not None:
        metrics["categories"] = float(sum(count >= LEAST_OF_EACH for count in Counter(labeled.labels).values()))
        correct = [_correct(model, rows, labeled.labels) for model, (rows, _) in zip(models, pairs, strict=True)]
        for suffix, hits, (rows, _) in zip(("_torch", ""), correct, pairs, strict=True):
            metrics[f"precision{suffix}"] = float(hits.mean())
            metrics[f"recall_at_10{suffix}"] = _recall_at_10(rows, labeled.labels)
        lost = correct[0].astype(np.float64) - correct[1]
        metrics["precision_lost_high"] = float(lost.mean() + _ONE_SIDED_95 * lost.std() / sqrt(len(lost)))
    return metrics | _speed(torch_model, exported, images[:_BATCH_SIZE])


def failed_criterion(precision: str, metrics: Mapping[str, float]) -> str | None:
    """Why an exported model may not stand in for torch, or None if it passes the accuracy check.

    At least `LEAST_LABELED` labeled images of `LEAST_CATEGORIES` categories decide: of the precision at most
    `MOST_PRECISION_LOST` may be lost, and the upper end of the interval of the loss may be `MOST_PRECISION_LOST_HIGH`.
    With fewer, int8 does not pass, and the mean cosines of other precisions must reach `LEAST_COSINE`.
    """
    count, categories = (int(metrics[name]) if "precision" in metrics else 0 for name in ("photos", "categories"))
    if count >= LEAST_LABELED and categories >= LEAST_CATEGORIES:
        lost, high = metrics["precision_torch"] - metrics["precision"], metrics["precision_lost_high"]
        if lost <= MOST_PRECISION_LOST and high <= MOST_PRECISION_LOST_HIGH:
            return None
        most = f"at most {MOST_PRECISION_LOST} (at most {MOST_PRECISION_LOST_HIGH})"
        return f"precision lost must be {most}, got {lost:.4f} (at most {high:.4f})"
    if precision == "int8":
        expected = f"{LEAST_LABELED} labeled photos of {LEAST_CATEGORIES} categories with {LEAST_OF_EACH} photos each"
        return f"int8 needs at least {expected}, got {count} of {categories}"
    cosine = min(metrics[name] for name in metrics if name.endswith("_mean"))
    return None if cosine >= LEAST_COSINE else f"mean cosines must be at least {LEAST_COSINE}, got {cosine:.6f}"


def _cosines(name: str, expected: NDArray[np.float32], got: NDArray[np.float32]) -> dict[str, float]:
    cosines = (expected.astype(np.float64) * got).sum(axis=1)
    return {f"{name}_cosine_min": float(cosines.min()), f"{name}_cosine_mean": float(cosines.mean())}


def _correct(model: FashionModel, images: NDArray[np.float32], labels: Sequence[str]) -> NDArray[np.bool_]:
    """For each image, whether its own label is the nearest."""
    names = sorted(set(labels))
    phrases = {value.name: value.phrases[0] for value in Taxonomy.load(model.config.taxonomy).category.values}
    texts = model.encode(texts=[f"a photo of {phrases.get(name, name.replace('_', ' '))}" for name in names])
    correct: NDArray[np.bool_] = np.array(names)[(images @ texts.T).argmax(axis=1)] == np.array(labels)
    return correct


def _recall_at_10(images: NDArray[np.float32], labels: Sequence[str]) -> float:
    names, scores = np.unique(labels, return_inverse=True)[1], images @ images.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1)[:, : min(10, len(labels) - 1)]
    found = (names[nearest] == names[:, None]).sum(axis=1)
    possible = np.minimum(10, (names == names[:, None]).sum(axis=1) - 1)
    return float(np.mean(found[possible > 0] / possible[possible > 0])) if possible.any() else 0.0


def _speed(torch_model: FashionModel, exported: FashionModel, photos: Sequence[Path | Image.Image]) -> dict[str, float]:
    def seconds(model: FashionModel) -> float:
        start = perf_counter()
        model.encode(images=photos)
        return perf_counter() - start

    times = [(seconds(torch_model), seconds(exported)) for _ in range(_ROUNDS + 1)][1:]  # the first warms up
    before, after = (len(photos) / median(column) for column in zip(*times, strict=True))
    ratio = median(first / second for first, second in times)
    return {"images_per_second_torch": before, "images_per_second": after, "speed_ratio": ratio}
