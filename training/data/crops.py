"""Crops of garments, fitted into one size and kept on disk; a run holds those of a batch in memory."""

from __future__ import annotations

import hashlib
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

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import ConfigError, ImageError
from fashion_retrieval.images.load import load_image
from training.data.manifest import Sample, region_mask
from training.engine.distributed import DistributedEnv, single_process

_SHARD = 256


class Crop(NamedTuple):
    """One crop of a garment; `masked` makes all but the garment white."""

    sample: Sample
    masked: bool


class Crops:
    """Crops on disk, 3 x h x w bytes each, mapped into memory and read on access."""

    def __init__(self, shards: Sequence[NDArray[np.uint8]]) -> None:
        self._shards = shards

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(b,) int64 -> (b, 3, h, w) uint8."""
        places = (divmod(row, _SHARD) for row in rows.tolist())
        return torch.from_numpy(np.stack([self._shards[shard][place] for shard, place in places]))


def load_crops(
    crops: Sequence[Crop], size: tuple[int, int], folder: Path, *, env: DistributedEnv | None = None
) -> Crops:
    """Read crops, each fitted into (h, w) on white, or find them in the cache; rows are in the crops' order.

    The cache is made of shards, each written whole or not at all and named by the digest of its sources: an interrupted
    run goes on where it was, and a photo, box or mask that changes is cropped again. Recipes may share the folder; the
    processes split the shards.
    """
    env = env or single_process()
    shards = [crops[start : start + _SHARD] for start in range(0, len(crops), _SHARD)]
    paths = [folder / f"{_key(shard, size)}.npy" for shard in shards]
    missing = {path: shard for path, shard in zip(paths, shards, strict=True) if _open(path) is None}
    _check_room(folder, sum(map(len, missing.values())) * 3 * size[0] * size[1])
    own = [path for path in paths[env.rank :: env.world_size] if path in missing]
    shown = env.is_main_process and bool(own)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:
        for path in tracked(own, f"shards of {_SHARD} crops", len(own), shown=shown, unit="shards"):
            pixels = np.stack(list(workers.map(partial(_read_fitted, size=size), missing[path])))
            with write_atomically(path) as partial_file:
                np.save(partial_file, pixels)
    env.barrier()
    opened = [_open(path) for path in paths]
    lost = [path.name for path, shard in zip(paths, opened, strict=True) if shard is None]
    if lost:
        raise ConfigError(
            f"{folder} lacks {', '.join(lost)}, which another process made; put it on a disk that all share"
        )
    return Crops([shard for shard in opened if shard is not None])


def read_crop(sample: Sample, *, masked: bool) -> Image.Image:
    """The crop by the labeled box, or the whole upright photo without one; `masked` makes all but the garment white."""
    image = load_image(sample.photo)
    mask = region_mask(sample) if masked else None
    if mask is not None:
        if mask.shape != (image.height, image.width):
            raise ImageError(f"{sample.mask} and {sample.photo} differ in size; make the mask again")
        image = Image.fromarray(np.where(mask[..., None], np.asarray(image), np.uint8(255)))
    return image if sample.box is None else image.crop(sample.box)


def fit(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize to fit inside (h, w), centered on white: (h, w, 3) uint8."""
    canvas = Image.new("RGB", size[::-1], (255, 255, 255))
    left, top, right, bottom = fitted_box(image.width, image.height, size)
    canvas.paste(image.resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))
    return np.array(canvas)


def fitted_box(width: int, height: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where something lies that is fitted inside (h, w), xyxy in pixels."""
    ratio = min(size[0] / height, size[1] / width)
    across, down = max(1, round(width * ratio)), max(1, round(height * ratio))
    left, top = (size[1] - across) // 2, (size[0] - down) // 2
    return left, top, left + across, top + down


def _read_fitted(crop: Crop, *, size: tuple[int, int]) -> NDArray[np.uint8]:
    return fit(read_crop(crop.sample, masked=crop.masked), size).transpose(2, 0, 1)


def _key(crops: Sequence[Crop], size: tuple[int, int]) -> str:
    """The digest of all that a shard depends on; files count by their size and time."""
    made_of: list[object] = [size, "upright"]
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
    """A shard, or None if it is missing or damaged. Nothing is written back to it."""
    try:
        shard: NDArray[np.uint8] = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    return shard


def _check_room(folder: Path, wanted: int) -> None:
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if wanted > free:
        raise ConfigError(
            f"the crops need {wanted / 1e9:.1f} GB in {folder}, of which {free / 1e9:.1f} GB are free; "
            "set `cache` to a folder with more room, or make `cache_size` smaller"
        )
