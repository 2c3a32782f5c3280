"""Small writes to LanceDB: what they leave behind stays bounded, and nobody who reads is disturbed."""

import time
from pathlib import Path

import pytest

from fashion_retrieval.errors import GalleryError
from fashion_retrieval.gallery.engines import lancedb, tidying
from fashion_retrieval.gallery.engines.lancedb import LanceStore
from fashion_retrieval.gallery.engines.memory import Snapshot
from tests.support.galleries import clustered, empty_gallery, rows


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.setattr(tidying, "SPARE_SECONDS", 0.001)
    return empty_gallery("lancedb", tmp_path)


def files(uri: str) -> int:
    return sum(path.is_file() for path in Path(uri).rglob("*"))


def fragments(store: LanceStore) -> int:
    return store._table.stats()["fragment_stats"]["num_fragments"]


def test_writes_of_one_row_by_stores_of_their_own_leave_few_files(uri):
    stored = rows(clustered(150))
    most = [0, 0]
    for row in stored:
        store = LanceStore.open(uri)
        store.write([row])
        most = [max(pair) for pair in zip(most, (files(uri), fragments(store)), strict=True)]
        store.close()
    assert most[0] <= 270  # a manifest, a transaction and data of 64 writes, and of the version that was the newest
    assert most[1] <= 65
    found = LanceStore.open(uri).nearest(stored[0].vector, 200, None)
    assert sorted(row.id for row in found) == [row.id for row in stored]


def test_removals_alone_leave_few_files(uri, monkeypatch):
    monkeypatch.setattr(tidying, "EVERY", 16)
    stored = rows(clustered(100))
    LanceStore.open(uri).write(stored)
    for row in stored[:70]:
        assert LanceStore.open(uri).remove([row.id]) == 1
    assert files(uri) <= 65
    assert sorted(LanceStore.open(uri).read([row.id for row in stored])) == [row.id for row in stored[70:]]


def test_larger_store_is_tidied_more_rarely(uri, monkeypatch):
    monkeypatch.setattr(tidying, "EVERY", 4)
    monkeypatch.setattr(tidying, "ROWS", 100)
    tidied: list[int] = []
    monkeypatch.setattr(LanceStore, "_compact", lambda self: tidied.append(self._table.version))
    store = LanceStore.open(uri)
    for row in rows(clustered(11)):
        store.write([row])
    store.write(rows(clustered(250)))
    for row in rows(clustered(30)):
        store.write([row])
    assert tidied == [4, 8, 12, 24, 36]


def test_ids_of_a_store_that_grew_are_indexed_without_optimize(uri, monkeypatch):
    monkeypatch.setattr(tidying, "EVERY", 4)
    monkeypatch.setattr(lancedb, "_INDEX_IDS_FROM", 100)
    store = LanceStore.open(uri)
    for _ in range(3):
        store.write(rows(clustered(120)))
    assert store._indices() == {"id"}


def test_search_whose_files_were_tidied_away_finds_the_newest(uri, monkeypatch):
    stored, reader, writer = rows(clustered(40)), LanceStore.open(uri), LanceStore.open(uri)
    for row in stored[:30]:
        writer.write([row])
    load, versions = Snapshot.load, []

    def overtaken(table):
        versions.append(table.version)
        if len(versions) == 1:
            for row in stored[30:]:
                writer.write([row])
            for _ in range(2):  # the first still keeps the version of a moment ago
                writer._compact()
                time.sleep(0.01)
        return load(table)

    monkeypatch.setattr(Snapshot, "load", overtaken)
    found = reader.nearest(stored[0].vector, 100, None)
    assert sorted(row.id for row in found) == [row.id for row in stored]
    assert len(versions) == 2
    assert versions[0] < versions[1]


def test_files_that_are_missing_at_the_newest_version_are_an_error(uri):
    store = LanceStore.open(uri)
    store.write(rows(clustered(40)))
    for path in Path(uri).rglob("data/*"):
        path.unlink()
    with pytest.raises(GalleryError, match=r"^gallery .* could not be searched: .*check that it is reachable$"):
        LanceStore.open(uri).nearest(clustered(1)[0], 3, None)


def test_version_that_was_the_newest_a_moment_ago_stays_however_old_it_is(uri, monkeypatch):
    monkeypatch.setattr(tidying, "SPARE_SECONDS", 0.3)
    store, reader = LanceStore.open(uri), LanceStore.open(uri)
    for row in rows(clustered(20)):
        store.write([row])
    time.sleep(0.4)
    reader._table.checkout(store._table.version)
    store.write(rows(clustered(30)))
    store._compact()
    assert len(reader._table.to_arrow()) == 20
    time.sleep(0.7)
    store.write(rows(clustered(30)))
    store._compact()
    assert min(version["version"] for version in store._table.list_versions()) > reader._table.version
