"""Shards as Parquet files or Lance tables. A shard exists whole, with the summary of its images, or not at all."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from fashion_retrieval.errors import ImageError, ShardError
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.filesystem import Folder, translate_errors
from fashion_retrieval.shards.manifest import Manifest, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from lancedb.db import DBConnection
    from numpy.typing import NDArray

_METADATA = b"fashion_retrieval_shard"


def write_shard(
    folder: Folder,
    manifest: Manifest,
    summary: Summary,
    photos: Sequence[tuple[str, str, str]],
    embeddings: NDArray[np.float32],
) -> None:
    """Write a shard with its summary inside, or replace it.

    `photos` has id, URI and SHA-256 of the file for each image; embeddings are (N, D) float32, L2-normalized.
    """
    import pyarrow as pa
    from pyarrow import parquet

    ids, uris, digests = zip(*photos, strict=True) if photos else ((), (), ())
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), manifest.embedding_dim)
    columns = {"id": ids, "uri": uris, "digest": digests}
    table = pa.table({name: pa.array(texts, pa.string()) for name, texts in columns.items()} | {"embedding": vectors})
    failures = [(failure.index, failure.source, str(failure.error)) for failure in summary.failures]
    kept = {"manifest": asdict(manifest), "index": summary.index, "failures": failures}
    table = table.replace_schema_metadata({_METADATA: json.dumps(kept)})
    name = manifest.name(summary.index)
    if manifest.format == "lance":
        folder.remove(name)  # a killed writer leaves no version, and Lance warns of that
        with translate_errors(f"{folder.uri}/{name}"):
            _lance(folder).create_table(name.removesuffix(".lance"), table)
    else:
        stream = pa.BufferOutputStream()
        parquet.write_table(table, stream, compression="zstd", use_dictionary=False, write_statistics=False)
        folder.write(name, bytes(stream.getvalue()))


def read_shard(folder: Folder, manifest: Manifest, index: int) -> pa.Table:
    """A shard's columns: id, uri, digest (SHA-256 of the file) and embedding, (D,) float32."""
    with _opened(folder, manifest.name(index)) as (_, _, read):
        return read()


def read_summary(folder: Folder, manifest: Manifest, index: int) -> Summary | None:
    """The summary of a shard; None where the shard is damaged or of another plan."""
    try:
        with _opened(folder, manifest.name(index)) as (metadata, encoded, _):
            kept = json.loads(metadata[_METADATA])
            if (Manifest(**kept["manifest"]), kept["index"]) != (manifest, index):
                return None
            failures = tuple(Failure(place, uri, ImageError(reason)) for place, uri, reason in kept["failures"])
            return Summary(index, encoded, failures)
    except ShardError:
        return None


@contextmanager
def _opened(folder: Folder, name: str) -> Iterator[tuple[Mapping[bytes, bytes], int, Callable[[], pa.Table]]]:
    """A shard's metadata, its number of rows, and what reads all of it; any error becomes a `ShardError`."""
    from pyarrow import parquet

    with translate_errors(f"{folder.uri}/{name}"):
        if name.endswith(".lance"):
            table = _lance(folder).open_table(name.removesuffix(".lance"))
            yield table.schema.metadata, table.count_rows(), table.to_arrow
        else:
            with folder.filesystem.open(folder.path(name)) as stream, parquet.ParquetFile(stream) as file:
                yield file.schema_arrow.metadata, file.metadata.num_rows, file.read


def _lance(folder: Folder) -> DBConnection:
    import lancedb

    return lancedb.connect(folder.uri)
