"""Lists of images: folders, and text, CSV or Parquet files that name images by path or URI."""

from __future__ import annotations

import csv
import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from fashion_retrieval._utils.checks import check_id
from fashion_retrieval.errors import InputError, ShardError
from fashion_retrieval.images.folder import PHOTOS, files_below, sort_files
from fashion_retrieval.shards.filesystem import locate, translate_errors
from fashion_retrieval.shards.manifest import Shard

Photo = tuple[str, str]
"""An image's id and its path or URI."""

_URI_COLUMNS = ("uri", "path")


class PhotoList:
    """Images in a fixed order, cut into shards; read as they are needed, whatever their number.

    Sources are images, folders (with all folders below, sorted) and lists, by path or URI. A list ends in .txt (one
    image a line), .csv or .parquet (a column "uri" or "path", and "id" where the id is another). All are read once when
    this is made, for the number of `photos` and the `digest`, SHA-256 of all ids and URIs, and refused with any fault.
    `left_out` is a line for each folder with pictures that can't be read.
    """

    def __init__(self, sources: Sequence[str], shard_size: int) -> None:
        self._sources = sources
        self._shard_size = shard_size
        self._digests: list[str] = []
        self._reports: dict[str, str] = {}
        whole, hashes = hashlib.sha256(), array("q")
        for shard in self._cut():
            for place, (id, uri) in enumerate(zip(shard.ids, shard.uris, strict=True), start=shard.start):
                check_id(id, place)
                whole.update(f"{id}\0{uri}\0".encode())
                hashes.append(hash(id))
            self._digests.append(shard.digest)
        if not hashes:
            raise InputError(f"expected at least one photo, got none in {', '.join(sources):.200}")
        self._check_distinct(hashes)
        self.photos, self.digest = len(hashes), whole.hexdigest()
        self.left_out = tuple(self._reports.values())

    def shards(self) -> Iterator[Shard]:
        """The shards, in order; a `ShardError` where the list has changed since it was first read."""
        number = 0
        for number, shard in enumerate(self._cut(), start=1):
            if self._digests[shard.index : number] != [shard.digest]:
                break
            yield shard
        else:
            if number == len(self._digests):
                return
        raise ShardError(f"the list of photos changed while it was encoded, at photo {number * self._shard_size}")

    def _cut(self) -> Iterator[Shard]:
        photos = (photo for source in self._sources for photo in _read_source(source, self._reports))
        index = 0
        while some := list(islice(photos, self._shard_size)):
            ids, uris = zip(*some, strict=True)
            yield Shard(index, index * self._shard_size, ids, uris)
            index += 1

    def _check_distinct(self, hashes: array[int]) -> None:
        import numpy as np

        ordered = np.frombuffer(hashes, np.int64)
        ordered.sort()  # in place: there may be a billion
        suspects, seen = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist()), set[str]()
        if not suspects:
            return
        for id in (id for shard in self._cut() for id in shard.ids if hash(id) in suspects):
            if id in seen:
                raise InputError(f"ids must be distinct, got {id!r:.120} twice; name it once, or give other ids")
            seen.add(id)


def _read_source(source: str, reports: dict[str, str]) -> Iterator[Photo]:
    suffix, remote = Path(source).suffix.lower(), "://" in source
    if suffix == ".txt":
        with _text(source) as stream:
            uris = (line.rstrip("\r\n") for line in stream)
            yield from ((uri, uri) for uri in uris if uri)
    elif suffix == ".csv":
        with _text(source) as stream:
            rows = csv.DictReader(stream, strict=True)
            yield from _rows(source, rows.fieldnames or (), rows)
    elif suffix == ".parquet":
        yield from _read_parquet(source)
    elif (suffix in PHOTOS and source[-1] != "/") if remote else not Path(source).is_dir():
        yield source, source
    else:
        folder = source.rstrip("/")
        if remote:
            filesystem, path = locate(folder)
            with translate_errors(folder):
                names = sorted(name.removeprefix(path).removeprefix("/") for name in filesystem.find(path))
            files = sort_files(source, names)
        else:
            files = files_below(Path(source))
        if not files.photos:
            raise InputError(files.why_empty)
        if files.report:
            reports[source] = files.report
        for name in files.photos:
            uri = f"{folder}/{name}" if remote else str(Path(source, name))
            yield uri, uri


def _read_parquet(source: str) -> Iterator[Photo]:
    from pyarrow import parquet

    filesystem, path = locate(source)
    with translate_errors(source), filesystem.open(path) as stream, parquet.ParquetFile(stream) as file:
        names = file.schema_arrow.names
        wanted = [name for name in ("id", *_URI_COLUMNS) if name in names]
        rows = (row for batch in file.iter_batches(columns=wanted) for row in batch.to_pylist())
        yield from _rows(source, names, rows)


def _rows(source: str, names: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[Photo]:
    column = next((name for name in _URI_COLUMNS if name in names), None)
    if column is None:
        raise InputError(f"list {source} must have a column 'uri' or 'path', got {', '.join(names)!r:.100}")
    for number, row in enumerate(rows):
        uri = row[column]
        if not isinstance(uri, str) or not uri:
            raise InputError(f"list {source} must have a text in each row of {column!r}, got {uri!r} in row {number}")
        yield row.get("id", uri), uri


@contextmanager
def _text(source: str) -> Iterator[TextIO]:
    filesystem, path = locate(source)
    with translate_errors(source), filesystem.open(path, "r", encoding="utf-8-sig", newline="") as stream:
        try:
            yield stream
        except UnicodeDecodeError as error:
            raise InputError(f"list {source} must be UTF-8 text ({error.reason}); save it as UTF-8") from error
        except csv.Error as error:
            raise InputError(f"list {source} must be CSV with a header ({error}); correct that line") from error
