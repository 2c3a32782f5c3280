"""`fashion-retrieval evaluate`: a CSV of labels and a folder of photos -> tables, JSON and a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from fashion_retrieval import FashionModel
from fashion_retrieval.cli import app
from fashion_retrieval.errors import InputError
from tests.support.tiny import drawn_photo, tiny_folder

LABELS = [("tee", "long sleeve"), ("Dress", ""), ("tee", "not_visible")]
ROWS = "photo,category,sleeve,color,notes,length\n" + "".join(
    f"{'inner/' * (place % 2)}p{place}.png,{','.join(LABELS[place % 3])},red,x,\n" for place in range(6)
)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_folder(Path("a"))
    tiny_folder(Path("b"), seed=1)
    Path("photos/inner").mkdir(parents=True)
    for place in range(6):
        drawn_photo((24, 32), seed=place).save(f"photos/{'inner/' * (place % 2)}p{place}.png")
    return tmp_path


def evaluate(rows: str, *more: str, models: tuple[str, ...] = ("a",)) -> Result:
    Path("labels.csv").write_text(rows, encoding="utf-8")
    named = [part for name in models for part in ("--model", name)]
    given = ["evaluate", "--labels", "labels.csv", "photos", "--no-segmenter", "--device", "cpu", *named]
    return CliRunner().invoke(app, [*given, *more])


def test_models_are_evaluated_and_compared_with_the_first(desk: Path) -> None:
    done = evaluate(ROWS + "gone.png,tee,,,,\n", "--output", "all.json", "--save", "worst.html", models=("a", "b"))
    assert (done.exit_code, done.stderr.splitlines()) == (
        0,
        [
            "not evaluated, no group or without labels: notes, length",
            "warning: skipped photo 'photos/gone.png' does not exist; check the path",
            "worst answers in worst.html",
            "worst answers in worst-2.html",
        ],
    )
    tables = done.stdout.strip().split("\n\n")
    assert [table.splitlines()[0].split("|")[1].strip() for table in tables] == ["a", "b", "b against a"]
    assert [line.split("|")[1].strip() for line in tables[0].splitlines()[2:]] == ["category", "sleeve", "color"]
    assert [line.split("|")[1].strip() for line in tables[2].splitlines()[2:5]] == [
        "category, accuracy", "category, macro-F1", "category, ECE"]  # fmt: skip
    told = json.loads(Path("all.json").read_text(encoding="utf-8"))
    assert [one["model_id"] for one in told["evaluations"]] == ["a", "b"]
    assert [one["groups"]["sleeve"]["photos"] for one in told["evaluations"]] == [2, 2]
    assert told["comparisons"][0]["first"] == "b"
    assert "Where b is most surely wrong" in Path("worst-2.html").read_text(encoding="utf-8")


def test_json_goes_to_stdout_alone_and_a_picture_is_drawn(desk: Path) -> None:
    done = evaluate(ROWS, "--group", "category", "--json", "--save", "worst.png", "--worst", "2")
    told = json.loads(done.stdout)
    assert list(told["evaluations"][0]["groups"]) == ["category"]
    assert (told["comparisons"], done.stderr) == ([], "worst answers in worst.png\n")
    with Image.open("worst.png") as board:
        assert board.width == 840


def test_boxes_of_the_table_are_taken(desk: Path) -> None:
    plain = json.loads(evaluate("photo,category\np0.png,tee\n", "--json").stdout)
    rows = "photo,category,x1,y1,x2,y2\np0.png,tee,0,0,24,32\np0.png,tee,0,0,12,16\n"
    boxed = json.loads(evaluate(rows, "--json").stdout)["evaluations"][0]["answers"]
    assert boxed[0] == plain["evaluations"][0]["answers"][0]
    assert boxed[1]["probability"] != boxed[0]["probability"]


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ("file,category\n", (), "labels.csv must have the columns photo, got 'file, category'; rename one"),
        ("photo,category\n", (), "labels.csv must have a line for each photo, got none; add photos and labels"),
        ("photo,kind\np0.png,tee\n", (), "labels.csv must have labels in a column of category, color, texture, "),
        ("photo,category\np0.png,\n", (), "labels.csv must have labels in a column of category, color, texture, "),
        ("photo,fit,fit\np0.png,tee,polo\n", (), "labels.csv must name each column once, got 'fit' twice; rename one"),
        ("photo,category\np0.png,tee,red, wide\n", (), "labels.csv, line 2 must have a cell for each column, got 'r"),
        ("photo,category\n ,tee\n", (), "labels.csv, line 2 must name a photo, got none; correct that line"),
        ("photo,category\np0.png,cat\n", (), "labels of category must be values of the taxonomy or their phrases, got"),
        (ROWS, ("--group", "fit"), "labels.csv must have the columns photo and fit, got 'photo, cat"),
        (ROWS, ("--group", "notes"), "labels must be of the groups category, color, texture, sleeve, "),
        (ROWS, ("--output", "all.txt"), "a file to save must end in .json, got 'all.txt'"),
        (ROWS, ("--save", "none/worst.png"), "a file to save must lie in an existing folder, got none/worst.png; "),
        (ROWS, ("--taxonomy", "none.yaml"), "taxonomy 'none.yaml' can't be read ("),
        ("photo,category\ngone.png,tee\n", (), "at least one labeled photo must be readable, got 1 that can't be "),
        ("photo,category\ngone.png,tee\n", ("--on-error", "raise"), "images[0]: photo 'photos/gone.png' "),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_and_nothing_is_written(desk: Path, rows: str, more: tuple[str, ...], message: str) -> None:
    done = evaluate(rows, *more)
    assert (done.exit_code, done.stderr.count("\n"), done.stdout) == (1, 1, "")
    assert done.stderr.startswith(f"error: {message}")
    assert {path.name for path in desk.iterdir()} == {"a", "b", "photos", "labels.csv"}


def test_a_model_that_is_not_there_is_told_before_any_work(desk: Path) -> None:
    done = evaluate(ROWS, models=("a", "./none"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "none" in done.stderr


def test_wrong_usage_is_refused(desk: Path) -> None:
    done = evaluate(ROWS, models=("a", "a"))
    assert done.exit_code == 2
    assert "--model must name each model once" in done.stderr
    assert CliRunner().invoke(app, ["evaluate", "photos"]).exit_code == 2


def test_results_of_one_model_are_kept_where_the_next_one_fails(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FashionModel.evaluate

    def evaluated(model: FashionModel, *given: Any, **more: Any) -> Any:
        if model.model_id == "b":
            raise InputError("labels of b")
        return whole(model, *given, **more)

    monkeypatch.setattr(FashionModel, "evaluate", evaluated)
    done = evaluate("photo,category\np0.png,tee\n", "--output", "all.json", models=("a", "b"))
    assert (done.exit_code, done.stderr) == (1, "error: labels of b\n")
    assert len(json.loads(Path("all.json").read_text(encoding="utf-8"))["evaluations"]) == 1
