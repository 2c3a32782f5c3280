"""Fit the basis of a model's shorter embeddings (`encode(dimensions=)`), and measure it on the open data pack.

    python -m training.fit_dimensions --data ../shared/data --out runs/dimensions

The basis is orthogonal: the eigenvectors of the second moments of photos and of texts, in equal parts, largest first
(PCA without centering, which cosines have none of). It is fitted on `train` and measured on `val`, beside a plain cut.
`--out` gets the model with its `dimensions.safetensors`; embeddings of full width are what they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from fashion_retrieval import FashionModel
from fashion_retrieval.checkpoint.folder import load
from fashion_retrieval.hub.download import EMBEDDED, resolve
from fashion_retrieval.inference.vectors import shortened
from training.data.manifest import read_lines
from training.engine.errors import one_line_errors
from training.evaluation.results_file import RESULTS, check_output, provenance, write_results
from training.evaluation.retrieval import rank_labels

SOURCES = ("products", "clothing", "street")
TOP_K = 10
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A split's photos (N, D), and of the products, which come first, names (M, D) and labels.

    `named` is the name's row by product; `kinds` has an equal number for products of equal type and color.
    """

    photos: Vectors
    names: Vectors
    named: NDArray[np.int64]
    kinds: NDArray[np.int64]


def embed(model: FashionModel, data: Path, split: str, cache: Path) -> Embedded:
    """Embed a split, or read it from the cache of an earlier run with the same model."""
    rows = {source: read_lines(data / f"{source}.jsonl", split) for source in SOURCES}
    path = cache / f"{split}_{model.fingerprint[:16]}.npz"
    names = [row["name"] for row in rows["products"]]
    different = list(dict.fromkeys(names))
    if not path.is_file():
        paths = [data / source / split / f"{row['id']}.jpg" for source in SOURCES for row in rows[source]]
        path.parent.mkdir(parents=True, exist_ok=True)
        photos = model.encode(images=paths, progress=True)
        np.savez(path, photos=photos, names=model.encode(texts=different, progress=True))
    with np.load(path) as kept:
        photos, texts = kept["photos"], kept["names"]
    kinds = [(row["article_type"], row["base_colour"]) for row in rows["products"]]
    return Embedded(photos, texts, _numbers(names), _numbers(kinds))


def fit_basis(photos: Vectors, texts: Vectors) -> Vectors:
    """(D, D) float32 that float16 holds: the directions of L2-normalized rows, those that tell most first."""
    moments = [rows.astype(np.float64).T @ rows.astype(np.float64) / len(rows) for rows in (photos, texts)]
    _, directions = np.linalg.eigh(sum(moments))
    basis: Vectors = np.ascontiguousarray(directions[:, ::-1]).astype(np.float16).astype(np.float32)
    return basis


def measure(split: Embedded, dimensions: int | None, basis: Vectors | None) -> dict[str, float]:
    """Recalls at 10 and how much of the ten nearest photos stays, as fractions.

    Text to photo: a product's name among the products' photos; one of that name is right. Photo to photo: a product's
    photo among the others; one of the same type and color is right, where there is one.
    """
    photos, names = (shortened(rows, dimensions, basis) for rows in (split.photos, split.names))
    products = photos[: len(split.named)]
    to_photo = rank_labels(names[split.named], products, split.named, split.named)
    alike = products @ products.T
    np.fill_diagonal(alike, -np.inf)
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :TOP_K]
    same = split.kinds[nearest] == split.kinds[:, None]
    asked = np.bincount(split.kinds)[split.kinds] > 1
    kept = [
        len(np.intersect1d(left, right)) / TOP_K
        for left, right in zip(_nearest(photos), _nearest(split.photos), strict=True)
    ]
    return {
        "text_to_photo_recall_at_10": float((to_photo <= TOP_K).mean()),
        "photo_to_photo_recall_at_10": float(same.any(axis=1)[asked].mean()),
        "overlap_at_10": float(np.mean(kept)),
    }


def compare(split: Embedded, basis: Vectors) -> dict[str, Mapping[str, Any]]:
    """`measure` at full width, and at half, a quarter and an eighth of it: a plain cut beside the basis."""
    width = len(basis)
    found: dict[str, Mapping[str, Any]] = {str(width): {"full": measure(split, None, None)}}
    for dimensions in (width // 2, width // 4, width // 8):
        ways = {"cut": None, "basis": basis}
        found[str(dimensions)] = {way: measure(split, dimensions, given) for way, given in ways.items()}
    return found


def _nearest(photos: Vectors) -> NDArray[np.intp]:
    scores = photos @ photos.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :TOP_K]


def _numbers(labels: list[Any]) -> NDArray[np.int64]:
    places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    return np.array([places[label] for label in labels])


@one_line_errors()
def main(
    data: Path = Path("../shared/data"),
    model: str = EMBEDDED,
    out: Annotated[Path, typer.Option(help="Folder for the model with its basis.")] = Path("runs/dimensions/model"),
    cache: Path = Path("runs/dimensions"),
    output: Annotated[Path, typer.Option(help="The JSON file of the results.")] = RESULTS / "dimensions_val.json",
) -> None:
    """Fit on `train`, measure on `val`, write both."""
    check_output(output)
    fashion = FashionModel.from_pretrained(model, dtype="float32", backend="torch")
    train, val = (embed(fashion, data, split, cache) for split in ("train", "val"))
    basis = fit_basis(train.photos, train.names)
    results = compare(val, basis)
    for dimensions, ways in results.items():
        for way, figures in ways.items():
            typer.echo(f"{dimensions:>5} {way:6}" + "".join(f"  {name} {value:.4f}" for name, value in figures.items()))
    bundle = load(resolve(model))
    bundle = replace(bundle, extras=replace(bundle.extras, basis=basis))
    FashionModel(bundle, model_id=model, dtype="float32").save_pretrained(out)
    counts = {"train_photos": len(train.photos), "train_texts": len(train.names), "photos": len(val.photos)}
    write_results(provenance(fashion, model, {"root": str(data)}) | {"split": "val", **counts} | results, output)


if __name__ == "__main__":
    typer.run(main)
