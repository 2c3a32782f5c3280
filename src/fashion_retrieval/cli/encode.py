"""`fashion-retrieval encode`: embeddings in a file, or in a folder of shards."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fashion_retrieval.cli import options
from fashion_retrieval.cli.options import report_failures, successes
from fashion_retrieval.cli.output import write_embeddings
from fashion_retrieval.cli.photos import find_photos, identifier, photo_sources
from fashion_retrieval.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fashion_retrieval import Failure
    from fashion_retrieval.results import Encoded

OUTPUTS = (".npy", ".parquet")
_SHOWN = 20
"""Failures of shards named on the terminal; all are in a file."""

Engine = Annotated[
    Literal["local", "ray"] | None, typer.Option(help="For shards: this process (local, the default) or a Ray cluster.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="For --engine ray: how many models; by default one a GPU, or one for 4 CPUs.")
]
ShardSize = Annotated[int | None, typer.Option(min=1, help="For shards: photos in each; by default 10,000.")]
Format = Annotated[
    Literal["parquet", "lance"] | None, typer.Option("--format", help="For shards: parquet (the default) or lance.")
]


def encode(
    out: Annotated[str, typer.Option(metavar="FILE|FOLDER", help="FILE: .npy (ids go beside it) or .parquet.")],
    paths: Annotated[list[str] | None, typer.Argument(help="Files, folders, patterns; for shards also lists.")] = None,
    texts: Annotated[Path | None, typer.Option(metavar="FILE", help="Encode its lines instead of photos.")] = None,
    model: options.Model = "compact",
    max_pixels: options.MaxPixels = None,
    batch_size: options.BatchSize = 32,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    backend: options.Backend = "auto",
    on_error: options.OnError = "raise",
    engine: Engine = None,
    workers: Workers = None,
    shard_size: ShardSize = None,
    format_: Format = None,
    dimensions: options.Dimensions = None,
    precision: options.Precision = "float32",
) -> None:
    """Turn photos, or the lines of a text file, into L2-normalized embeddings.

    A FILE is written at the end and must fit in memory; a FOLDER gets a shard for every 10,000 photos.

    With a FOLDER the same command goes on after an interruption, and --engine ray uses many machines.

    Its photos may be named by lists (.txt, .csv, .parquet) and lie in an object store (s3://bucket/photos).
    """
    if bool(paths) == bool(texts):
        raise typer.BadParameter("give either photos or --texts FILE")
    shards = {"engine": engine, "workers": workers, "shard_size": shard_size, "format": format_}
    given: dict[str, Any] = {name: value for name, value in shards.items() if value is not None}
    loading = {"device": device, "dtype": dtype, "backend": backend}
    reading: dict[str, Any] = {"batch_size": batch_size, "on_error": on_error, "max_pixels": max_pixels}
    smaller: dict[str, Any] = {"dimensions": dimensions, "precision": precision}
    endings = " or ".join(OUTPUTS)
    if Path(out).suffix in OUTPUTS:
        if given:
            option = next(iter(given)).replace("_", "-")
            raise typer.BadParameter(f"--{option} goes with --out FOLDER, got the file {out!r}")
        _to_file(Path(out), paths or (), texts, model, loading, reading, smaller)
        return
    if smaller != {"dimensions": None, "precision": "float32"}:
        raise typer.BadParameter(f"--dimensions and --precision go with --out FILE, {endings}, got {out!r}")
    if texts:
        raise typer.BadParameter(f"--texts goes with --out FILE, {endings}, got {out!r}")
    if Path(out).suffix and not (out.endswith("/") or Path(out).is_dir()):
        wanted = f"end in {endings}, or be a folder, got {out!r}; a new folder may end in /"
        raise typer.BadParameter(f"--out must {wanted}")
    from fashion_retrieval.shards import encode_shards

    given |= reading | {"loading": loading, "progress": sys.stderr.isatty()}
    report = encode_shards(photo_sources(paths or ()), out, model=model, **given)
    for line in report.left_out:
        typer.echo(line, err=True)
    counts = f"{report.encoded} embeddings of {report.embedding_dim} numbers in {report.folder}"
    shards_told = f"{report.shards} shard{'' if report.shards == 1 else 's'}"
    typer.echo(f"{counts}, {shards_told}, {report.kept} of them there before", err=True)
    failures = [(failure.source, failure.error) for failure in report.failures]
    report_failures(failures, most=_SHOWN, note=", all listed in failures.jsonl")


def _to_file(
    out: Path,
    paths: Sequence[str],
    texts: Path | None,
    model: str,
    loading: dict[str, Any],
    reading: dict[str, Any],
    smaller: dict[str, Any],
) -> None:
    if not out.parent.is_dir():
        raise InputError(f"--out must lie in an existing folder, got {out}; create {out.parent} first")
    if out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise MissingExtraError("a .parquet file needs pyarrow; pip install 'fashion-retrieval[parquet]'")
    from fashion_retrieval import FashionModel

    photos, failures = find_photos(paths, reading["on_error"])
    ids = _read_lines(texts) if texts else []
    fashion = FashionModel.from_pretrained(model, **loading)
    if texts:
        telling = smaller | {"batch_size": reading["batch_size"], "progress": sys.stderr.isatty()}
        rows = list(fashion.encode(texts=ids, **telling))
    else:
        encoded = fashion.encode_iter(photos, **reading | {"on_error": "skip"}, **smaller)
        pairs = list(successes(photos, _checked(encoded, stop=reading["on_error"] == "raise"), failures))
        ids, rows = [identifier(photo) for photo, _ in pairs], [embedding for _, embedding in pairs]
    if ids:
        write_embeddings(out, ids, rows)
        typer.echo(f"{len(ids)} embeddings of {len(rows[0])} numbers in {out}", err=True)
    report_failures(failures)


def _checked(encoded: Iterable[Encoded], *, stop: bool) -> Iterator[NDArray[np.float32] | Failure]:
    """Embeddings and failures; `stop` raises the first failure, which names the file and not its place in a list."""
    from fashion_retrieval import Failure

    for one in encoded:
        if stop and isinstance(one.embedding, Failure):
            raise one.embedding.error
        yield one.embedding


def _read_lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text, one text a line ({error.reason})") from error
    if not lines:
        raise InputError(f"{path} holds no text; expected one text a line")
    return lines
