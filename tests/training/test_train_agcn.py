"""The composer's recipe on drawn products: what it learns, early stopping, resuming, what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.errors import ConfigError
from tests.support.drawn_pack import log_of
from tests.support.drawn_products import recipe, write_products, write_toml
from tests.support.fashioniq_tree import write_json, write_tree
from training import train_agcn
from training.data.pairs import read_pairs
from training.engine.distributed import DistributedEnv
from training.engine.settings import read_settings
from training.evaluation.composed import average_recall, evaluate_composed
from training.recipes.agcn_settings import Settings

CONFIGS = Path(train_agcn.__file__).parent / "configs"
ALONE = DistributedEnv(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return recipe(write_products(tmp_path_factory.mktemp("pack")), tmp_path_factory.mktemp("agcn"))


@pytest.fixture(scope="module")
def trained(settings: Settings) -> Path:
    """The model folder after a run of the command."""
    train_agcn.main(write_toml(settings, Path(settings.output).with_suffix(".toml")))
    return Path(settings.output) / "model"


def test_the_recipe_learns_and_keeps_its_best(settings: Settings, trained: Path) -> None:
    log = log_of(Path(settings.output))
    assert [row["step"] for row in log] == list(range(120))
    assert log[0]["loss"] == pytest.approx(3.5568, abs=0.01)
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]
    scores = {int(row["step"]) + 1: row["score"] for row in log if "score" in row}
    assert list(scores) == list(range(10, 121, 10))
    saved = torch.load(Path(settings.output) / "checkpoint.pt", weights_only=True)["best"]
    assert saved["score"] == max(scores.values())
    assert scores[saved["step"]] == saved["score"]
    model = FashionModel.from_pretrained(trained, device="cpu", dtype="float32")
    weights = model._bundle.composer.state_dict()  # type: ignore[union-attr]
    for name, value in weights.items():
        torch.testing.assert_close(value, saved["weights"][f"composer.{name}"])


def test_it_composes_better_than_either_alone(settings: Settings, trained: Path) -> None:
    model = FashionModel.from_pretrained(trained, device="cpu", dtype="float32")
    data = read_pairs(Path(settings.data), "val")
    ranks = {}
    for name, weight in (("composed", None), ("photo", "photo"), ("text", "text")):
        figures = evaluate_composed(_Asking(model, weight), [data])["split"]
        ranks[name] = np.mean([np.mean(group["ranks"]) for group in figures["groups"].values()])
    assert ranks["composed"] < 5, ranks
    assert min(ranks["photo"], ranks["text"]) > 6, ranks
    assert average_recall({"all": np.array([1, 20])}, 10) == 0.5


class _Asking:
    def __init__(self, model: FashionModel, only: str | None) -> None:
        self.encode, self.model, self.only = model.encode, model, only

    def compose(self, photos: list[Path], texts: list[str]) -> np.ndarray:
        if self.only == "photo":
            return self.model.compose(photos, None)
        return self.model.compose(None if self.only else photos, texts)  # type: ignore[arg-type]


KILLED = """
import os, signal, sys
from pathlib import Path
from training import train_agcn
from training.recipes import agcn_fit

real, calls = agcn_fit.composition_loss, []

def failing(*arguments):
    calls.append(1)
    if len(calls) == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

agcn_fit.composition_loss = failing
train_agcn.main(Path(sys.argv[1]))
"""


def test_a_killed_run_goes_on_as_a_straight_one(settings: Settings, trained: Path, tmp_path: Path) -> None:
    config = write_toml(replace(settings, output=str(tmp_path / "run")), tmp_path / "run.toml")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(config)], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert len(log_of(tmp_path / "run")) == 69  # the last nine of them are past the checkpoint and done again
    assert not (tmp_path / "run/model").exists()
    train_agcn.main(config)
    assert log_of(tmp_path / "run") == log_of(Path(settings.output))
    name = "composer.safetensors"
    assert (tmp_path / "run/model" / name).read_bytes() == (trained / name).read_bytes()


def test_training_ends_when_nothing_gets_better(settings: Settings, tmp_path: Path) -> None:
    still = replace(settings, output=str(tmp_path), patience=2, optimization=replace(settings.optimization, lr=1e-12))
    bundle = checkpoint.load(Path(settings.model))
    train_agcn.train(still, bundle, ALONE)
    assert len(log_of(tmp_path)) == 30  # the first score is the best, two more are not better
    train_agcn.train(still, bundle, ALONE)
    assert len(log_of(tmp_path)) == 30


def test_the_ablation_without_a_network(settings: Settings, tmp_path: Path) -> None:
    sums = replace(settings, output=str(tmp_path), variant="sum")
    composer = train_agcn.train(sums, checkpoint.load(Path(settings.model)), ALONE)
    assert list(composer.parameters()) == []
    assert not (tmp_path / "log.jsonl").exists()


def test_the_papers_recipe_on_fashioniqs_layout(settings: Settings, tmp_path: Path) -> None:
    paper = read_settings(CONFIGS / "agcn_fashioniq.toml", Settings)
    assert (paper.batch_size, paper.composer.depth, paper.negatives, paper.derived) == (128, 6, "batch", 0)
    assert (paper.optimization.lr, paper.optimization.epochs) == (2e-5, 200)
    assert paper.optimization.in_steps(18_000 / paper.batch_size).steps == 200 * 18_000 / 128
    short = replace(paper.optimization, epochs=4, lr=1e-3, checkpoint_every=2)
    here = replace(
        paper, data=str(write_tree(tmp_path / "fashioniq")), model=settings.model, output=str(tmp_path / "run"),
        cache=str(tmp_path / "cache"), composer=settings.composer, optimization=short, validate_every=2, batch_size=3,
    )  # fmt: skip
    train_agcn.train(here, checkpoint.load(Path(settings.model)), ALONE)
    log = log_of(tmp_path / "run")
    assert len(log) == 4  # three triplets, an epoch a step
    scores = {row["step"]: row["score"] for row in log if "score" in row}
    assert list(scores) == [1, 3]
    assert all(0.3 < score <= 1 for score in scores.values())  # 12 to 60 photos a group: R@50 is nearly sure


def test_dead_links_can_be_left_out(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path / "fashioniq")
    for name in ("D10", "T54", "S11"):
        (tree / f"images/{name}.jpg").unlink()
    changes = {"source": "fashioniq", "derived": 0, "derived_share": 0.0, "held_out": 0.0, "batch_size": 3}
    plan = replace(settings.optimization, steps=2, warmup=0)
    here = replace(settings, data=str(tree), output=str(tmp_path / "run"), optimization=plan, **changes)  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match="1"):
        train_agcn.main(write_toml(here, tmp_path / "run.toml"))
    error = capsys.readouterr().err
    assert error.startswith("error: photos are missing or can't be read in ")
    assert "dress 1 of 60 (D10); toptee 1 of 55 (T54)" in error.replace("shirt 1 of 12 (S11); ", "")
    train_agcn.main(write_toml(replace(here, missing="report"), tmp_path / "run.toml"))
    told = capsys.readouterr().err
    assert "val dress: 1 photos missing, 1 triplets left out\n" in told
    assert "val toptee: 1 photos missing, 2 triplets left out\n" in told
    assert (tmp_path / "run/model/composer.safetensors").is_file()


def test_a_share_that_leaves_nothing(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="held_out must leave triplets to train on"):
        train_agcn.train(replace(settings, held_out=0.99), checkpoint.load(Path(settings.model)), ALONE)


def test_bad_input_is_one_line(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path / "fashioniq")
    write_json(tree / "captions/cap.dress.train.json", [{"candidate": "D90", "captions": ["is left", "is longer"]}])
    write_json(tree / "captions/cap.shirt.train.json", [])
    changes = {"source": "fashioniq", "derived": 0, "derived_share": 0.0, "held_out": 0.0}
    here = replace(settings, data=str(tree), output=str(tmp_path / "run"), **changes)  # type: ignore[arg-type]
    write_toml(here, tmp_path / "rows.toml")
    write_toml(replace(settings, model=str(tmp_path / "nothing")), tmp_path / "model.toml")
    wrong = write_toml(replace(settings, data=str(tree), source="fashioniq", variant="and"), tmp_path / "wrong.toml")
    wrong.write_text(wrong.read_text().replace("patience = 20", 'batchsize = 3\npatience = "x"'))
    expected = {
        "rows": [
            "1 rows have no target and can't be measured",
            "cap.shirt.train.json must be a JSON list with entries",
        ],
        "model": ["nothing"],
        "wrong": ["unknown keys batchsize", "'patience' must be a whole number"],
        "missing": ["can't be read"],
    }
    for name, said in expected.items():
        with pytest.raises(SystemExit, match="1"):
            train_agcn.main(tmp_path / f"{name}.toml")
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert all(part in error for part in said), error
    assert not (tmp_path / "run").exists()
