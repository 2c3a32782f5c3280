"""The embedded vector store: LanceDB, in a folder or an object store."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import GalleryError
from fashion_retrieval.gallery.engines import tidying
from fashion_retrieval.gallery.engines.base import (
    BATCH,
    Row,
    Settings,
    already_exists,
    batched,
    migrated,
    not_found,
    translate_errors,
)
from fashion_retrieval.gallery.engines.memory import BYTES_OF_CODE, Snapshot
from fashion_retrieval.gallery.engines.sql import any_of, render
from fashion_retrieval.gallery.filters import Filter
from fashion_retrieval.inference.vectors import quantized, restored
from fashion_retrieval.shards.filesystem import s3_options

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import DBConnection
    from lancedb.table import Table

T = TypeVar("T")
MEMORY_BUDGET = 5 << 29
"""Bytes of memory that the vectors of one open gallery may take by default: 2.5 GiB, a million of 512 float32.

A larger gallery is searched by LanceDB on disk.
"""
_log = logging.getLogger(__name__)
_TABLE, _NEXT = "photos", "photos.next"
_SETTINGS = b"fashion_retrieval"
_FEW = 4_096
"""Up to this many rows that a filter leaves of a larger gallery are scored here; more are scanned by LanceDB."""
_INDEX_IDS_FROM = 20_000
"""Rows from which on ids are looked up through an index."""
_PARTITIONS, _CANDIDATES, _REFINE = 20, 1_024, 4
"""Partitions a search looks into, candidates in each, and how many times `limit` are scored with full vectors."""


class LanceStore:
    """One table whose every write is a new version: a reader, or a crash, never sees half of one.

    A table within the memory budget is searched in memory, at its current version; in a larger one, LanceDB searches.
    """

    name = "lancedb"

    def __init__(self, uri: str, table: Table, memory_budget: int | None = None) -> None:
        self.uri = uri
        self._budget, self._told = memory_budget, False
        self._opened: Any = table  # its type stubs know less than it does
        self._lock = Lock()
        self._change_token: tuple[int, list[str]] | None = None
        self._version: int | None = None
        self._snapshot: Snapshot | None = None
        self._read_settings()

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is a table; other data in its place is refused."""
        return _open(uri) is not None

    @classmethod
    def create(cls, uri: str, settings: Settings, memory_budget: int | None = None) -> LanceStore:
        """Make a new table."""
        if cls.exists(uri):
            raise already_exists(uri)
        try:
            with translate_errors(uri, "created"):
                return cls(uri, _connect(uri).create_table(_TABLE, schema=_schema(settings)), memory_budget)
        except GalleryError as error:
            raise (already_exists(uri) if "already exists" in str(error) else error) from error

    @classmethod
    def open(cls, uri: str, *, load: bool = True, memory_budget: int | None = None) -> LanceStore:
        """Open the table; it is read when it is first searched, whatever `load` says."""
        table = _open(uri)
        if table is None:
            raise not_found(uri)
        return cls(uri, table, memory_budget)

    def write(self, rows: Sequence[Row]) -> None:
        with translate_errors(self.uri, "written"):
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            self._tidy(merge.execute(self._to_arrow(rows)).version)

    def read(self, ids: Collection[str]) -> dict[str, Row]:
        found: dict[str, Row] = {}
        with translate_errors(self.uri, "read"):
            for some in batched(dict.fromkeys(ids)):
                query = self._table.search().where(any_of(some)).limit(len(some))
                found |= {row.id: row for row in self._from_arrow(self._newest(query.to_arrow))}
        return found

    def scan(self) -> Iterator[list[Row]]:
        import pyarrow as pa

        with translate_errors(self.uri, "read"):
            for batch in self._table.search().to_batches(BATCH):
                yield self._from_arrow(pa.Table.from_batches([batch]))

    def nearest(self, query: NDArray[np.float32], limit: int, where: Filter | None) -> list[Row]:
        with translate_errors(self.uri, "searched"):
            snapshot = self._current_snapshot()
            if snapshot:
                return self._rows(*snapshot.nearest(query, limit, where, self.settings.columns))
            self._tell_of_disk()
            return self._newest(lambda: self._nearest_on_disk(query, limit, where))

    def _nearest_on_disk(self, query: NDArray[np.float32], limit: int, where: Filter | None) -> list[Row]:
        builder = self._table.search(query).distance_type("cosine").limit(limit)
        if where is None:
            candidates = max(_CANDIDATES, limit * _REFINE)
            approximate = builder.nprobes(_PARTITIONS).ef(candidates).refine_factor(_REFINE)
            return self._from_arrow(approximate.to_arrow())
        condition = render(where, self.settings.columns)
        few = self._table.search().where(condition).limit(_FEW + 1).to_arrow()
        if len(few) <= _FEW:
            scores = self._vectors(few) @ query
            return self._from_arrow(few.take(np.argsort(-scores, kind="stable")[:limit]))
        return self._from_arrow(builder.where(condition, prefilter=True).bypass_vector_index().to_arrow())

    def remove(self, ids: Collection[str]) -> int:
        removed = 0
        with translate_errors(self.uri, "changed"):
            for some in batched(dict.fromkeys(ids)):
                result = self._table.delete(any_of(some))
                removed += result.num_deleted_rows
                self._tidy(result.version)
        return removed

    def count(self) -> int:
        with translate_errors(self.uri, "read"):
            return int(self._table.count_rows())

    def wait_until_indexed(self) -> None:  # an index is made by `optimize` alone
        pass

    def optimize(self) -> None:
        from lancedb.index import HnswSq

        with translate_errors(self.uri, "optimized"):
            self._compact()
            if not self._fits(self.count()) and "vector" not in self._indices() and self.settings.precision != "int8":
                self._table.create_index("vector", config=HnswSq(distance_type="cosine"))

    def indexed(self) -> bool:
        with translate_errors(self.uri, "read"):
            return not self._fits(self.count()) and "vector" in self._indices()

    def staged(self, settings: Settings) -> LanceStore:
        with translate_errors(self.uri, "migrated"):
            connection, wanted = _connect(self.uri), _schema(settings)
            with suppress(RuntimeError, ValueError, OSError):  # there is none, or what was removed is not gone entirely
                table = connection.open_table(_NEXT)
                if table.schema.metadata == wanted.metadata:
                    return LanceStore(self.uri, table)
            self.unstage()
            return LanceStore(self.uri, connection.create_table(_NEXT, schema=wanted))

    def version(self) -> int:
        with translate_errors(self.uri, "read"):
            return int(self._table.version)

    def adopt(self, staged: LanceStore, version: int) -> bool:
        indexed = self.indexed()
        if self.version() != version:
            return False
        with translate_errors(self.uri, "migrated"):
            batches = staged._table.search().to_batches()
            # A new version of the same table, with another schema: one commit.
            made = _connect(self.uri).create_table(_TABLE, batches, schema=staged._schema, mode="overwrite")
            if made.version != version + 1:  # another process wrote while the rows were copied: back to its version
                made.checkout(made.version - 1)
                made.restore()
                return False
            self._opened = made
        self.close()
        self._read_settings()
        self.unstage()
        if indexed:
            self.optimize()
        return True

    def unstage(self) -> None:
        with translate_errors(self.uri, "migrated"):
            connection: Any = _connect(self.uri)
            connection.drop_table(_NEXT, ignore_missing=True)

    def close(self) -> None:
        self._change_token = self._version = self._snapshot = None

    @property
    def _table(self) -> Any:  # noqa: ANN401  # its type stubs know less than it does
        """The table at its newest version, unless it was migrated since it was opened."""
        self._check(self._opened)
        return self._opened

    def _check(self, table: Table) -> None:
        if (kept := _settings_of(table)) != self._kept:
            raise migrated(self.uri, kept)

    def _read_settings(self) -> None:
        with translate_errors(self.uri, "opened"):
            self._kept = _settings_of(self._opened)
        self.settings = Settings.from_json(self._kept, self.uri)
        self._schema = _schema(self.settings)

    def _current_snapshot(self) -> Snapshot | None:
        """The rows at the current version, or None where they exceed the budget."""
        with self._lock:
            token = self._read_change_token()
            if token is None or token != self._change_token:
                # A folder made anew has another time, and so has one after the first removal: all is loaded anew then.
                same_folder = token is None or (self._change_token is not None and token[0] == self._change_token[0])
                self._newest(lambda: self._refresh(same_folder=same_folder))
                self._change_token = token
            return self._snapshot

    def _read_change_token(self) -> tuple[int, list[str]] | None:
        """What changes in a local folder with every write, quicker to read than LanceDB's version; None elsewhere."""
        if "://" in self.uri:
            return None
        folder = Path(self.uri, f"{_TABLE}.lance")
        return folder.stat().st_mtime_ns, os.listdir(folder / "_versions")  # noqa: PTH208 (makes a Path of each)

    def _refresh(self, *, same_folder: bool) -> None:
        version = self._opened.version
        if version == self._version and same_folder:
            return
        table: Any = _connect(self.uri).open_table(_TABLE)
        table.checkout(version)
        self._check(table)
        fits = self._fits(table.count_rows())
        snapshot = self._snapshot.refresh(table) if self._snapshot and fits and same_folder else None
        self._snapshot, self._version = snapshot, None  # gives the old memory back before all is loaded anew
        if snapshot is None and fits:
            self._snapshot = Snapshot.load(table)
        self._version = version

    def _fits(self, count: int) -> bool:
        return self._needed(count) <= self._allowed

    def _needed(self, count: int) -> int:
        """Bytes of memory for the vectors of so many rows."""
        return count * self.settings.embedding_dim * (np.dtype(self.settings.precision).itemsize + BYTES_OF_CODE)

    @property
    def _allowed(self) -> int:
        return MEMORY_BUDGET if self._budget is None else self._budget

    def _tell_of_disk(self) -> None:
        """Say, once, that the vectors exceed the budget; LanceDB can't search int8, so that is an error."""
        if self._told:
            return
        count = self.count()
        told = (
            f"gallery {self.uri} needs {self._needed(count):,} bytes of memory for the vectors of {count:,} photos, "
            f"more than its memory_budget of {self._allowed:,}"
        )
        if self.settings.precision == "int8":
            raise GalleryError(f"{told}, and LanceDB can't search int8 on disk; open it with a larger memory_budget")
        _log.warning("%s: LanceDB searches on disk, slower or by an approximate index; see Gallery.open", told)
        self._told = True

    def _indices(self) -> set[str]:
        return {column for index in self._table.list_indices() for column in index.columns}

    def _newest(self, read: Callable[[], T]) -> T:
        return tidying.newest(lambda: int(self._opened.version), read)

    def _tidy(self, version: int) -> None:
        if tidying.is_time(version, self._table):
            self._compact()

    def _compact(self) -> None:
        from lancedb.index import BTree

        count = self.count()
        tidying.compact(self._table, vector_bytes=count * self.settings.embedding_dim * 4)
        if count >= _INDEX_IDS_FROM and "id" not in self._indices():
            self._table.create_index("id", config=BTree())

    def _to_arrow(self, rows: Sequence[Row]) -> pa.Table:
        import pyarrow as pa

        stacked = np.stack([row.vector for row in rows]).astype(np.float32, copy=False)
        vectors = quantized(stacked, self.settings.precision)
        data: dict[str, Any] = {
            "id": [row.id for row in rows],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
            "digest": [row.digest for row in rows],
            "photo": [row.photo for row in rows],
        }
        if self.settings.keeps_views:
            data["hash"] = [row.hash for row in rows]
            data["views"] = [list(row.views) for row in rows]
        data |= {column: [row.fields[name] for row in rows] for name, column in self.settings.columns.items()}
        return pa.table(data, schema=self._schema)

    def _from_arrow(self, table: pa.Table) -> list[Row]:
        return self._rows(
            {name: table[name].to_pylist() for name in table.schema.names if name != "vector"}, self._vectors(table)
        )

    def _rows(self, columns: Mapping[str, list[Any]], vectors: NDArray[np.float32]) -> list[Row]:
        names = ("id", "digest", "photo", *self.settings.columns.values())
        unseen = [None] * len(vectors), [()] * len(vectors)  # where a gallery keeps neither hashes nor views
        seen = (columns["hash"], columns["views"]) if self.settings.keeps_views else unseen
        return [
            Row(id, vector, digest, photo, dict(zip(self.settings.fields, values, strict=True)), hash, tuple(views))
            for vector, hash, views, id, digest, photo, *values in zip(
                vectors, *seen, *(columns[name] for name in names), strict=True
            )
        ]

    def _vectors(self, table: pa.Table) -> NDArray[np.float32]:
        column = table["vector"].combine_chunks()
        flat: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
        return restored(flat.reshape(-1, self.settings.embedding_dim))


def _schema(settings: Settings) -> pa.Schema:
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    numbers = pa.from_numpy_dtype(settings.precision)
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(numbers, settings.embedding_dim), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("photo", pa.string()),
    ]
    if settings.keeps_views:
        fields += [pa.field("hash", pa.int64()), pa.field("views", pa.list_(pa.string()), nullable=False)]
    fields += [pa.field(column, types[settings.types[name]]) for name, column in settings.columns.items()]
    return pa.schema(fields, metadata={_SETTINGS: settings.to_json().encode()})


def _settings_of(table: Table) -> bytes:
    return bytes((table.schema.metadata or {}).get(_SETTINGS, b""))


def _connect(uri: str) -> DBConnection:
    import lancedb

    options = s3_options() if uri.startswith("s3://") else None
    return lancedb.connect(uri, read_consistency_interval=timedelta(0), storage_options=options)


def _open(uri: str) -> Table | None:
    """The table, or None; a folder of other things is refused."""
    path = None if "://" in uri else Path(uri)
    if path and not path.exists():
        return None
    if path and not path.is_dir():
        raise GalleryError(f"a gallery must be a folder, got {uri}, a file; choose another path")
    try:
        with translate_errors(uri, "opened"):
            return _connect(uri).open_table(_TABLE)
    except GalleryError as error:
        if "was not found" not in str(error):
            raise
    if path and {entry.name for entry in path.iterdir()} - {f"{_TABLE}.lance", f"{_NEXT}.lance"}:
        remedy = "give the folder that Gallery.create or `fashion-retrieval index` made, or a new one"
        raise GalleryError(f"folder {uri} is no gallery; {remedy}")
    return None
