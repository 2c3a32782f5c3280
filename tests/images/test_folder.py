"""Which files of a folder are photos, what is said of the others, and that the commands say it on stderr."""

import importlib.util
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fashion_retrieval.cli import app
from fashion_retrieval.cli.photos import find_photos
from fashion_retrieval.images import folder
from fashion_retrieval.images.folder import files_below, sort_files
from fashion_retrieval.shards.encode import encode_shards
from fashion_retrieval.shards.photo_list import PhotoList
from tests.support.tiny import drawn_photo, tiny_folder

READ = "avif avifs bmp gif jfif jpe jpeg JPG mpo png tif tiff webp"
UNREAD = "3fr arw cr2 cr3 dng iiq j2k jp2 jxl mov nef nrw orf pdf pef psd raf raw rw2 rwl srw svg x3f"
WHY = "not a format that is read; convert what you need to JPEG"
EXTRA = "pip install 'fashion-retrieval[heif]'"
ENDINGS = ".avif .avifs .bmp .gif .jfif .jpe .jpeg .jpg .mpo .png .tif .tiff .webp"


@pytest.fixture
def without_heif(monkeypatch):
    monkeypatch.setattr(folder, "find_spec", lambda name: None)


@pytest.fixture
def dump(tmp_path):
    """What lies on a phone and beside it: two photos, three pictures that are not read, and side files."""
    place = tmp_path / "dump"
    for name in ("b.png", "in/a.JFIF", "c.heic", "in/d.HEIC", "e.jxl", "._b.png", "Thumbs.db", "b.xmp", ".bin/f.jpg"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "navy").save(place / name, format="PNG")
    return place


def said(place):
    return f"left out 7 of 9 files in {place}: 2 .heic ({EXTRA}), 1 .jxl ({WHY}), 1 hidden, 3 of other kinds"


def test_every_ending_is_read_or_named(without_heif):
    names = [f"x.{ending}" for ending in READ.split()]
    others = [f"x.{ending}" for ending in UNREAD.split()]
    found = sort_files("all", [*names, *others, "x.heic", "x.HEIF", "x.hif", "x.txt", "jpg", ".jpg", "png/x"])
    assert found.photos == tuple(names)
    expected = {f".{ending}": 1 for ending in (*UNREAD.split(), "heic", "heif", "hif")}
    assert found.left_out == expected | {"of other kinds": 4}


def test_heic_is_read_where_the_extra_is_installed(monkeypatch):
    found = sort_files("all", ["a.heic", "b.HIF", "c.heif"])
    assert importlib.util.find_spec("pillow_heif") is None or found.photos == ("a.heic", "b.HIF", "c.heif")
    monkeypatch.setattr(folder, "find_spec", lambda name: name)
    assert sort_files("all", ["a.heic"]).report is None
    monkeypatch.setattr(folder, "find_spec", lambda name: None)
    assert sort_files("all", ["a.heic"]).report == f"left out 1 of 1 files in all: 1 .heic ({EXTRA})"


def test_files_below_keep_the_order_and_tell_what_is_left_out(dump, without_heif):
    found = files_below(dump)
    assert found.photos == ("b.png", "in/a.JFIF")
    assert found.left_out == {".heic": 2, ".jxl": 1, "hidden": 1, "of other kinds": 3}
    assert found.report == said(dump)


def test_a_folder_with_side_files_alone_beside_its_photos_says_nothing(tmp_path):
    for name in ("a.jpg", "._a.jpg", ".DS_Store", "Thumbs.db", "list.csv", "a.aae"):
        (tmp_path / name).touch()
    assert files_below(tmp_path).photos == ("a.jpg",)
    assert files_below(tmp_path).report is None


def test_a_hidden_folder_that_is_named_itself_is_read(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.jpg").touch()
    assert files_below(tmp_path / ".cache").photos == ("a.jpg",)
    assert files_below(tmp_path).report == f"left out 1 of 1 files in {tmp_path}: 1 hidden"


def test_why_empty_says_what_was_there(without_heif):
    told = sort_files("x", ["a.heic", "b.nef", "c.txt"]).why_empty
    expected = f"1 .heic ({EXTRA}), 1 .nef ({WHY}), 1 of other kinds"
    assert told == f"folder x holds no photo, only {expected}; expected files ending in {ENDINGS}"
    assert sort_files("x", []).why_empty == f"folder x holds no photo; expected files ending in {ENDINGS}"


def test_find_photos_tells_what_it_leaves_out_on_stderr(dump, without_heif, capsys):
    for argument in (dump, dump.parent / "du*"):
        assert find_photos([str(argument)]) == ([dump / "b.png", dump / "in/a.JFIF"], [])
        assert capsys.readouterr() == ("", said(dump) + "\n")
    assert find_photos([str(dump / "e.jxl"), str(dump / "Thumbs.db")])[0] == [dump / "e.jxl", dump / "Thumbs.db"]
    assert capsys.readouterr() == ("", "")


def test_photo_list_tells_what_it_leaves_out_here_and_in_a_store(dump, without_heif):
    here = PhotoList([str(dump), str(dump / "e.jxl")], 1)
    assert [shard.ids for shard in here.shards()] == [
        (f"{dump}/b.png",), (f"{dump}/in/a.JFIF",), (f"{dump}/e.jxl",)
    ]  # fmt: skip
    assert here.left_out == (said(dump),)
    store = fsspec.filesystem("memory")
    store.pipe({f"/shop/{name}": b"x" for name in ("a//b.mpo", "c.jpe", "d.hif", ".trash/x.png", "list.txt")})
    there = PhotoList(["memory://shop/", "memory://shop/d.hif"], 9)
    assert [shard.uris for shard in there.shards()] == [
        ("memory://shop/a//b.mpo", "memory://shop/c.jpe", "memory://shop/d.hif")
    ]
    expected = f"left out 3 of 5 files in memory://shop/: 1 .hif ({EXTRA}), 1 hidden, 1 of other kinds"
    assert there.left_out == (expected,)
    store.rm("/shop", recursive=True)


def test_each_command_tells_the_same_and_keeps_stdout_clean(dump, without_heif, tmp_path):
    model = ("--model", str(tiny_folder(tmp_path / "model")))

    def run(*arguments):
        done = CliRunner().invoke(app, [str(one) for one in (*arguments, *model)])
        assert done.exit_code == 0, done.output
        return done

    done = run("recognize", dump, "--no-segmenter", "--json")
    assert (done.stderr, done.stdout.count("\n")) == (said(dump) + "\n", 2)
    done = run("encode", dump, "--out", tmp_path / "x.npy")
    assert done.stderr.splitlines()[0] == said(dump)
    assert np.load(tmp_path / "x.npy").shape == (2, 16)
    done = run("index", dump, tmp_path / "gallery", "--no-recognize")
    assert (done.stderr, done.stdout) == (said(dump) + "\n", "2 added, 0 updated, 0 unchanged, 0 failed\n")
    done = run("encode", dump, "--out", f"{tmp_path}/shards/")
    assert done.stderr.splitlines()[0] == said(dump)
    report = encode_shards(dump, tmp_path / "shards", model=tmp_path / "model")
    assert (report.kept, report.left_out) == (1, (said(dump),))


def test_a_folder_of_heic_alone_fails_with_the_remedy(tmp_path, without_heif):
    Path(tmp_path, "a.heic").touch()
    done = CliRunner().invoke(app, ["recognize", str(tmp_path)])
    expected = f"error: folder {tmp_path} holds no photo, only 1 .heic ({EXTRA}); expected files ending in {ENDINGS}\n"
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", expected)


def test_the_endings_of_jpegs_are_read_as_jpegs(tmp_path):
    for ending in ("jfif", "jpe", "mpo"):
        drawn_photo((8, 6)).save(tmp_path / f"x.{ending}", format="JPEG")
    assert files_below(tmp_path).photos == ("x.jfif", "x.jpe", "x.mpo")
