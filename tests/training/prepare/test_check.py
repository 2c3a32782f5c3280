"""`prepare check` on drawn trees: counts, photos, labels, faults, and the exit status."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from fashion_retrieval.errors import ConfigError
from tests.support import fashioniq_tree
from tests.support.deepfashion_tree import write_stubs, write_tree
from tests.support.paths import ROOT
from training.prepare.__main__ import app, main
from training.prepare.check import check
from training.prepare.photos import Looked, look, look_at_all

REAL = ROOT.parent / "shared/data/fashioniq"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("deepfashion")
    return root, write_tree(root)


@pytest.fixture
def root(drawn, tmp_path):
    return shutil.copytree(drawn[0], tmp_path / "copy")


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def test_a_good_tree(drawn):
    root = drawn[0]
    report = check(root)
    assert [(c.what, c.found, c.published) for c in report.counts] == [
        ("train", 12, 14_000),
        ("val", 4, 2_000),
        ("test", 6, 4_000),
        ("prepared masks", 0, None),
        ("prepared colors", 0, None),
    ]
    assert report.good
    assert report.photos == 22
    assert report.bad_photos == {"missing": [], "zero_byte": [], "corrupt": []}
    assert report.notes["boxes cut at the photo's edge"] == len(range(0, 22, 7))
    assert sum(report.notes.values()) == len(range(0, 22, 7))
    shown = run("check", root)
    assert shown.exit_code == 0
    assert "14,000" in shown.stdout
    assert "nothing stops a training" in shown.stdout


def test_published_sizes(tmp_path):
    write_stubs(tmp_path)
    report = check(tmp_path)
    assert [(count.found, count.published) for count in report.counts[:3]] == [
        (14_000, 14_000),
        (2_000, 2_000),
        (4_000, 4_000),
    ]
    assert report.photos == 20_000
    assert report.good


def test_everything_that_is_wrong_is_listed(drawn, root):
    trees = drawn[1]
    gone, empty, cut, broken = [garment.path for garment in trees["train"][1:5]]
    (root / gone).unlink()
    (root / empty).write_bytes(b"")
    (root / cut).write_bytes((root / cut).read_bytes()[:-300])
    (root / broken).write_bytes(b"<html>no photo</html>")
    attributes = root / "Anno_fine" / "val_attr.txt"
    lines = attributes.read_text().splitlines()
    attributes.write_text("\n".join([" ".join("0" * 26), " ".join("1" * 26), *lines[2:]]) + "\n")
    headers = run("check", root, "--json")
    assert headers.exit_code == 1
    found = json.loads(headers.stdout)
    assert found["bad_photos"] == {"missing": [gone], "zero_byte": [empty], "corrupt": [broken]}
    assert (found["good"], found["looked"], found["photos"], found["faults"]) == (False, "headers", 19, [])
    assert found["notes"]["texture: without a positive"] == found["notes"]["fit: without a positive"] == 1
    assert found["notes"]["texture: with several positives"] == 1
    assert found["notes"]["photos labeled otherwise in list_attr_img.txt"] == 2
    pixels = run("check", root, "--json", "--decode", "--workers", 1)
    assert json.loads(pixels.stdout)["bad_photos"]["corrupt"] == [cut, broken]
    shown = run("check", root)
    assert shown.exit_code == 1
    assert f"photo missing: {gone}" in shown.stdout
    assert "a training would fail on this" in shown.stdout


def test_faults_of_the_annotations_are_part_of_the_report(root):
    (root / "Anno_fine" / "train_cate.txt").unlink()
    boxes = root / "Anno_fine" / "val_bbox.txt"
    boxes.write_text("300 0 400 9\n" + "\n".join(boxes.read_text().splitlines()[1:]) + "\n")
    report = check(root)
    assert not report.good
    assert report.faults[0] == "missing annotation file train_cate.txt"
    assert report.faults[1].startswith("box outside its photo for img/Drawn")
    assert [count.found for count in report.counts[:3]] == [0, 4, 6]
    assert "fault: missing annotation file train_cate.txt" in run("check", root).stdout


def test_what_was_prepared_is_counted(drawn, root):
    name = drawn[1]["test"][2].path.removeprefix("img/").removesuffix(".jpg")
    mask = root / "masks" / f"{name}.png"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"any")
    (root / "colors.jsonl").write_text(f'{{"kind": "colors"}}\n{{"id": "{name}", "color": "red"}}\n')
    assert [(c.what, c.found) for c in check(root).counts[3:]] == [("prepared masks", 1), ("prepared colors", 1)]
    (root / "colors.jsonl").write_text("{}\nno row\n")
    (fault,) = check(root).faults
    assert "colors.jsonl holds no colors" in fault


def test_json_names_every_place_of_a_fault(root):
    boxes = root / "Anno_fine" / "train_bbox.txt"
    boxes.write_text("5 5 5 5\n" * 12)
    (fault,) = json.loads(run("check", root, "--json").stdout)["faults"]
    assert fault == "box of no area in train_bbox.txt line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"


def test_workers_see_what_one_process_sees(drawn, tmp_path):
    root, trees = drawn
    paths = [root / garment.path for garment in trees["val"]]
    (tmp_path / "cut.jpg").write_bytes(paths[0].read_bytes()[:-300])
    paths += [tmp_path / "cut.jpg", tmp_path / "nowhere.jpg"]
    expected = [look(path, decode=True) for path in paths]
    assert expected == [*[Looked("good", (96, 128))] * 4, Looked("corrupt"), Looked("missing")]
    assert look_at_all(paths, decode=True, workers=2) == expected


def test_fashioniq(tmp_path):
    root = fashioniq_tree.write_tree(tmp_path)
    found = check(root)
    assert (found.dataset, found.good, found.looked) == ("fashioniq", True, "headers")
    counts = {count.what: (count.found, count.published) for count in found.counts}
    assert len(counts) == 15
    assert counts["dress train triplets"] == (1, 5_985)
    assert counts["shirt train photos"] == (4, 19_036)
    assert counts["toptee val photos"] == (55, 5_373)
    assert counts["dress val gallery of val_split"] == (8, 2_628)
    assert found.photos == 60 + 12 + 55 + 6
    assert found.notes == {
        "train rows with an empty caption": 0,
        "train rows with a caption of punctuation alone": 0,
        "val rows with an empty caption": 1,
        "val rows with a caption of punctuation alone": 0,
        "val photos in another group's train split": 3,
        "test rows without a target": 3,
        "test rows with an empty caption": 0,
    }
    (root / "images" / "D07.jpg").unlink()
    (root / "images" / "S90.jpg").write_bytes(b"")
    found = check(root)
    assert not found.good
    assert found.bad_photos == {"missing": ["D07"], "zero_byte": ["S90"], "corrupt": []}
    (root / "captions" / "cap.dress.val.json").unlink()
    (fault,) = check(root).faults
    assert "captions/cap.dress.val.json" in fault
    assert run("check", root).exit_code == 1


@pytest.mark.skipif(not REAL.is_dir(), reason=f"REAL CAPTIONS NOT CHECKED: no FashionIQ at {REAL}")
def test_the_published_captions_of_fashioniq():
    found = check(REAL)
    assert all(count.found == count.published for count in found.counts)
    assert found.notes["val photos in another group's train split"] == 811
    assert [found.notes[f"{split} rows with an empty caption"] for split in ("train", "val", "test")] == [12, 3, 1]
    assert found.notes["train rows with a caption of punctuation alone"] == 1
    assert found.notes["test rows without a target"] == 6_118
    assert len(found.bad_photos["missing"]) + found.photos == 60_033


def test_a_folder_of_neither_data_set(tmp_path, monkeypatch, capsys):
    with pytest.raises(ConfigError, match="found neither"):
        check(tmp_path)
    monkeypatch.setattr("sys.argv", ["prepare", "check", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: expected DeepFashion's Anno_fine/ or FashionIQ's")
    assert error.count("\n") == 1
