"""A gallery moves to another model: whole under the old one or the new, whatever happens meanwhile."""

import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fashion_retrieval.errors import FashionRetrievalError, GalleryError, ImageError, InputError
from fashion_retrieval.gallery import Gallery, MigrationReport
from fashion_retrieval.gallery.engines import lancedb
from fashion_retrieval.gallery.engines.base import Settings
from fashion_retrieval.gallery.engines.lancedb import LanceStore
from fashion_retrieval.model import FashionModel
from fashion_retrieval.models.weights import weights_digest
from tests.inference.test_composition import with_composer
from tests.support.galleries import ENGINES, FIELDS, empty_gallery, tiny_model
from tests.support.tiny import TINY_CONFIG, altered, drawn_photo, tiny_folder

NUMBER = 12


@pytest.fixture(scope="module")
def old():
    return tiny_model()


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    return loaded(tiny_folder(tmp_path_factory.mktemp("new"), seed=1))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return loaded(tiny_folder(tmp_path_factory.mktemp("wide"), altered(embed_dim=24), seed=2))


def loaded(folder, **loading):
    return FashionModel.from_pretrained(folder, device="cpu", **{"dtype": "float32"} | loading)


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    found = [tmp_path / "photos" / ("inner" * (index % 2)) / f"{index:02}.png" for index in range(NUMBER)]
    for index, path in enumerate(found):
        drawn_photo((24, 32), seed=index).save(path)
    return found


@pytest.fixture(params=ENGINES)
def uri(request, tmp_path, old, paths):
    uri = empty_gallery(request.param, tmp_path)
    with Gallery.open(uri, old) as gallery:
        gallery.add(paths, names(), [{"stock": index} for index in range(NUMBER)])
    yield uri
    if request.param == "milvus":  # the other tests want it as it was
        with Gallery.open(uri, loaded_for(uri, old)) as gallery:
            gallery.delete(names())
            if gallery.info.fingerprint != old.fingerprint:
                gallery.migrate(old)


@pytest.fixture
def local(tmp_path, old, paths):
    uri = empty_gallery("lancedb", tmp_path)
    with Gallery.open(uri, old) as gallery:
        gallery.add(paths, names(), [{"stock": index} for index in range(NUMBER)])
    return uri


def loaded_for(uri, model):
    info = Gallery.peek(uri)
    return model if info.fingerprint == model.fingerprint else loaded(info.model_id)


def names(number=NUMBER):
    return [f"p{index:02}" for index in range(number)]


def check(uri, model, paths, ids):
    """The gallery is whole: these ids, and for each the vector of its photo by this model, its path and fields."""
    with Gallery.open(uri, model) as gallery:
        assert len(gallery) == len(ids)
        assert gallery.info.embedding_dim == model.embedding_dim
        wanted = [paths[int(name[1:])] for name in ids]
        assert np.abs(gallery.embeddings(ids) - model.encode(images=wanted)).max(initial=0) < 1e-6
        found = gallery.search(model.encode(texts="a dress"), 2 * NUMBER)
        assert sorted(match.id for match in found) == sorted(ids)
        assert {match.id: match.photo for match in found} == dict(zip(ids, map(str, wanted), strict=True))
        assert {match.id: match.fields["stock"] for match in found} == {name: int(name[1:]) for name in ids}


def tables(uri):
    return sorted(path.name for path in Path(uri).iterdir())


def count_encoded(model, monkeypatch):
    counted, encode = [], model.towers.encode_images
    monkeypatch.setattr(model.towers, "encode_images", lambda pixels: counted.append(len(pixels)) or encode(pixels))
    return counted


def test_migrated_gallery_has_the_rows_of_the_new_model(uri, old, wide, paths):
    with Gallery.open(uri, old) as gallery, Gallery.open(uri, old) as other:
        assert other.search(old.encode(texts="a dress"), 1)
        assert gallery.migrate(wide) == MigrationReport(NUMBER, NUMBER)
        found = gallery.search(wide.encode(images=paths[3]), 1)
        assert [match.id for match in found] == ["p03"]
        assert gallery.add([paths[0]], ["again"]).added == 1
        assert gallery.delete(["again"]) == 1
        told = r"^gallery .* was migrated; open it again with model '.*wide.*'$"
        for use in (
            lambda: other.search(old.encode(texts="a dress"), 1),
            lambda: other.add([paths[0]], ["mixed"]),
            lambda: other.delete(["p00"]),
            lambda: other.get("p00"),
            lambda: len(other),
        ):
            with pytest.raises(GalleryError, match=told):
                use()
    check(uri, wide, paths, names())
    with pytest.raises(GalleryError, match=r"holds embeddings of model '.*wide"):
        Gallery.open(uri, old)


def test_migration_to_another_model_of_the_same_width_is_noticed_by_others(local, old, new, paths):
    with Gallery.open(local, old) as gallery, Gallery.open(local, old) as other:
        gallery.migrate(new)
        with pytest.raises(GalleryError, match="was migrated"):
            other.add([paths[0]], ["mixed"])
        with pytest.raises(GalleryError, match="was migrated"):
            other.search(old.encode(texts="a dress"))
    check(local, new, paths, names())


def test_interrupted_migration_goes_on_with_what_changed_meanwhile(uri, old, new, paths, monkeypatch):
    monkeypatch.setattr("fashion_retrieval.gallery.adding._DECODED", 2)
    counted, encode = [], new.towers.encode_images

    def stopping(pixels):
        if sum(counted) >= 6:
            raise KeyboardInterrupt
        counted.append(len(pixels))
        return encode(pixels)

    with Gallery.open(uri, old) as gallery:
        monkeypatch.setattr(new.towers, "encode_images", stopping)
        with pytest.raises(KeyboardInterrupt):
            gallery.migrate(new, batch_size=2)
        monkeypatch.setattr(new.towers, "encode_images", encode)
        check(uri, old, paths, names())
        drawn_photo((24, 32), seed=77).save(paths[0])  # a photo of other content, one more, one less, other metadata
        gallery.add([paths[0], paths[1]], ["p00", "p01"], [{"stock": 0}, {"stock": 1, "price": 2.5}])
        gallery.delete(["p02", "p11"])
    counted = count_encoded(new, monkeypatch)
    kept = [name for name in names() if name not in ("p02", "p11")]
    with Gallery.open(uri, old) as gallery:
        report = gallery.migrate(new)
        assert gallery.get("p01").fields["price"] == 2.5
    assert report.count == len(kept)
    assert NUMBER - 2 - 6 <= sum(counted) <= NUMBER - 2 - 6 + 2
    check(uri, new, paths, kept)


def test_rows_written_while_photos_are_encoded_are_taken_over(local, old, new, paths, monkeypatch):
    encode, writes = new.towers.encode_images, []

    def disturbed(pixels):
        if not writes:
            with Gallery.open(local, old) as other:
                writes.append(other.add([paths[3]], ["p03"], [{"stock": 3, "category": "late"}]).updated)
                other.delete(["p05"])
        return encode(pixels)

    monkeypatch.setattr(new.towers, "encode_images", disturbed)
    with Gallery.open(local, old) as gallery:
        gallery.migrate(new)
        assert gallery.get("p03").fields["category"] == "late"
    assert writes == [1]
    check(local, new, paths, [name for name in names() if name != "p05"])


def test_rows_written_during_the_switch_are_not_lost(local, old, new, paths, monkeypatch):
    with Gallery.open(local, old) as gallery, Gallery.open(local, old) as other:
        place, rows = "fashion_retrieval.gallery.engines.lancedb._connect", []

        def connect(uri, connected=lancedb._connect):
            if sys._getframe(1).f_code.co_name == "adopt" and not rows:
                rows.append(other.add(paths[:1], ["late"]).added + other.delete(["p03"]))
            return connected(uri)

        monkeypatch.setattr(place, connect)
        report = gallery.migrate(new)
        assert rows == [2]
        assert report.count == len(gallery) == NUMBER
        assert "late" in gallery
        assert "p03" not in gallery
        assert gallery.info.fingerprint == new.fingerprint
        with pytest.raises(GalleryError, match="was migrated"):
            other.search(old.encode(texts="a"))


def test_unreadable_photo_raises_and_leaves_the_gallery_or_is_left_out(uri, old, new, paths):
    paths[4].unlink()
    paths[7].write_bytes(b"no photo")
    with Gallery.open(uri, old) as gallery:
        gallery.add([np.asarray(drawn_photo((24, 32)))], ["without"])
        with pytest.raises(FashionRetrievalError):
            gallery.migrate(new)
        assert len(gallery.search(old.encode(texts="a dress"), 20)) == NUMBER + 1
        report = gallery.migrate(new, on_error="skip")
        assert (report.count, report.encoded) == (NUMBER - 2, NUMBER - 6)  # four by the first attempt
        told = {failure.source: str(failure.error) for failure in report.failures}
        assert sorted(told) == ["p04", "p07", "without"]
        assert (
            "was added from no file, so it can't be encoded again; delete it, or pass on_error='skip'"
            in told["without"]
        )
        assert [failure.index for failure in report.failures] == sorted(failure.index for failure in report.failures)
    check(uri, new, paths, [name for name in names() if name not in told])


def test_gallery_is_not_emptied_where_no_photo_can_be_read(local, old, new, paths, tmp_path):
    (tmp_path / "photos").rename(tmp_path / "moved")
    with Gallery.open(local, old) as gallery:
        with pytest.raises(InputError, match=f"^none of the {NUMBER} photos can be read, so the gallery would be emp"):
            gallery.migrate(new, on_error="skip")
        assert (len(gallery), gallery.info.fingerprint) == (NUMBER, old.fingerprint)
        assert gallery.migrate(new, root=tmp_path / "moved").count == NUMBER


def test_photo_that_was_staged_and_changed_into_an_unreadable_one_is_left_out(local, old, new, paths):
    with Gallery.open(local, old) as gallery:
        good = paths[11].read_bytes()
        paths[11].unlink()
        with pytest.raises(FashionRetrievalError):
            gallery.migrate(new, batch_size=1)
        paths[11].write_bytes(good)
        drawn_photo((24, 32), seed=50).save(paths[0])
        gallery.add([paths[0]], ["p00"], [{"stock": 0}])
        paths[0].unlink()
        report = gallery.migrate(new, on_error="skip")
        assert [failure.source for failure in report.failures] == ["p00"]
    check(local, new, paths, names()[1:])


@pytest.mark.parametrize("part", ["photos", "photos/.."])
def test_root_is_where_the_photos_lie_now(local, old, new, paths, tmp_path, part):
    moved = tmp_path / "moved" / "photos"
    shutil.copytree(tmp_path / "photos", moved)
    shutil.rmtree(tmp_path / "photos")
    with Gallery.open(local, old) as gallery:
        with pytest.raises(ImageError, match="does not exist; check the path; pass root if photos moved, on_error="):
            gallery.migrate(new)
        assert gallery.migrate(new, root=(tmp_path / "moved" / part).resolve()) == MigrationReport(NUMBER, NUMBER)
    check(local, new, [moved / path.relative_to(tmp_path / "photos") for path in paths], names())


def test_root_never_takes_a_photo_for_another_of_the_same_name(local, old, new, paths, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "photos", moved)
    (moved / "inner" / "03.png").rename(moved / "03.png")
    with Gallery.open(local, old) as gallery:
        report = gallery.migrate(new, root=moved, on_error="skip")
        assert [failure.source for failure in report.failures] == ["p03"]


def test_paths_that_were_relative_stay_right_in_another_folder(tmp_path, old, new, paths, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = [path.relative_to(tmp_path) for path in paths]
    with Gallery.create("g", old, fields=FIELDS) as gallery:
        gallery.add(relative, names(), [{"stock": index} for index in range(NUMBER)])
        monkeypatch.chdir("/")
        assert gallery.migrate(new).count == NUMBER
    check(tmp_path / "g", new, paths, names())


def test_photos_that_moved_are_found_again_without_encoding(tmp_path, old, paths):
    (tmp_path / "before").mkdir()
    photos = [Path(shutil.copy(path, tmp_path / "before" / path.name)) for path in paths]
    with Gallery.create(tmp_path / "g", old, fields=FIELDS) as gallery:
        gallery.add(photos, names(), [{"stock": index} for index in range(NUMBER)])
        (tmp_path / "before").rename(tmp_path / "moved")
        assert gallery.migrate(old, root=tmp_path / "moved") == MigrationReport(NUMBER, 0)
        found = [gallery.get(name).photo for name in names()]
    assert found == [str(tmp_path / "moved" / path.name) for path in paths]


def test_root_is_where_relative_paths_of_older_galleries_start(tmp_path, old, new, paths, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Gallery.create(tmp_path / "g", old, fields=FIELDS) as gallery:
        gallery.add(paths, names(), [{"stock": index} for index in range(NUMBER)])
        rows = gallery._store.read(names()).values()
        gallery._store.write([replace(row, photo=str(Path(row.photo).relative_to(tmp_path))) for row in rows])
        monkeypatch.chdir("/")
        with pytest.raises(FashionRetrievalError):
            gallery.migrate(new)
        assert gallery.migrate(new, root=tmp_path).count == NUMBER
    check(tmp_path / "g", new, paths, names())


def test_recognized_fields_are_recognized_again_and_the_others_stay(tmp_path, old, new, paths):
    with Gallery.create(tmp_path / "fresh", new, recognize=True, fields={"stock": int}) as fresh:
        fresh.add(paths[:3], names(3), [{"stock": index} for index in range(3)])
        wanted = {name: fresh.get(name).fields for name in names(3)}
        taxonomy = fresh.taxonomy
    with Gallery.create(tmp_path / "g", old, recognize=True, fields={"stock": int}) as gallery:
        gallery.add(paths[:3], names(3), [{"stock": index} for index in range(3)])
        gallery.migrate(new)
        assert {name: gallery.get(name).fields for name in names(3)} == wanted
        assert gallery.taxonomy == taxonomy


def test_other_precision_is_refused_by_add_and_migrated_to(local, old, paths):
    half = FashionModel(old._bundle, model_id="half", device="cpu", dtype="bfloat16")
    assert half.fingerprint == old.fingerprint
    with Gallery.open(local, half) as gallery:
        with pytest.raises(GalleryError, match=r"holds embeddings computed in float32, got .* computes in bfloat16"):
            gallery.add(paths[:1], ["p00"])
        assert gallery.migrate(half) == MigrationReport(NUMBER, NUMBER)
        assert gallery.info.dtype == "bfloat16"
        drawn_photo((24, 32), seed=80).save(paths[0])
        assert gallery.add(paths[:1], ["p00"], [{"stock": 0}]).updated == 1
    with (
        Gallery.open(local, old) as gallery,
        pytest.raises(GalleryError, match=r"computed in bfloat16, got .*32"),
    ):
        gallery.add(paths[:1], ["p01"])


def test_changed_preprocessing_is_another_model(local, tmp_path):
    config = {**TINY_CONFIG, "preprocess_cfg": {**TINY_CONFIG["preprocess_cfg"], "interpolation": "bilinear"}}
    changed = loaded(tiny_folder(tmp_path / "changed", config))
    with pytest.raises(GalleryError, match="load that model, or build a new gallery"):
        Gallery.open(local, changed)


def test_other_composer_is_said_once_shown_and_migrated_to_without_reading_photos(tmp_path, local, old, paths, caplog):
    composed = FashionModel(
        with_composer(tiny_folder(tmp_path / "m")), model_id="composed", device="cpu", dtype="float32"
    )
    assert composed.fingerprint == old.fingerprint
    assert composed.composer_digest == weights_digest(composed._bundle.composer)
    assert old.composer_digest is None
    caplog.set_level(logging.WARNING)
    with Gallery.open(local, composed) as gallery:
        assert gallery.info.composer is None
        for path in paths:
            path.unlink()
        assert gallery.migrate(composed) == MigrationReport(NUMBER, 0)
        assert gallery.info.composer == composed.composer_digest
        assert len(gallery.search(old.encode(texts="a dress"), 20)) == NUMBER
        assert gallery.get("p03").fields["stock"] == 3
    assert caplog.messages == []
    with Gallery.open(local, old) as gallery:
        for _ in range(2):
            gallery.search(old.encode(texts="a dress"))
    (told,) = caplog.messages
    assert told.startswith(f"gallery {local} was made with another composer than that of model ")
    assert told.endswith("load model 'composed', or call migrate with this one")


def test_composer_is_kept_in_the_settings_only_where_there_is_one():
    kept = Settings("tiny", "0" * 64, 16, None, {})
    assert "composer" not in kept.to_json()
    assert Settings.from_json(replace(kept, composer="a" * 64).to_json(), "here").composer == "a" * 64
    assert Settings.from_json(kept.to_json(), "here") == kept


def test_migration_to_the_same_model_does_nothing(local, old):
    with Gallery.open(local, old) as gallery:
        gallery.migrate(old)  # the model's name is another
        version = gallery._store._table.version
        assert gallery.migrate(old) == MigrationReport(NUMBER, 0)
        assert gallery._store._table.version == version


def test_empty_gallery_migrates(tmp_path, old, wide):
    with Gallery.create(tmp_path / "g", old) as gallery:
        assert gallery.migrate(wide) == MigrationReport(0, 0)
    with Gallery.open(tmp_path / "g", wide) as gallery:
        assert len(gallery) == 0


def test_what_is_left_beside_the_gallery_goes_with_the_switch(local, old, new, paths):
    with Gallery.open(local, old) as gallery:
        good = paths[11].read_bytes()
        paths[11].unlink()
        with pytest.raises(FashionRetrievalError):
            gallery.migrate(new)
        assert tables(local) == ["photos.lance", "photos.next.lance"]
        Gallery.open(local, old).close()
        paths[11].write_bytes(good)
        gallery.migrate(new)
        assert tables(local) == ["photos.lance"]


@pytest.mark.parametrize("broken", ["_versions", "*"])
def test_staged_rows_that_are_half_removed_are_staged_anew(local, old, new, paths, broken):
    with Gallery.open(local, old) as gallery:
        good = paths[11].read_bytes()
        paths[11].unlink()
        with pytest.raises(FashionRetrievalError):
            gallery.migrate(new)
        paths[11].write_bytes(good)
        for folder in Path(local, "photos.next.lance").glob(broken):
            shutil.rmtree(folder)
        assert gallery.migrate(new) == MigrationReport(NUMBER, NUMBER)
    check(local, new, paths, names())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"new_model": "compact"}, "^new_model must be a FashionModel, got str; see from_pretrained$"),
        ({"on_error": "ignore"}, "^on_error must be"),
        ({"batch_size": 0}, "^batch_size must be"),
        ({"batch_size": 2_000}, "^batch_size must be"),
        ({"max_pixels": -1}, "^max_pixels must be"),
        ({"root": "/nothing/here"}, "^root must be the folder in which the photos lie now, got '/nothing/here'$"),
        ({"root": Path("/nothing")}, "^root must be the folder in which the photos lie now, got '/nothing'$"),
        ({"root": 5}, "^root must be the folder in which the photos lie now, got 5$"),
    ],
)
def test_bad_argument_is_told_in_one_line_and_nothing_is_staged(local, old, new, given, told):
    with Gallery.open(local, old) as gallery, pytest.raises(InputError, match=told):
        gallery.migrate(**{"new_model": new} | given)
    assert tables(local) == ["photos.lance"]


def test_gallery_whose_model_is_no_more_is_searched_and_migrated_but_not_added_to(local, old, new, paths):
    with Gallery.open(local, None) as gallery:
        assert len(gallery.search(old.encode(texts="a dress"), 20)) == NUMBER
        with pytest.raises(GalleryError, match=r"^adding needs model 'tiny'; open gallery .* with it$"):
            gallery.add(paths[:1], ["new"])
        assert gallery.migrate(new).count == NUMBER
        assert gallery.add(paths[:1], ["p00"]).unchanged == 1
    check(local, new, paths, names())


def test_switch_that_ends_before_what_was_staged_is_removed_is_done(local, old, new, paths, monkeypatch):
    adopt = LanceStore.adopt

    def stopping(self, staged, version):
        monkeypatch.setattr(LanceStore, "unstage", stopped)
        adopt(self, staged, version)

    def stopped(self):
        raise KeyboardInterrupt

    with Gallery.open(local, old) as gallery:
        with monkeypatch.context() as patched:
            patched.setattr(LanceStore, "adopt", stopping)
            with pytest.raises(KeyboardInterrupt):
                gallery.migrate(new)
        monkeypatch.undo()
    assert tables(local) == ["photos.lance", "photos.next.lance"]
    check(local, new, paths, names())
    with Gallery.open(local, new) as gallery:
        assert gallery.migrate(new) == MigrationReport(NUMBER, 0)
    assert tables(local) == ["photos.lance"]


def test_milvus_switch_that_ends_in_the_middle_is_ended_by_the_next_who_opens(tmp_path, old, new, paths, monkeypatch):
    uri = empty_gallery("milvus", tmp_path)
    with Gallery.open(uri, old) as gallery:
        gallery.add(paths, names(), [{"stock": index} for index in range(NUMBER)])
        client = gallery._store._client
        rename = client.rename_collection

        def stopping(name, *given):
            if name.endswith("__next"):
                raise KeyboardInterrupt
            rename(name, *given)

        monkeypatch.setattr(client, "rename_collection", stopping)
        with pytest.raises(KeyboardInterrupt):
            gallery.migrate(new)
        assert {"gallery__next", "gallery__old"} <= set(client.list_collections())
        assert "gallery" not in client.list_collections()
    check(uri, new, paths, names())
    with Gallery.open(uri, new) as gallery:
        assert not {"gallery__next", "gallery__old"} & set(gallery._store._client.list_collections())
        gallery.delete(names())
        gallery.migrate(old)  # the other tests want it as it was
