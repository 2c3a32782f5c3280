"""The distributed vector store: a Milvus server, 2.3 or newer, through pymilvus."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import GalleryError, InputError, MissingExtraError, UnsupportedError
from fashion_retrieval.gallery.engines import collections
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
from fashion_retrieval.gallery.filters import Filter, Operator, Scalar, Values, like_prefix

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_COLLECTION = "photos"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,247}")
_TIMEOUT = 10.0
_PATIENCE = 600.0
"""Seconds without progress of the index after which waiting for it ends."""
_SMALL = 1_024
"""Rows below which a segment gets no index: it is scanned, which is exact."""
_LISTS = 1_024
_PROBED = 384
"""How many of the lists a search without a filter looks into; with one it scans them all, which is exact."""
_DELETIONS = 1
_SETTLING = 5.0
"""Seconds after a deletion in which searches wait for the newest state: its answer holds no time to wait for."""
_LAST_CODE_POINT = "\U0010ffff"
_UNSAFE = re.compile(r"""["'\\\x00-\x1f\x7f]""")
"""What stands as an escape in a text of an expression."""


class MilvusStore:
    """One collection. Milvus before 2.5 knows no null: a second column of each field says whether it is set.

    The client is closed with this object. With `load`, the index is built where it is missing and the collection is
    loaded; without it, the store only tells its settings, its count and whether it is indexed, and changes nothing.
    """

    name = "milvus"

    def __init__(self, uri: str, client: MilvusClient, collection: str, *, load: bool = True) -> None:
        self.uri = uri
        self._client = client
        self._collection = collection
        self._written = 0
        self._removed = -math.inf
        self._loaded = False
        with _closed_on_error(client):
            self._read_settings()
            if load:
                self._load()

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is a collection of this name."""
        shown, client, collection = _connect(uri)
        with closing(client), translate_errors(shown, "looked up"):
            return collections.exists(client, collection)

    @classmethod
    def create(cls, uri: str, settings: Settings) -> MilvusStore:
        """Make a new collection."""
        if settings.precision != "float32":
            remedy = "leave precision out, or use a LanceDB gallery"
            raise InputError(f"a gallery in Milvus stores float32, got precision {settings.precision!r}; {remedy}")
        shown, client, collection = _connect(uri)
        with _closed_on_error(client), translate_errors(shown, "created"):
            if collections.exists(client, collection):
                raise already_exists(shown)
            collections.make(client, collection, settings)
        return cls(shown, client, collection)

    @classmethod
    def open(cls, uri: str, *, load: bool = True) -> MilvusStore:
        """Open the collection; `load` as in the constructor."""
        shown, client, collection = _connect(uri)
        with _closed_on_error(client), translate_errors(shown, "looked up"):
            if not collections.exists(client, collection):
                raise not_found(shown)
        return cls(shown, client, collection, load=load)

    def write(self, rows: Sequence[Row]) -> None:
        with translate_errors(self.uri, "written"):
            self._check()
            self._client.upsert(self._collection, [self._to_entity(row) for row in rows])
            self._written += len(rows)

    def read(self, ids: Collection[str]) -> dict[str, Row]:
        entities = (entity for some in batched(dict.fromkeys(ids)) for entity in self._query(_any_of(some), ["*"]))
        return {entity["id"]: self._from_entity(entity) for entity in entities}

    def scan(self) -> Iterator[list[Row]]:
        # In pages, as pymilvus's own iterator, with literals as in all filters here. Such a query asks for no
        # consistency, whatever is said; after one that does, of the count, it sees what was written before.
        self.count()
        paging: dict[str, str | int] = {"limit": BATCH, "iterator": "True", "reduce_stop_for_best": "True"}
        entities = self._query('id > ""', ["*"], **paging)
        while entities:
            yield [self._from_entity(entity) for entity in entities]
            entities = self._query(f"id > {_literal(entities[-1]['id'])}", ["*"], **paging)

    def nearest(self, query: NDArray[np.float32], limit: int, where: Filter | None) -> list[Row]:
        condition = "" if where is None else render(where, self.settings.columns)
        # With ensure_topk_full, a filtered scan ends after as many rows as the filter leaves, wherever these are.
        effort = {"nprobe": _PROBED if where is None else _LISTS, "ensure_topk_full": False}
        with self._reading("searched"):
            hits = self._client.search(
                self._collection,
                [query],
                filter=condition,
                limit=limit,
                output_fields=["*"],
                search_params={"params": effort},
                consistency_level="Strong" if time.monotonic() - self._removed < _SETTLING else "Session",
            )
            return [self._from_entity(hit["entity"]) for hit in hits[0]]

    def remove(self, ids: Collection[str]) -> int:
        removed = 0
        for some in batched(dict.fromkeys(ids)):
            found = [entity["id"] for entity in self._query(_any_of(some), ["id"])]
            if found:
                with translate_errors(self.uri, "changed"):
                    # Not ids=found: pymilvus writes them into an expression as they are, quotes and all.
                    self._client.delete(self._collection, filter=_any_of(found))
                self._removed = time.monotonic()
            removed += len(found)
        return removed

    def count(self) -> int:
        """How many rows there are; of a collection that is not loaded, the server's estimate."""
        if self._is_loaded():
            return int(self._query("", ["count(*)"])[0]["count(*)"])
        with translate_errors(self.uri, "read"):
            return int(self._client.get_collection_stats(self._collection)["row_count"])

    def wait_until_indexed(self) -> None:
        # Until then the server searches newer rows through a coarser index of its own.
        with translate_errors(self.uri, "optimized"):
            stored = sum(segment.num_rows for segment in self._segments("persistent"))
            if max(self._written, self.count() - stored) >= _SMALL or not self._served():
                self.optimize()

    def optimize(self) -> None:
        with translate_errors(self.uri, "optimized"):
            self._client.flush(self._collection)
            self._written = 0
            seen, since = None, time.monotonic()
            while not self._served():
                self._client.refresh_load(self._collection)
                state = [self._client.describe_index(self._collection, "vector")["indexed_rows"]]
                state += [(segment.segment_id, segment.index_name) for segment in self._segments("loaded")]
                if state != seen:
                    seen, since = state, time.monotonic()
                elif time.monotonic() - since > _PATIENCE:
                    raise GalleryError(f"the index of gallery {self.uri} makes no progress; look at the server's log")
                time.sleep(0.1)

    def indexed(self) -> bool:
        if not self._is_loaded():
            return False
        with translate_errors(self.uri, "read"):
            return any(segment.num_rows >= _SMALL for segment in self._segments("loaded"))

    def staged(self, settings: Settings) -> MilvusStore:
        name = self._collection + collections.NEXT
        with translate_errors(self.uri, "migrated"):
            if self._client.has_collection(name) and collections.described(self._client, name) != settings.to_json():
                self._client.drop_collection(name)
            if not self._client.has_collection(name):
                collections.make(self._client, name, settings)
        return MilvusStore(self.uri, self._client, name)

    def version(self) -> int:
        return 0

    def adopt(self, staged: MilvusStore, version: int) -> bool:
        staged.optimize()
        with translate_errors(self.uri, "migrated"):
            self._check()
            self._client.rename_collection(self._collection, self._collection + collections.OLD)
            collections.finish(self._client, self._collection)
        self._read_settings()
        self._load()
        return True

    def unstage(self) -> None:
        with translate_errors(self.uri, "migrated"):
            self._client.drop_collection(self._collection + collections.NEXT)

    def close(self) -> None:
        self._client.close()

    def _read_settings(self) -> None:
        with translate_errors(self.uri, "opened"):
            self._kept = collections.described(self._client, self._collection)
        self.settings = Settings.from_json(self._kept, self.uri)

    @contextmanager
    def _reading(self, done: str) -> Iterator[None]:
        """Reading, which counts, or fails for its own reason, if the collection was not migrated until its end."""
        with translate_errors(self.uri, done):
            try:
                yield
            finally:
                self._check()

    def _check(self) -> None:
        """Raise where another process migrated the collection."""
        if (kept := collections.described(self._client, self._collection)) != self._kept:
            raise migrated(self.uri, kept)

    def _load(self) -> None:
        with translate_errors(self.uri, "opened"):
            # A creation that was interrupted may have left the collection without these two; both may be repeated.
            if "vector" not in self._client.list_indexes(self._collection):
                index = self._client.prepare_index_params()
                index.add_index("vector", index_type="IVF_FLAT", metric_type="COSINE", params={"nlist": _LISTS})
                self._client.create_index(self._collection, index)
            self._client.load_collection(self._collection)
        self._loaded = True
        self.count()

    def _is_loaded(self) -> bool:
        from pymilvus.client.types import LoadState

        with translate_errors(self.uri, "read"):
            return self._loaded or self._client.get_load_state(self._collection)["state"] == LoadState.Loaded

    def _segments(self, which: Literal["loaded", "persistent"]) -> list[Any]:
        listed = getattr(self._client, f"list_{which}_segments")(self._collection)
        # With replicas a segment is listed several times; one of level 0 holds deletions.
        return list({segment.segment_id: segment for segment in listed if segment.level != _DELETIONS}.values())

    def _served(self) -> bool:
        """Whether all but a few of the rows on disk are searched in segments with an index."""
        loaded, stored = self._segments("loaded"), self._segments("persistent")
        outside = sum(segment.num_rows for segment in stored) - sum(segment.num_rows for segment in loaded)
        return outside < _SMALL and all(one.index_name or one.num_rows < _SMALL for one in loaded)

    def _query(self, condition: str, outputs: list[str], **paging: str | int) -> list[dict[str, Any]]:
        with self._reading("read"):
            options = {"filter": condition, "output_fields": outputs, "consistency_level": "Strong", **paging}
            return list(self._client.query(self._collection, **options))

    def _to_entity(self, row: Row) -> dict[str, Any]:
        entity: dict[str, Any] = {"id": row.id, "vector": row.vector, "digest": row.digest, "photo": row.photo or ""}
        if self.settings.keeps_views:
            entity |= {"hash": row.hash or 0, "views": json.dumps(row.views, ensure_ascii=False)}
        for name, column in self.settings.columns.items():
            value = row.fields[name]
            entity[column] = self.settings.types[name]() if value is None else value
            entity[f"{column}_set"] = value is not None
        return entity

    def _from_entity(self, entity: Mapping[str, Any]) -> Row:
        columns = self.settings.columns.items()
        fields = {name: entity[column] if entity[f"{column}_set"] else None for name, column in columns}
        vector = np.asarray(entity["vector"], dtype=np.float32)
        row = Row(entity["id"], vector, entity["digest"], entity["photo"] or None, fields)
        if not self.settings.keeps_views:
            return row
        return replace(row, hash=entity["hash"] or None, views=tuple(json.loads(entity["views"])))


@contextmanager
def _closed_on_error(client: MilvusClient) -> Iterator[None]:
    try:
        yield
    except BaseException:
        client.close()
        raise


def render(condition: Filter, columns: dict[str, str]) -> str:
    """The condition as a Milvus expression; LIKE with a wildcard that is not at the end is an `UnsupportedError`."""

    def compare(field: str, operator: Operator, values: Values) -> str:
        column = columns[field]
        match operator:
            case "null" | "not null":
                return f"({column}_set == {'false' if operator == 'null' else 'true'})"
            case "in" | "not in":
                plain = f"{column} {operator} [{', '.join(map(_literal, values))}]"
            case "like" | "not like":
                plain = _prefix_range(column, str(values[0]), operator == "like")
            case _:
                plain = f"{column} {'==' if operator == '=' else operator} {_literal(values[0])}"
        return f"({column}_set == true and {plain})"

    return condition.render(compare, _joined)


def _joined(operator: str, parts: list[str]) -> str:
    # A balanced tree: the server reads a chain as one level a part, and takes no more than about a hundred levels.
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_joined(operator, parts[:middle])} {operator} {_joined(operator, parts[middle:])})"


def _prefix_range(column: str, pattern: str, matching: bool) -> str:
    """LIKE 'prefix%' as a range: from the prefix to the prefix with its last code point raised by one."""
    prefix = like_prefix(pattern)
    if prefix is None:
        raise UnsupportedError(f"Milvus takes LIKE with % at the end only, as in 'long%', got {pattern!r}; use IN")
    stem = prefix.rstrip(_LAST_CODE_POINT)
    if not stem:
        return f"({column} {'>=' if matching else '<'} {_literal(prefix)})"
    raised = ord(stem[-1]) + 1
    end = _literal(stem[:-1] + chr(0xE000 if raised == 0xD800 else raised))  # after the surrogates
    if matching:
        return f"({column} >= {_literal(prefix)} and {column} < {end})"
    return f"({column} < {_literal(prefix)} or {column} >= {end})"


def _any_of(ids: list[str]) -> str:
    return f"id in [{', '.join(map(_literal, ids))}]"


def _literal(value: Scalar) -> str:
    if isinstance(value, str):  # octal: what servers make of "u0041" after a backslash differs
        return '"' + _UNSAFE.sub(lambda found: f"\\{ord(found[0]):03o}", value) + '"'
    return json.dumps(value)


def _connect(uri: str) -> tuple[str, MilvusClient, str]:
    """The URI without its password, a client and the collection's name, for `http://user:password@host:port/name`."""
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise MissingExtraError("a Milvus gallery needs pymilvus; pip install 'fashion-retrieval[milvus]'") from error
    try:
        parts = urlsplit(uri)
        host = f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 19530)}"
    except ValueError as error:
        raise InputError(f"a Milvus URI must be http://host:port/collection ({error})") from error
    collection = parts.path.strip("/") or _COLLECTION
    if not parts.hostname or not _NAME.fullmatch(collection):
        expected = "http://host:port/collection, the collection of letters, digits and _"
        raise InputError(f"a Milvus URI must be {expected}, got {host}/{collection}")
    shown = f"{host}/{collection}"
    token = ":".join(filter(None, (parts.username, parts.password)))
    try:
        return shown, MilvusClient(uri=host, token=token, timeout=_TIMEOUT), collection
    except Exception as error:  # pymilvus and gRPC raise several kinds
        reason = " ".join(str(error).split())[:120]
        raise GalleryError(f"no Milvus server answers at {host} ({reason}); start it, or check the address") from error
