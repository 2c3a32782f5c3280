"""`index`, `search` and `refine` on a real gallery in a folder, with a tiny model."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fashion_retrieval import FashionModel
from fashion_retrieval.cli import app
from fashion_retrieval.cli.photos import name_photos
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.load import load_image
from fashion_retrieval.results import Explanation
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo, tiny_folder

IDS = ["a.png", "b.png", "c.png", "inner/a.png", "inner/d.png"]


def command(*arguments, typed=None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, tiny):
    """A folder with five photos in `photos`, and the gallery of them in `gallery`."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "photos" / "inner").mkdir(parents=True)
    for seed, name in enumerate(IDS):
        drawn_photo(seed=seed).save(folder / "photos" / name)
    done = command("index", folder / "photos", folder / "gallery", "--no-recognize", "--model", tiny)
    assert (done.exit_code, done.stdout) == (0, "5 added, 0 updated, 0 unchanged, 0 failed\n")
    return folder


@pytest.fixture
def gallery(shelf):
    return shelf / "gallery"


@pytest.fixture
def composer(monkeypatch):
    """A composer: the sum of both embeddings."""

    def compose(self, reference, text, *, text_weight=None, max_pixels=None):
        composed.append((Path(getattr(reference, "photo", reference)).name, text, text_weight))
        return self.encode(images=[getattr(reference, "photo", reference)]) + self.encode(texts=[text])

    composed = []
    why = Explanation(np.ones((1, 1), np.float32), 0.5, 0.5, (1.0, 1.0), (("red", 1.0),))
    monkeypatch.setattr(FashionModel, "compose", compose)
    monkeypatch.setattr(FashionModel, "explain", lambda *_, **options: why)
    return composed


def found(done):
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_index_goes_on_and_tells_what_changed(shelf, tmp_path, tiny):
    photos, gallery = tmp_path / "photos", tmp_path / "gallery"
    shutil.copytree(shelf / "photos", photos)
    (photos / "bad.png").write_text("not a photo")
    options = ("--no-recognize", "--model", tiny, "--batch-size", 2)
    stopped = command("index", photos, gallery, *options)
    assert (stopped.exit_code, stopped.stdout) == (1, "")
    assert stopped.stderr.startswith("error: images[2]: photo ")
    assert stopped.stderr.count("\n") == 1
    done = command("index", photos, photos / "*.bmp", gallery, *options, "--on-error", "skip")
    assert (done.exit_code, done.stdout) == (1, "3 added, 0 updated, 2 unchanged, 2 failed\n")
    lines = done.stderr.splitlines()
    assert lines[0] == "2 failed:"
    assert lines[1].startswith(f"  {photos / '*.bmp'}: no file matches")
    assert lines[2].startswith(f"  {photos / 'bad.png'}: photo ")
    (photos / "bad.png").unlink()
    drawn_photo(seed=99).save(photos / "c.png")
    assert command("index", photos, gallery, *options).stdout == "0 added, 1 updated, 4 unchanged, 0 failed\n"


def test_index_recognizes_unless_told_otherwise(shelf, tmp_path):
    person = ROOT / "examples" / "grace_hopper.jpg"
    assert command("index", person, tmp_path / "g").stdout == "1 added, 0 updated, 0 unchanged, 0 failed\n"
    ask = ("search", tmp_path / "g", "--text", "a sweater")
    [row] = found(command(*ask, "--json"))
    assert row["id"] == "grace_hopper.jpg"
    color = row["fields"]["color"]
    assert found(command(*ask, "--json", "--where", f"color = '{color}'")) == [row]
    assert found(command(*ask, "--json", "--where", f"color != '{color}'")) == []
    table = command(*ask).stdout
    assert all(word in table for word in ("category", "color", "attributes", row["fields"]["category"], color))
    done = command(*ask, "--where", "price < 5")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "price" in done.stderr


def test_name_photos_gives_paths_below_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x/inner").mkdir(parents=True)
    for name in ("x/a.png", "x/inner/b.png", "y.png"):
        Image.new("RGB", (2, 2)).save(name)
    for arguments, ids in (
        (["x"], ["a.png", "inner/b.png"]),
        ([str(tmp_path / "x")], ["a.png", "inner/b.png"]),
        (["."], ["x/a.png", "x/inner/b.png", "y.png"]),
        (["x/*"], ["a.png", "inner/b.png"]),
        (["**/*.png"], ["x/a.png", "x/inner/b.png", "y.png"]),
        (["x/inner/b.png", "x", "missing.png"], ["b.png", "a.png", "missing.png"]),
    ):
        photos, failures = name_photos(arguments)
        assert (list(photos), failures) == (ids, [])
    assert list(name_photos(["x"], "summer/")[0]) == ["summer/a.png", "summer/inner/b.png"]
    shutil.copytree("x", "z")
    with pytest.raises(InputError, match=r"id 'a\.png' must stand for one photo, got x/a\.png and z/a\.png; give the"):
        name_photos(["x", "z"])


def test_search_by_text_ranks_by_score(gallery):
    rows = found(command("search", gallery, "--text", "a red dress", "--json"))
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert sorted(row["id"] for row in rows) == IDS
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert [Path(row["photo"]).is_absolute() for row in rows] == [True] * 5
    excluded = found(command("search", gallery, "--text", "a red dress", "--json", "--exclude", rows[0]["id"]))
    assert excluded[0]["id"] == rows[1]["id"]


def test_search_by_photo_finds_it_first(shelf, gallery):
    rows = found(command("search", gallery, "--image", shelf / "photos" / "c.png", "--json", "--top-k", 2))
    assert (rows[0]["id"], rows[0]["score"]) == ("c.png", pytest.approx(1, abs=1e-5))
    assert len(rows) == 2
    like = found(command("search", gallery, "--id", "c.png", "--json", "--top-k", 1))
    assert like == [rows[1] | {"rank": 1}]


def test_search_by_photo_and_text_composes(shelf, gallery, composer):
    photo = shelf / "photos" / "b.png"
    by_file = found(command("search", gallery, "--image", photo, "--text", "but red", "--json", "--text-weight", 0.3))
    by_id = found(command("search", gallery, "--id", "b.png", "--text", "but red", "--json"))
    assert composer == [("b.png", "but red", 0.3), ("b.png", "but red", None)]
    assert sorted(row["id"] for row in by_file) == IDS
    assert [row["id"] for row in by_id] == [row["id"] for row in by_file if row["id"] != "b.png"]


def test_search_gives_pages_and_least_scores(gallery):
    rows = found(command("search", gallery, "--text", "a red dress", "--json"))
    page = found(command("search", gallery, "--text", "a red dress", "--json", "--top-k", 2, "--offset", 1))
    assert [row["id"] for row in page] == [row["id"] for row in rows[1:3]]
    least = rows[1]["score"]
    certain = found(command("search", gallery, "--text", "a red dress", "--json", "--min-score", least))
    assert [row["id"] for row in certain] == [row["id"] for row in rows if row["score"] >= least]
    done = command("search", gallery, "--text", "a red dress", "--group-by", "brand")
    assert done.exit_code == 1
    assert done.stderr == "error: group_by must be a field of this gallery, got 'brand'; its fields are: none\n"
    unique = found(command("search", gallery, "--text", "a red dress", "--json", "--unique"))
    assert {row["id"] for row in unique} <= {row["id"] for row in rows}
    assert unique[0]["id"] == rows[0]["id"]


def test_duplicates_lists_groups_of_ids(shelf, gallery, tmp_path, tiny):
    same = tmp_path / "copies"
    shutil.copytree(gallery, same)
    done = command("duplicates", same, "--json")
    before = json.loads(done.stdout)
    photo = tmp_path / "again.png"
    shutil.copy(shelf / "photos" / "c.png", photo)
    assert command("index", photo, same, "--no-recognize", "--model", tiny).exit_code == 0
    (group,) = [group for group in json.loads(command("duplicates", same, "--json").stdout) if "again.png" in group]
    assert "c.png" in group
    assert group not in before
    assert "again.png" in command("duplicates", same).stdout


def test_search_shows_a_table(gallery, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    done = command("search", gallery, "--id", "c.png", "--top-k", 2)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    expected = found(command("search", gallery, "--id", "c.png", "--top-k", 2, "--json"))
    assert rows == [[str(row["rank"]), row["id"], f"{row['score']:.3f}"] for row in expected]
    assert "category" not in done.stdout
    without = [f"--exclude={name}" for name in IDS]
    assert command("search", gallery, "--id", "a.png", *without).stdout == "nothing found\n"


@pytest.mark.parametrize(("name", "kind"), [("board.png", "PNG"), ("board.JPG", "JPEG"), ("board.webp", "WEBP")])
def test_search_saves_the_board(gallery, tmp_path, name, kind):
    assert command("search", gallery, "--text", "red", "--save", tmp_path / name).exit_code == 0
    with Image.open(tmp_path / name) as board:
        assert (board.format, board.width) == (kind, 840)


@pytest.mark.parametrize(
    ("name", "start"), [("a.html", "<!doctype"), ("a.csv", '"id","score"'), ("a.jsonl", '{"id": ')]
)
def test_search_saves_pages_and_rows(gallery, tmp_path, name, start):
    done = command("search", gallery, "--text", "red", "--save", tmp_path / name)
    assert done.exit_code == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


def test_search_takes_the_model_of_the_gallery(shelf, gallery, tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    assert (
        command("index", shelf / "photos" / "a.png", tmp_path / "g", "--no-recognize", "--model", "tiny").exit_code == 0
    )
    monkeypatch.chdir(tmp_path)
    assert found(command("search", "g", "--text", "red", "--json"))[0]["id"] == "a.png"
    other = tiny_folder(tmp_path / "other", seed=1)
    done = command("search", "g", "--text", "red", "--model", other)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "load that model, or build a new gallery" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --text, --image or --id"),
        (["--image", "x.png", "--id", "a"], "exclude each other"),
        (["--text", " "], "must not be empty"),
        (["--text", "red", "--text-weight", "0.5"], "goes with --text and a photo"),
        (["--text", "red", "--image", "x.png", "--text-weight", "1.5"], "less than or equal to 1"),
        (["--image", "x.png", "--text-weight", "0.5"], "goes with --text and a photo"),
        (["--text", "red", "--save", "x.gif"], "must end in .png"),
        (["--text", "red", "--top-k", "0"], "top-k"),
    ],
)
def test_search_wrong_usage_exits_with_2(gallery, options, message):
    done = command("search", gallery, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--id", "nope"], "has no photo with id 'nope'"),
        (["--image", "nope.png"], "does not exist"),
        (["--id", "a.png", "--text", "red"], "no composer"),
        (["--text", "red", "--where", "="], "where"),
        (["--text", "red", "--save", "no/such/folder/x.png"], "must lie in an existing folder"),
        (["--text", "red", "--model", "nope"], "no model 'nope'"),
    ],
)
def test_search_errors_are_one_line(gallery, options, message):
    done = command("search", gallery, *options)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_search_and_refine_without_a_gallery_exit_with_1(tmp_path):
    for name in ("search", "refine"):
        done = command(name, tmp_path / "none", *(["--text", "red"] if name == "search" else []))
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert "no gallery" in done.stderr


def test_refine_in_three_turns(gallery, composer, tmp_path):
    board = tmp_path / "board.png"
    typed = f"red\n2\nlong sleeves\n1\nblue instead\nboard {board}\nquit\nnot read\n"
    done = command("refine", gallery, "--top-k", 3, typed=typed)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    ids = [line.split("│")[2].strip() for line in lines if "│" in line]
    assert len(ids) == 3 + 3 + 3
    second, first = ids[1], ids[3]
    said = [line for line in lines if not set(line) & set("│┃━─")]
    assert said[1:] == [
        "red",
        f"from {second}: what should change?",
        f"red and long sleeves, from {second}",
        f"from {first}: what should change?",
        f"long sleeves and blue instead, from {first}",
        f"board: {board}",
    ]
    assert second not in ids[3:]
    assert first not in ids[6:]
    assert composer == [
        (Path(second).name, "red and long sleeves", None),
        (Path(first).name, "long sleeves and blue instead", None),
    ]
    with Image.open(board) as picture:
        assert picture.format == "PNG"


def test_refine_and_search_say_what_was_understood(gallery, composer):
    done = command("refine", gallery, "--top-k", 2, typed="red, not blue\nwithout sleeves\nundo\nred, not red\n")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    said = [line for line in done.stdout.splitlines() if not set(line) & set("│┃━─")]
    assert said[1:] == [
        "red, not blue",
        "red, not blue and without sleeves",
        "understood: red and sleeveless, not blue, without sleeves",
        "red, not blue",
    ]
    found = command("search", gallery, "--text", "not blue", "--json")
    assert (found.exit_code, found.stderr) == (0, "")
    assert command("search", gallery, "--text", "anything but blue").stderr == "understood: not blue\n"
    assert composer == []


def test_search_and_refine_explain(shelf, gallery):
    done = command("search", gallery, "--text", "red sleeves, not blue", "--explain", "--top-k", 1)
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.match(r"photo 0 % / text 100 % · red \d+ % · sleeves \d+ %\n", done.stdout)
    why, *rows = found(command("search", gallery, "--id", "a.png", "--explain", "--top-k", 2, "--json"))
    assert why == {"explanation": {"photo": 1.0, "text": 0.0, "gates": None, "words": []}}
    assert [row["rank"] for row in rows] == [1, 2]
    done = command("refine", gallery, "--top-k", 1, typed="why\nred\nwhy\n")
    assert done.stderr == "error: there is no turn yet; ask first\n"
    assert done.stdout.endswith("photo 0 % / text 100 % · red 100 %\n")


def test_search_notes_what_excludes_itself(gallery):
    text = "long sleeves and short sleeves"
    done = command("search", gallery, "--text", text, "--top-k", 1)
    assert (done.exit_code, done.stderr) == (0, f"understood: {text}; {text} exclude each other\n")
    done = command("search", gallery, "--text", "striped, without stripes")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "asks for stripes and for no stripes" in done.stderr


def test_refine_undo_takes_back(gallery, composer):
    done = command("refine", gallery, "--top-k", 2, typed="red\n1\nundo\nlong\nundo\nundo\n\nhelp\nblue\n")
    assert done.exit_code == 0
    said = [line for line in done.stdout.splitlines() if not set(line) & set("│┃━─")]
    assert said[1].startswith("red")
    assert said[2].startswith("from ")
    assert said[3:6] == ["red", "red and long", "red"]
    assert said[6] == "back at the beginning"
    assert said[7] == said[0].removeprefix("5 photos. ")
    assert said[8:] == ["blue"]
    assert composer == []


def test_refine_starts_from_a_photo(shelf, gallery, composer):
    photo = shelf / "photos" / "b.png"
    done = command(
        "refine", gallery, "--image", photo, "--top-k", 1, typed=f"red\nundo\nblue\nphoto {photo}\nboard neck"
    )
    assert done.exit_code == 0
    assert [text for _, text, _ in composer] == ["red", "blue", "blue and board neck"]
    assert command("refine", gallery, "--id", "c.png", "--top-k", 1, typed="red").exit_code == 0
    assert composer[-1] == ("c.png", "red", None)
    assert command("refine", gallery, "--id", "a", "--image", photo).exit_code == 2


def test_refine_goes_on_after_an_error(gallery):
    done = command("refine", gallery, "--top-k", 2, typed="1\nundo\nboard x.gif\nred\n7\n2\nblue\nboard\n")
    assert done.exit_code == 1
    expected = ("pick from", "take back", "got 'x.gif'", "no result 7", "no composer", "got ''")
    lines = done.stderr.splitlines()
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert line.startswith("error: ")
        assert words in line


def test_refine_reads_a_pipe(gallery):
    call = [sys.executable, "-m", "fashion_retrieval.cli", "refine", str(gallery), "--top-k", "1"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error", "PYTHONUTF8": "1"}
    done = subprocess.run(call, input=b"red \xff\xfe\n", capture_output=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"5 photos. ")
    assert done.stdout.count("│".encode()) == 4


def test_max_pixels_reaches_every_command_that_takes_a_photo(shelf, gallery, tiny, tmp_path):
    photo = shelf / "photos" / "a.png"
    width, height = load_image(photo).size
    few = ("--max-pixels", width * height - 1)
    said = f"has {width}x{height} pixels, over max_pixels={few[1]}; shrink it or raise max_pixels"
    for arguments, typed in (
        (("recognize", photo, "--model", tiny), None),
        (("encode", photo, "--out", tmp_path / "x.npy", "--model", tiny), None),
        (("encode", photo, "--out", f"{tmp_path}/shards/", "--model", tiny), None),
        (("index", photo, tmp_path / "g", "--no-recognize", "--model", tiny), None),
        (("search", gallery, "--image", photo), None),
        (("refine", gallery, "--image", photo), "red\n"),
    ):
        done = command(*arguments, *few, typed=typed)
        assert (done.exit_code, said in done.stderr, done.stderr.count("\n")) == (1, True, 1), (arguments, done.output)


def test_a_box_in_fractions_is_refused_in_one_line(shelf, tiny):
    done = command("recognize", shelf / "photos" / "a.png", "--box", "0.1,0.1,0.9,1", "--model", tiny)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: boxes must be in pixels, got fractions of the photo, all values at most 1; ")


def test_migrate_moves_a_gallery_to_another_model_and_tells_what_it_could_not_read(shelf, tiny, tmp_path):
    gallery, photos, moved = tmp_path / "gallery", tmp_path / "photos", tmp_path / "moved"
    shutil.copytree(shelf / "photos", photos)
    assert command("index", photos, gallery, "--no-recognize", "--model", tiny).exit_code == 0
    photos.rename(moved)
    (moved / "b.png").write_bytes(b"no photo")
    other = tiny_folder(tmp_path / "other", seed=1)
    for given, told in (
        (("--model", other), "error: "),
        (("--model", other, "--root", moved), "error: "),
        (("--model", other, "--root", moved / "none"), "error: root must be the folder in which the photos lie now"),
        (("--model", tmp_path / "none"), "error: "),
    ):
        failed = command("migrate", gallery, *given)
        assert (failed.exit_code, failed.stdout) == (1, "")
        assert failed.stderr.startswith(told)
        assert failed.stderr.count("\n") == 1
    done = command("migrate", gallery, "--model", other, "--root", moved, "--on-error", "skip")
    assert (done.exit_code, done.stdout) == (1, "4 in the gallery, 3 encoded, 1 failed\n")
    assert done.stderr.startswith("1 failed:\n  b.png: ")
    again = command("migrate", gallery, "--model", other)
    assert (again.exit_code, again.stdout) == (0, "4 in the gallery, 0 encoded, 0 failed\n")
    found = command("search", gallery, "--id", "a.png", "--top-k", 1, "--json", "--model", other)
    assert json.loads(found.stdout)["photo"] == str(moved / "inner" / "a.png")
