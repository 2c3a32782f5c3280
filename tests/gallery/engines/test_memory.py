"""A gallery in memory is always the one in the folder, whoever changed it, and reads no more than it must."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fashion_retrieval.gallery.engines import lancedb
from fashion_retrieval.gallery.engines.lancedb import LanceEngine
from fashion_retrieval.gallery.engines.memory import Held
from fashion_retrieval.gallery.engines.scan import Scan
from fashion_retrieval.gallery.filters import parse_where
from tests.support.galleries import FIELDS, clustered, empty_gallery, rows

NUMBER = 1_500


@pytest.fixture
def engine(tmp_path):
    return LanceEngine.open(empty_gallery("lancedb", tmp_path))


@pytest.fixture
def read(monkeypatch):
    """How many vectors were read into memory, one number a batch."""
    numbers, put = [], Scan.put

    def counting(self, start, vectors):
        numbers.append(len(vectors))
        put(self, start, vectors)

    monkeypatch.setattr(Scan, "put", counting)
    return numbers


def check(engine, stored):
    """Searches of the engine, of an engine opened now and of a plain scan of what is stored give the same."""
    vectors = np.stack([row.vector for row in stored.values()]) if stored else np.empty((0, 16), np.float32)
    names = list(stored)
    for query in clustered(3, seed=9):
        expected = [names[number] for number in np.argsort(-(vectors @ query), kind="stable")[:12]]
        for where in (None, "stock >= 0 or stock is null"):
            condition = where and parse_where(where, FIELDS)
            found = engine.nearest(query, 12, condition)
            assert [row.id for row in found] == expected
            for row in found:
                kept = stored[row.id]
                assert np.array_equal(row.vector, kept.vector)
                assert (row.digest, row.photo, row.fields) == (kept.digest, kept.photo, kept.fields)
    assert engine.count() == len(stored)


def test_it_follows_every_change(engine, read):
    other = LanceEngine.open(engine.uri)
    stored = {row.id: row for row in rows(clustered(NUMBER), stock=list(range(NUMBER)))}
    check(engine, {})
    other.write(rows(clustered(2)))
    assert other.remove(["p00000"]) == 1  # the first of all removals changes the folder itself, so all is read anew
    check(engine, {"p00001": rows(clustered(2))[1]})
    read.clear()
    engine.write(list(stored.values()))
    check(engine, stored)
    assert sum(read) == NUMBER

    added = [row for row in rows(clustered(NUMBER + 70, seed=4)) if row.id not in stored]
    other.write(added)
    stored |= {row.id: row for row in added}
    check(engine, stored)
    assert sum(read) == NUMBER + 70

    changed = rows(clustered(40, seed=5), stock=[7] * 40)
    other.write(changed)
    stored |= {row.id: row for row in changed}
    check(engine, stored)
    assert other.remove([f"p{number:05}" for number in range(20, 120)]) == 100
    stored = {name: row for name, row in stored.items() if not "p00020" <= name < "p00120"}
    check(engine, stored)
    assert sum(read) == NUMBER + 110

    other.optimize()
    check(engine, stored)
    assert sum(read) == NUMBER + 110 + len(stored)
    assert other.remove(list(stored)[: len(stored) * 2 // 3]) == len(stored) * 2 // 3
    stored = dict(list(stored.items())[len(stored) * 2 // 3 :])
    check(engine, stored)
    assert sum(read) == NUMBER + 110 + NUMBER - 30 + len(stored)


def test_a_folder_made_anew_is_read_anew(engine):
    engine.write(rows(clustered(300)))
    check(engine, {row.id: row for row in rows(clustered(300))})
    settings = engine.settings
    shutil.rmtree(engine.uri)
    again = rows(clustered(300, seed=6))
    LanceEngine.create(engine.uri, settings).write(again)
    check(engine, {row.id: row for row in again})


def test_a_fault_while_reading_leaves_nothing_half_read(engine, monkeypatch):
    stored = {row.id: row for row in rows(clustered(3_000))}
    engine.write(list(stored.values())[:1_000])
    check(engine, dict(list(stored.items())[:1_000]))
    engine.write(list(stored.values())[1_000:])
    put, calls = Scan.put, []

    def failing(self, start, vectors):
        calls.append(start)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        put(self, start, vectors)

    monkeypatch.setattr(Scan, "put", failing)
    with pytest.raises(lancedb.GalleryError, match="could not be searched: the disk is gone"):
        engine.nearest(clustered(1)[0], 3, None)
    check(engine, stored)


def test_searches_while_another_adds(engine):
    stored = rows(clustered(600))
    engine.write(stored[:100])
    adding = LanceEngine.open(engine.uri)
    query = stored[0].vector

    def add():
        for start in range(100, 600, 50):
            adding.write(stored[start : start + 50])

    def search(_):
        return {row.id for row in engine.nearest(query, 600, None)}

    with ThreadPoolExecutor(3) as pool:
        done = pool.submit(add)
        seen = list(pool.map(search, range(40)))
        done.result()
    names = [row.id for row in stored]
    for found in seen:
        assert len(found) % 50 == 0
        assert found == set(names[: len(found)])
    assert search(0) == set(names)


def test_one_that_is_too_large_is_not_held(engine, monkeypatch):
    stored = {row.id: row for row in rows(clustered(200))}
    engine.write(list(stored.values()))
    monkeypatch.setattr(lancedb, "_MEMORY", 200 * 16 * 5 - 1)
    monkeypatch.setattr(Held, "of", None)
    check(engine, stored)
    assert not engine.indexed()
