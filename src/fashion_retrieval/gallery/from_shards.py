"""From shards to rows of a gallery: the embeddings are copied, and written batch by batch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fashion_retrieval._utils.progress import progress_bar
from fashion_retrieval.errors import GalleryError, ShardError
from fashion_retrieval.gallery.engines.base import Row, VectorStore
from fashion_retrieval.gallery.info import AddReport
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.files import read_shard, read_summary
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.shards.manifest import Manifest, Summary, same_precision

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 4_096
"""Rows written at a time."""


def add_shards(store: VectorStore, folder: Folder, *, progress: bool) -> AddReport:
    """Write all rows of the shards; `Gallery.add_shards` says what is refused."""
    manifest = Manifest.read(folder)
    _check(store, folder, manifest)
    counts: Counter[str] = Counter()
    failures: list[Failure] = []
    with progress_bar("adding", manifest.photos, shown=progress) as advance:
        for index, summary in enumerate(_summaries(folder, manifest)):
            failures += summary.failures
            for batch in read_shard(folder, manifest, index).to_batches(_ROWS):
                counts += _write(store, batch)
                advance(len(batch))
            advance(len(summary.failures), failed=len(summary.failures))
    store.wait_until_indexed()
    return AddReport(counts["added"], counts["updated"], counts["unchanged"], tuple(failures))


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


def _write(store: VectorStore, batch: pa.RecordBatch) -> Counter[str]:
    """Write what is new or changed of a batch, and count."""
    vectors = batch["embedding"].flatten().to_numpy().reshape(-1, store.settings.embedding_dim)
    ids, *others = (batch[name].to_pylist() for name in ("id", "uri", "digest"))
    known, unset = store.read(ids), dict.fromkeys(store.settings.fields)
    counts: Counter[str] = Counter()
    changed: list[Row] = []
    for id, uri, digest, vector in zip(ids, *others, vectors, strict=True):
        before = known.get(id)
        same = before is not None and (before.digest, before.photo) == (digest, uri)
        counts["unchanged" if same else "updated" if before else "added"] += 1
        if not same:
            changed.append(Row(id, vector, digest, uri, dict(before.fields if before else unset)))
    if changed:
        store.write(changed)
    return counts
