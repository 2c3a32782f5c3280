"""Labeled garments as recognition sees them, whole and cut, embedded once and kept for fits that follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.images.load import load_image
from fashion_retrieval.images.preprocess import RGB
from fashion_retrieval.inference.colors import dominant_colors
from fashion_retrieval.models.towers import Floats
from fashion_retrieval.models.weights import weights_digest
from training.data.cuts import CUTS, Cut, cut_views, pieces, with_masks
from training.data.manifest import Sample, labeled_samples

PHOTO = "photo"
"""The name of the view that is a whole photo of one garment."""
NOTHING = "nothing"
"""The name of the view that is a part of the garment's photo without a garment."""
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Views:
    """N views of garments.

    Attributes:
        samples: The garment of each.
        cuts: Name of a cut, `PHOTO` or `NOTHING`, of each, (N,).
        colors: The dominant color of each, (N,).
        crop: Embeddings of the crops, (N, d) float32, L2-normalized.
        masked: Embeddings of the crops without background, likewise.
    """

    samples: list[Sample]
    cuts: NDArray[np.str_]
    colors: NDArray[np.str_]
    crop: Floats
    masked: Floats


def load_views(model: FashionModel, root: Path, split: str, folder: Path, *, seed: int = 0) -> Views:
    """Each labeled garment of a split: whole, by the cuts of `CUTS` with their edges moved, and as its whole photo.

    Parts of the photos without a garment come last. Only garments of known extent are cut. The file in `folder` is
    named after the image tower: another text tower finds it again.
    """
    samples = labeled_samples(root, split)
    with_extent = [sample for sample in samples if sample.source != "clothing"] + with_masks(root, samples, split)
    samples = with_extent + [sample for sample in samples if sample.source == "clothing"]
    path = folder / f"{split}_{weights_digest(model.encoder.clip.visual)[:16]}.npz"
    if not path.is_file():
        _write(path, model, samples, seed)
    with np.load(path) as kept:
        rows, arrays = kept["samples"], [kept[name] for name in ("cuts", "colors", "crop", "masked")]
    return Views([samples[row] for row in rows], *arrays)


def _write(path: Path, model: FashionModel, samples: list[Sample], seed: int) -> None:
    recognizer, rng = model.recognizer("default", 1), np.random.default_rng(seed)
    parts, named, starts = [], [], range(0, len(samples), _BATCH)
    for start in tracked(starts, f"views of {path.stem}", len(starts), shown=True, unit="batches"):
        rows = range(start, min(start + _BATCH, len(samples)))
        batch = [(row, *view) for row in rows for view in _shown(samples[row], rng)]
        named += [view[:3] for view in batch]
        crop = recognizer.embed((crop for *_, crop, _ in batch), _BATCH)
        masked, differ = crop.copy(), [place for place, (*_, crop, inside) in enumerate(batch) if inside is not crop]
        masked[differ] = recognizer.embed((batch[place][4] for place in differ), _BATCH)
        parts.append((crop, masked))
    numbers = {sample: row for row, sample in enumerate(map(id, samples))}
    empty = list(pieces(samples, np.random.default_rng(seed)))
    named += [(numbers[id(sample)], NOTHING, color) for sample, color, _ in empty]
    parts.append((recognizer.embed((crop for *_, crop in empty), _BATCH),) * 2)
    crop, masked = (np.concatenate(column) for column in zip(*parts, strict=True))
    places, cuts, colors = map(np.array, zip(*named, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial, partial.open("wb") as file:
        np.savez(file, samples=places, cuts=cuts, colors=colors, crop=crop, masked=masked)


def _shown(sample: Sample, rng: np.random.Generator) -> Iterator[tuple[str, str, RGB, RGB]]:
    """(name, dominant color, crop, masked crop) of each view of a garment."""
    if sample.mask is None:
        pixels = np.asarray(load_image(sample.photo))
        yield PHOTO, dominant_colors(pixels, np.ones(pixels.shape[:2], bool))[0].name, pixels, pixels
    if sample.mask is not None or sample.source == "products":
        yield from cut_views(sample, {name: _moved(cut, rng) for name, cut in CUTS.items()})


def _moved(cut: Cut, rng: np.random.Generator) -> Cut:
    """Each edge inside the garment up to 0.05 further out, or up to 0.1 further in."""
    rows, columns = (
        (low, high) if (low, high) == (0, 1) else (low + by[0] * (low > 0), high - by[1] * (high < 1))
        for low, high in (cut.rows, cut.columns)
        for by in [rng.uniform(-0.05, 0.1, 2) if (low, high) != (0, 1) else (0, 0)]
    )
    return replace(cut, rows=rows, columns=columns)
