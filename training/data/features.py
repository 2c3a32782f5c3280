"""Token features of a frozen encoder, kept on disk by what they depend on: weights, preprocessing and photos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fashion_retrieval.models.encoder import Encoder

_SHARD, _BATCH = 256, 32


def image_features(encoder: Encoder, photos: Sequence[Path], cache: Path, *, device: torch.device) -> Tensor:
    """Tokens of whole photos (`Encoder.image_tokens`): (N, 1 + k, d) float16.

    They are written in shards, each whole or not at all, so that an interrupted run goes on where it was.

    Args:
        encoder: On `device`, in eval mode.
        photos: Files; one that changes is encoded again.
        cache: Folder of the shards; those of other encoders lie beside them.
        device: Where the encoder runs.
    """
    folder = cache / encoder.fingerprint[:16]
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(photos), _SHARD)
    shards = [_shard(encoder, photos[s : s + _SHARD], folder, device) for s in track(starts, "photo features")]
    return torch.cat(shards)


def _shard(encoder: Encoder, photos: Sequence[Path], folder: Path, device: torch.device) -> Tensor:
    states = [(photo.name, photo.stat().st_size, photo.stat().st_mtime_ns) for photo in photos]
    path = folder / f"{hashlib.sha256(json.dumps(states).encode()).hexdigest()[:24]}.safetensors"
    try:
        return load_file(path)["tokens"]
    except (FileNotFoundError, SafetensorError):
        tokens = torch.cat([_encode(encoder, photos[s : s + _BATCH], device) for s in range(0, len(photos), _BATCH)])
        partial = path.with_suffix(".partial")
        save_file({"tokens": tokens}, partial)
        partial.replace(path)
        return tokens


@torch.inference_mode()
def _encode(encoder: Encoder, photos: Sequence[Path], device: torch.device) -> Tensor:
    pixels = torch.stack([encoder.preprocess(_read(photo)) for photo in photos])
    return encoder.image_tokens(pixels.to(device)).half().cpu()


def _read(path: Path) -> Image.Image:
    with Image.open(path) as photo:
        return ImageOps.exif_transpose(photo).convert("RGB")
