"""What both stores promise, by number: exact filtered search, an index that finds, writes all or none."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from fashion_retrieval.errors import GalleryError
from fashion_retrieval.gallery.engines import lancedb
from fashion_retrieval.gallery.engines.base import Settings
from fashion_retrieval.gallery.filters import parse_where
from fashion_retrieval.gallery.gallery import Gallery
from tests.support.galleries import ENGINES, FIELDS, clustered, empty_gallery, milvus_address, rows, settings

NUMBER = 4_000


@pytest.fixture(params=ENGINES)
def store(request, tmp_path):
    with closing(ENGINES[request.param].open(empty_gallery(request.param, tmp_path))) as opened:
        assert opened.count() == 0
        yield opened


def recall(store, vectors, queries, where=None, mask=None):
    """Share of the ten nearest by a plain scan that the engine finds too."""
    condition = None if where is None else parse_where(where, FIELDS)
    allowed = np.flatnonzero(np.ones(len(vectors), bool) if mask is None else mask)
    found = 0
    for query in queries:
        wanted = allowed[np.argsort(-(vectors[allowed] @ query), kind="stable")[:10]]
        got = {int(row.id[1:]) for row in store.nearest(query, 10, condition)}
        assert set(got) <= set(allowed.tolist())
        found += len(got & set(wanted.tolist()))
    return found / (10 * len(queries))


def test_store_returns_rows_as_they_were_written(store):
    written = rows(clustered(5), stock=[1, None, -3, 2**63 - 1, 0])
    store.write(written[:3])
    store.write(written[1:])
    read = store.read([row.id for row in written] + ["unknown"])
    assert set(read) == {row.id for row in written}
    for row in written:
        back = read[row.id]
        assert (back.digest, back.photo, back.fields) == (row.digest, row.photo, row.fields)
        assert np.array_equal(back.vector, row.vector)
        assert back.vector.dtype == np.float32
    assert store.count() == 5
    assert store.remove(["p00000", "p00000", "unknown"]) == 1
    assert store.remove([]) == 0
    assert store.count() == 4
    assert len(store.nearest(written[0].vector, 10, None)) == 4


def test_store_scanned_gives_every_row_once_whatever_its_id(store, monkeypatch):
    for engine in ("lancedb", "milvus"):
        monkeypatch.setattr(f"fashion_retrieval.gallery.engines.{engine}.BATCH", 50)
    assert list(store.scan()) == []
    hostile = ['a"b', "a'b", "a\\", 'x" or id != "', "'; --", "日本語", "A", "z" * 300, "\U0001f457", "a%b_", "{x}"]
    names = hostile + [f"p{number:05}" for number in range(140)]
    written = [replace(row, id=id) for row, id in zip(rows(clustered(len(names))), names, strict=True)]
    store.write(written[:90])
    store.write(written[80:])
    batches = list(store.scan())
    assert max(map(len, batches)) <= 50
    found = {row.id: row for batch in batches for row in batch}
    assert sorted(row.id for batch in batches for row in batch) == sorted(names)
    assert all(np.array_equal(found[row.id].vector, row.vector) for row in written)
    assert store.remove(["p00000", "A"]) == 2
    assert sum(map(len, store.scan())) == len(names) - 2


def test_store_opened_again_has_its_settings(store):
    again = type(store).open(store.uri)
    assert again.settings == store.settings == settings()
    again.close()
    with pytest.raises(GalleryError, match="there is already a gallery at"):
        type(store).create(store.uri, settings())


def test_index_of_a_large_store_has_recall_of_0_99_and_filters_are_exact(store, monkeypatch):
    monkeypatch.setattr(lancedb, "MEMORY_BUDGET", 0)
    monkeypatch.setattr(lancedb, "_FEW", 500)
    vectors = clustered(NUMBER)
    queries = np.concatenate([clustered(20, seed=1), clustered(20, seed=2, centers=1)])
    groups = np.random.default_rng(5).integers(0, 1000, NUMBER)
    everything = rows(vectors, stock=groups.tolist())
    for start in range(0, NUMBER, 1000):
        store.write(everything[start : start + 1000])
    store.optimize()
    assert store.indexed()
    assert store.count() == NUMBER
    assert recall(store, vectors, queries) >= 0.99
    assert len({row.id for row in store.nearest(queries[0], 3_000, None)}) == 3_000
    for share in (3, 30, 200, 900):
        assert recall(store, vectors, queries, f"stock < {share}", groups < share) == 1.0


def test_settings_with_a_fault_are_refused():
    text = settings().to_json()
    for altered, message in (
        (text.replace('"schema_version": 2', '"schema_version": 3'), "must have schema version 1 to 2, got 3; upgrade"),
        (text.replace('"fields"', '"felder"'), r"^gallery here in its settings has 2 fault\(s\): .*felder"),
        ("{}", "holds data that is no gallery"),
        ("", "holds data that is no gallery"),
    ):
        with pytest.raises(GalleryError, match=message):
            Settings.from_json(altered, "here")


def test_milvus_collection_that_is_no_gallery_is_refused(monkeypatch):
    address = milvus_address()
    from pymilvus import CollectionSchema, DataType, FieldSchema, MilvusClient

    fields = [
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=4),
    ]
    with closing(MilvusClient(uri=address)) as client:
        client.create_collection("strange", schema=CollectionSchema(fields))
    closed, close = [], MilvusClient.close
    monkeypatch.setattr(MilvusClient, "close", lambda self: closed.append(self) or close(self))
    with pytest.raises(GalleryError, match="/strange holds data that is no gallery; choose another"):
        ENGINES["milvus"].open(f"{address}/strange")
    with pytest.raises(GalleryError, match=r"there is no gallery at .+/nothing"):
        ENGINES["milvus"].open(f"{address}/nothing")
    with pytest.raises(GalleryError, match=r"there is already a gallery at .+/strange"):
        ENGINES["milvus"].create(f"{address}/strange", settings())
    assert len(set(closed)) == 3


def test_peek_at_a_milvus_gallery_neither_builds_an_index_nor_loads_it(tmp_path):
    uri = empty_gallery("milvus", tmp_path)
    from pymilvus import MilvusClient
    from pymilvus.client.types import LoadState

    with closing(MilvusClient(uri=milvus_address())) as client:
        client.release_collection("gallery")
        client.drop_index("gallery", "vector")
        info = Gallery.peek(uri)
        assert (info.embedding_dim, info.indexed, info.count >= 0) == (16, False, True)
        assert client.list_indexes("gallery") == []
        assert client.get_load_state("gallery")["state"] == LoadState.NotLoad
        with closing(ENGINES["milvus"].open(uri)) as store:
            assert store.count() == 0
        assert client.list_indexes("gallery") == ["vector"]
