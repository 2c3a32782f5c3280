"""Results files, and what the commands do with bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError, InputError
from tests.support.drawn_pack import LABELLED, label, write_lines, write_pack
from tests.support.tiny import tiny_folder
from training import evaluate
from training.data.manifest import labeled_samples, read_lines
from training.evaluation import results_file
from training.evaluation.results_file import check_output, destination, write_results


def left_with(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        evaluate.run(arguments)
    return int(left.value.code or 0)


def test_commit_outside_of_a_repository_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_file, "__file__", str(tmp_path / "evaluate.py"))
    assert results_file._commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert results_file._commit() is None


def test_destination_names_what_is_not_usual() -> None:
    folder = Path("results")
    assert destination(folder, "composed", models=["compact"], split="val") == folder / "composed_val.json"
    two = destination(folder, "retrieval", "deepfashion", models=["compact", "org/clip"], split="test")
    assert two == folder / "retrieval_deepfashion_compact_clip_test.json"


def test_write_results_writes_json_and_page(tmp_path: Path) -> None:
    path = tmp_path / "new/figures.json"
    check_output(path)
    write_results({"figure": 0.123456, "ranks": [1, 2], "rows": [{"a": 0.00001}]}, path, "# Figures\n")
    assert json.loads(path.read_text()) == {"figure": 0.1235, "ranks": [1, 2], "rows": [{"a": 0.0}]}
    assert '"ranks": [1, 2]' in path.read_text()
    assert path.with_suffix(".md").read_text() == "# Figures\n"
    assert {file.name for file in path.parent.iterdir()} == {"figures.json", "figures.md"}
    for wrong in (tmp_path, tmp_path / "figures.md", path / "under/a.json"):
        with pytest.raises(InputError, match="--output"):
            check_output(wrong)


def test_evaluate_without_a_command_measures_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(FashionModel, "from_pretrained", lambda name, dtype: name)
    monkeypatch.setattr(evaluate, "measure", lambda *given: asked.append(given) or {"figure": 0.5})
    monkeypatch.setattr(evaluate, "targets", lambda *given: [])
    monkeypatch.setattr(evaluate, "resolve", lambda name: tmp_path)
    output = ["--output", str(tmp_path / "figures.json")]
    for words in (
        [], ["parts", "recognition"], ["--data", "x", "segmentation"], ["--model", "m", "--split", "test"], ["parts"]
    ):  # fmt: skip
        assert left_with([*words, *output]) == 0
    pack = Path("../shared/data")
    assert asked == [
        ("compact", pack, "val", "all"),
        ("compact", pack, "val", "recognition"),
        ("compact", Path("x"), "val", "segmentation"),
        ("m", pack, "test", "all"),
        ("compact", pack, "val", "all"),
    ]
    assert json.loads((tmp_path / "figures.json").read_text()) == {"figure": 0.5}


@pytest.mark.parametrize("words", [["--view", "as_recognised"], ["--view=as_recognised"]])
def test_recognition_command_takes_the_old_spelling_of_a_view(words: list[str], tmp_path: Path) -> None:
    options = ["--deepfashion", str(tmp_path), "--output", str(tmp_path)]  # a folder, refused after the options
    with pytest.warns(DeprecationWarning, match="--view as_recognised is now as_recognized"):
        assert left_with(["recognition", *words, *options]) == 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("models") / "tiny"))


NOWHERE = "nowhere"
WRONG = [
    (["recognition", "--data", NOWHERE], "agreement.json is missing"),
    (["parts", "segmentation", "--data", NOWHERE], "street_labels.json is missing"),
    (["recognition", "--deepfashion", NOWHERE], "no folder Anno_fine in nowhere"),
    (["recognition", "--deepfashion", NOWHERE, "--split", "dev"], "splits must be of train, val, test, got dev"),
    (["retrieval", "--data", NOWHERE], "products.jsonl is missing"),
    (["retrieval", "--deepfashion", NOWHERE], "captions.jsonl is missing; make them with"),
    (["composed", "--data", NOWHERE], "pairs.jsonl is missing"),
    (["composed", "--fashioniq", NOWHERE], "nowhere is no folder; expected FashionIQ's"),
    (["composed", "--protocol", "original"], "give its folder with --fashioniq"),
    (["composed", "--group", "hats"], "groups must be some of shirt, dress, toptee, got hats"),
    (["ablation", "--results", NOWHERE], "nowhere is missing"),
    (["all", "--fashioniq", NOWHERE, "--data", "gone"], "no such folder: gone, nowhere"),
    (["all", "--results", NOWHERE], "nothing can be measured; give --data"),
    (["recognition", "--model", NOWHERE], "nowhere"),
    (["retrieval", "--output", "figures.txt"], "--output must be a .json file"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "wanted"), WRONG, ids=lambda value: " ".join(value)[:40])
def test_evaluate_with_bad_input_says_one_line(
    words: list[str],
    wanted: str,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] != "ablation":
        words = [*words, *([] if "--model" in words else ["--model", model])]
    words = [*words, *([] if "--output" in words else ["--output", "figures.json"])]
    assert left_with(words) == 1
    told = capsys.readouterr().err
    assert wanted in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "words", [["recognition", "--view", "mirror"], ["composed", "--missing", "hide"], ["all", "extra"], ["everything"]]
)
def test_evaluate_with_wrong_usage_exits_with_2(words: list[str]) -> None:
    assert left_with(words) == 2


def test_labeled_samples_names_all_faults_at_once(tmp_path: Path) -> None:
    root = write_pack(tmp_path)
    assert [sample.id for sample in labeled_samples(root, "val")] == ["c4"]
    with pytest.raises(ConfigError, match=r"labels in .*attributes\.jsonl is missing; .*products\.jsonl is missing"):
        labeled_samples(tmp_path / "nowhere", "val")
    lost = [label("products", "99", "tee", "solid", "red"), label("street", "0001", "dress", "solid", "red", region=7)]
    write_lines(root / "attributes.jsonl", [*LABELLED, *lost])
    with pytest.raises(ConfigError, match="labels 2 products or regions that aren't there: 99, 0001"):
        labeled_samples(root, "train")
    write_lines(root / "attributes.jsonl", [{"id": "1", "split": "train"}])
    with pytest.raises(ConfigError, match=r"attributes.jsonl: 1 rows are not a JSON object with source, id, split"):
        labeled_samples(root, "train")
    (root / "street.jsonl").write_text('{"id": "1"}\n[]\n')
    with pytest.raises(ConfigError, match="must hold JSON objects with a split, row 1 is none"):
        read_lines(root / "street.jsonl", "train")
    (root / "street.jsonl").write_text("{")
    with pytest.raises(ConfigError, match="can't be read as JSON"):
        read_lines(root / "street.jsonl")


def test_recognition_command_on_a_drawn_pack(model: str, tmp_path: Path) -> None:
    root, output = tmp_path / "pack", tmp_path / "figures.json"
    root.mkdir()
    write_pack(root)
    groups = ("texture", "sleeve", "length", "neckline", "fabric", "fit")
    (root / "agreement.json").write_text(json.dumps({group: {"agreement": 0.9} for group in groups}))
    assert (
        left_with(["recognition", "--model", model, "--data", str(root), "--split", "train", "--output", str(output)])
        == 0
    )
    figures = json.loads(output.read_text())
    found = figures["recognition"]
    assert (found["garments"], found["deepfashion"]["all"]["texture"]["labeled"]) == (9, 9)
    for group, line in found["right"].items():
        hits = [sign == "1" for sign in line if sign != "-"]
        assert found["deepfashion"]["all"][group]["precision"] == pytest.approx(sum(hits) / len(hits), abs=1e-4)
    assert figures["sha256"].keys() == {"open_clip_model.safetensors"}
    assert "Precision on labeled garments of the open data pack" in output.with_suffix(".md").read_text()
    (root / "products/train/2.jpg").write_bytes(b"")
    (root / "street/train/0001.mask.png").unlink()
    with pytest.raises(ConfigError, match=r"2 photos or masks can't be read: 2.jpg, 0001.mask.png"):
        evaluate.measure(FashionModel.from_pretrained(model), root, "train", evaluate.Part.RECOGNITION)
