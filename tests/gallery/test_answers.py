"""Answers of a gallery: pages, least scores, groups and unique photos, against a plain calculation on both engines."""

from dataclasses import replace

import numpy as np
import pytest

from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery import searching
from fashion_retrieval.gallery.duplicates import Looks
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.gallery.negatives import lowering
from tests.support.galleries import DIM, ENGINES, clustered, empty_gallery, rows, tiny_model

NUMBER = 260


@pytest.fixture(params=ENGINES)
def gallery(request, tmp_path):
    with Gallery.open(empty_gallery(request.param, tmp_path), tiny_model()) as gallery:
        yield gallery


def fill(gallery):
    """Photos of which many have equal vectors, with groups of every size, some of none."""
    vectors = clustered(NUMBER, seed=3)
    vectors[100:130] = vectors[100]
    vectors[200:240:2] = vectors[200]
    chance = np.random.default_rng(4)
    stock = [None if number % 9 == 0 else int(number) for number in chance.geometric(0.05, NUMBER)]
    category = [("a", "b", "it's", None)[number] for number in chance.integers(0, 4, NUMBER)]
    written = rows(vectors, stock=stock, category=category, sale=[number % 2 == 0 for number in range(NUMBER)])
    hashes = chance.integers(1, 2**62, NUMBER).tolist()
    hashes[100:130] = [hashes[100], None, hashes[101]] * 10
    hashes[200:240:2] = [hashes[200] ^ number for number in range(20)]
    written = [replace(row, hash=hash) for row, hash in zip(written, hashes, strict=True)]
    gallery._store.write(written)
    return written


def plainly(written, query, *, negative=None, group_by=None, unique=False, exclude=(), min_score=-1.0):
    """All ids with their scores, by the plain calculation."""
    vectors = np.array([row.vector for row in written], np.float64)
    scores = np.sum(vectors * query, axis=1)
    if negative is not None:
        order = sorted(range(len(written)), key=lambda place: (-round(float(scores[place]), 7), written[place].id))
        scores = lowering(scores[order], vectors[order], [negative])(scores, vectors)
    scores = np.round(scores, 7).tolist()
    found, groups, shown = [], set(), []
    for score, row in sorted(zip(scores, written, strict=True), key=lambda pair: (-pair[0], pair[1].id)):
        group = row.fields[group_by] if group_by else None
        if row.id in exclude or score < min_score:
            continue
        if group in groups:
            continue
        if unique and shown and len(Looks.of([row]).pairs(Looks.of(shown))[0]):
            shown.append(row)
            continue
        found.append((row.id, score))
        groups |= {group} - {None}
        shown.append(row)
    return found


OPTIONS = {
    "plain": {},
    "ties": {"exclude": ["p00100", "p00101", "p00202"]},
    "negative": {"negative": clustered(1, seed=8)[0], "exclude": ["p00005"]},
    "groups": {"group_by": "stock"},
    "texts": {"group_by": "category"},
    "unique": {"unique": True},
    "least": {"min_score": 0.2},
    "all": {
        "negative": clustered(1, seed=9)[0],
        "group_by": "stock",
        "unique": True,
        "exclude": ["p00100", "p00007"],
        "min_score": -0.4,
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_pages_are_the_pieces_of_one_long_answer(gallery, options, monkeypatch):
    monkeypatch.setattr(searching, "_DEEP", 64)
    written = fill(gallery)
    for query in (written[100].vector, clustered(1, seed=7)[0]):
        expected = plainly(written, query.astype(np.float64), **options)
        whole = gallery.search(query, NUMBER, **options)
        assert [(match.id, pytest.approx(match.score, abs=2e-7)) for match in whole] == expected
        assert len(whole) < NUMBER or not options
        for size in (7, 60):
            pages = [gallery.search(query, size, offset=start, **options) for start in range(0, 4 * size, size)]
            assert [match for page in pages for match in page] == whole[: 4 * size]
        assert gallery.search(query, 5, offset=NUMBER, **options) == []


def test_a_group_of_thousands_of_photos_leaves_room_for_the_others(tmp_path):
    gallery = Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model())
    query = clustered(1, seed=2)[0]
    crowd = query + 0.01 * np.random.default_rng(0).normal(size=(4_000, DIM))
    vectors = np.concatenate([crowd / np.linalg.norm(crowd, axis=1, keepdims=True), clustered(60, seed=1)])
    stock = [1] * 2_000 + [-2] * 2_000 + [3 + number // 3 for number in range(50)] + [None] * 10
    written = rows(vectors.astype(np.float32), stock=stock)
    for start in range(0, len(written), 1_000):
        gallery._store.write(written[start : start + 1_000])
    found = gallery.search(query, 12, group_by="stock", where="stock != 5 or stock is null")
    allowed = [row for row in written if row.fields["stock"] != 5]
    assert [match.id for match in found] == [id for id, _ in plainly(allowed, query, group_by="stock")][:12]
    assert {1, -2} <= {match.fields["stock"] for match in found[:2]}


@pytest.mark.parametrize("field", ["price", "sale", "袖 丈"])
def test_groups_by_a_field_of_any_type(tmp_path, field):
    values = {"price": [0.5, -0.5, 0.5, None, 1e-9], "sale": [True, False, True, None, False]}
    values["袖 丈"] = ["'", '"', "'", None, ""]
    with Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model()) as gallery:
        gallery._store.write(rows(clustered(5), **{field: values[field]}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(searching, "_DEEP", 1)
            found = gallery.search(clustered(1, seed=1), 3, group_by=field)
            assert len({match.fields[field] for match in found}) == 3
            every = gallery.search(clustered(1, seed=1), 5, group_by=field)
        assert len(every) == len(set(values[field]))


def test_preferred_photos_come_before_all_others(gallery):
    written = fill(gallery)
    query = written[100].vector
    where = "stock < 30"
    for options in ({}, {"group_by": "category"}, {"unique": True}):
        first = gallery.search(query, NUMBER, where=f"({where}) and sale", **options)
        whole = gallery._answer(query, {"top_k": NUMBER, "where": where, "preferred": "sale", **options})
        assert whole[: len(first)] == first
        assert len({match.id for match in whole}) == len(whole)
        if not options:
            rest = gallery.search(query, NUMBER, where=f"({where}) and not sale")
            assert whole[len(first) :] == rest
        pages = [
            gallery._answer(query, {"top_k": 40, "offset": start, "where": where, "preferred": "sale", **options})
            for start in range(0, len(whole), 40)
        ]
        assert [match for page in pages for match in page] == whole


BAD = {
    "offset": ([-1, 1.5, True, "2", None, 16_385], "offset must be a whole number from 0 to 16384, got "),
    "min_score": ([1.5, -2, "0.3", True, float("nan"), [0.1]], r"min_score must be a cosine in \[-1, 1\], got "),
    "group_by": (
        ["brand", "", 3, ["stock"], True],
        "group_by must be a field of this gallery, got .*: category, price",
    ),
    "unique": (["yes", 1, None], "unique must be True or False, got "),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (values, _) in BAD.items() for value in values])
def test_search_refuses_what_an_argument_can_not_be_in_one_line(tmp_path, name, value):
    with Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model()) as gallery:
        gallery._store.write(rows(clustered(3)))
        with pytest.raises(InputError, match=BAD[name][1]) as failure:
            gallery.search(clustered(1), **{name: value})
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 300


def test_a_copy_hides_its_copies_whether_or_not_a_filter_leaves_its_group_out(tmp_path, monkeypatch):
    first = np.eye(DIM, dtype=np.float32)[0]
    angles = [0.0, 0.1, 0.2, *np.linspace(0.4, 1.5, 120)]  # each of the first three is a copy of its neighbors alone
    vectors = np.array([np.cos(a) * first + np.sin(a) * np.eye(DIM)[1] for a in angles], np.float32)
    given = rows(vectors, stock=[1, 1, *[None] * 121])
    found = []
    for deep in (1_024, 1):
        monkeypatch.setattr(searching, "_DEEP", deep)
        with Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model()) as gallery:
            gallery._store.write(given)
            found.append(gallery.search(first, 100, group_by="stock", unique=True))
            assert gallery.search(first, 2, group_by="stock", unique=True) == found[0][:2]
    assert found[0] == found[1]
    assert [match.id for match in found[0][:2]] == ["p00000", "p00002"]


def test_negatives_do_not_end_a_search_whose_last_rows_are_tied(tmp_path):
    with Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model()) as gallery:
        vectors = clustered(300, seed=3)
        query = vectors[0]
        tied = np.argsort(-(vectors @ query))[150:260]
        vectors[tied] = vectors[tied[0]]
        gallery._store.write(rows(vectors))
        least = float(vectors[tied[0]] @ query) + 0.1
        negative = clustered(1, seed=8)[0]
        whole = gallery.search(query, 300, negative=negative)
        assert gallery.search(query, 5, negative=negative, min_score=least) == [
            match for match in whole[:5] if match.score >= least
        ]


@pytest.mark.parametrize("ids", [5, None, "a", [1], [None], [["a"]]])
def test_what_takes_ids_refuses_all_else_in_one_line(tmp_path, ids):
    with Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model()) as gallery:
        gallery._store.write(rows(clustered(3)))
        for call in (gallery.delete, gallery.embeddings, lambda ids: gallery.search(clustered(1), exclude=ids)):
            with pytest.raises(InputError, match=r"^[^\n]* must be a (collection of ids|text), [^\n]*$"):
                call(ids)
        assert gallery.embeddings([]).shape == (0, DIM)
        assert gallery.embeddings(iter(["p00001"])).shape == (1, DIM)


def test_search_refuses_pages_beyond_what_stores_give(tmp_path):
    with Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model()) as gallery:
        gallery._store.write(rows(clustered(3)))
        assert gallery.search(clustered(1), 3, offset=16_380) == []
        with pytest.raises(
            InputError, match=r"^offset \+ top_k must be at most 16383, got 16380 \+ 4; narrow the search"
        ):
            gallery.search(clustered(1), 4, offset=16_380)
        with pytest.raises(InputError, match=r"^offset \+ top_k must be at most 16382, got 16380 \+ 3"):
            gallery.search(clustered(1), 3, offset=16_380, exclude=["a"])


def test_lowered_scores_stay_cosines(tmp_path):
    with Gallery.open(empty_gallery("lancedb", tmp_path), tiny_model()) as gallery:
        base = clustered(1)[0]
        near = base + 1e-6 * np.random.default_rng(0).normal(size=(250, DIM)) * np.linspace(0, 30, 250)[:, None]
        vectors = np.concatenate([near, -base[None], clustered(20, seed=3)])
        gallery._store.write(rows((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)))
        found = gallery.search(base, 271, negative=clustered(2, seed=5))
        assert len(found) == 271
        assert found[-1].score >= -1
        assert [match.score for match in found] == sorted((match.score for match in found), reverse=True)
