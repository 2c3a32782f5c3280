"""From shards to rows of a gallery: the embeddings are copied, and written batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fashion_retrieval._utils.progress import progress_bar
from fashion_retrieval.errors import GalleryError, ShardError
from fashion_retrieval.gallery.engines.base import Row, VectorStore
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.files import read_shard, read_summary
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.shards.manifest import Manifest, Summary, same_precision

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 4_096
"""Rows written at a time."""


def add_shards(store: VectorStore, folder: Folder, *, progress: bool) -> tuple[int, int, int, tuple[Failure, ...]]:
    """Write all rows of the shards.

    Returns:
        How many rows were added, updated and unchanged, and the images that the shards lack.

    Raises:
        GalleryError: The gallery is of another model, dtype or backend, or it recognizes its images.
        ShardError: There are no shards, one is missing, or one is damaged.
    """
    manifest = Manifest.read(folder)
    _check(store, folder, manifest)
    counts: Counter[str] = Counter()
    failures: list[Failure] = []
    with progress_bar("adding", manifest.photos, shown=progress) as advance:
        for index, summary in enumerate(_summaries(folder, manifest)):
            failures += summary.failures
            for rows in _rows(read_shard(folder, manifest, index), store):
                counts += _write(store, rows)
                advance(len(rows))
            advance(len(summary.failures), failed=len(summary.failures))
    store.wait_until_indexed()
    return counts["added"], counts["updated"], counts["unchanged"], tuple(failures)


def _check(store: VectorStore, folder: Folder, manifest: Manifest) -> None:
    kept = store.settings
    if (kept.fingerprint, kept.embedding_dim) != (manifest.fingerprint, manifest.embedding_dim):
        raise GalleryError(
            f"gallery {store.uri} holds embeddings of model {kept.model_id!r} ({kept.fingerprint[:12]}), shards "
            f"{folder.uri} of {manifest.model_id!r} ({manifest.fingerprint[:12]}); encode them with the gallery's model"
        )
    if kept.dtype is not None and not same_precision(kept.dtype, manifest.dtype):
        raise GalleryError(
            f"gallery {store.uri} holds embeddings computed in {kept.dtype}, shards {folder.uri} in {manifest.dtype}; "
            "encode them with the gallery's dtype and backend"
        )
    if kept.taxonomy:
        remedy = "make it with recognize=False, or add the photos themselves"
        raise GalleryError(f"gallery {store.uri} recognizes its photos, and shards hold embeddings alone; {remedy}")


def _summaries(folder: Folder, manifest: Manifest) -> list[Summary]:
    """The summaries of all shards, read before the first is added, so that a gallery never gets a part of them."""
    summaries: list[Summary] = []
    for index in range(manifest.shards):
        summary = read_summary(folder, manifest, index)
        if summary is None:
            remedy = "run the same encode_shards again"
            raise ShardError(f"{folder.uri} lacks {manifest.name(index)}, of {manifest.shards} shards; {remedy}")
        summaries.append(summary)
    return summaries


def _rows(table: pa.Table, store: VectorStore) -> Iterator[list[Row]]:
    empty = dict.fromkeys(store.settings.fields)
    width = store.settings.embedding_dim
    for batch in table.to_batches(_ROWS):
        vectors = batch["embedding"].flatten().to_numpy().reshape(-1, width)
        columns = (batch[name].to_pylist() for name in ("id", "uri", "digest"))
        yield [
            Row(id, vector, digest, uri, dict(empty)) for id, uri, digest, vector in zip(*columns, vectors, strict=True)
        ]


def _write(store: VectorStore, rows: Sequence[Row]) -> Counter[str]:
    known = store.read([row.id for row in rows])
    counts: Counter[str] = Counter()
    changed: list[Row] = []
    for row in rows:
        before = known.get(row.id)
        same = before is not None and (before.digest, before.photo) == (row.digest, row.photo)
        counts["unchanged" if same else "updated" if before else "added"] += 1
        if not same:
            changed.append(replace(row, fields=before.fields) if before else row)
    if changed:
        store.write(changed)
    return counts
