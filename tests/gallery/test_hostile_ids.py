"""Whatever text is an id, each call means exactly the row of that id, on both engines."""

from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.shards.encode import encode_shards
from tests.support.galleries import ENGINES, clustered, empty_gallery, rows, tiny_model
from tests.support.tiny import drawn_photo, tiny_folder

PIECES = [
    *"""'"\\Ab%_,/ )é袖😀""",
    *"\n\r\t\x01\x7f\x85\u2028\ufeff\U0010ffff",
    *("\\\\", "\\'", '\\"', "''", "\\u0041", "\\x41", "\\101", "\\n", "\\%", "e\u0301", "{0}", "$1", "--", "NULL"),
    *("' OR '1'='1", '" or id >= "', "'] or id in ['"),
]
LONGEST = ["\\" * 4096, "'" * 4096, '"' * 4096, "é" * 2048, "😀" * 1024, "x" * 4096, "x" * 4095 + "'"]


def hostile(number, seed):
    """This many distinct ids, the pieces alone among them."""
    generator = np.random.default_rng(seed)
    found = dict.fromkeys([*PIECES, *LONGEST])
    while len(found) < number:
        found["".join(generator.choice(PIECES, generator.integers(2, 6)))] = None
    return list(found)[:number]


@pytest.fixture(params=ENGINES)
def gallery(request, tmp_path):
    uri = empty_gallery(request.param, tmp_path)
    with closing(Gallery.open(uri, tiny_model())) as opened:
        yield opened


def fill(gallery, ids):
    """Rows of these ids, each with its place as its stock."""
    made = rows(clustered(len(ids)), stock=list(range(len(ids))))
    given = [type(row)(id, row.vector, row.digest, id[:1000], row.fields) for id, row in zip(ids, made, strict=True)]
    gallery._store.write(given)
    return given


def present(gallery):
    return {row.id for row in gallery._store.nearest(clustered(1)[0], 1_000, None)}


def test_delete_removes_exactly_the_rows_of_hostile_ids(gallery):
    ids = hostile(150, seed=1)
    fill(gallery, ids)
    left = set(ids)
    assert present(gallery) == left
    generator = np.random.default_rng(2)
    for id in generator.permutation(ids[:46]).tolist():
        assert gallery.delete([id]) == 1, id
        left.remove(id)
        assert present(gallery) == left, id
        assert id not in gallery
    rest = [id for id in ids if id in left]
    several, absent = rest[:40], hostile(400, seed=3)[-100:]
    absent = [id for id in absent if id not in left]
    assert gallery.delete([*several, *absent, *several]) == 40
    assert present(gallery) == left - set(several)
    assert gallery.delete(ids) == len(left) - 40
    assert len(gallery) == 0


def test_reading_calls_answer_for_the_hostile_id_alone(gallery):
    ids = hostile(60, seed=4)
    written = {row.id: row for row in fill(gallery, ids)}
    assert np.array_equal(gallery.embeddings(ids[40:50]), np.stack([written[id].vector for id in ids[40:50]]))
    for place, id in enumerate(ids):
        match = gallery.get(id)
        assert (match.id, match.photo, match.fields["stock"]) == (id, id[:1000], place)
    assert all(f"{id}'" in ids or f"{id}'" not in gallery for id in ids[:10])
    excluded = ids[:50]
    found = gallery.search(clustered(1)[0], top_k=len(ids), exclude=excluded)
    assert {match.id for match in found} == set(ids[50:])


def test_what_can_be_no_id_is_refused_or_not_there(gallery):
    fill(gallery, ["a", "b"])
    for id in ("", "\ud800", "a\0", "x" * 4097, "é" * 2049):
        assert id not in gallery
        assert len(gallery.search(clustered(1)[0], exclude=[id])) == 2
        for call in (gallery.get, lambda id: gallery.embeddings([id]), lambda id: gallery.delete(["a", id])):
            with pytest.raises(InputError):
                call(id)
    assert present(gallery) == {"a", "b"}


def test_rows_of_hostile_ids_are_replaced_in_place(gallery):
    ids = hostile(80, seed=5)
    before = fill(gallery, ids)
    changed = [type(row)(row.id, -row.vector, row.digest, row.photo, row.fields | {"stock": -1}) for row in before[::2]]
    gallery._store.write(changed)
    assert len(gallery) == len(ids)
    kept = gallery._store.read(ids)
    for place, (id, row) in enumerate(zip(ids, before, strict=True)):
        assert kept[id].fields["stock"] == (-1 if place % 2 == 0 else place)
        assert np.array_equal(kept[id].vector, -row.vector if place % 2 == 0 else row.vector)


def test_adding_again_knows_hostile_ids(gallery, tmp_path):
    ids = ["it's", 'a "b"', "back\\slash\\", "line\nbreak", "\\u0041", "A"]
    generator = np.random.default_rng(6)
    photos = [generator.integers(0, 255, (20, 20, 3), dtype=np.uint8) for _ in ids]
    assert gallery.add(photos, ids=ids).added == 6
    report = gallery.add(photos, ids=ids)
    assert (report.added, report.updated, report.unchanged) == (0, 0, 6)
    assert gallery.delete(["\\u0041"]) == 1
    assert present(gallery) == set(ids) - {"\\u0041"}


def test_shards_of_hostile_ids_are_added_once(gallery, tmp_path):
    ids = PIECES[:12]
    drawn_photo((20, 20), seed=1).save(tmp_path / "photo.png")
    table = pa.table({"id": ids, "uri": [str(tmp_path / "photo.png")] * len(ids)})
    parquet.write_table(table, tmp_path / "list.parquet")
    given = {"model": tiny_folder(tmp_path / "model"), "loading": {"device": "cpu", "dtype": "float32"}}
    encode_shards(tmp_path / "list.parquet", tmp_path / "shards", **given)
    assert gallery.add_shards(tmp_path / "shards").added == len(ids)
    assert gallery.add_shards(tmp_path / "shards").unchanged == len(ids)
    assert present(gallery) == set(ids)
