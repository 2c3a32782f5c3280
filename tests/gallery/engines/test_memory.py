"""A snapshot in memory always has the rows of the table, whoever changed it, and reads no more than it must."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from lancedb import connect

from fashion_retrieval.gallery.engines import lancedb
from fashion_retrieval.gallery.engines.lancedb import LanceStore
from fashion_retrieval.gallery.engines.memory import ExactScan, Snapshot
from fashion_retrieval.gallery.filters import parse_where
from tests.support import galleries
from tests.support.galleries import FIELDS, clustered, empty_gallery, rows

NUMBER = 1_500


@pytest.fixture
def store(tmp_path):
    return LanceStore.open(empty_gallery("lancedb", tmp_path))


@pytest.fixture
def read(monkeypatch):
    """How many vectors were read into memory, one number a batch."""
    numbers, add = [], ExactScan.add

    def counting(self, start, vectors):
        numbers.append(len(vectors))
        add(self, start, vectors)

    monkeypatch.setattr(ExactScan, "add", counting)
    return numbers


def check(store, stored):
    """Searches of the store, of an store opened now and of a plain scan of what is stored give the same."""
    vectors = np.stack([row.vector for row in stored.values()]) if stored else np.empty((0, 16), np.float32)
    names = list(stored)
    for query in clustered(3, seed=9):
        expected = [names[number] for number in np.argsort(-(vectors @ query), kind="stable")[:12]]
        for where in (None, "stock >= 0 or stock is null"):
            condition = where and parse_where(where, FIELDS)
            found = store.nearest(query, 12, condition)
            assert [row.id for row in found] == expected
            for row in found:
                kept = stored[row.id]
                assert np.array_equal(row.vector, kept.vector)
                assert (row.digest, row.photo, row.fields) == (kept.digest, kept.photo, kept.fields)
    assert store.count() == len(stored)


def test_snapshot_after_changes_has_the_rows_of_the_table(store, read):
    other = LanceStore.open(store.uri)
    stored = {row.id: row for row in rows(clustered(NUMBER), stock=list(range(NUMBER)))}
    check(store, {})
    other.write(rows(clustered(2)))
    assert other.remove(["p00000"]) == 1  # the first of all removals changes the folder itself, so all is read anew
    check(store, {"p00001": rows(clustered(2))[1]})
    read.clear()
    store.write(list(stored.values()))
    check(store, stored)
    assert sum(read) == NUMBER

    added = [row for row in rows(clustered(NUMBER + 70, seed=4)) if row.id not in stored]
    other.write(added)
    stored |= {row.id: row for row in added}
    check(store, stored)
    assert sum(read) == NUMBER + 70

    changed = rows(clustered(40, seed=5), stock=[7] * 40)
    other.write(changed)
    stored |= {row.id: row for row in changed}
    check(store, stored)
    assert other.remove([f"p{number:05}" for number in range(20, 120)]) == 100
    stored = {name: row for name, row in stored.items() if not "p00020" <= name < "p00120"}
    check(store, stored)
    assert sum(read) == NUMBER + 110

    other.optimize()
    check(store, stored)
    assert sum(read) == NUMBER + 110 + len(stored)
    assert other.remove(list(stored)[: len(stored) * 2 // 3]) == len(stored) * 2 // 3
    stored = dict(list(stored.items())[len(stored) * 2 // 3 :])
    check(store, stored)
    assert sum(read) == NUMBER + 110 + NUMBER - 30 + len(stored)


def test_snapshot_of_a_folder_made_anew_is_loaded_anew(store):
    store.write(rows(clustered(300)))
    check(store, {row.id: row for row in rows(clustered(300))})
    settings = store.settings
    shutil.rmtree(store.uri)
    again = rows(clustered(300, seed=6))
    LanceStore.create(store.uri, settings).write(again)
    check(store, {row.id: row for row in again})


def test_snapshot_after_a_failed_load_is_whole(store, monkeypatch):
    stored = {row.id: row for row in rows(clustered(3_000))}
    store.write(list(stored.values())[:1_000])
    check(store, dict(list(stored.items())[:1_000]))
    store.write(list(stored.values())[1_000:])
    add, calls = ExactScan.add, []

    def failing(self, start, vectors):
        calls.append(start)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        add(self, start, vectors)

    monkeypatch.setattr(ExactScan, "add", failing)
    with pytest.raises(lancedb.GalleryError, match="could not be searched: the disk is gone"):
        store.nearest(clustered(1)[0], 3, None)
    check(store, stored)


def test_searches_while_another_process_adds_see_whole_batches(store):
    stored = rows(clustered(600))
    store.write(stored[:100])
    adding = LanceStore.open(store.uri)
    query = stored[0].vector

    def write():
        for start in range(100, 600, 50):
            adding.write(stored[start : start + 50])

    def search(_):
        return {row.id for row in store.nearest(query, 600, None)}

    with ThreadPoolExecutor(3) as pool:
        done = pool.submit(write)
        seen = list(pool.map(search, range(40)))
        done.result()
    names = [row.id for row in stored]
    for found in seen:
        assert len(found) % 50 == 0
        assert found == set(names[: len(found)])
    assert search(0) == set(names)


def test_table_beyond_the_memory_budget_is_searched_on_disk(store, monkeypatch, caplog):
    stored = {row.id: row for row in rows(clustered(200))}
    store.write(list(stored.values()))
    on_disk = LanceStore.open(store.uri, memory_budget=200 * 16 * 5 - 1)
    check(store, stored)
    assert not caplog.messages
    monkeypatch.setattr(Snapshot, "load", None)
    check(on_disk, stored)
    assert not on_disk.indexed()
    assert len(caplog.messages) == 1
    assert "needs 16,000 bytes of memory for the vectors of 200 photos, more than its memory_budget" in caplog.text


@pytest.mark.parametrize("stable", ["false", "true"])
def test_updated_row_is_found_by_its_new_vector_whether_row_ids_are_stable_or_not(tmp_path, stable):
    uri, settings = str(tmp_path / "g"), galleries.settings()
    options = {"new_table_enable_stable_row_ids": stable}
    connection = connect(uri, storage_options=options)
    connection.create_table("photos", schema=lancedb._schema(settings))
    store, other = LanceStore.open(uri), LanceStore.open(uri)
    stored = {row.id: row for row in rows(clustered(300), stock=list(range(300)))}
    store.write(list(stored.values()))
    check(store, stored)
    for seed in (5, 6):
        changed = rows(clustered(3, seed=seed), stock=[7] * 3)
        other.write(changed)
        stored |= {row.id: row for row in changed}
        check(store, stored)
    assert other.remove(["p00001", "p00200"]) == 2
    del stored["p00001"], stored["p00200"]
    check(store, stored)
    other.optimize()
    other.write([replace(stored["p00250"], vector=clustered(1, seed=8)[0])])
    stored["p00250"] = replace(stored["p00250"], vector=clustered(1, seed=8)[0])
    check(store, stored)


@pytest.mark.parametrize("stable", ["false", "true"])
@pytest.mark.parametrize("seed", range(3))
def test_snapshot_after_any_changes_is_the_table_whether_row_ids_are_stable_or_not(tmp_path, stable, seed):
    """Random writes, removals, compactions, updates by LanceDB itself and returns to an earlier version."""
    uri, dice = str(tmp_path / "g"), np.random.default_rng(seed)
    connection = connect(uri, storage_options={"new_table_enable_stable_row_ids": stable})
    connection.create_table("photos", schema=lancedb._schema(galleries.settings()))
    reader, writers = LanceStore.open(uri), [LanceStore.open(uri), LanceStore.open(uri)]
    stored, versions = {}, []
    for step in range(60):
        writer = writers[dice.integers(2)]
        match dice.choice(["write", "write", "write", "remove", "remove", "optimize", "update", "restore"]):
            case "write":
                fresh = rows(clustered(300, seed=1000 + step), stock=[step] * 300)
                start = int(dice.integers(0, 290))
                chosen = fresh[start : start + int(dice.integers(1, 60))]
                writer.write(chosen)
                stored |= {row.id: row for row in chosen}
            case "remove" if stored:
                gone = set(dice.choice(list(stored), min(len(stored), int(dice.integers(1, 30)))).tolist())
                assert writer.remove(gone) == len(gone)
                stored = {id: row for id, row in stored.items() if id not in gone}
            case "optimize":
                writer.optimize()
            case "update" if stored:
                id = str(dice.choice(list(stored)))
                vector = clustered(1, seed=step)[0]
                writer._table.update(where=f"id = '{id}'", values={"vector": vector.tolist()})
                stored[id] = replace(stored[id], vector=vector)
            case "restore" if versions:
                version, stored = versions[dice.integers(len(versions))]
                stored = dict(stored)
                writer._table.checkout(version)
                writer._table.restore()
        versions.append((writer._table.version, dict(stored)))
        query = clustered(1, seed=step)[0]
        found = {row.id: (row.vector.tobytes(), row.fields) for row in reader.nearest(query, 400, None)}
        assert found == {id: (row.vector.tobytes(), row.fields) for id, row in stored.items()}, step
