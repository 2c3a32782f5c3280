"""Masks of Segment Anything, prompted with the annotated boxes: one PNG of one bit a garment, 1 is the garment."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from fashion_retrieval import SegmentAnythingSegmenter
from fashion_retrieval._utils.files import sha256, write_atomically
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import ConfigError, InputError
from fashion_retrieval.models.sam import WEIGHTS_NAME
from training.data.deepfashion import mask_path, photo_size
from training.engine.files import check_same_settings, write_text
from training.prepare.garments import Garment, load_garment

REPOSITORIES = {"vit_b": "facebook/sam-vit-base", "vit_l": "facebook/sam-vit-large", "vit_h": "facebook/sam-vit-huge"}
SETTINGS = "masks.json"
_WIDTHS = {"vit_b": 768, "vit_l": 1024, "vit_h": 1280}


@dataclass(frozen=True, slots=True)
class MaskReport:
    """Result of a run."""

    made: int  # masks written
    kept: int  # masks that existed before
    empty: int  # masks written for which SAM found nothing and the box was taken
    mean_iou: float  # mean of SAM's own estimates in [0, 1] over the masks written; 0 without any
    failures: tuple[tuple[str, str], ...]  # id and reason


def load_segmenter(sam: str, weights: Path | None, device: str, dtype: str) -> SegmentAnythingSegmenter:
    """SAM of the named size, from a file or from the Hub; under torchrun each process takes its own GPU."""
    if device == "auto" and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    segmenter = SegmentAnythingSegmenter.from_pretrained(weights or REPOSITORIES[sam], device=device, dtype=dtype)
    width = segmenter.sam.image_encoder.patch_embed.proj.out_channels
    if width != _WIDTHS[sam]:
        raise ConfigError(f"expected {sam}, {_WIDTHS[sam]} wide, got weights {width} wide; name their size with --sam")
    return segmenter


def mask_settings(sam: str, weights: Path | None, dtype: str) -> dict[str, Any]:
    """The content of `masks.json`, which lies beside the masks."""
    source = REPOSITORIES[sam]
    if weights is not None:
        source = f"sha256:{sha256(weights / WEIGHTS_NAME if weights.is_dir() else weights)}"
    return {"kind": "masks", "sam": sam, "weights": source, "dtype": dtype, "prompt": "annotated box", "value": 1}


def prepare_masks(
    garments: Sequence[Garment],
    segmenter: SegmentAnythingSegmenter,
    out: Path,
    settings: dict[str, Any],
    *,
    rank: int = 0,
    world_size: int = 1,
) -> MaskReport:
    """Write the missing masks, `<id>.png`, and their settings; `out` must not have masks of other settings.

    Each process takes every `world_size`-th garment.
    """
    path = out / SETTINGS
    if path.exists():
        check_same_settings(path, _read_settings(path), settings)
    elif rank == 0:
        write_text(path, json.dumps(settings, indent=2) + "\n")
    own = garments[rank::world_size]
    todo = [garment for garment in own if photo_size(mask_path(out, garment.id)) is None]
    failures, scores = [], []
    for garment in tracked(todo, "masks", len(todo), shown=rank == 0, unit="garments"):
        try:
            image, box = load_garment(garment)
            region = segmenter.segment(image, np.array([box], dtype=np.float32))[0]
        except InputError as error:
            failures.append((garment.id, str(error)))
            continue
        mask = mask_path(out, garment.id)
        mask.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(mask) as partial:
            partial.write_bytes(encode_mask(region.mask, region.score))
        scores.append(region.score)
    mean = float(np.mean(scores)) if scores else 0.0
    return MaskReport(len(scores), len(own) - len(todo), scores.count(0.0), mean, tuple(failures))


def _read_settings(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def encode_mask(mask: NDArray[np.bool_], iou: float) -> bytes:
    """(H, W) bool as a 1-bit PNG; its text `iou` is SAM's own estimate in [0, 1], or 0 if the box was taken."""
    text = PngImagePlugin.PngInfo()
    text.add_text("iou", f"{iou:.4f}")
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", optimize=True, pnginfo=text)
    return buffer.getvalue()
