"""The embedded engine: LanceDB, in a folder or an object store."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import GalleryError
from fashion_retrieval.gallery.engines.base import Row, Settings, batches, in_the_way, missing, telling
from fashion_retrieval.gallery.engines.memory import Held
from fashion_retrieval.gallery.filters import Comparison, Condition, Scalar, like_pieces

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import DBConnection
    from lancedb.table import Table

_TABLE = "photos"
_SETTINGS = b"fashion_retrieval"
_BYTES = 5
"""What a number of a vector takes in memory: as float32, and as an 8-bit code."""
_MEMORY = 5 << 29
"""The most bytes for the vectors of a gallery that is held in memory: a million of 512 numbers."""
_FEW = 4_096
"""Rows of a larger gallery that a filter may leave to be scored here; for more, LanceDB scans."""
_MANY = 20_000
"""Rows from which on ids are looked up through an index."""
_TIDY_AFTER = 256
_KEEP = timedelta(hours=1)
_PARTITIONS, _CANDIDATES, _REFINE = 20, 1_024, 4
"""Partitions a search looks into, candidates in each, and how many times `limit` are scored with full vectors."""


class LanceEngine:
    """One table whose every write is a new version: a reader, or a crash, never sees half of one.

    A table that fits is searched in memory, at its version now; in a larger one, LanceDB searches.
    """

    name = "lancedb"

    def __init__(self, uri: str, table: Table) -> None:
        self.uri = uri
        self._table: Any = table  # its type stubs know less than it does
        self._writes = 0
        self._lock = Lock()
        self._traced: tuple[int, list[str]] | None = None
        self._version: int | None = None
        self._held: Held | None = None
        with telling(uri, "opened"):
            kept = (table.schema.metadata or {}).get(_SETTINGS, b"")
        self.settings = Settings.from_json(kept, uri)
        self._schema = _schema(self.settings)

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is a gallery, or other data in its place."""
        return _open(uri) is not None

    @classmethod
    def create(cls, uri: str, settings: Settings) -> LanceEngine:
        """A new table.

        Raises:
            GalleryError: One is there already, or the place can't be written.
        """
        try:
            with telling(uri, "created"):
                return cls(uri, _connect(uri).create_table(_TABLE, schema=_schema(settings)))
        except GalleryError as error:
            raise (in_the_way(uri) if "already exists" in str(error) else error) from error

    @classmethod
    def open(cls, uri: str) -> LanceEngine:
        """The table that is there.

        Raises:
            GalleryError: None is there, or it is no gallery.
        """
        table = _open(uri)
        if table is None:
            raise missing(uri)
        return cls(uri, table)

    def write(self, rows: Sequence[Row]) -> None:
        """See `Engine`."""
        with telling(self.uri, "written"):
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(self._to_arrow(rows))
            self._writes += 1
            # Tidying rewrites small files; a share of the gallery at a time keeps the whole effort linear.
            if self._writes >= _TIDY_AFTER and self._writes * len(rows) * 4 > self.count():
                self._tidy()

    def read(self, ids: Collection[str]) -> dict[str, Row]:
        """See `Engine`."""
        found: dict[str, Row] = {}
        with telling(self.uri, "read"):
            for some in batches(ids):
                query = self._table.search().where(_any_of("id", some)).limit(len(some))
                found |= {row.id: row for row in self._from_arrow(query.to_arrow())}
        return found

    def nearest(self, query: NDArray[np.float32], limit: int, where: Condition | None) -> list[Row]:
        """See `Engine`."""
        with telling(self.uri, "searched"):
            held = self._in_memory()
            if held:
                return self._from_arrow(*held.nearest(query, limit, where, self.settings.columns))
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
        """See `Engine`."""
        with telling(self.uri, "changed"):
            return sum(self._table.delete(_any_of("id", some)).num_deleted_rows for some in batches(ids))

    def count(self) -> int:
        """See `Engine`."""
        with telling(self.uri, "read"):
            return int(self._table.count_rows())

    def settle(self) -> None:
        """See `Engine`."""

    def optimize(self) -> None:
        """See `Engine`."""
        from lancedb.index import BTree, HnswSq

        with telling(self.uri, "optimized"):
            self._tidy()
            there, count = self._indices(), self.count()
            if count >= _MANY and "id" not in there:
                self._table.create_index("id", config=BTree())
            if not self._fits(count) and "vector" not in there:
                self._table.create_index("vector", config=HnswSq(distance_type="cosine"))

    def indexed(self) -> bool:
        """See `Engine`."""
        with telling(self.uri, "read"):
            return not self._fits(self.count()) and "vector" in self._indices()

    def close(self) -> None:
        """See `Engine`."""
        self._traced = self._version = self._held = None

    def _in_memory(self) -> Held | None:
        """The rows as they are now, or None where they are too many."""
        with self._lock:
            traces = self._traces()
            if traces is None or traces != self._traced:
                # A folder made anew has another time. So has one that was changed in certain ways; that does no harm.
                self._follow(anew=traces is not None and traces[:1] != (self._traced or ())[:1])
                self._traced = traces
            return self._held

    def _traces(self) -> tuple[int, list[str]] | None:
        """What every write changes in the folder, quicker to look at than LanceDB tells the version; None elsewhere."""
        if "://" in self.uri:
            return None
        folder = Path(self.uri, f"{_TABLE}.lance")
        return folder.stat().st_mtime_ns, os.listdir(folder / "_versions")  # noqa: PTH208 (makes a Path of each)

    def _follow(self, *, anew: bool) -> None:
        version = self._table.version
        if version == self._version and not anew:
            return
        table: Any = _connect(self.uri).open_table(_TABLE)
        table.checkout(version)
        fits = self._fits(table.count_rows())
        held = self._held.following(table) if self._held and fits and not anew else None
        self._held, self._version = held, None
        if held is None and fits:
            self._held = Held.of(table)
        self._version = version

    def _fits(self, count: int) -> bool:
        return count * self.settings.embedding_dim * _BYTES <= _MEMORY

    def _indices(self) -> set[str]:
        return {column for index in self._table.list_indices() for column in index.columns}

    def _tidy(self) -> None:
        self._table.optimize(cleanup_older_than=_KEEP)
        self._writes = 0

    def _to_arrow(self, rows: Sequence[Row]) -> pa.Table:
        import pyarrow as pa

        vectors = np.stack([row.vector for row in rows]).astype(np.float32, copy=False)
        data: dict[str, Any] = {
            "id": [row.id for row in rows],
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
            "digest": [row.digest for row in rows],
            "photo": [row.photo for row in rows],
        }
        data |= {column: [row.fields[name] for row in rows] for name, column in self.settings.columns.items()}
        return pa.table(data, schema=self._schema)

    def _from_arrow(self, table: pa.Table, vectors: NDArray[np.float32] | None = None) -> list[Row]:
        vectors = self._vectors(table) if vectors is None else vectors
        columns = {name: table[column].to_pylist() for name, column in self.settings.columns.items()}
        plain = zip(*(table[name].to_pylist() for name in ("id", "digest", "photo")), strict=True)
        return [
            Row(id, vectors[i], digest, photo, {name: values[i] for name, values in columns.items()})
            for i, (id, digest, photo) in enumerate(plain)
        ]

    def _vectors(self, table: pa.Table) -> NDArray[np.float32]:
        column = table["vector"].combine_chunks()
        flat: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(-1, self.settings.embedding_dim)


def render(condition: Condition, columns: dict[str, str]) -> str:
    """The condition in LanceDB's SQL."""
    if not isinstance(condition, Comparison):
        return "(" + f" {condition.operator.upper()} ".join(render(part, columns) for part in condition.parts) + ")"
    column, operator = columns[condition.field], condition.operator
    if operator in ("null", "not null"):
        return f"{column} IS {operator.upper()}"
    if operator in ("in", "not in"):
        return f"{column} {operator.upper()} ({', '.join(map(_literal, condition.values))})"
    value = condition.values[0]
    if operator in ("like", "not like"):
        pieces = like_pieces(str(value))
        value = "".join(f"\\{text}" if text in r"\%_" and not wild else text for text, wild in pieces)
    return f"{column} {operator.upper()} {_literal(value)}"


def _any_of(column: str, values: list[str]) -> str:
    return f"{column} IN ({', '.join(map(_literal, values))})"


def _literal(value: Scalar) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value).lower()


def _schema(settings: Settings) -> pa.Schema:
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), settings.embedding_dim), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("photo", pa.string()),
    ]
    fields += [pa.field(column, types[settings.types[name]]) for name, column in settings.columns.items()]
    return pa.schema(fields, metadata={_SETTINGS: settings.to_json().encode()})


def _connect(uri: str) -> DBConnection:
    import lancedb

    return lancedb.connect(uri, read_consistency_interval=timedelta(0))


def _open(uri: str) -> Table | None:
    """The table, or None; a folder that holds other things is refused."""
    path = Path(uri)
    if "://" not in uri:
        if not path.exists():
            return None
        if not path.is_dir():
            raise GalleryError(f"a gallery must be a folder, got {uri}, a file; choose another path")
    try:
        with telling(uri, "opened"):
            return _connect(uri).open_table(_TABLE)
    except GalleryError as error:
        if "was not found" not in str(error):
            raise
    if "://" not in uri and {inside.name for inside in path.iterdir()} - {f"{_TABLE}.lance"}:
        raise GalleryError(f"folder {uri} is no gallery; give the folder that Gallery.create made, or a new one")
    return None
