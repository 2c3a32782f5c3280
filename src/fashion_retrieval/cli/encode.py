"""`fashion-retrieval encode`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fashion_retrieval.cli.options import (
    Backend,
    BatchSize,
    Device,
    Dtype,
    Model,
    OnError,
    guarded,
    load_model,
    refuse,
    report_failures,
    watched,
)
from fashion_retrieval.cli.output import identifier, write_embeddings
from fashion_retrieval.cli.photos import Trouble, find_photos
from fashion_retrieval.cli.shards import Engine, Format, ShardSize, Workers, to_shards
from fashion_retrieval.errors import ImageError, InputError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fashion_retrieval import FashionModel

OUTPUTS = (".npy", ".parquet")


@guarded
def encode(
    out: Annotated[str, typer.Option(metavar="FILE|FOLDER", help="FILE: .npy (ids go beside it) or .parquet.")],
    paths: Annotated[list[str] | None, typer.Argument(help="Files, folders, patterns; for shards also lists.")] = None,
    texts: Annotated[Path | None, typer.Option(metavar="FILE", help="Encode its lines instead of photos.")] = None,
    model: Model = "compact",
    batch_size: BatchSize = 32,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: Backend = "auto",
    on_error: OnError = "raise",
    engine: Engine = None,
    workers: Workers = None,
    shard_size: ShardSize = None,
    format_: Format = None,
) -> None:
    """Turn photos, or the lines of a text file, into L2-normalized embeddings.

    A FILE is written at the end and must fit in memory; a FOLDER gets a shard for every 10,000 photos.

    With a FOLDER the same command goes on after an interruption, and --engine ray uses many machines.

    Its photos may be named by lists (.txt, .csv, .parquet) and lie in an object store (s3://bucket/photos).
    """
    if bool(paths) == bool(texts):
        refuse("give either photos or --texts FILE")
    given = {"engine": engine, "workers": workers, "shard_size": shard_size, "format": format_}
    given = {name: value for name, value in given.items() if value is not None}
    loading = {"device": device, "dtype": dtype, "backend": backend}
    if Path(out).suffix in OUTPUTS:
        if given:
            refuse(f"--{next(iter(given)).replace('_', '-')} goes with --out FOLDER, got the file {out!r}")
        _to_file(paths or (), texts, Path(out), model, loading, batch_size, on_error)
        return
    if texts:
        refuse(f"--texts goes with --out FILE, {' or '.join(OUTPUTS)}, got {out!r}")
    if Path(out).suffix and not (out.endswith("/") or Path(out).is_dir()):
        refuse(f"--out must end in {' or '.join(OUTPUTS)}, or be a folder, got {out!r}; a new folder may end in /")
    to_shards(paths or (), out, model=model, loading=loading, batch_size=batch_size, on_error=on_error, **given)


def _to_file(
    paths: Sequence[str],
    texts: Path | None,
    out: Path,
    model: str,
    loading: Mapping[str, str],
    batch_size: int,
    on_error: str,
) -> None:
    if not out.parent.is_dir():
        raise InputError(f"--out must lie in an existing folder, got {out}; create {out.parent} first")
    if out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise MissingExtraError("a .parquet file needs pyarrow; pip install 'fashion-retrieval[parquet]'")
    photos, troubles = find_photos(paths)
    if troubles and on_error == "raise":
        raise troubles[0][1]
    lines = _read_lines(texts) if texts else []
    fashion = load_model(model, **loading)
    if texts:
        ids = lines
        rows = list(fashion.encode(texts=lines, batch_size=batch_size, progress=sys.stderr.isatty()))
    else:
        batches = _encode_photos(fashion, photos, batch_size, troubles if on_error == "skip" else None)
        encoded = list(watched(batches, len(photos), streaming=False))
        ids, rows = [identifier(photo) for photo, _ in encoded], [row for _, row in encoded]
    if ids:
        write_embeddings(out, ids, rows)
        typer.echo(f"{len(ids)} embeddings of {fashion.embedding_dim} numbers in {out}", err=True)
    report_failures(troubles)


def _encode_photos(
    model: FashionModel, photos: list[Path], batch_size: int, troubles: list[Trouble] | None
) -> Iterator[tuple[Path, NDArray[np.float32]]]:
    """Photo by photo its embedding, (D,); one that can't be read is skipped where there is a list for troubles."""
    for start in range(0, len(photos), batch_size):
        batch = photos[start : start + batch_size]
        try:
            yield from zip(batch, model.encode(images=batch, batch_size=batch_size), strict=True)
        except ImageError:
            if troubles is None:
                raise
            yield from _encode_each(model, batch, troubles)


def _encode_each(
    model: FashionModel, photos: list[Path], troubles: list[Trouble]
) -> Iterator[tuple[Path, NDArray[np.float32]]]:
    for photo in photos:
        try:
            yield photo, model.encode(images=[photo])[0]
        except ImageError as error:
            troubles.append((str(photo), error))


def _read_lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text, one text a line ({error.reason})") from error
    if not lines:
        raise InputError(f"{path} holds no text; expected one text a line")
    return lines
