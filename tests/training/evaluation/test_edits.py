"""Edits and wordings against numbers found by hand, and their commands."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fashion_retrieval import checkpoint
from fashion_retrieval._utils import scores, significance
from fashion_retrieval._utils.ranking import top_rows
from fashion_retrieval._utils.scores import stratified_interval
from fashion_retrieval.errors import InputError
from tests.inference.test_composition import with_composer
from tests.support.drawn_products import COLORS, write_products
from tests.support.fashioniq_tree import Compass, directions, draw
from tests.support.tiny import tiny_folder
from tests.training.data.test_fashion200k import write_fashion200k
from tests.training.evaluation.test_results_file import left_with
from training.data.edits import Edit, EditSet, edits
from training.evaluation.edits import evaluate_edits, evaluate_wordings


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scores, significance):
        monkeypatch.setattr(module, "stratified_interval", partial(stratified_interval, rounds=20))


@pytest.fixture
def line(tmp_path: Path) -> EditSet:
    """Sixty photos in a line; a wish for the left finds 00, 01, 02 …"""
    photos = {f"{number:02}": tmp_path / f"{number:02}.jpg" for number in range(60)}
    for photo in photos.values():
        draw(photo)
    queries = (
        Edit("03", "left", ("02", "05"), "color", "red", "blue"),
        Edit("55", "right", ("59",), "color", "red", "blue"),
        Edit("59", "to the right", ("09", "10"), "sleeve", "a", "b"),
        Edit("20", "left", ("30",), "sleeve", "a", "b"),
    )
    return EditSet("edits", "val", queries, tuple(photos), photos)


def test_evaluate_edits_by_hand(line: EditSet) -> None:
    # Without the reference 02 and 05 are the 3rd and 5th from the left and 30 the 30th, 59 is the 1st from the right,
    # and 10 the 49th.
    found = evaluate_edits(Compass(), line, draws=0)
    assert found["scores"] == {
        "recall_at_1": [0, 1, 0, 0], "recall_at_10": [1, 1, 0, 0], "recall_at_50": [1, 1, 1, 1],
        "map_at_10": pytest.approx([(1 / 3 + 2 / 5) / 2, 1, 0, 0]),
    }  # fmt: skip
    assert (found["queries"], found["gallery"], found["right"]) == (4, 60, 1.5)
    composed = found["ways"]["composed"]
    assert composed["map_at_10"] == pytest.approx((11 / 30 + 1) / 4)
    assert composed["recall_at_10"] == 0.5
    assert found["groups"]["color"] == {
        "queries": 2, "recall_at_1": 0.5, "recall_at_10": 1, "recall_at_50": 1, "map_at_10": pytest.approx(41 / 60)
    }  # fmt: skip
    # The photo alone: 02 and 05 are the 1st and 3rd or so, 59 the 7th of 55's neighbors, 10 the 49th, 30 the 20th.
    assert found["ways"]["photo"]["recall_at_10"] == 0.5
    assert found["ways"]["photo"]["composed_is_ahead_by"]["recall_at_10"]["difference"] == 0
    assert [*found["ways"]] == ["composed", "text", "photo", "sum"]


def test_evaluate_edits_with_wrong_photos(line: EditSet) -> None:
    found = evaluate_edits(Compass(), line, draws=2)["ways"]["wrong_photo"]
    # Photos are drawn from the group's other query. 02 and 05 become the 3rd and 6th, as 03 is found then; 59 stays the
    # 1st, 09 is the 51st and 10 the 50th, 30 the 31st.
    assert found["recall_at_50"] == 1
    assert found["map_at_10"] == pytest.approx(((1 / 3 + 2 / 6) / 2 + 1) / 4)
    lead = found["composed_is_ahead_by"]["map_at_10"]
    assert lead["difference"] == pytest.approx((11 / 30 - 1 / 3) / 4)
    for draws in (-1, False, 0.5):
        with pytest.raises(InputError, match="draws must be a whole number from 0 on"):
            evaluate_edits(Compass(), line, draws=draws)  # type: ignore[arg-type]


class _Named:
    """Finds the photos whose color a wish names with "in" or "is", and others otherwise."""

    def __init__(self, colors: dict[Path, str]) -> None:
        self.colors = colors

    def encode(self, *, images: list[Path] | None = None, texts: list[str] = (), **_: object) -> np.ndarray:  # type: ignore[assignment]
        rows = [list(COLORS).index(self.colors[photo]) for photo in images or ()]
        return directions([20.0 * row for row in rows]) if images else self.compose([], texts)

    def compose(self, _: list[Path], texts: list[str]) -> np.ndarray:
        return directions(
            [next((20.0 * i for i, c in enumerate(COLORS) if f"in {c}" in t or f"is {c}" in t), 200.0) for t in texts]
        )


def test_evaluate_wordings_measures_the_spread(tmp_path: Path) -> None:
    data = edits(write_products(tmp_path), "val", most=None)
    colors = dict.fromkeys(data.photos.values(), "")
    for query in data.queries:
        colors[data.photos[query.reference]] = (
            query.old if query.group == "color" else colors[data.photos[query.reference]]
        )
    found = evaluate_wordings(_Named(colors), data)
    assert list(found["wordings"]) == ["thing", "look", "verb", "request", "same", "synonym"]
    color = found["groups"]["color"]
    assert color["queries"] == 108
    assert (color["recall_at_10"]["thing"], color["recall_at_10"]["verb"], color["recall_at_10"]["request"]) == (
        1,
        1,
        1,
    )
    values = [*color["recall_at_10"].values()]
    assert color["spread"] == pytest.approx((max(values) - min(values)) / np.mean(values))
    assert 0 < color["spread"] < 1
    red = found["values"]["color red"]
    assert red["queries"] == 27
    assert found["groups"]["sleeve"]["spread"] in (0, None)  # words of sleeves are all the same to it
    assert json.dumps(found)


def test_top_rows_equals_a_plain_sort() -> None:
    chance = np.random.default_rng(0)
    gallery, queries = chance.normal(size=(30, 5)), chance.normal(size=(400, 5))
    gallery[20:25] = gallery[:5]  # copies: the first goes first
    excluded = chance.integers(-1, 30, size=400)
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    found = top_rows(queries, gallery, 7, excluded)
    for query, out, rows in zip(queries, excluded, found, strict=True):
        order = sorted(
            (row for row in range(30) if row != out), key=lambda row: (-round(float(unit[row] @ query), 9), row)
        )
        assert rows.tolist() == order[:7]
    short = top_rows(queries[:1], gallery[:3], 5, np.array([1]))
    assert short.shape == (1, 5)
    assert sorted(short[0].tolist()) == [-1, -1, -1, 0, 2]
    assert short[0, 2:].tolist() == [-1] * 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny model with a composer, a copy, and one without."""
    folder = tmp_path_factory.mktemp("models")
    bundle = with_composer(tiny_folder(folder / "plain"))
    for name in ("ours", "same"):
        checkpoint.save(bundle, folder / name)
    return {name: str(folder / name) for name in ("plain", "ours", "same")}


def test_edits_command_compares_models(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack, output = write_products(tmp_path / "pack"), tmp_path / "edits.json"
    options = ["--data", str(pack), "--most", "6", "--draws", "1", "--output", str(output)]
    assert left_with(["edits", "--model", models["ours"], "--model", models["same"], *options]) == 0
    found = json.loads(output.read_text())
    assert (found["split"], found["edits"]["queries"], found["edits"]["gallery"]) == ("val", 12, 36)
    ways = ["composed", "text_branch", "photo_branch", "text", "photo", "sum", "wrong_photo"]
    assert [*found["edits"]["ways"]] == ways
    assert found["config"] == {"root": str(pack), "most": 6, "draws": 1}
    assert {row["measure"]: row["difference"] for row in found["against_first"]} == {
        "recall_at_1": 0, "recall_at_10": 0, "recall_at_50": 0, "map_at_10": 0
    }  # fmt: skip
    text = output.with_suffix(".md").read_text()
    assert "12 edits of one attribute against 36 photos of the open data pack, val; 3.0 photos are right" in text
    assert text.count("| **text branch** |") == 2
    assert "| sleeve | 6 |" in text
    assert "mAP@10" in capsys.readouterr().out


def test_edits_command_measures_fashion200k(models: dict[str, str], tmp_path: Path) -> None:
    write_fashion200k(tmp_path / "f200k")
    output = tmp_path / "out.json"
    options = ["--model", models["ours"], "--fashion200k", str(tmp_path / "f200k"), "--output", str(output)]
    assert left_with(["edits", *options]) == 0
    found = json.loads(output.read_text())
    assert (found["split"], found["edits"]["queries"], found["edits"]["gallery"]) == ("test", 3, 9)
    assert (found["edits"]["ways"]["composed"]["recall_at_10"], found["edits"]["groups"]) == (1, {})  # nine photos
    assert "3 edits of one attribute against 9 photos of Fashion200k, test" in output.with_suffix(".md").read_text()


def test_wordings_command_writes_the_spread(models: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "wordings.json"
    options = ["--data", str(write_products(tmp_path / "pack")), "--most", "6", "--output", str(output)]
    assert left_with(["wordings", "--model", models["ours"], *options]) == 0
    found = json.loads(output.read_text())["wordings"]
    recalls = [row["recall_at_10"] for row in found["wordings"].values()]
    assert found["spread"] == pytest.approx((max(recalls) - min(recalls)) / np.mean(recalls), abs=1e-3)
    assert "| **all** | 12 |" in output.with_suffix(".md").read_text()


def test_commands_say_what_is_wrong_in_one_line(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack, output = write_products(tmp_path / "pack"), tmp_path / "out.json"
    common = ["--data", str(pack), "--output", str(output)]
    for words, told in (
        (["edits", "--model", models["plain"], *common], "error: this model has no composer"),
        (["wordings", "--model", models["plain"], *common], "error: this model has no composer"),
        (["edits", "--model", models["ours"], "--split", "test", *common], "differ in one value; take another split"),
        (["edits", "--fashion200k", str(pack), "--output", str(output)], "dress_test_detect_all.txt is missing"),
        (["edits", "--fashion200k", str(pack), "--split", "val", "--output", str(output)], "got 'val'; take that one"),
        (["wordings", "--model", models["ours"], "--data", str(tmp_path), "--output", str(output)], "is missing"),
    ):
        assert left_with(words) == 1
        (line,) = (row for row in capsys.readouterr().err.splitlines() if row.startswith("error: "))
        assert told in line
    assert not output.exists()
