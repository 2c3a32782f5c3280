"""Near-duplicates of a gallery: which are found, in what order, and how many items a search shows without them."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval.gallery import duplicates
from fashion_retrieval.gallery.duplicates import ALONE, LIMIT, SLOPE, Looks
from fashion_retrieval.gallery.gallery import Gallery
from tests.support.galleries import DIM, ENGINES, clustered, empty_gallery, rows, tiny_model

ITEMS, COPIES = 200, 6


@pytest.fixture(params=ENGINES)
def gallery(request, tmp_path):
    with Gallery.open(empty_gallery(request.param, tmp_path), tiny_model()) as gallery:
        yield gallery


def drawn(seed):
    """A textured picture of its own colors, (64, 48, 3) uint8."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (10, 8, 3), dtype=np.uint8))
    return coarse.resize((48, 64), Image.Resampling.BICUBIC)


def encoded(photo, quality):
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=quality)
    return content.getvalue()


def turned(vector, cosine):
    """An L2-normalized vector at this cosine."""
    cosine = min(cosine, 1)
    other = np.roll(vector, 1) - (np.roll(vector, 1) @ vector) * vector
    return (cosine * vector + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)).astype(np.float32)


def test_pairs_are_told_by_embedding_and_hash_together():
    first = clustered(1)[0]
    known = 0x0123_4567_89AB_CDEF
    spare = 0.001 / SLOPE
    for bits in range(int(LIMIT) + 1):
        most = (LIMIT - bits) / SLOPE
        pair = [replace(row, hash=known) for row in rows(np.stack([first, first]))]
        pair[1] = replace(pair[1], hash=known ^ (2**bits - 1), vector=turned(first, 1 - most + spare))
        assert Looks.of(pair[:1]).pairs(Looks.of(pair[1:]))[0].tolist() == [0]
        pair[1] = replace(pair[1], vector=turned(first, 1 - most - 2 * spare))
        assert len(Looks.of(pair[:1]).pairs(Looks.of(pair[1:]))[0]) == 0
    far = replace(pair[0], hash=~known)
    assert len(Looks.of(pair[:1]).pairs(Looks.of([far]))[0]) == 0  # all bits differ, whatever the sign


def test_without_a_hash_the_embedding_alone_tells():
    first = clustered(1)[0]
    near, far = turned(first, ALONE + 1e-4), turned(first, ALONE - 1e-4)
    three = rows(np.stack([first, near, far]))
    for hashes in ((None, None, None), (5, None, None), (None, 5, 5)):
        looks = Looks.of([replace(row, hash=hash) for row, hash in zip(three, hashes, strict=True)])
        here, there = looks[np.array([0])].pairs(looks)
        assert (here.tolist(), there.tolist()) == ([0, 0], [0, 1])


def test_duplicates_are_groups_in_the_order_of_ids(gallery, monkeypatch):
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    monkeypatch.setattr(duplicates, "_WIDE", 11)
    assert gallery.duplicates() == []
    vectors = clustered(60, seed=2)
    chance = np.random.default_rng(1)
    written = [replace(row, hash=int(chance.integers(-(2**63), 2**63))) for row in rows(vectors)]
    groups = [("p00003", "p00030", "p00059"), ("p00008", "p00009"), ("p00010", "p00055")]
    for first, *others in groups:
        for place, other in enumerate(others):
            original = written[int(first[1:])]
            written[int(other[1:])] = replace(original, id=other, hash=original.hash ^ (1 << place))
    gallery._store.write(written[::-1])
    assert gallery.duplicates() == groups
    assert gallery.delete(["p00009", "p00030"]) == 2
    assert gallery.duplicates() == [("p00003", "p00059"), ("p00010", "p00055")]


def test_top_ten_of_items_with_six_copies_each_shows_ten_items(tmp_path):
    """Bar: 10 items, 2 or 3 without it."""
    with Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model()) as gallery:
        photos = [drawn(item) for item in range(ITEMS)]
        files = [encoded(photo, quality) for photo in photos for quality in (95, 90, 85, 80, 75, 70)]
        names = [f"{item:03} {copy}" for item in range(ITEMS) for copy in range(COPIES)]
        gallery.add(files, names)
        stored = gallery._store.read(names)
        # A tiny model with random weights takes all drawn pictures for nearly the same: give each item a place.
        places = np.random.default_rng(0).normal(size=(ITEMS, 1, DIM)) + 0.02 * np.random.default_rng(1).normal(
            size=(ITEMS, COPIES, DIM)
        )
        units = (places / np.linalg.norm(places, axis=2, keepdims=True)).reshape(-1, DIM).astype(np.float32)
        gallery._store.write([replace(stored[id], vector=unit) for id, unit in zip(names, units, strict=True)])
        for item in range(0, ITEMS, 10):
            query = gallery.embeddings([f"{item:03} 0"])[0]
            plain = {match.id[:3] for match in gallery.search(query)}
            unique = gallery.search(query, unique=True)
            assert len(plain) <= 3
            assert len({match.id[:3] for match in unique}) == len(unique) == 10
            assert unique[0].id == f"{item:03} 0"
        assert gallery.duplicates() == [tuple(f"{item:03} {copy}" for copy in range(COPIES)) for item in range(ITEMS)]


def test_hashes_are_stored_by_add_and_stay_when_nothing_changed(gallery):
    photos = [encoded(drawn(seed), 90) for seed in range(3)]
    gallery.add(photos, ["a", "b", "c"])
    before = gallery._store.read(["a", "b", "c"])
    assert len({row.hash for row in before.values()}) == 3
    assert None not in {row.hash for row in before.values()}
    assert gallery.add(photos, ["a", "b", "c"]).unchanged == 3
    gallery.add(photos[:1], ["a"], [{"stock": 3}])
    gallery.add([encoded(drawn(9), 90)], ["b"])
    after = gallery._store.read(["a", "b", "c"])
    assert after["a"].hash == before["a"].hash
    assert after["b"].hash not in {None, before["b"].hash}
    assert after["c"].hash == before["c"].hash
