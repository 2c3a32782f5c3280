"""Label the photos that nobody labeled with a trained model; the next training learns from both (Xie et al., 2020).

Photos with a category or none get probabilities of every group that applies to them. Street photos without masks get
masks from the segmenter first.

python -m training.pseudo_label training/configs/pseudo_compact.toml
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import typer
from PIL import Image
from rich.progress import track

from fashion_retrieval import FashionModel
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.models.segmenter import GarmentSegmenter
from fashion_retrieval.models.zero_shot import attribute_view
from training.data.crops import read_crop
from training.data.garments import GARMENTS, write_garments
from training.data.manifest import Sample, extra_samples, read_lines
from training.data.pixels import STREET_KINDS
from training.engine.errors import one_line_errors
from training.engine.loop import read_settings
from training.engine.weights import load_encoder
from training.export.parts import load_segmenter

_WORN = frozenset({"upper", "outerwear", "dress", "trousers", "shorts", "skirt", "legwear"})
_MIN_AREA = 0.03  # of the photo
_MIN_CATEGORY = 0.5
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str
    encoders: list[str]
    segmenter: str
    output: str
    image_size: list[int] = field(default_factory=list)
    """(h, w) of the encoder's input, where it differs from the one it was trained at."""


def street_garments(segmenter: GarmentSegmenter, root: Path, output: Path) -> Iterator[tuple[Sample, str]]:
    """Garments, with their kinds, found in the street photos without masks, of kinds that the photo's tags name.

    Their label images are written under `output`.
    """
    photos = [row for row in read_lines(root / "street.jsonl", "train") if "regions" not in row]
    (output / "street").mkdir(parents=True, exist_ok=True)
    for row in track(photos, description="street photos"):
        path = root / "street" / "train" / f"{row['id']}.jpg"
        with Image.open(path) as photo:
            image = photo.convert("RGB")
        labels = np.zeros((image.height, image.width), dtype=np.uint8)
        mask = output / "street" / f"{row['id']}.mask.png"
        named = _WORN & {STREET_KINDS.get(tag, "other") for tag in row["tags"]}
        found = [region for region in segmenter.segment(image) if region.kind in named]
        for value, region in enumerate(found, start=1):
            labels[region.mask] = value
            if region.mask.mean() >= _MIN_AREA:
                left, top, right, bottom = (round(side) for side in region.box)
                yield Sample("street", row["id"], path, (left, top, right, bottom), mask, value), region.kind or ""
        Image.fromarray(labels).save(mask)


def label(model: FashionModel, samples: Sequence[tuple[Sample, str | None]]) -> Iterator[Sample]:
    """The samples that show clothing, with beliefs: of an unknown category, and of all groups that apply.

    Beside each sample stands the kind that a segmenter takes it for, or None.
    """
    recognizer = model._recognizer("default", 1)
    values = {value.name: value for value in recognizer.taxonomy.category.values}
    names = list(values)
    samples = [pair for pair in samples if pair[0].category is None or values[pair[0].category].kind in _WORN]
    for start in track(range(0, len(samples), _BATCH), description="labeling"):
        batch, kinds = zip(*samples[start : start + _BATCH], strict=True)
        crops = recognizer.embed([read_crop(sample, masked=False) for sample in batch], _BATCH)
        inside = crops.clone()
        rows = [row for row, sample in enumerate(batch) if sample.mask is not None]
        inside[rows] = recognizer.embed([read_crop(batch[row], masked=True) for row in rows], _BATCH)
        for sample, kind, crop, view in zip(batch, kinds, crops, attribute_view(crops, inside), strict=True):
            beliefs = {}
            category = sample.category
            if category is None:
                shares = recognizer.category_probabilities(crop, sample.color or "plain", kind)
                category = names[int(shares.argmax())]
                if float(shares.max()) < _MIN_CATEGORY:
                    continue
                beliefs["category"] = dict(zip(names, shares.tolist(), strict=True))
            for group in recognizer.taxonomy.attributes:
                if values[category].kind in _WORN and group.applies(values[category]):
                    shares = recognizer.attribute_probabilities(view, group, [(values[category], 1.0)])
                    beliefs[group.name] = {v.name: p for v, p in zip(group.values, shares.tolist(), strict=True)}
            if len(beliefs) > 1:
                yield replace(sample, beliefs=beliefs)


@one_line_errors()
def main(config: Path) -> None:
    """Find and label garments by a TOML file."""
    settings = read_settings(config, Settings)
    root, output = Path(settings.data), Path(settings.output)
    encoder = load_encoder(*map(Path, settings.encoders), image_size=settings.image_size).eval()
    model = FashionModel(Bundle(encoder=encoder), model_id="teacher", dtype="float32")
    unlabeled: list[tuple[Sample, str | None]] = [
        *((sample, None) for sample in extra_samples(root, "train")),
        *street_garments(load_segmenter(Path(settings.segmenter)), root, output),
    ]
    samples = list(label(model, unlabeled))
    write_garments(samples, output)
    typer.echo(f"{len(samples)} garments labeled in {output / GARMENTS}")


if __name__ == "__main__":
    typer.run(main)
