"""From shards to rows of a gallery: embeddings are taken as they are, and written batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fashion_retrieval._utils.progress import progress_bar
from fashion_retrieval.errors import GalleryError, ShardError
from fashion_retrieval.gallery.engines.base import Engine, Row
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.files import read_shard, read_summary
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.shards.manifest import Manifest, Summary

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 4_096
"""Rows written at a time."""


def add_shards(engine: Engine, folder: Folder, *, progress: bool) -> tuple[int, int, int, tuple[Failure, ...]]:
    """Write all rows of the shards; how many are added, updated and unchanged, and the photos that shards lack.

    Raises:
        GalleryError: The gallery is another model's, or recognizes its photos, which shards do not tell of.
        ShardError: There are no shards, not all of them, or one is damaged.
    """
    manifest = Manifest.read(folder)
    _check(engine, folder, manifest)
    counts: Counter[str] = Counter()
    failures: list[Failure] = []
    with progress_bar("adding", manifest.photos, shown=progress) as advance:
        for index, summary in enumerate(_summaries(folder, manifest)):
            failures += summary.failures
            for rows in _rows(read_shard(folder, manifest, index), engine):
                counts += _write(engine, rows)
                advance(len(rows))
            advance(len(summary.failures), failed=len(summary.failures))
    engine.settle()
    return counts["added"], counts["updated"], counts["unchanged"], tuple(failures)


def _check(engine: Engine, folder: Folder, manifest: Manifest) -> None:
    kept = engine.settings
    if (kept.fingerprint, kept.embedding_dim) != (manifest.fingerprint, manifest.embedding_dim):
        raise GalleryError(
            f"gallery {engine.uri} holds embeddings of model {kept.model_id!r} ({kept.fingerprint[:12]}), shards "
            f"{folder.uri} of {manifest.model_id!r} ({manifest.fingerprint[:12]}); encode them with the gallery's model"
        )
    if kept.taxonomy:
        remedy = "make it with recognize=False, or add the photos themselves"
        raise GalleryError(f"gallery {engine.uri} recognizes its photos, and shards hold embeddings alone; {remedy}")


def _summaries(folder: Folder, manifest: Manifest) -> list[Summary]:
    """Of all shards; read before the first is added, so that a gallery does not get a part of them."""
    summaries: list[Summary] = []
    for index in range(manifest.shards):
        summary = read_summary(folder, manifest, index)
        if summary is None:
            remedy = "run the same encode_shards again"
            raise ShardError(f"{folder.uri} lacks {manifest.name(index)}, of {manifest.shards} shards; {remedy}")
        summaries.append(summary)
    return summaries


def _rows(table: pa.Table, engine: Engine) -> Iterator[list[Row]]:
    empty = dict.fromkeys(engine.settings.fields)
    width = engine.settings.embedding_dim
    for batch in table.to_batches(_ROWS):
        vectors = batch["embedding"].flatten().to_numpy().reshape(-1, width)
        columns = (batch[name].to_pylist() for name in ("id", "uri", "digest"))
        yield [
            Row(id, vector, digest, uri, dict(empty)) for id, uri, digest, vector in zip(*columns, vectors, strict=True)
        ]


def _write(engine: Engine, rows: Sequence[Row]) -> Counter[str]:
    known = engine.read([row.id for row in rows])
    counts: Counter[str] = Counter()
    changed: list[Row] = []
    for row in rows:
        before = known.get(row.id)
        same = before is not None and (before.digest, before.photo) == (row.digest, row.photo)
        counts["unchanged" if same else "updated" if before else "added"] += 1
        if not same:
            changed.append(replace(row, fields=before.fields) if before else row)
    if changed:
        engine.write(changed)
    return counts
