"""Text to image and image to text (the paper's Table 2), over the product names of a split of the open data pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.significance import ItemScores
from fashion_retrieval.errors import ConfigError
from training.data.io import read_rows, readable, shown
from training.evaluation.metrics import rank_targets, recall_metrics
from training.evaluation.results_file import words

KS = (3, 5, 10, 50)
WAYS = ("text_to_image", "image_to_text")


class DualEncoder(Protocol):
    """The method of `FashionModel` that is measured here."""

    def encode(
        self, *, images: list[Path] | None = None, texts: list[str] | None = None, progress: bool = False
    ) -> NDArray[np.float32]:
        """Photos or texts -> (N, D)."""


def evaluate_retrieval(model: DualEncoder, root: Path, split: str, *, seed: int = 0) -> dict[str, Any]:
    """Recalls as fractions, with 95% intervals, over the products of a split.

    Text to image: each product's name against all photos; a photo of any product of that name is correct.
    Image to text: each photo against the different names.

    Raises:
        ConfigError: A product has no name or no readable photo, or the split has no products.
    """
    names, photos = read_products(root, split)
    images = model.encode(images=photos, progress=True)
    metrics = match_texts(model, images, names, seed=seed)
    return {"products": len(names), "names": metrics.pop("texts"), **metrics, "ids": [photo.stem for photo in photos]}


def match_texts(
    model: DualEncoder, images: NDArray[np.float32], texts: Sequence[str], *, own: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Recalls between photos and their texts, in both directions.

    `images` are (N, D) float32, L2-normalized. With `own` only a photo's own text is correct, else every equal text.
    """
    different = list(texts) if own else list(dict.fromkeys(texts))
    places = {text: place for place, text in enumerate(different)}
    labels = np.arange(len(texts)) if own else np.array([places[text] for text in texts])
    rows = model.encode(texts=different, progress=True)
    to_image = rank_labels(rows[labels], images, labels, labels)
    to_text = rank_labels(images, rows, labels, np.arange(len(different)))
    return {
        "texts": len(set(texts)),
        "text_to_image": {"gallery": len(images), "queries": len(to_image), **recall_metrics(to_image, KS, seed=seed)},
        "image_to_text": {"gallery": len(different), "queries": len(to_text), **recall_metrics(to_text, KS, seed=seed)},
    }


def retrieval_scores(metrics: Mapping[str, Any]) -> dict[str, ItemScores]:
    """Scores behind each recall of `match_texts`; an item is a query."""
    return {
        f"{words(way)} R@{k}": ItemScores.of_groups([np.array(metrics[way]["ranks"]) <= k]) for way in WAYS for k in KS
    }


def read_products(root: Path, split: str) -> tuple[list[str], list[Path]]:
    """Name and photo of each product of a split.

    Raises:
        ConfigError: A product has no name or no readable photo, or the split has no products.
    """
    faults: list[str] = []
    rows = read_rows(root / "products.jsonl", ("id", "split", "name"), faults)
    splits = sorted({str(row["split"]) for row in rows})
    rows = [row for row in rows if row["split"] == split]
    photos = [root / "products" / split / f"{row['id']}.jpg" for row in rows]
    if splits and not rows:
        faults.append(f"products.jsonl has no rows of split {split!r}; it has {', '.join(splits)}")
    nameless = [str(row["id"]) for row in rows if not isinstance(row["name"], str) or not row["name"].strip()]
    missing = [photo.name for photo in photos if not readable(photo)]
    for what, ids in (("have no name", nameless), ("have no photo that can be read", missing)):
        if ids:
            faults.append(f"{len(ids)} of {len(rows)} products {what}: {shown(ids)}")
    if faults:
        raise ConfigError(f"products in {root}: {'; '.join(faults)}")
    return [row["name"] for row in rows], photos


def rank_labels(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    query_labels: NDArray[np.int64],
    gallery_labels: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The rank, from 1, of the best row with the query's own label.

    Queries (Q, D) and gallery (N, D) are float32, L2-normalized; each query's label occurs in the gallery.
    """
    asked, right = np.nonzero(query_labels[:, None] == gallery_labels)
    ranks = np.full(len(queries), len(gallery), dtype=np.int64)
    np.minimum.at(ranks, asked, rank_targets(queries[asked], gallery, right))
    return ranks
