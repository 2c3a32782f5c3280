"""Shards of embeddings: the plan, lists of photos, what is kept, resumed and refused, and loading into galleries."""

import json
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from fashion_retrieval.cli import app
from fashion_retrieval.errors import GalleryError, ImageError, InputError, ShardError
from fashion_retrieval.gallery.gallery import AddReport, Gallery
from fashion_retrieval.shards.encode import encode_shards
from fashion_retrieval.shards.files import read_shard
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.shards.manifest import Manifest, Shard, Summary
from fashion_retrieval.shards.photo_list import PhotoList
from fashion_retrieval.shards.worker import ShardWorker
from tests.support.galleries import DIM, ENGINES, empty_gallery, tiny_model
from tests.support.s3_server import serving
from tests.support.tiny import drawn_photo, tiny_folder

NUMBER, SIZE = 23, 5
BAD = 7


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A model, 23 photos of which one is damaged, and a list of them."""
    desk = tmp_path_factory.mktemp("shards")
    tiny_folder(desk / "model")
    (desk / "photos").mkdir()
    for index in range(NUMBER):
        drawn_photo((24, 32), seed=index).save(desk / "photos" / f"{index:02}.png")
    (desk / "photos" / f"{BAD:02}.png").write_text("not a photo")
    (desk / "list.txt").write_text("".join(f"{photo}\n" for photo in paths(desk)), encoding="utf-8")
    return desk


@pytest.fixture(scope="module", params=["parquet", "lance"])
def made(desk, request):
    """A folder of complete shards in either format, and its report."""
    folder = desk / request.param
    return folder, encode(desk, folder, format=request.param, on_error="skip")


def paths(desk):
    return sorted((desk / "photos").iterdir())


def encode(desk, folder, photos=None, **options):
    settings = {"model": desk / "model", "loading": {"device": "cpu", "dtype": "float32"}}
    return encode_shards(
        photos or desk / "list.txt", folder, **settings | {"shard_size": SIZE, "batch_size": 3} | options
    )


def tables(folder):
    place = Folder(str(folder))
    manifest = Manifest.read(place)
    return [read_shard(place, manifest, index) for index in range(manifest.shards)]


def vectors(table):
    return table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, DIM)


def test_shards_hold_every_photo_once(desk, made):
    folder, report = made
    good = [photo for index, photo in enumerate(paths(desk)) if index != BAD]
    assert [len(table) for table in tables(folder)] == [5, 4, 5, 5, 3]
    whole = pa.concat_tables(tables(folder))
    assert whole["id"].to_pylist() == whole["uri"].to_pylist() == list(map(str, good))
    assert whole.schema.field("embedding").type == pa.list_(pa.float32(), DIM)
    assert np.abs(vectors(whole) - tiny_model().encode(images=good)).max() < 1e-6
    assert (report.photos, report.encoded, report.shards, report.kept) == (NUMBER, NUMBER - 1, 5, 0)
    names = [f"shard-{index:06}.{folder.name}" for index in range(5)]
    assert sorted(path.name for path in folder.iterdir()) == ["failures.jsonl", "manifest.json", *names]


def test_shards_list_failures(desk, made):
    folder, report = made
    (failure,) = report.failures
    assert (failure.index, failure.source) == (BAD, str(paths(desk)[BAD]))
    assert isinstance(failure.error, ImageError)
    (line,) = map(json.loads, (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines())
    assert line == {"shard": 1, "index": BAD, "source": failure.source, "error": str(failure.error)}
    assert "07.png' is not a photo in a known format" in line["error"]


def test_manifest_names_model_and_plan(desk, made):
    content = json.loads((made[0] / "manifest.json").read_text(encoding="utf-8"))
    expected = {"fingerprint": tiny_model().fingerprint, "embedding_dim": DIM, "photos": NUMBER, "shards": 5}
    expected["dtype"] = "float32"
    assert expected.items() <= content.items()
    assert (content["shard_size"], content["format"]) == (SIZE, made[0].name)


def test_complete_shards_are_kept_and_others_made_again(desk, made):
    folder, _ = made
    before = tables(folder)
    third, fourth = (folder / f"shard-00000{index}.{folder.name}" for index in (2, 3))
    kept = folder / f"shard-000001.{folder.name}"
    stamp = kept.stat().st_mtime_ns
    third.rename(folder / "aside")
    _damage(fourth)
    (folder / "aside").rename(desk / "aside")
    (folder / ".0123.part").write_bytes(b"half")
    again = encode(desk, folder, format=folder.name, on_error="skip")
    assert (again.kept, again.encoded, again.failures[0].index) == (3, NUMBER - 1, BAD)
    assert kept.stat().st_mtime_ns == stamp
    assert tables(folder) == before
    assert not (folder / ".0123.part").exists()
    _remove(desk / "aside")


def _damage(shard):
    """Cut a Parquet file; of a Lance table, leave what a writer has written before it is killed."""
    if shard.is_file():
        shard.write_bytes(shard.read_bytes()[:-20])
    else:
        _remove(shard / "_versions")


def _remove(path):
    for inside in path.iterdir() if path.is_dir() else ():
        _remove(inside)
    path.rmdir() if path.is_dir() else path.unlink()


def test_encode_shards_with_other_settings_is_refused(desk, tmp_path):
    photos, folder = paths(desk)[:4], tmp_path / "shards"
    encode(desk, folder, photos)
    other = tiny_folder(tmp_path / "other", seed=1)
    for options, message in [
        (
            {"model": other},
            r"holds shards of model '.+model' \(\w{12}\), got model '.+other' \(\w{12}\); pass the same",
        ),
        ({"photos": photos[:3]}, r"a list of 4 photos \(\w{12}\), got a list of 3 photos \(\w{12}\); pass"),
        (
            {"shard_size": 4, "format": "lance"},
            "shard_size 5, format 'parquet', got shard_size 4, format 'lance'; pass",
        ),
        (
            {"loading": {"device": "cpu", "dtype": "bfloat16"}},
            "holds shards of dtype 'float32', got dtype 'bfloat16'; pass the same, or another folder",
        ),
    ]:
        with pytest.raises(ShardError, match=message):
            encode(desk, folder, **{"photos": photos} | options)
    assert encode(desk, folder, photos).kept == 1


def test_worker_with_another_model_is_refused(desk, tmp_path):
    """As on a machine of a cluster with other files, or another processor."""
    shard, loading = Shard(0, 0, ("a",), (str(paths(desk)[0]),)), {"device": "cpu", "dtype": "float32"}
    worker = ShardWorker(str(desk / "model"), loading, out=str(tmp_path), base="", batch_size=1, skip=False)
    plan = Manifest(*worker.identity(), photos=1, photos_digest="", shard_size=1, format="parquet")
    with pytest.raises(ShardError, match=r"^a worker has another model than '.+model', which it should have; keep"):
        worker.encode(shard, replace(plan, fingerprint="f"))
    with pytest.raises(ShardError, match=r"^a worker computes in float32, and the shards are of bfloat16; pass a dty"):
        worker.encode(shard, replace(plan, dtype="bfloat16"))
    assert not [*tmp_path.iterdir()]
    assert worker.encode(shard, plan) == Summary(0, 1, ())


def test_encode_shards_into_a_folder_of_other_things_is_refused(desk):
    with pytest.raises(ShardError, match=r"photos holds no shards but '00.png'; give a new or an empty folder"):
        encode(desk, desk / "photos", paths(desk)[:2])
    with pytest.raises(ShardError, match=r"can't be used .+; check the address and your access"):
        encode(desk, desk / "list.txt" / "shards", paths(desk)[:2])


def test_encode_shards_stops_at_a_bad_photo(desk, tmp_path):
    with pytest.raises(ImageError, match=r"photo '07.png' is not a photo"):
        encode(desk, tmp_path / "x")
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["manifest.json", "shard-000000.parquet"]
    report = encode(desk, tmp_path / "x", on_error="skip")
    assert (report.kept, report.encoded) == (1, NUMBER - 1)


def test_shard_whose_photos_all_failed_is_empty(desk, tmp_path):
    (tmp_path / "bad.txt").write_text(f"missing.jpg\n{tmp_path}\n", encoding="utf-8")
    report = encode(desk, tmp_path / "x", [tmp_path / "bad.txt", paths(desk)[0]], shard_size=2, on_error="skip")
    assert [len(table) for table in tables(tmp_path / "x")] == [0, 1]
    assert [failure.index for failure in report.failures] == [0, 1]
    assert str(report.failures[0].error).endswith(
        "missing.jpg can't be read (No such file or directory); check path and access"
    )
    assert "Is a directory" in str(report.failures[1].error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"engine": "spark", "shard_size": 0, "format": "csv"},
            "engine must be 'local' or 'ray', got 'spark'; format must be 'parquet' or 'lance', got 'csv'; "
            "shard_size must be a whole number of at least 1, got 0",
        ),
        ({"max_pixels": 0.5}, "max_pixels must be a whole number of at least 1, got 0.5"),
        ({"workers": 2}, "workers goes with engine 'ray'"),
        ({"on_error": "ignore", "batch_size": True}, "on_error must be .+; batch_size must be .+ got True"),
    ],
)
def test_encode_shards_refuses_wrong_arguments(desk, tmp_path, options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        encode(desk, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_encode_shards_skips_photos_over_max_pixels(desk, tmp_path):
    found = encode(desk, tmp_path / "x", paths(desk)[:2], on_error="skip", max_pixels=24 * 32 - 1)
    assert (found.encoded, len(found.failures), found.left_out) == (0, 2, ())
    assert "24x32 pixels, over max_pixels=767; shrink it or raise max_pixels" in str(found.failures[0].error)
    assert encode(desk, tmp_path / "y", paths(desk)[:2], max_pixels=24 * 32).encoded == 2


def test_encode_shards_takes_file_uris_and_relative_paths(desk, tmp_path, monkeypatch):
    """By file:// in and out, with a blank in the name; and the same from another working folder, by relative paths."""
    odd = tmp_path / "a b"
    odd.mkdir()
    drawn_photo((24, 32), seed=0).save(odd / "0 1.png")
    report = encode(desk, f"file://{odd}/out", [(odd / "0 1.png").as_uri()])
    (table,) = tables(odd / "out")
    assert (report.encoded, table["uri"].to_pylist()) == (1, [f"file://{tmp_path}/a%20b/0%201.png"])
    assert np.abs(vectors(table) - tiny_model().encode(images=odd / "0 1.png")).max() < 1e-6
    monkeypatch.chdir(odd)
    assert encode(desk, f"file://{odd}/relative", ["0 1.png"], format="lance").encoded == 1
    assert tables("relative")[0]["id"].to_pylist() == ["0 1.png"]


def test_encode_shards_from_and_to_an_object_store(desk, tmp_path, monkeypatch):
    """Photos, list and shards in one; a shard is written in one go, and what was there is not written again."""
    with serving() as (objects, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        keys = [f"shop/photos/{place} é+%20.png" for place in range(4)]
        for key, photo in zip(keys, paths(desk), strict=False):
            objects[key] = photo.read_bytes()
        objects["shop/list.txt"] = "".join(f"s3://{key}\n" for key in [*keys, "shop/no.png"]).encode()
        made = encode(desk, "s3://shop/a/shards", "s3://shop/list.txt", shard_size=3, on_error="skip")
        written = {key: objects.pop(key) for key in sorted(objects) if key.startswith("shop/a/shards/")}
        names = ("failures.jsonl", "manifest.json", "shard-000000.parquet", "shard-000001.parquet")
        assert [key for key, content in written.items() if content] == [f"shop/a/shards/{name}" for name in names]
        assert (made.encoded, made.failures[0].source) == (4, "s3://shop/no.png")
        assert str(made.failures[0].error).startswith("photo s3://shop/no.png can't be read (")
        objects |= {key: content for key, content in written.items() if not key.endswith("1.parquet")}
        again = encode(desk, "s3://shop/a/shards", "s3://shop/list.txt", shard_size=3, on_error="skip")
        assert (again.kept, again.encoded) == (1, 4)
        (shard,) = PhotoList(["s3://shop/photos/"], 9).shards()
        assert list(shard.ids) == list(shard.uris) == [f"s3://{key}" for key in keys]
        with Gallery.create(tmp_path / "gallery", tiny_model()) as gallery:
            assert gallery.add_shards("s3://shop/a/shards/").added == 4
            match = gallery.search(tiny_model().encode(images=paths(desk)[2]), top_k=1)[0]
            assert (match.photo, round(match.score, 5)) == (f"s3://{keys[2]}", 1)


def test_encode_shards_into_a_store_of_fsspec_reads_and_writes_there(desk):
    store = fsspec.filesystem("memory")
    for place, photo in enumerate(paths(desk)[:3]):
        store.pipe_file(f"/shop/photos/{place} é+%20.png", photo.read_bytes())
    made = encode(desk, "memory://shop/shards/", "memory://shop/photos", shard_size=2)
    assert (made.encoded, made.kept, made.folder) == (3, 0, "memory://shop/shards")
    assert encode(desk, "memory://shop/shards", "memory://shop/photos", shard_size=2).kept == 2
    whole = pa.concat_tables(tables("memory://shop/shards"))
    assert whole["uri"].to_pylist() == [f"memory://shop/photos/{place} é+%20.png" for place in range(3)]
    assert np.abs(vectors(whole) - tiny_model().encode(images=paths(desk)[:3])).max() < 1e-6
    store.rm("/shop", recursive=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_shards_load_into_a_gallery(engine, made, desk):
    folder, report = made
    good = [str(photo) for index, photo in enumerate(paths(desk)) if index != BAD]
    with Gallery.open(empty_gallery(engine, desk), tiny_model()) as gallery:
        gallery.add(good[:2], metadata=[{"price": 5.0}, {"price": 7.0}])
        added = gallery.add_shards(folder)
        assert added == AddReport(len(good) - 2, 0, 2, added.failures)
        assert [str(failure.error) for failure in added.failures] == [str(failure.error) for failure in report.failures]
        assert gallery.add(good) == AddReport(0, 0, len(good))
        assert gallery.get(good[1]).fields["price"] == 7.0
        match = gallery.search(tiny_model().encode(images=good[5]), top_k=1)[0]
        assert (match.id, match.photo, round(match.score, 5)) == (good[5], good[5], 1)
        assert gallery.add_shards(folder).unchanged == len(gallery) == len(good)


def test_gallery_refuses_shards_that_do_not_fit(desk, tmp_path):
    shards = tmp_path / "shards"
    encode(desk, shards, paths(desk)[:2], shard_size=1)
    other = type(tiny_model()).from_pretrained(tiny_folder(tmp_path / "other", seed=1), device="cpu")
    with (
        Gallery.create(tmp_path / "g1", other) as gallery,
        pytest.raises(GalleryError, match=r"of model .+, shards .+ of"),
    ):
        gallery.add_shards(shards)
    half = type(tiny_model()).from_pretrained(desk / "model", device="cpu", dtype="bfloat16")
    with (
        Gallery.create(tmp_path / "g4", half) as gallery,
        pytest.raises(GalleryError, match=r"computed in bfloat16, shards .+ in float32; encode them with the"),
    ):
        gallery.add_shards(shards)
    with (
        Gallery.create(tmp_path / "g2", tiny_model(), recognize=True) as gallery,
        pytest.raises(GalleryError, match="recognizes its photos, and shards hold embeddings alone"),
    ):
        gallery.add_shards(shards)
    with Gallery.create(tmp_path / "g3", tiny_model()) as gallery:
        (shards / "shard-000001.parquet").unlink()
        with pytest.raises(
            ShardError, match=r"lacks shard-000001.parquet, of 2 shards; run the same encode_shards again"
        ):
            gallery.add_shards(shards)
        with pytest.raises(ShardError, match=r"holds no manifest.json; give a folder"):
            gallery.add_shards(desk / "photos")
        (shards / "manifest.json").write_text("{")
        with pytest.raises(ShardError, match=r"manifest.json is damaged"):
            gallery.add_shards(shards)
        assert len(gallery) == 0


def cli(*arguments):
    return CliRunner().invoke(app, ["encode", *map(str, arguments)])


def test_encode_command_writes_shards(desk, tmp_path):
    options = ("--model", desk / "model", "--device", "cpu", "--dtype", "float32")
    more = ("--shard-size", 10, "--format", "lance", "--on-error", "skip")
    done = cli(desk / "photos" / "*.png", "--out", tmp_path / "x", *options, *more)
    assert done.exit_code == 1
    first, second, third = done.stderr.splitlines()
    assert first == f"22 embeddings of 16 numbers in {tmp_path / 'x'}, 3 shards, 0 of them there before"
    assert second == "1 failed, all listed in failures.jsonl:"
    assert third.startswith(f"  {paths(desk)[BAD]}: photo '07.png' is not a photo")
    done = cli(desk / "list.txt", "--out", f"{tmp_path}/v1.0/", *options)
    assert done.stderr == "error: photo '07.png' is not a photo in a known format; convert it to JPEG or PNG\n"
    done = cli(paths(desk)[0], "--out", tmp_path / "y", "--engine", "local", *options)
    assert (done.exit_code, done.stderr.count("1 embeddings of 16 numbers")) == (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "x.npy", "--engine", "ray"), "--engine goes with --out FOLDER"),
        (("--out", "x.parquet", "--shard-size", "5"), "--shard-size goes with --out FOLDER"),
        (("--out", "x.csv"), "or be a folder, got 'x.csv'; a new folder may end in /"),
        (("--out", "x", "--workers", "0"), "workers"),
        (("--out", "x", "--format", "csv"), "format"),
    ],
)
def test_encode_command_refuses_wrong_usage(options, message, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    done = cli("a.jpg", *options)
    assert (done.exit_code, message in done.stderr) == (2, True)


def test_encode_command_refuses_texts_into_shards(tmp_path):
    done = cli("--texts", tmp_path / "t.txt", "--out", tmp_path / "x")
    assert (done.exit_code, "--texts goes with --out FILE" in done.stderr) == (2, True)
    assert not Path(tmp_path / "x").exists()
