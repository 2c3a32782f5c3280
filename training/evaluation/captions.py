"""DeepFashion's photos and their captions by BLIP: the texts of the paper's Table 2.

The paper does not say which captions are right where two photos have the same. `own`, a photo's own caption alone, is
what such tables usually mean; `same_text` counts equal captions as one, since no model can tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from training.data.crops import read_crop
from training.data.deepfashion import read_samples
from training.data.io import shown
from training.data.manifest import Sample
from training.evaluation.deepfashion import decodable
from training.evaluation.retrieval import match_texts

CAPTIONS = "captions.jsonl"
"""Where `training.prepare captions` writes, in the root."""
RULES = ("own", "same_text")
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Captioned:
    """A split with a caption a photo.

    Attributes:
        samples: With the box that BLIP saw, or none where it saw the whole photo.
        texts: One a sample.
        settings: How the captions were made.
    """

    samples: list[Sample]
    texts: list[str]
    settings: dict[str, Any]


def read_captioned(root: Path, split: str) -> Captioned:
    """Photos and captions of a split.

    Raises:
        InputError: Another split.
        ConfigError: Faults of the annotations or photos, no captions, or photos without one; the message names all.
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
    """Recalls by rule, see the top of this file, of `match_texts`.

    Args:
        model: Any dual encoder; it is shown what BLIP was shown.
        data: Photos and captions.
        seed: Of the bootstrap over queries.
    """
    rows = [
        _encode(model, data.samples[i : i + _BATCH]) for i in track(range(0, len(data.samples), _BATCH), "encoding")
    ]
    images = np.concatenate(rows)
    figures = {rule: match_texts(model, images, data.texts, own=rule == "own", seed=seed) for rule in RULES}
    return {"photos": len(images), "captions": data.settings, **figures, "ids": [s.id for s in data.samples]}


def _encode(model: FashionModel, samples: Sequence[Sample]) -> Any:  # noqa: ANN401  # (n, d) float32
    return model.encode(images=[read_crop(sample, masked=False) for sample in samples])
