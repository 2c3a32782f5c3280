"""`fashion-retrieval encode --out FOLDER`: shards."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from glob import has_magic
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fashion_retrieval.cli.photos import find_photos

_SHOWN = 20
"""Failures named on the terminal; all are in a file."""

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


def to_shards(paths: Sequence[str], out: str, **options: Any) -> None:  # noqa: ANN401
    """Encode into a folder of shards, and tell what became of the photos; exit status 1 if any failed.

    Args:
        paths: Photos, folders, patterns and lists.
        out: The folder.
        **options: Of `encode_shards`.
    """
    from fashion_retrieval.shards.encode import encode_shards

    sources = [source for path in paths for source in _expand(path)]
    report = encode_shards(sources, out, progress=sys.stderr.isatty(), **options)
    told = f"{report.encoded} embeddings of {report.embedding_dim} numbers in {report.folder}"
    typer.echo(f"{told}, {report.shards} shards, {report.kept} of them there before", err=True)
    if report.failures:
        typer.echo(f"{len(report.failures)} failed, all listed in failures.jsonl:", err=True)
        for failure in report.failures[:_SHOWN]:
            typer.echo(f"  {failure.source}: {failure.error}", err=True)
        raise typer.Exit(1)


def _expand(path: str) -> Iterable[str]:
    if "://" in path or not has_magic(path) or Path(path).exists():
        return [path]
    found, troubles = find_photos([path])
    if troubles:
        raise troubles[0][1]
    return map(str, found)
