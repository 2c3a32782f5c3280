"""Crops of garments, fitted into one size and kept on disk: a run holds those of a batch in memory."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fashion_retrieval.errors import ConfigError, ImageError
from training.data.manifest import Sample, region_mask
from training.engine.distributed import World, alone
from training.engine.files import write_whole
from training.engine.progress import watched

_SHARD = 256


class Crop(NamedTuple):
    """One picture of a garment; `masked` makes all but the garment white."""

    sample: Sample
    masked: bool


class Crops:
    """Crops on disk, 3 x h x w bytes each, mapped into memory: only those asked for are read."""

    def __init__(self, shards: Sequence[NDArray[np.uint8]]) -> None:
        self._shards = shards

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(b,) int64 -> (b, 3, h, w) uint8."""
        places = (divmod(row, _SHARD) for row in rows.tolist())
        return torch.from_numpy(np.stack([self._shards[shard][place] for shard, place in places]))


def load_crops(crops: Sequence[Crop], size: tuple[int, int], folder: Path, *, world: World | None = None) -> Crops:
    """Read crops, each fitted into `size` on white, or find them in the cache.

    They are written in shards, each whole or not at all and named by what it is made of: an interrupted run goes on
    where it was, and a photo, box or mask that changes is cropped again. Of several processes each makes its share.

    Args:
        crops: In the order of their rows.
        size: (h, w) in pixels.
        folder: Of the shards, also of other recipes.
        world: The processes of the run; this one alone by default.

    Raises:
        ConfigError: The disk has not enough room.
        ImageError: A photo or mask can't be read.
    """
    world = world or alone()
    shards = [crops[start : start + _SHARD] for start in range(0, len(crops), _SHARD)]
    paths = [folder / f"{_key(shard, size)}.npy" for shard in shards]
    missing = {path: shard for path, shard in zip(paths, shards, strict=True) if _open(path) is None}
    _check_room(folder, sum(map(len, missing.values())) * 3 * size[0] * size[1])
    own = [path for path in paths[world.rank :: world.size] if path in missing]
    shown = world.leads and bool(own)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:
        for path in watched(own, len(own), f"shards of {_SHARD} crops", shown=shown):
            buffer = io.BytesIO()
            np.save(buffer, np.stack(list(workers.map(partial(_read_fitted, size=size), missing[path]))))
            write_whole(path, buffer.getvalue())
    world.wait()
    opened = [_open(path) for path in paths]
    lost = [path.name for path, shard in zip(paths, opened, strict=True) if shard is None]
    if lost:
        raise ConfigError(
            f"{folder} lacks {', '.join(lost)}, which another process made; put it on a disk that all share"
        )
    return Crops([shard for shard in opened if shard is not None])


def read_crop(sample: Sample, *, masked: bool) -> Image.Image:
    """The crop by the labeled box; `masked` makes all but the garment white. The whole photo where it has no box.

    Raises:
        ImageError: The photo or its mask can't be read.
    """
    try:
        with Image.open(sample.photo) as photo:
            image = photo.convert("RGB")
        mask = region_mask(sample) if masked else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{sample.photo} or its mask can't be read ({error}); replace or remove it") from error
    if mask is not None:
        image = Image.fromarray(np.where(mask[..., None], np.asarray(image), np.uint8(255)))
    return image if sample.box is None else image.crop(sample.box)


def fit(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize to fit inside (h, w), centered on white: (h, w, 3) uint8."""
    height, width = size
    ratio = min(height / image.height, width / image.width)
    inner = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    offset = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas.paste(image.resize(inner, Image.Resampling.BICUBIC), offset)
    return np.array(canvas)


def _read_fitted(crop: Crop, *, size: tuple[int, int]) -> NDArray[np.uint8]:
    return fit(read_crop(crop.sample, masked=crop.masked), size).transpose(2, 0, 1)


def _key(crops: Sequence[Crop], size: tuple[int, int]) -> str:
    """Of all that a shard depends on; files by their size and time."""
    made_of: list[object] = [size]
    for sample, masked in crops:
        mask = (_state(sample.mask), sample.mask_value) if masked and sample.mask else None
        made_of.append((_state(sample.photo), sample.box, masked, mask))
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]


def _state(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ImageError(f"{path} can't be read ({error.strerror}); prepare the data again") from error
    return str(path.resolve()), found.st_size, found.st_mtime_ns


def _open(path: Path) -> NDArray[np.uint8] | None:
    """A shard, or None where there is none or no whole one. Nothing is written back to it."""
    try:
        shard: NDArray[np.uint8] = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    return shard


def _check_room(folder: Path, wanted: int) -> None:
    there = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if wanted > free:
        raise ConfigError(
            f"the crops need {wanted / 1e9:.1f} GB in {folder}, of which {free / 1e9:.1f} GB are free; "
            "set `cache` to a folder with more room, or make `cache_size` smaller"
        )
