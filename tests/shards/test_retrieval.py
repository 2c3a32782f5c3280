"""Retrieval in files of the published layouts: Marqo's sets and LookBench, drawn small."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result
from pyarrow import parquet
from typer.testing import CliRunner

from fashion_retrieval import FashionModel
from fashion_retrieval.cli import app
from fashion_retrieval.errors import ImageError, InputError, MissingExtraError
from fashion_retrieval.shards import evaluate_retrieval
from fashion_retrieval.shards.retrieval import _score
from tests.support.tiny import drawn_photo, tiny_folder

Row = dict[str, Any]


def photo(seed: int) -> bytes:
    buffer = BytesIO()
    drawn_photo((24, 32), seed=seed).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, rows: list[Row]) -> Path:
    """As `datasets` writes an image: a struct of the file's bytes and its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0] if name != "image"}
    images = pa.array([{"bytes": row["image"], "path": "x.png"} for row in rows], kind)
    parquet.write_table(pa.table({"image": images} | columns), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FashionModel:
    return FashionModel.from_pretrained(tiny_folder(tmp_path_factory.mktemp("tiny")), device="cpu", dtype="float32")


@pytest.fixture
def marqo(tmp_path: Path) -> Path:
    """Two of many files, `data/data-00000-of-00002.parquet`, with texts, categories and item_ID."""
    rows = [
        {"image": photo(seed), "text": f"text {seed % 5}", "category1": ("shirt", "dress")[seed % 2], "item_ID": seed}
        for seed in range(12)
    ]
    write(tmp_path / "KAGL/data/data-00000-of-00002.parquet", rows[:7])
    write(tmp_path / "KAGL/data/data-00001-of-00002.parquet", rows[7:])
    return tmp_path / "KAGL"


def test_measures_by_hand() -> None:
    found = [["a", "b", "c", "b"], ["a", "b"], ["c"]]
    values = _score(found, [{"b", "c", "x"}, {"z"}, set()])
    assert {name: of.round(4).tolist() for name, of in values.items()} == {
        "recall_at_1": [0, 0, 0],
        "recall_at_10": [0.6667, 0, 0],
        "precision_at_1": [0, 0, 0],
        "precision_at_10": [0.2, 0, 0],
        "hit_at_10": [1, 0, 0],
        "mrr": [0.5, 0, 0],
    }


def test_each_text_is_to_find_its_rows(model: FashionModel, marqo: Path) -> None:
    found = evaluate_retrieval(model, [marqo], "text")
    assert (found.name, found.queries, found.gallery, found.failures) == ("text", 5, 12, ())
    images = model.encode(images=[drawn_photo((24, 32), seed=seed) for seed in range(12)])
    first = (model.encode(texts=[f"text {n}" for n in range(5)]) @ images.T).argsort(axis=1)[:, ::-1]
    right = [[place % 5 == n for place in row] for n, row in enumerate(first.tolist())]
    assert found.scores["precision_at_1"] == np.mean([row[0] for row in right])
    assert found.scores["recall_at_10"] == pytest.approx(np.mean([sum(row[:10]) / sum(row) for row in right]))
    assert found.scores["mrr"] == pytest.approx(np.mean([1 / (1 + row.index(True)) for row in right]))
    low, high = found.intervals["mrr"]
    assert low <= found.scores["mrr"] <= high
    assert set(json.loads(json.dumps(found.to_dict()))) == {
        "model_id", "name", "queries", "gallery", "scores", "intervals", "failures"}  # fmt: skip


def test_products_are_searched_by_photo_and_text(model: FashionModel, marqo: Path) -> None:
    found = evaluate_retrieval(model, [marqo], "category1", text_weight=0.1)
    images = model.encode(images=[drawn_photo((24, 32), seed=seed) for seed in range(12)])
    both = 0.9 * images + 0.1 * model.encode(texts=[f"text {seed % 5}" for seed in range(12)])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    top = (model.encode(texts=["shirt", "dress"]) @ both.T).argsort(axis=1)[:, ::-1][:, :10]
    assert found.scores["precision_at_10"] == pytest.approx(np.mean([[0.1 * (row % 2 == n).sum()] for n, row in
                                                                     enumerate(top)]))  # fmt: skip


def test_a_photo_without_a_text_is_searched_by_itself(model: FashionModel, tmp_path: Path) -> None:
    rows = [{"image": photo(seed), "text": text, "category": "x"} for seed, text in enumerate(("a", "", None))]
    blank = evaluate_retrieval(model, [write(tmp_path / "blank.parquet", rows)], "category", text_weight=0.5)
    assert (blank.gallery, blank.scores["recall_at_10"]) == (3, 1.0)


def test_the_published_truth_says_what_is_asked_and_right(model: FashionModel, marqo: Path, tmp_path: Path) -> None:
    truth = tmp_path / "ground_truth_text-image.json"
    every = {str(item): 1 for item in range(12)}
    truth.write_text(json.dumps({"text 0": every | {"99": 1}, "anything": {"3": 0}}), encoding="utf-8")
    found = evaluate_retrieval(model, [marqo], "text", truth=truth)
    assert (found.queries, found.scores["precision_at_10"], found.scores["recall_at_10"]) == (2, 0.5, 5 / 13)


def test_photos_find_those_with_the_same_attributes(model: FashionModel, tmp_path: Path) -> None:
    """LookBench: query.parquet and gallery.parquet of a subset, and distractors in another folder."""
    keys = [{"category": f"c{seed % 2}", "main_attribute": ["x", str(seed % 3)]} for seed in range(8)]
    gallery = write(tmp_path / "v1/real/gallery.parquet", [{"image": photo(n)} | keys[n] for n in range(6)])
    noise = write(
        tmp_path / "v1/noise/gallery.parquet", [{"image": b"broken"} | keys[0], {"image": photo(7)} | keys[7]]
    )
    query = write(tmp_path / "v1/real/query.parquet", [{"image": photo(n)} | keys[n] for n in range(4)])
    fine = evaluate_retrieval(model, [gallery, noise], query, relevant=["category", "main_attribute"])
    assert (fine.name, fine.queries, fine.gallery) == ("query.parquet", 4, 7)
    assert [failure.index for failure in fine.failures] == [6]
    assert (fine.scores["precision_at_1"], fine.scores["mrr"]) == (1.0, 1.0)  # each photo is in the gallery
    assert fine.scores["recall_at_1"] == pytest.approx((1 + 1 / 2 + 1 + 1) / 4)  # the fourth row of noise is c1, x1
    coarse = evaluate_retrieval(model, [gallery, noise], query, relevant=["category"])
    assert coarse.scores["recall_at_1"] == pytest.approx((1 / 3 + 1 / 4) / 2)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *arguments, "--device", "cpu"])


def test_the_command_compares_models(marqo: Path, tmp_path: Path) -> None:
    first, other = (str(tiny_folder(tmp_path / name, seed=seed)) for seed, name in enumerate("ab"))
    output = tmp_path / "all.json"
    done = run(str(marqo), "--queries", "text", "--model", first, "--model", other, "--output", str(output))
    assert (done.exit_code, done.stderr) == (0, "")
    told = json.loads(output.read_text(encoding="utf-8"))
    scores = [one["scores"]["mrr"] for one in told["evaluations"]]
    assert told["comparisons"][0]["differences"][-1]["difference"] == pytest.approx(scores[1] - scores[0], abs=1e-6)
    assert "| text, MRR " in done.stdout.split("\n\n")[-1]


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--queries", "season"], 1, "must have a column 'season', got 'image, text, category1, item_ID'"),
        (["--queries", "text", "--truth", "none.json"], 1, "error: none.json: No such file or directory"),
        (
            ["--queries", "query.parquet", "--relevant", "text"],
            1,
            "expected a Parquet file or a folder with some",
        ),
        (["--queries", "query.parquet"], 1, "photos as queries need relevant= and take no truth="),
        (["--queries", "text", "--labels", "x.csv"], 2, "give either --labels and a folder, or --queries and"),
        (["--queries", "text", "--save", "worst.png"], 2, "--group, --taxonomy, --no-segmenter and --save go with"),
        (["--labels", "x.csv", "--truth", "x.json"], 2, "--relevant, --truth and --text-weight go with --queries"),
    ],
)
def test_a_fault_is_one_line(marqo: Path, tmp_path: Path, more: list[str], status: int, message: str) -> None:
    done = run(str(marqo), *more, "--model", str(tiny_folder(tmp_path / "a")))
    assert (done.exit_code, done.stdout) == (status, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert status == 2 or done.stderr.count("\n") == 1


def test_a_file_that_is_no_parquet_is_named(model: FashionModel, tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InputError, match=r"bad.parquet can't be read as Parquet \(.*\); download it again"):
        evaluate_retrieval(model, [bad], "text")


def test_a_photo_that_cannot_be_read_stops_where_that_is_asked_for(model: FashionModel, tmp_path: Path) -> None:
    rows = [{"image": data, "text": "a"} for data in (photo(0), b"broken")]
    with pytest.raises(ImageError, match=r"^images\[1\]: "):
        evaluate_retrieval(model, [write(tmp_path / "x.parquet", rows)], "text", on_error="raise")


def test_without_pyarrow_the_extra_is_named(model: FashionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fashion-retrieval\[parquet\]'"):
        evaluate_retrieval(model, [Path("x")], "text")


def test_a_gallery_of_other_size_is_not_compared(model: FashionModel, marqo: Path) -> None:
    found = evaluate_retrieval(model, [marqo], "text")
    with pytest.raises(InputError, match="on the same queries and gallery alone"):
        found.compare(evaluate_retrieval(model, [marqo], "category1"))
    for number, text in enumerate(("text 1", "text 2")):
        (marqo / f"{number}.json").write_text(json.dumps({text: {"1": 1}}), encoding="utf-8")
    one, two = (evaluate_retrieval(model, [marqo], "text", truth=marqo / f"{number}.json") for number in range(2))
    with pytest.raises(InputError, match="on the same queries and gallery alone"):
        one.compare(two)
    with pytest.raises(InputError, match=r"text_weight must be in \[0, 1\), got 1.5"):
        evaluate_retrieval(model, [marqo], "text", text_weight=1.5)
