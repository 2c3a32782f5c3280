"""Embeddings of more images than one file or one machine holds: shards, by one process or by a Ray cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fashion_retrieval._utils.progress import progress_bar
from fashion_retrieval.errors import InputError
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.files import read_summary
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.shards.manifest import FAILURES, Format, Manifest, Summary
from fashion_retrieval.shards.photo_list import PhotoList
from fashion_retrieval.shards.worker import ShardWorker

if TYPE_CHECKING:
    from fashion_retrieval.shards.ray_pool import RayPool

Executor = Literal["local", "ray"]
OnError = Literal["raise", "skip"]

_SUMMARIES = 16
"""Summaries of shards read at a time."""


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What `encode_shards` made.

    Attributes:
        folder: The folder of the shards.
        photos: How many images the list names.
        encoded: How many of them are in the shards.
        embedding_dim: Width of the embeddings.
        shards: How many shards there are.
        kept: How many shards existed before and were not encoded again.
        failures: The images that can't be read, with their place in the list; `failures.jsonl` lists them too.
        left_out: A line for each folder with pictures of formats that are not read: how many, and why.
    """

    folder: str
    photos: int
    encoded: int
    embedding_dim: int
    shards: int
    kept: int
    failures: tuple[Failure, ...]
    left_out: tuple[str, ...] = ()


def encode_shards(
    photos: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    model: str | Path = "compact",
    loading: Mapping[str, Any] | None = None,
    engine: Executor = "local",
    workers: int | None = None,
    shard_size: int = 10_000,
    format: Format = "parquet",
    batch_size: int = 32,
    on_error: OnError = "raise",
    progress: bool = False,
    max_pixels: int | None = None,
) -> ShardReport:
    """Encode images into a folder of shards. After an interruption, the same call continues, with either engine.

    A shard has the columns `id`, `uri`, `digest` (SHA-256 of the file) and `embedding` ((D,) float32, L2-normalized);
    `manifest.json` keeps the model and the plan. A shard appears whole or not at all, and holds the same images
    whichever worker encodes it.

    Args:
        photos: Images, folders and lists, each a path or a URI ("s3://bucket/photos", "gs://…", "file:///…", or of
            another store that fsspec reaches). A list ends in .txt (one image a line), .csv or .parquet (a column "uri"
            or "path" and, if the id is to be another than that, "id").
        folder: Where the shards go, a path or a URI: new, empty, or with shards of the same settings. With Ray, a
            place that every machine reaches.
        model: The model, as `FashionModel.from_pretrained` takes it.
        loading: Further arguments of `FashionModel.from_pretrained` by name: revision, device, dtype …
        engine: "local" is this process; "ray" is the cluster of RAY_ADDRESS or of `ray start`, or else this machine.
        workers: For "ray", the number of workers, each with a model and a GPU or CPUs of its own; None is one for each
            GPU or, where there is none, for every four CPUs.
        shard_size: Images in a shard.
        format: "parquet" files or "lance" tables.
        batch_size: How many images go through the model at a time.
        on_error: "raise" stops at an image that can't be read and raises its error; "skip" lists it and continues.
            Shards that are complete stay in either case.
        progress: Show a bar on stderr.
        max_pixels: As in `FashionModel.encode_iter`.

    Raises:
        InputError: An argument or the list can't be used, or without "skip" an image.
        ShardError: The folder holds other shards or other things, or can't be reached; or too many workers died.
        MissingExtraError: Ray is not installed.
    """
    numbers = {"workers": workers, "shard_size": shard_size, "batch_size": batch_size, "max_pixels": max_pixels}
    _check(engine, format, on_error, numbers)
    place = Folder(str(folder))
    listed = PhotoList([str(one) for one in ([photos] if isinstance(photos, str | Path) else photos)], shard_size)
    model = Path(model).absolute() if Path(model).is_dir() else model
    loading = dict(loading or {})
    skip, base = on_error == "skip", str(Path.cwd())
    worker = ShardWorker(str(model), loading, place.uri, base, batch_size, skip=skip, max_pixels=max_pixels)
    pools: AbstractContextManager[ShardWorker | RayPool] = nullcontext(worker)
    if engine == "ray":
        from fashion_retrieval.shards.ray_pool import RayPool

        pools = RayPool(worker, workers, gpus=str(loading.get("device", "auto")) not in ("cpu", "mps"))
    with pools as pool:
        manifest = Manifest(*pool.identity(), listed.photos, listed.digest, shard_size, format)
        manifest.init_or_resume(place)
        done = _complete(place, manifest)
        kept = len(done)
        left = listed.photos - sum(len(summary) for summary in done.values())
        failures = [failure for summary in done.values() for failure in summary.failures]
        with progress_bar("encoding", left, shown=progress) as advance:
            missing = (shard for shard in listed.shards() if shard.index not in done)
            for summary in pool.encode_all(missing, manifest):
                done[summary.index] = summary
                failures += summary.failures
                advance(len(summary), failed=len(summary.failures))
    failures.sort(key=lambda failure: failure.index)
    lines = [json.dumps({"shard": one.index // shard_size, **one.to_dict()}) + "\n" for one in failures]
    place.write(FAILURES, "".join(lines).encode())
    place.tidy()
    encoded = sum(summary.encoded for summary in done.values())
    sizes = (listed.photos, encoded, manifest.embedding_dim, len(done), kept)
    return ShardReport(place.uri, *sizes, tuple(failures), listed.left_out)


def _complete(folder: Folder, manifest: Manifest) -> dict[int, Summary]:
    """The summaries of the complete shards, by index."""
    names = set(folder.names())
    existing = [index for index in range(manifest.shards) if manifest.name(index) in names]
    with ThreadPoolExecutor(_SUMMARIES) as pool:
        summaries = pool.map(lambda index: read_summary(folder, manifest, index), existing)
        return {summary.index: summary for summary in summaries if summary is not None}


def _check(engine: str, format: str, on_error: str, numbers: Mapping[str, int | None]) -> None:
    """Refuse wrong arguments, with all faults in one message."""
    choices = {"engine": (engine, Executor), "format": (format, Format), "on_error": (on_error, OnError)}
    faults = [
        f"{name} must be {' or '.join(map(repr, get_args(kind)))}, got {value!r}"
        for name, (value, kind) in choices.items()
        if value not in get_args(kind)
    ]
    faults += [
        f"{name} must be a whole number of at least 1, got {value!r}"
        for name, value in numbers.items()
        if value is not None and (type(value) is not int or value < 1)
    ]
    if numbers["workers"] is not None and engine == "local":
        faults.append("workers goes with engine 'ray'")
    if faults:
        raise InputError("; ".join(faults))
