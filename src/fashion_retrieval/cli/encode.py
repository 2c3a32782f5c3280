"""`fashion-retrieval encode`: embeddings in a file, or in a folder of shards."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fashion_retrieval.cli import options
from fashion_retrieval.cli.options import load_model, progress, report_failures, usage_error
from fashion_retrieval.cli.output import write_embeddings
from fashion_retrieval.cli.photos import find_photos, identifier, photo_sources
from fashion_retrieval.errors import InputError, MissingExtraError

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
    batch_size: options.BatchSize = 32,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    backend: options.Backend = "auto",
    on_error: options.OnError = "raise",
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
        usage_error("give either photos or --texts FILE")
    given = {"engine": engine, "workers": workers, "shard_size": shard_size, "format": format_}
    given = {name: value for name, value in given.items() if value is not None}
    loading = {"device": device, "dtype": dtype, "backend": backend}
    if Path(out).suffix in OUTPUTS:
        if given:
            usage_error(f"--{next(iter(given)).replace('_', '-')} goes with --out FOLDER, got the file {out!r}")
        _to_file(paths or (), texts, Path(out), model, loading, batch_size, on_error)
        return
    if texts:
        usage_error(f"--texts goes with --out FILE, {' or '.join(OUTPUTS)}, got {out!r}")
    if Path(out).suffix and not (out.endswith("/") or Path(out).is_dir()):
        usage_error(f"--out must end in {' or '.join(OUTPUTS)}, or be a folder, got {out!r}; a new folder may end in /")
    _to_shards(paths or (), out, model=model, loading=loading, batch_size=batch_size, on_error=on_error, **given)


def _to_file(
    paths: Sequence[str],
    texts: Path | None,
    out: Path,
    model: str,
    loading: Mapping[str, str],
    batch_size: int,
    on_error: Literal["raise", "skip"],
) -> None:
    if not out.parent.is_dir():
        raise InputError(f"--out must lie in an existing folder, got {out}; create {out.parent} first")
    if out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise MissingExtraError("a .parquet file needs pyarrow; pip install 'fashion-retrieval[parquet]'")
    from fashion_retrieval import Failure

    photos, failures = find_photos(paths, on_error)
    ids = _read_lines(texts) if texts else []
    fashion = load_model(model, **loading)
    if texts:
        rows = list(fashion.encode(texts=ids, batch_size=batch_size, progress=sys.stderr.isatty()))
    else:
        rows = []
        encoded = fashion.encode_iter(photos, batch_size=batch_size, on_error=on_error)
        for photo, one in zip(photos, progress(encoded, len(photos)), strict=True):
            if isinstance(one.embedding, Failure):
                failures.append((str(photo), one.embedding.error))
            else:
                ids.append(identifier(photo))
                rows.append(one.embedding)
    if ids:
        write_embeddings(out, ids, rows)
        typer.echo(f"{len(ids)} embeddings of {fashion.embedding_dim} numbers in {out}", err=True)
    report_failures(failures)


def _to_shards(paths: Sequence[str], out: str, **given: Any) -> None:  # noqa: ANN401
    """Encode into a folder of shards and report the counts; exit status 1 if any photo failed."""
    from fashion_retrieval.shards import encode_shards

    report = encode_shards(photo_sources(paths), out, progress=sys.stderr.isatty(), **given)
    counts = f"{report.encoded} embeddings of {report.embedding_dim} numbers in {report.folder}"
    typer.echo(f"{counts}, {report.shards} shards, {report.kept} of them there before", err=True)
    if report.failures:
        typer.echo(f"{len(report.failures)} failed, all listed in failures.jsonl:", err=True)
        for failure in report.failures[:_SHOWN]:
            typer.echo(f"  {failure.source}: {failure.error}", err=True)
        raise typer.Exit(1)


def _read_lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text, one text a line ({error.reason})") from error
    if not lines:
        raise InputError(f"{path} holds no text; expected one text a line")
    return lines
