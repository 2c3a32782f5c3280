"""Label unlabeled photos with a trained model; the next training learns from both (Xie et al., 2020).

Photos with or without a category get probabilities for every group that applies to them. Street photos without masks
get masks from the segmenter first.

python -m training.pseudo_label training/configs/pseudo_compact.toml
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from pydantic import Field, with_config

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.images.load import load_image
from fashion_retrieval.models.segmenter import GarmentSegmenter
from fashion_retrieval.models.zero_shot import attribute_view
from training.data.crops import read_crop
from training.data.garments import GARMENTS, write_garments
from training.data.manifest import Sample, extra_samples, read_lines
from training.data.pixels import STREET_KINDS, WORN
from training.engine.errors import one_line_errors
from training.engine.settings import SCHEMA, AtLeastOne, read_settings
from training.engine.weights import load_encoder
from training.export.parts import load_segmenter

_MIN_AREA = 0.03  # of the photo
_MIN_CATEGORY = 0.5
_BATCH = 64


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str  # the open data pack
    encoders: Annotated[list[str], Field(min_length=1)]  # of `training.train_raf_clip`; their weights are averaged
    segmenter: str  # folder of `training.train_segmenter`
    output: str  # folder for the labels and masks
    image_size: Annotated[list[AtLeastOne], Field(max_length=2)] = field(default_factory=list)
    """[height, width] of the encoder's input, if it differs from that of its training."""


def street_garments(segmenter: GarmentSegmenter, root: Path, output: Path) -> Iterator[tuple[Sample, str]]:
    """Garments found in street photos without masks, with their kinds; only kinds that the photo's tags name.

    Writes their label images under `output`.
    """
    photos = [row for row in read_lines(root / "street.jsonl", "train") if "regions" not in row]
    (output / "street").mkdir(parents=True, exist_ok=True)
    for row in tracked(photos, "street photos", len(photos), shown=True):
        path = root / "street" / "train" / f"{row['id']}.jpg"
        image = load_image(path)
        labels = np.zeros((image.height, image.width), dtype=np.uint8)
        mask = output / "street" / f"{row['id']}.mask.png"
        named = WORN & {STREET_KINDS.get(tag, "other") for tag in row["tags"]}
        found = [region for region in segmenter.segment(image) if region.kind in named]
        for value, region in enumerate(found, start=1):
            labels[region.mask] = value
            if region.mask.mean() >= _MIN_AREA:
                left, top, right, bottom = (round(side) for side in region.box)
                yield Sample("street", row["id"], path, (left, top, right, bottom), mask, value), region.kind or ""
        Image.fromarray(labels).save(mask)


def label(model: FashionModel, samples: Sequence[tuple[Sample, str | None]]) -> Iterator[Sample]:
    """The samples that show clothing, with soft labels: of an unknown category, and of all groups that apply.

    Each sample comes with the kind that a segmenter predicts for it, or None.
    """
    recognizer = model.recognizer("default", 1)
    values = {value.name: value for value in recognizer.taxonomy.category.values}
    names = list(values)
    samples = [pair for pair in samples if pair[0].category is None or values[pair[0].category].kind in WORN]
    starts = range(0, len(samples), _BATCH)
    for start in tracked(starts, "labeling", len(starts), shown=True, unit="batches"):
        batch, kinds = zip(*samples[start : start + _BATCH], strict=True)
        crops = recognizer.embed([read_crop(sample, masked=False) for sample in batch], _BATCH)
        inside = crops.copy()
        rows = [row for row, sample in enumerate(batch) if sample.mask is not None]
        inside[rows] = recognizer.embed([read_crop(batch[row], masked=True) for row in rows], _BATCH)
        for sample, kind, crop, view in zip(batch, kinds, crops, attribute_view(crops, inside), strict=True):
            soft_labels = {}
            category = sample.category
            if category is None:
                probabilities = recognizer.category_probabilities(crop, sample.color or "plain", kind)
                category = names[int(probabilities.argmax())]
                if float(probabilities.max()) < _MIN_CATEGORY:
                    continue
                soft_labels["category"] = dict(zip(names, probabilities.tolist(), strict=True))
            for group in recognizer.taxonomy.attributes:
                if values[category].kind in WORN and group.applies(values[category]):
                    probabilities = recognizer.attribute_probabilities(view, group, [(values[category], 1.0)])
                    soft_labels[group.name] = dict(
                        zip((value.name for value in group.values), probabilities.tolist(), strict=True)
                    )
            if len(soft_labels) > 1:
                yield replace(sample, soft_labels=soft_labels)


@one_line_errors()
def main(config: Path) -> None:
    """Find and label garments as a TOML file says."""
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
