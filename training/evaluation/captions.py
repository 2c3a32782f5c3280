"""DeepFashion's photos and their captions by BLIP: the texts of the paper's Table 2.

The paper does not say which captions are correct where two photos have the same one. `own` accepts a photo's own
caption alone, as such tables usually do; `same_text` counts equal captions as one, since no model can tell them apart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import ConfigError
from training.data.crops import read_crop
from training.data.deepfashion import read_samples
from training.data.io import shown
from training.data.manifest import Sample
from training.evaluation.deepfashion import decodable
from training.evaluation.retrieval import match_texts

CAPTIONS = "captions.jsonl"
"""File in DeepFashion's folder that `training.prepare captions` writes."""
RULES = ("own", "same_text")
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Captioned:
    """A split whose photos have captions.

    Attributes:
        samples: Photos with the box that BLIP saw, or without one where it saw the whole photo.
        texts: The caption of each.
        settings: How the captions were made.
    """

    samples: list[Sample]
    texts: list[str]
    settings: dict[str, Any]


def read_captioned(root: Path, split: str) -> Captioned:
    """Photos and captions of a split.

    Raises:
        InputError: The split is unknown.
        ConfigError: Annotations or photos have faults, or captions are missing; the message names all.
    """
    path = root / CAPTIONS
    remedy = f"make them with `python -m training.prepare captions {root}`"
    try:
        first, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        settings, texts = dict(first), {row["id"]: str(row["caption"]) for row in rows}
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} holds no captions ({type(error).__name__}: {error}); remove it and {remedy}"
        ) from None
    samples = decodable(root, read_samples(root, [split], whole=settings.get("view") != "crop"))
    bare = [sample.id for sample in samples if sample.id not in texts]
    if bare:
        raise ConfigError(f"{len(bare)} of {len(samples)} photos have no caption in {path}: {shown(bare)}; {remedy}")
    return Captioned(samples, [texts[sample.id] for sample in samples], settings)


def evaluate_captions(model: FashionModel, data: Captioned, *, seed: int = 0) -> dict[str, Any]:
    """The recalls of `match_texts` by rule; see the top of this file."""
    starts = range(0, len(data.samples), _BATCH)
    rows = [
        model.encode(images=[read_crop(sample, masked=False) for sample in data.samples[start : start + _BATCH]])
        for start in tracked(starts, "encoding", len(starts), shown=True, unit="batches")
    ]
    images = np.concatenate(rows)
    metrics = {rule: match_texts(model, images, data.texts, own=rule == "own", seed=seed) for rule in RULES}
    return {"photos": len(images), "captions": data.settings, **metrics, "ids": [s.id for s in data.samples]}
