"""Shards as Parquet files or Lance tables. A shard exists whole, with the summary of its images, or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fashion_retrieval.errors import ImageError, ShardError
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.filesystem import Folder, translate_errors
from fashion_retrieval.shards.manifest import Manifest, Summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from lancedb.table import Table
    from numpy.typing import NDArray

_METADATA = b"fashion_retrieval_shard"


def write_shard(
    folder: Folder,
    manifest: Manifest,
    summary: Summary,
    photos: Sequence[tuple[str, str, str]],
    embeddings: NDArray[np.float32],
) -> None:
    """Write a shard, or replace it.

    Args:
        folder: The folder of the shards.
        manifest: The plan of all shards.
        summary: What became of this shard's images; kept inside it.
        photos: Id, URI and SHA-256 of the file for each image.
        embeddings: (N, D) float32, L2-normalized.
    """
    import pyarrow as pa

    ids, uris, digests = zip(*photos, strict=True) if photos else ((), (), ())
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), manifest.embedding_dim)
    columns = {"id": ids, "uri": uris, "digest": digests}
    table = pa.table({name: pa.array(texts, pa.string()) for name, texts in columns.items()} | {"embedding": vectors})
    table = table.replace_schema_metadata({_METADATA: _to_json(manifest, summary)})
    name = manifest.name(summary.index)
    if manifest.format == "lance":
        _write_lance(folder, name, table)
    else:
        folder.write(name, _parquet(table))


def read_shard(folder: Folder, manifest: Manifest, index: int) -> pa.Table:
    """A shard's columns: id, uri, digest (SHA-256 of the file) and embedding, (D,) float32.

    Raises:
        ShardError: It can't be read.
    """
    from pyarrow import parquet

    name = manifest.name(index)
    with translate_errors(f"{folder.uri}/{name}"):
        if manifest.format == "lance":
            return _open_lance(folder, name).to_arrow()
        with folder.filesystem.open(folder.path(name)) as stream:
            return parquet.read_table(stream)


def read_summary(folder: Folder, manifest: Manifest, index: int) -> Summary | None:
    """The summary of a shard; None where the shard is damaged or of another plan."""
    from pyarrow import parquet

    name = manifest.name(index)
    try:
        with translate_errors(f"{folder.uri}/{name}"):
            if manifest.format == "lance":
                table = _open_lance(folder, name)
                return _from_json(table.schema.metadata or {}, manifest, index, table.count_rows())
            with folder.filesystem.open(folder.path(name)) as stream, parquet.ParquetFile(stream) as file:
                return _from_json(file.schema_arrow.metadata or {}, manifest, index, file.metadata.num_rows)
    except ShardError:
        return None


def _parquet(table: pa.Table) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    stream = pa.BufferOutputStream()
    parquet.write_table(table, stream, compression="zstd", use_dictionary=False, write_statistics=False)
    return bytes(stream.getvalue())


def _write_lance(folder: Folder, name: str, table: pa.Table) -> None:
    import lancedb

    folder.remove(name)  # a killed writer leaves no version, and Lance warns of that
    with translate_errors(f"{folder.uri}/{name}"):
        lancedb.connect(folder.uri).create_table(name.removesuffix(".lance"), table)


def _open_lance(folder: Folder, name: str) -> Table:
    import lancedb

    return lancedb.connect(folder.uri).open_table(name.removesuffix(".lance"))


def _to_json(manifest: Manifest, summary: Summary) -> str:
    failures = [(failure.index, failure.source, str(failure.error)) for failure in summary.failures]
    return json.dumps({"manifest": manifest.to_dict(), "index": summary.index, "failures": failures})


def _from_json(metadata: dict[bytes, bytes], manifest: Manifest, index: int, encoded: int) -> Summary | None:
    try:
        kept = json.loads(metadata[_METADATA])
        if (Manifest(**kept["manifest"]), kept["index"]) != (manifest, index):
            return None
        failures = tuple(Failure(place, uri, ImageError(reason)) for place, uri, reason in kept["failures"])
    except (ValueError, KeyError, TypeError):
        return None
    return Summary(index, encoded, failures)
