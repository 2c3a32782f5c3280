"""How near an exported model comes to torch in float32: cosines, precision and recall on labeled photos, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    from PIL import Image

    from fashion_retrieval import FashionModel

TEXTS = (
    "a photo of red dress",
    "a photo of striped button-down shirt",
    "a black leather jacket with a zip",
    "blue jeans",
    "a floral maxi skirt with pleats",
    "wide-legged linen trousers, high at the waist",
    "a knitted turtleneck sweater",
    "white sneakers",
)
CHANGES = ("in black", "with long sleeves and a collar", "shorter and striped", "the same in denim")
MOST_PRECISION_LOST = 0.01
LEAST_COSINE = 0.9999
_ROUNDS, _AT_A_TIME = 5, 32


@dataclass(frozen=True, slots=True)
class Labeled:
    """Photos with one label each.

    Attributes:
        photos: Files.
        labels: Of each photo.
    """

    photos: list[Path]
    labels: list[str]


def measure(
    torch_model: FashionModel,
    exported: FashionModel,
    photos: Sequence[Path | Image.Image],
    labeled: Labeled | None,
) -> dict[str, float]:
    """Figures by name; those that end in "_torch" are of the float32 model.

    - image_, text_ and query_cosine_min and _mean: between both models' embeddings of the same photo, text (`TEXTS`) or
      photo with a change (`CHANGES`; only with a composer).
    - precision, precision_torch: share of labeled photos whose label is the nearest of all, as "a photo of …", in the
      taxonomy's own phrase for a category of it.
    - recall_at_10, recall_at_10_torch: labeled photos that are searched for the others find so many of their own label
      among the nearest ten, of those that ten could hold; the mean over the photos.
    - images_per_second, images_per_second_torch, speed_ratio: from files to embeddings, medians of rounds in which the
      two take turns; the ratio is the median of the rounds' ratios.

    Args:
        torch_model: The model, computed by torch in float32.
        exported: The same model, exported.
        photos: For cosines and speed, where there are no labeled ones.
        labeled: For all figures.
    """
    shown = labeled.photos if labeled else list(photos)
    pairs = [(model.encode(images=shown), model.encode(texts=TEXTS)) for model in (torch_model, exported)]
    figures = {"photos": float(len(shown))}
    for name, ours, theirs in zip(("image", "text"), *pairs, strict=True):
        figures |= _cosines(name, ours, theirs)
    if torch_model.config.composer is not None:
        some = shown[:_AT_A_TIME]
        changes = [CHANGES[index % len(CHANGES)] for index in range(len(some))]
        figures |= _cosines("query", torch_model.compose(some, changes), exported.compose(some, changes))
    if labeled is not None:
        for suffix, model, (images, _) in zip(("_torch", ""), (torch_model, exported), pairs, strict=True):
            figures[f"precision{suffix}"] = _precision(model, images, labeled.labels)
            figures[f"recall_at_10{suffix}"] = _recall(images, labeled.labels)
    return figures | _speed(torch_model, exported, shown[:_AT_A_TIME])


def keeps(precision: str, figures: Mapping[str, float]) -> bool:
    """Whether an exported model may stand in for torch: labeled photos decide, without them the cosines.

    At most `MOST_PRECISION_LOST` of the precision may be lost; without labeled photos int8 stays unproven, and the
    mean cosines of the others must reach `LEAST_COSINE`.
    """
    if "precision" in figures:
        return figures["precision_torch"] - figures["precision"] <= MOST_PRECISION_LOST
    return precision != "int8" and min(figures[name] for name in figures if name.endswith("_mean")) >= LEAST_COSINE


def _cosines(name: str, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, float]:
    cosines = (ours.astype(np.float64) * theirs).sum(axis=1)
    return {f"{name}_cosine_min": float(cosines.min()), f"{name}_cosine_mean": float(cosines.mean())}


def _precision(model: FashionModel, images: NDArray[np.float32], labels: Sequence[str]) -> float:
    names = sorted(set(labels))
    phrases = {value.name: value.phrases[0] for value in Taxonomy.load(model.config.taxonomy).category.values}
    texts = model.encode(texts=[f"a photo of {phrases.get(name, name.replace('_', ' '))}" for name in names])
    nearest = (images @ texts.T).argmax(axis=1)
    return float(np.mean([names[index] == label for index, label in zip(nearest, labels, strict=True)]))


def _recall(images: NDArray[np.float32], labels: Sequence[str]) -> float:
    names = np.array(labels)
    scores = images @ images.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1)[:, : min(10, len(labels) - 1)]
    shares = []
    for label, found in zip(names, nearest, strict=True):
        possible = min(10, int((names == label).sum()) - 1)
        if possible:
            shares.append((names[found] == label).sum() / possible)
    return float(np.mean(shares)) if shares else 0.0


def _speed(torch_model: FashionModel, exported: FashionModel, photos: Sequence[Path | Image.Image]) -> dict[str, float]:
    times = []
    for round_ in range(_ROUNDS + 1):
        row = []
        for model in (torch_model, exported):
            start = perf_counter()
            model.encode(images=photos)
            row.append(perf_counter() - start)
        if round_:
            times.append(row)
    before, after = (median(column) for column in zip(*times, strict=True))
    return {
        "images_per_second_torch": len(photos) / before,
        "images_per_second": len(photos) / after,
        "speed_ratio": median(first / second for first, second in times),
    }
