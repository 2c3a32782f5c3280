"""Negatives of a search: what is near to them comes later, by how much, and what can't be one."""

import numpy as np
import pytest

from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.gallery.negatives import lowering
from tests.support.galleries import DIM, ENGINES, clustered, empty_gallery, rows, tiny_model


def lowered(scores, vectors, negatives):
    return lowering(scores, vectors, negatives)(scores, vectors)


@pytest.fixture(params=ENGINES)
def gallery(request, tmp_path):
    with Gallery.open(empty_gallery(request.param, tmp_path), tiny_model()) as gallery:
        yield gallery


def test_lowered_counts_from_the_mean_on_in_standard_deviations():
    vectors = np.eye(4)
    scores = np.array([0.4, 0.3, 0.2, 0.1])
    found = lowered(scores, vectors, [np.array([1, 0, 0, 0], np.float32)])
    expected = 0.4 - 0.5 * np.std(scores) * 0.75 / np.std([1, 0, 0, 0])
    np.testing.assert_allclose(found, [expected, 0.3, 0.2, 0.1])
    assert lowered(scores, vectors, ()) is scores
    both = lowered(scores, vectors, [np.array([1, 0, 0, 0], np.float32), np.array([0, 1, 0, 0], np.float32)])
    np.testing.assert_allclose(scores - both, (scores - found)[[0, 0, 2, 3]])
    same = np.ones((3, 4)) / 2
    np.testing.assert_allclose(lowered(np.array([0.5, 0.5, 0.5]), same, [np.ones(4, np.float32) / 2]), 0.5)


def test_search_with_a_negative_is_the_plain_calculation(gallery):
    vectors = clustered(80, seed=3)
    gallery._store.write(rows(vectors))
    query, away = clustered(2, seed=5)
    expected = lowered(vectors.astype(np.float64) @ query, vectors.astype(np.float64), [away])
    found = gallery.search(query, 10, negative=3 * away)
    assert [match.id for match in found] == [f"p{place:05}" for place in np.argsort(-expected, kind="stable")[:10]]
    np.testing.assert_allclose([match.score for match in found], np.sort(expected)[::-1][:10], atol=1e-6)
    likeness = vectors @ away
    before = [int(match.id[1:]) for match in gallery.search(query, 10)]
    after = [int(match.id[1:]) for match in found]
    assert likeness[after].mean() < likeness[before].mean()
    assert found == gallery.search(query, 10, negative=np.stack([away, away]))
    left = gallery.search(query, 10, negative=away, exclude=[found[0].id])
    assert found[0].id not in {match.id for match in left}


@pytest.mark.parametrize(
    "negative", ["stripes", [["stripes"]], np.ones(3), np.zeros(DIM), np.full(DIM, np.nan), np.ones((2, DIM), int)]
)
def test_search_refuses_what_is_no_negative_in_one_line(tmp_path, negative):
    with (
        Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model()) as gallery,
        pytest.raises(InputError, match=r"^negative must ") as failure,
    ):
        gallery.search(np.ones(DIM, np.float32), negative=negative)
    assert "\n" not in str(failure.value)


def test_search_with_no_negatives_is_a_plain_search(gallery):
    gallery._store.write(rows(clustered(20)))
    query = clustered(1, seed=7)
    assert gallery.search(query, negative=np.empty((0, DIM), np.float32)) == gallery.search(query)
