"""All tables at once on drawn trees, and the ablation from a comparison's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_retrieval import checkpoint
from fashion_retrieval.config import VARIANTS
from fashion_retrieval.errors import ConfigError
from tests.inference.test_composition import with_composer
from tests.support import fashioniq_tree
from tests.support.deepfashion_tree import write_tree
from tests.support.tiny import tiny_folder
from tests.training.evaluation.test_deepfashion import COUNTS, prepare
from tests.training.evaluation.test_results_file import left_with
from training.evaluation.ablation import evaluate_ablation

RANKS = {
    "agcn": [[1, 12, 60, 3], [1, 2, 60, 3]], "sum": [[70, 12, 60, 11]], "only_text": [[1, 12, 60, 60]] * 2,
    "only_image": [[70, 70, 70, 70]] * 2, "add": [[1, 12, 60, 3], [1, 2, 60, 3]],
}  # fmt: skip
"""By variant and seed, of one group. AGCN's R@10 is 2/4 and 3/4, its R@50 3/4 both times."""


def write_comparison(folder: Path) -> Path:
    """What `training.compare_composers` leaves, as far as it is read here."""
    rows: dict[str, dict[str, Any]] = {}
    for name, seeds in RANKS.items():
        for seed, ranks in enumerate(seeds):
            path = folder / "runs" / name / str(seed) / "run.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"ranks": {"full": {"dress": ranks}}}))
        recalls: dict[str, Any] = {f"recall_at_{k}": float(np.mean(np.array(seeds) <= k)) for k in (10, 50)}
        recalls |= {f"recall_at_{k}_interval": [0.0, 1.0] for k in (10, 50)}
        ahead = None if name == "agcn" else {"full": {"mean": 0.25, "interval": [-0.5, 1.0]}}
        rows[name] = {"runs": [{"seed": s} for s in range(len(seeds))], "agcn_is_ahead_by": ahead}
        rows[name]["protocols"] = {"full": {"groups": {"dress": recalls}, "average": recalls}}
    path = folder / "compare.json"
    recipe = {"output": str(folder / "runs")}
    told = {"model": "tiny", "source": "pairs", "split": "val", "config": {"recipe": recipe}, "composers": rows}
    path.write_text(json.dumps(told))
    return path


def test_evaluate_ablation_reads_the_comparison(tmp_path: Path) -> None:
    results = write_comparison(tmp_path)
    figures = evaluate_ablation(results)
    assert [*figures["variants"]] == [*VARIANTS]
    rows = {row["first"]: row for row in figures["against_first"]}
    assert (rows["Sum"]["difference"], rows["Sum"]["interval"], rows["Sum"]["measure"]) == (
        0.25, [-0.5, 1.0], "full, mean of R@10 and R@50"
    )  # fmt: skip
    # Answers, mean over seeds and ks: agcn 1, 3/4, 0, 1; sum 0, 1/2, 0, 1/2; only_text 1, 1/2, 0, 0.
    assert rows["Sum"]["p"] == pytest.approx(2 / 8, abs=0.02)
    assert rows["Only text"]["p"] == pytest.approx(2 / 4, abs=0.02)
    assert rows["Add"]["p"] == 1


def test_evaluate_ablation_without_runs_has_no_p(tmp_path: Path) -> None:
    results = write_comparison(tmp_path)
    (tmp_path / "runs/sum/0/run.json").unlink()
    assert {row["p"] for row in evaluate_ablation(results)["against_first"]} == {None}
    with pytest.raises(ConfigError, match="lacks runs of sum; give the folder"):
        evaluate_ablation(results, tmp_path / "runs")
    with pytest.raises(ConfigError, match="lacks runs of sum, only_text, only_image, add, agcn"):
        evaluate_ablation(results, tmp_path / "elsewhere")


def test_evaluate_ablation_of_other_files_is_refused(tmp_path: Path) -> None:
    results = write_comparison(tmp_path)
    (tmp_path / "runs/add/1/run.json").write_text(json.dumps({"ranks": {"full": {"dress": [70, 70, 70, 70]}}}))
    with pytest.raises(ConfigError, match=r"runs of another comparison: full is 0.3125, not 0.6875"):
        evaluate_ablation(results)
    found = json.loads(results.read_text())
    del found["composers"]["add"]
    results.write_text(json.dumps(found))
    with pytest.raises(ConfigError, match="lacks add; name all of sum, only_text"):
        evaluate_ablation(results)
    results.write_text("[]")
    with pytest.raises(ConfigError, match="is no results file of `python -m training"):
        evaluate_ablation(results)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Drawn trees, a comparison, a model with a composer and one without."""
    monkeypatch.chdir(tmp_path)
    prepare(Path("deepfashion"), write_tree(Path("deepfashion"), COUNTS)["test"])
    fashioniq_tree.write_tree(Path("fashioniq"))
    write_comparison(tmp_path)
    checkpoint.save(with_composer(tiny_folder(Path("plain"))), Path("ours"))
    return tmp_path


def test_all_command_writes_every_table_into_one_file(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roots = ["--deepfashion", "deepfashion", "--fashioniq", "fashioniq", "--results", "compare.json"]
    assert left_with(["all", "--model", "plain", "--model", "ours", *roots]) == 0
    figures = json.loads(Path("results.json").read_text())
    assert [*figures["parts"]] == ["recognition_deepfashion", "retrieval_deepfashion", "composed_fashioniq", "ablation"]
    assert set(figures["not_run"]) == {"recognition_pack", "segmentation_pack", "retrieval_pack", "composed_pack"}
    assert figures["failed"] == {}
    assert {"model", "sha256", "commit", "versions"} <= figures["models"]["ours"].keys()
    parts = figures["parts"]
    assert [*parts["composed_fashioniq"]] == ["ours", "against_first", "resampling"]  # the other has no composer
    assert [*parts["composed_fashioniq"]["ours"]["protocols"]] == ["original", "original_noref", "val_split"]
    assert [*parts["recognition_deepfashion"]["plain"]["recognition"]["views"]] == ["masked_crop", "whole_photo"]
    assert {row["p"] for row in parts["retrieval_deepfashion"]["against_first"]} == {1}  # both have the same encoder
    text = Path("results.md").read_text()
    for heading in ("Tables 1 and 4, DeepFashion", "Table 2, DeepFashion", "Table 3, FashionIQ", "Not measured"):
        assert f"## {heading}\n" in text
    average = parts["composed_fashioniq"]["ours"]["protocols"]["original"]["average"]
    assert f"{100 * average['recall_at_50']:.2f}<br>" in text
    assert "| AGCN, in the paper | 38.17 |" in text
    assert "no folder of the open data pack was given" in text
    assert "original toptee: 2 photos of the gallery are in the train split" in capsys.readouterr().err


def test_all_command_keeps_other_tables_when_one_fails(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fashioniq/images/D10.jpg").unlink()
    roots = ["--deepfashion", "deepfashion", "--fashioniq", "fashioniq", "--results", "gone.json"]
    Path("deepfashion/captions.jsonl").unlink()
    assert left_with(["all", "--model", "ours", *roots]) == 1
    figures = json.loads(Path("results.json").read_text())
    assert [*figures["parts"]] == ["recognition_deepfashion"]
    assert [*figures["failed"]] == ["composed_fashioniq"]
    assert "prepare captions" in figures["not_run"]["retrieval_deepfashion"]
    assert figures["not_run"]["ablation"].startswith("no gone.json")
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: not measured: Table 3, FashionIQ: photos are missing or can't be read")
    assert told.endswith("the rest is in results.json")


def test_composed_command_refuses_a_model_without_composer_first(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--fashioniq", "fashioniq", "--model", "ours", "--model", "plain", "--output", "a.json"]
    assert left_with(["composed", *options]) == 1
    assert "error: this model has no composer" in capsys.readouterr().err
    assert left_with(["composed", *options, "--model", "ours"]) == 1
    assert "--model must name each model once" in capsys.readouterr().err
    assert left_with(["ablation", "--results", "compare.json", "--output", "ablation.json"]) == 0
    assert "AGCN ahead of Sum, full, mean of R@10 and R@50: +25.00 points" in capsys.readouterr().out
    assert "| **AGCN** |" in Path("ablation.md").read_text()
