"""A gallery: adding again is cheap and safe, searches are exact and in order, whichever engine is behind it."""

import io
import os
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fashion_retrieval.errors import GalleryError, ImageError, InputError
from fashion_retrieval.gallery import adding
from fashion_retrieval.gallery.gallery import AddReport, Gallery
from fashion_retrieval.model import FashionModel
from fashion_retrieval.results import Match
from tests.support.galleries import ENGINES, FIELDS, empty_gallery, tiny_model
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def encoded(model, monkeypatch):
    """Counts the photos that go through the encoder."""
    counter, encode_images = Counter(), model.towers.encode_images

    def counting(levels):
        counter["photos"] += len(levels)
        return encode_images(levels)

    monkeypatch.setattr(model.towers, "encode_images", counting)
    return counter


@pytest.fixture(params=ENGINES)
def gallery(request, model, tmp_path):
    with Gallery.open(empty_gallery(request.param, tmp_path), model) as gallery:
        assert len(gallery) == 0
        yield gallery


@pytest.fixture
def local(tmp_path, model):
    with Gallery.create(tmp_path / "local", model, fields=FIELDS) as gallery:
        yield gallery


def photos(folder, number, *, first=0):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index:03}.png" for index in range(number)]
    for index, path in enumerate(paths):
        drawn_photo((24, 32), seed=first + index).save(path)
    return paths


def named(number, letter="p"):
    return [f"{letter}{index}" for index in range(number)]


def by_hand(vectors, query, ids):
    """Every id with its cosine, best first."""
    scores = vectors.astype(np.float64) @ np.ravel(query).astype(np.float64)
    return sorted(zip(np.round(-scores, 6), ids, strict=True))


def test_peek_gives_the_info_without_the_model(gallery, model):
    info = Gallery.peek(gallery.info.uri)
    assert (info.fingerprint, info.embedding_dim, info.count) == (model.fingerprint, model.embedding_dim, 0)
    assert info == gallery.info


def test_search_gives_the_rows_of_a_plain_scan(gallery, model, tmp_path):
    paths = photos(tmp_path / "in", 30)
    metadata = [{"price": index / 2, "category": "ab"[index % 2], "sale": None} for index in range(30)]
    report = gallery.add(paths, named(30), metadata, batch_size=7)
    assert report == AddReport(added=30, updated=0, unchanged=0)
    vectors, query = model.encode(images=paths), model.encode(images=drawn_photo((24, 32), seed=99))
    ranked = by_hand(vectors, query, named(30))
    found = gallery.search(3 * query, 12)
    assert [match.id for match in found] == [name for _, name in ranked[:12]]
    assert [match.score for match in found] == pytest.approx([-score for score, _ in ranked[:12]], abs=1e-6)
    best = int(found[0].id[1:])
    fields = dict.fromkeys(FIELDS) | {"price": best / 2, "category": "ab"[best % 2]}
    assert found[0] == Match(f"p{best}", found[0].score, str(paths[best]), fields)

    cheap = [name for _, name in ranked if int(name[1:]) / 2 < 5 and int(name[1:]) % 2]
    assert [match.id for match in gallery.search(query[0], where="price < 5 and category = 'b'")] == cheap
    assert gallery.search(query, where="stock > 3") == []

    best_two = [match.id for match in found[:2]]
    rest = gallery.search(query, 12, exclude=[*best_two, "unknown"])
    assert [match.id for match in rest] == [name for _, name in ranked[2:14]]
    assert gallery.search(query, 5, exclude=named(30)) == []
    assert len(gallery.search(query.astype(np.float64).tolist()[0], 100)) == 30


def test_search_orders_equal_scores_by_id(gallery, model, tmp_path):
    path = photos(tmp_path / "in", 2)
    ids = named(36, "q")
    gallery.add([path[0]] * 35 + [path[1]], ids)
    query = model.encode(images=path[0])
    for top_k in (1, 3, 34):
        assert [match.id for match in gallery.search(query, top_k)] == sorted(ids[:35])[:top_k]
    skipped = sorted(ids[:35])[:4]
    assert [match.id for match in gallery.search(query, 2, exclude=skipped)] == sorted(ids[:35])[4:6]


def test_add_again_updates_what_changed(gallery, model, encoded, tmp_path):
    paths = photos(tmp_path / "in", 6)
    ids = named(6)
    gallery.add(paths, ids, [{"category": "a", "price": 1}] * 6)
    assert encoded == {"photos": 6}
    assert gallery.add(paths, ids) == AddReport(0, 0, 6)
    assert encoded == {"photos": 6}

    drawn_photo((24, 32), seed=50).save(paths[2])
    paths[4] = paths[4].rename(tmp_path / "in" / "moved.png")
    report = gallery.add(paths, ids, [{"category": "b" if index == 0 else "a"} for index in range(6)])
    assert report == AddReport(added=0, updated=3, unchanged=3)
    assert encoded == {"photos": 7}
    assert gallery.get("p0").fields == dict.fromkeys(FIELDS) | {"price": 1.0, "category": "b"}
    assert gallery.get("p2").fields["category"] == "a"
    assert gallery.get("p4").photo == str(tmp_path / "in" / "moved.png")
    assert gallery.search(model.encode(images=paths[2]), 1)[0].id == "p2"
    assert gallery.add([paths[0]], ["p0"], [{"category": None}]) == AddReport(0, 1, 0)
    assert gallery.get("p0").fields["category"] is None

    assert "p3" in gallery
    assert gallery.delete(["p3", "p3", "unknown"]) == 1
    assert "p3" not in gallery
    assert 7 not in gallery
    assert len(gallery) == 5
    assert gallery.add(paths, ids) == AddReport(1, 0, 5)


def test_add_writes_in_few_batches(local, tmp_path, monkeypatch):
    engine, lookups, sizes = local._store, [], []
    monkeypatch.setattr(adding, "_GROUP", 4)
    monkeypatch.setattr(engine, "read", lambda ids, read=engine.read: lookups.append(len(ids)) or read(ids))
    monkeypatch.setattr(engine, "write", lambda rows, write=engine.write: sizes.append(len(rows)) or write(rows))
    paths = photos(tmp_path / "in", 22)
    assert local.add(paths[:10]) == AddReport(10, 0, 0)
    assert (sizes, lookups) == ([10], [])
    assert local.add(paths[:19], batch_size=8) == AddReport(9, 0, 10)
    assert (sizes, lookups) == ([10, 9], [4, 4, 4, 4, 3])
    monkeypatch.setattr(adding, "_PATIENCE", 0)
    local.add(paths)
    assert sizes == [10, 9, 1, 2]


def test_add_takes_any_kind_of_image(local, model, encoded):
    image = drawn_photo((24, 32), seed=3)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    array = np.asarray(image)
    kinds = [
        image,
        array,
        torch.from_numpy(array.copy()).permute(2, 0, 1),
        buffer.getvalue(),
        io.BytesIO(buffer.getvalue()),
    ]
    assert local.add(iter(kinds), named(5)) == AddReport(5, 0, 0)
    assert local.add(kinds, named(5)) == AddReport(0, 0, 5)
    assert encoded == {"photos": 5}
    assert local.get("p3").photo is None
    found = local.search(model.encode(images=image), 5)
    assert [match.score for match in found] == pytest.approx([1] * 5, abs=1e-6)


def test_add_skips_and_lists_what_cannot_be_read(local, tmp_path):
    paths = photos(tmp_path / "in", 8)
    local.add([paths[5]], ["p5"])
    paths[2].write_bytes(b"no photo")
    paths[5].write_bytes(paths[5].read_bytes()[:60])
    paths[6].unlink()
    report = local.add(paths, named(8), batch_size=3, on_error="skip")
    assert (report.added, report.updated, report.unchanged) == (5, 0, 0)
    failed = [(failure.index, failure.source) for failure in report.failures]
    assert failed == [(2, "002.png"), (5, "005.png"), (6, "006.png")]
    assert all(isinstance(failure.error, ImageError) for failure in report.failures)
    assert "p5" in local
    assert len(local) == 6


def test_add_keeps_what_came_before_a_fault(gallery, tmp_path):
    number = kept = 5
    paths = photos(tmp_path / "in", 8)
    paths[number].write_bytes(b"no photo")
    with pytest.raises(ImageError, match=rf"images\[{number}\]: photo .* is not a photo in a known format"):
        gallery.add(paths, named(8), batch_size=3)
    assert len(gallery) == kept
    drawn_photo((24, 32)).save(paths[number])
    assert gallery.add(paths, named(8), batch_size=3) == AddReport(8 - kept, 0, kept)


def test_add_from_a_source_that_breaks_off_keeps_what_came(local, tmp_path):
    paths = photos(tmp_path / "in", 5)

    def source():
        yield from paths
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        local.add(source(), named(8), batch_size=3)
    assert len(local) == 5
    with pytest.raises(InputError, match="must have one entry a photo each, got 5 images, 4 ids"):
        local.add(iter(paths), named(4))
    with pytest.raises(InputError, match="must have one entry a photo each, got 5 images, 8 ids"):
        local.add(iter(paths), named(8))


def test_gallery_opened_again_is_the_same(gallery, model, tmp_path):
    gallery.add(photos(tmp_path / "in", 2), named(2))
    info = gallery.info
    assert (info.count, info.embedding_dim, info.fingerprint) == (2, 16, model.fingerprint)
    assert info.fields == {"category": "str", "price": "float", "stock": "int", "sale": "bool", "袖 丈": "str"}
    assert info.taxonomy is None
    assert repr(gallery) == f"Gallery({info.uri!r}, {info.engine})"
    with Gallery.open(info.uri, model) as again, closing(Gallery.create(info.uri, model, fields=FIELDS, exist_ok=True)):
        assert len(again) == 2
        assert again.get("p0") == gallery.get("p0")
        again.delete(["p0"])
        assert len(gallery) == 1


def test_add_without_ids_takes_the_paths(tmp_path, model, encoded, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in photos(tmp_path / "in", 3)]
    with Gallery.create(tmp_path / "g", model) as gallery:
        assert gallery.add(Path(name) for name in names) == AddReport(3, 0, 0)
        assert gallery.add(names) == AddReport(0, 0, 3)
        assert sorted(match.id for match in gallery.search(model.encode(texts="a dress"))) == names
        assert bool(gallery)


def test_add_refuses_a_path_that_comes_twice(local, tmp_path):
    paths = photos(tmp_path / "in", 2)
    with pytest.raises(InputError, match=r"ids must be distinct, got .*000\.png' twice"):
        local.add(iter([*paths, paths[0]]))
    assert len(local) == 2


def test_add_takes_a_path_that_is_not_utf8(local, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    drawn_photo((24, 32)).save(path)
    assert local.add([path], ["cafe"]) == AddReport(1, 0, 0)
    assert local.get("cafe").photo == f"{tmp_path}/caf\\udce9.png"
    with pytest.raises(InputError, match=r"ids\[0\] must be a text of 1 to 4096 bytes of UTF-8"):
        local.add([path])


def test_gallery_at_a_file_uri_works(tmp_path, model):
    uri = f"file://{tmp_path}/store/gallery"
    with pytest.raises(GalleryError, match="there is no gallery at file://"):
        Gallery.open(uri, model)
    with Gallery.create(uri, model) as gallery:
        gallery.add([drawn_photo((24, 32))], ["a"])
    with Gallery.open(uri, model) as gallery:
        assert "a" in gallery
    with pytest.raises(GalleryError, match="there is already a gallery at file://"):
        Gallery.create(uri, model)


def test_add_with_recognize_fills_the_fields(tmp_path):
    compact = FashionModel.from_pretrained(device="cpu")
    paths = sorted(EXAMPLES.glob("*.jpg"))
    assert len(paths) == 2
    with Gallery.create(tmp_path / "g", compact, recognize=True, fields={"price": float}) as gallery:
        blank = Image.new("RGB", (64, 64), "white")
        gallery.add([*paths, blank], ["one", "two", "blank"], [{"price": 9.5}, {}, {}])
        groups = [group.name for group in gallery._taxonomy.attributes]
        assert list(gallery.info.fields) == ["category", "color", *groups, "price"]
        for path, name in zip(paths, ("one", "two"), strict=True):
            largest = max(compact.recognize(path).garments, key=lambda garment: garment.area)
            known = gallery.get(name).fields
            assert (known["category"], known["color"]) == (largest.category.name, largest.color)
            assert {group: known[group] for group in groups} == {
                group: largest.attributes[group].value for group in groups
            }
            found = gallery.search(compact.encode(images=path), where=f"category = '{largest.category.name}'")
            assert found[0].id == name
        assert gallery.get("one").fields["price"] == 9.5
        if not compact.recognize(blank).garments:
            assert set(gallery.get("blank").fields.values()) == {None}
        assert gallery.info.taxonomy == gallery._taxonomy.name


def test_add_shows_progress_on_stderr(tmp_path, model, capfd):
    paths = photos(tmp_path / "in", 5)
    paths[1].write_bytes(b"no photo")
    with Gallery.create(tmp_path / "g", model) as gallery:
        gallery.add(paths, on_error="skip", progress=True, batch_size=2)
        out, err = capfd.readouterr()
        assert out == ""
        assert "5/5" in err
        assert "images/s" in err
        assert "1 failed" in err
        gallery.add(paths, on_error="skip")
    assert capfd.readouterr() == ("", "")
