"""A scan by 8-bit codes gives what a plain scan in float32 gives, for rows and queries of every kind."""

import numpy as np
import pytest

from fashion_retrieval.gallery.engines import memory
from fashion_retrieval.gallery.engines.memory import ExactScan
from fashion_retrieval.inference.vectors import quantized, restored
from tests.support.galleries import clustered


def unit(points):
    return (points / np.linalg.norm(points, axis=-1, keepdims=True)).astype(np.float32)


def scan_of(rows, pieces=3):
    scan, start = ExactScan(rows.shape[1]), 0
    for piece in np.array_split(rows, pieces):
        scan.add(start, piece)
        start += len(piece)
    return scan


def plain(rows, query, limit, allowed):
    numbers = np.flatnonzero(allowed)
    return numbers[np.argsort(-(rows[numbers].astype(np.float64) @ query), kind="stable")[:limit]]


def kinds():
    """Rows (N, D) by what makes them hard: nothing near, a common direction, few large numbers, nearly alike, alike.

    "extreme" has codes of 127 and -127 alone; those of "one" are 0 but for one number.
    """
    generator = np.random.default_rng(0)
    random = generator.normal(size=(6_000, 48))
    offset = random + 40 * (np.arange(48) == 7)
    sparse = random**5
    twins = np.repeat(random[:60], 100, axis=0) + 1e-3 * random
    found = {"random": random, "offset": offset, "sparse": sparse, "twins": twins, "clustered": clustered(6_000)}
    found |= {"alike": np.repeat(random[:1], 2_000, axis=0), "extreme": np.sign(generator.normal(size=(1_100, 1_152)))}
    found |= {"narrow": generator.normal(size=(2_500, 64)), "wide": generator.normal(size=(1_500, 1_152))}
    return found | {"one": np.eye(64)[np.arange(2_100) % 64] + 1e-4 * generator.normal(size=(2_100, 64))}


@pytest.mark.parametrize("kind", kinds())
def test_exact_scan_gives_the_rows_of_a_plain_scan(kind):
    rows = unit(kinds()[kind])
    scan, generator = scan_of(rows), np.random.default_rng(1)
    queries = np.concatenate([rows[:5], unit(generator.normal(size=(5, rows.shape[1])))])
    for allowed in (
        np.ones(len(rows), bool),
        generator.random(len(rows)) < 0.4,
        generator.random(len(rows)) < 0.12,
        np.arange(len(rows)) < 700,
    ):
        for query in queries:
            for limit in (1, 10, 105):
                expected = plain(rows, query, limit, allowed)
                found = scan.nearest(query, limit, allowed)
                assert len(set(found)) == limit
                assert allowed[found].all()
                assert rows[found] @ query == pytest.approx(rows[expected] @ query, abs=1e-6)
    assert np.array_equal(scan.rows(np.array([len(rows) - 1, 0])), rows[[-1, 0]])


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("kind", ["twins", "wide", "alike", "sparse"])
def test_exact_scan_of_stored_rows_is_exact_of_what_they_stand_for(kind, precision):
    stored = quantized(unit(kinds()[kind]), precision)
    scan = ExactScan(stored.shape[1], 0, stored.dtype)
    scan.add(0, stored[:1_000])
    scan.add(1_000, stored[1_000:])
    rows, allowed = restored(stored), np.ones(len(stored), bool)
    for query in (rows[3], unit(np.random.default_rng(4).normal(size=rows.shape[1]))):
        found, expected = scan.nearest(query, 10, allowed), plain(rows, query, 10, allowed)
        assert rows[found] @ query == pytest.approx(rows[expected] @ query, abs=1e-6)
    assert np.array_equal(scan.rows(np.array([5])), rows[[5]])


def test_exact_scan_scores_few_rows_in_float32(monkeypatch):
    rows = unit(np.random.default_rng(2).normal(size=(20_000, 256)))
    scan, query = scan_of(rows), unit(np.random.default_rng(3).normal(size=256))
    for step in (1, 2, 7):
        allowed = np.arange(20_000) % step == 0
        candidates = scan._candidates(query, 11, allowed, np.count_nonzero(allowed))
        assert set(plain(rows, query, 11, allowed)) <= set(candidates)
        assert len(candidates) < 200
        monkeypatch.setattr(memory, "_THREADS_FROM", 0)
        assert np.array_equal(scan._candidates(query, 11, allowed, np.count_nonzero(allowed)), candidates)


def test_exact_scan_with_fewer_rows_than_asked_for_gives_them_all():
    rows = clustered(4)
    scan = scan_of(rows)
    assert len(scan.nearest(rows[0], 10, np.zeros(4, bool))) == 0
    assert len(scan.nearest(rows[0], 10, np.zeros(0, bool))) == 0
    assert set(scan.nearest(rows[0], 10, np.array([True, False, True, False]))) == {0, 2}
    assert scan.nearest(rows[2], 1, np.ones(4, bool)).tolist() == [2]


def test_exact_scan_ignores_rows_added_later():
    rows = clustered(3_000)
    scan, before, query = scan_of(rows[:2_000]), np.ones(2_000, bool), rows[2_500]
    expected = plain(rows[:2_000], query, 20, before)
    scan.add(2_000, clustered(1_000, seed=5))
    assert np.array_equal(scan.nearest(query, 20, before), expected)
    scan.add(2_000, rows[2_000:])
    assert np.array_equal(scan.nearest(query, 20, before), expected)
    assert scan.nearest(query, 1, np.ones(3_000, bool)).tolist() == [2_500]


def test_exact_scan_takes_a_row_of_zeros():
    rows = np.concatenate([np.zeros((1, 16), np.float32), clustered(1_000)])
    assert np.array_equal(
        scan_of(rows).nearest(rows[3], 5, np.ones(1_001, bool)), plain(rows, rows[3], 5, rows[:, 0] < 2)
    )
