"""`fashion-retrieval fit`: a CSV of labels and a folder of photos -> a model folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from fashion_retrieval.cli import app
from fashion_retrieval.config import ModelConfig
from tests.support.tiny import tiny_folder


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_folder(Path("tiny"))
    Path("photos/inner").mkdir(parents=True)
    for place in range(4):
        Image.new("RGB", (24, 32), (240 - place, place, 20)).save(f"photos/red{place}.png")
        Image.new("RGB", (24, 32), (20, place, 240 - place)).save(f"photos/inner/blue{place}.png")
    return tmp_path


def fit(rows: str, *options: str) -> Result:
    Path("labels.csv").write_text(rows, encoding="utf-8")
    given = ["fit", "closure", "labels.csv", "photos", "--output", "mine", "--model", "tiny", "--no-segmenter"]
    return CliRunner().invoke(app, [*given, *options])


def table() -> str:
    rows = [f"red{place}.png,zip\ninner/blue{place}.png,buttons" for place in range(4)]
    return "photo,closure\n" + "\n".join(rows) + "\n"


def test_fit_writes_a_model_and_warns_of_a_photo_that_cannot_be_read(desk: Path) -> None:
    done = fit(table() + "gone.png,zip\nred0.png,\nred1.png,not_visible\n")
    warning = "warning: skipped photo 'photos/gone.png' does not exist; check the path"
    assert (done.exit_code, done.stderr.splitlines()) == (0, [warning, "model in mine"])
    assert done.stdout.splitlines()[0] == "closure: 8 photos (buttons 4, zip 4)"
    config = ModelConfig.read(Path("mine"))
    assert config is not None
    assert config.probes["closure"].values == ("buttons", "zip")
    found = CliRunner().invoke(
        app, ["recognize", "photos/red3.png", "--model", "mine", "--no-segmenter", "--json", "--device", "cpu"]
    )
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["garments"][0]["attributes"]["closure"]["value"] == "zip"


def test_fit_takes_boxes_and_tells_its_scores_as_json(desk: Path) -> None:
    rows = table().replace("photo,closure\n", "photo,closure,x1,y1,x2,y2\n").replace("zip\n", "zip,0,0,20,30\n")
    done = fit(rows, "--json")
    found = json.loads(done.stdout)
    assert (found["examples"], found["fitted"]["accuracy"], found["failures"]) == ({"buttons": 4, "zip": 4}, 1.0, [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("file,label\na,b\n", "labels.csv must have the columns photo and closure, got 'file, label'; rename one"),
        ("", "labels.csv must have the columns photo and closure, got 'none'; rename one"),
        ("photo,closure\n,zip\n", "labels.csv, line 2 must name a photo, got none; correct that line"),
        (
            "photo,closure,x1,y1,x2,y2\nred0.png,zip,1,2,3,\n",
            "labels.csv, line 2 must have numbers in x1, y1, x2, y2 or nothing, got ['1', '2', '3', '']",
        ),
        ('photo,closure\n"red0.png,zip\n', "labels labels.csv can't be read as CSV in UTF-8 (unexpected end of data)"),
        ("photo,closure\nred0.png,zip\nred1.png,zip\n", "closure needs labels of at least two values, got only 'zip'"),
    ],
)
def test_a_fault_is_one_line(desk: Path, rows: str, message: str) -> None:
    done = fit(rows)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"error: {message}")
    assert not Path("mine").exists()


def test_a_missing_table_or_folder_is_named(desk: Path) -> None:
    for labels, photos, message in (
        ("none.csv", "photos", "labels none.csv can't be read as CSV in UTF-8 ("),
        ("tiny/open_clip_config.json", "none", "expected a folder of photos, found none at none; check the path"),
    ):
        done = CliRunner().invoke(app, ["fit", "closure", labels, photos, "--output", "mine", "--model", "tiny"])
        assert (done.exit_code, message in done.stderr) == (1, True)
