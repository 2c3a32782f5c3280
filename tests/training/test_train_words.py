"""The text tower learns typed words on a drawn data pack; the rest of the encoder stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fashion_retrieval import checkpoint
from tests.support.drawn_pack import log_of, write_lines, write_pack
from tests.support.paths import ROOT
from tests.support.tiny import altered, tiny_folder
from tests.support.tiny_wordnet import write_wordnet
from training import train_words
from training.data.manifest import read_held_out, without_held_out
from training.data.typed_words import MADE, read_typed_words
from training.engine.settings import read_settings

CONFIG = ROOT / "training/configs/typed_compact.toml"
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real recipe in small, on a drawn pack and a tiny model."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "pack").mkdir()
    write_lines(write_pack(desk / "pack") / "pairs.jsonl", [])
    tiny_folder(desk / "model", altered(custom_text=True))
    write_wordnet(desk / "dict")
    changes = {
        "data": "pack", "output": "run", "init": "model", "wordnet": "dict", "typed": 64, "batch_size": 8,
        "known": 40, "kept": 8, "steps": 30, "warmup": 5, "lr": 3e-4, "kept_weight": 1.0,
        "checkpoint_every": 30,
    }  # fmt: skip
    lines = []
    for line in CONFIG.read_text(encoding="utf-8").splitlines():
        key = line.partition(" = ")[0]
        value = changes.get(key)
        shown = f'"{desk / value}"' if isinstance(value, str) else value
        lines += [] if key == "start" else [line if value is None else f"{key} = {shown}"]
    path = desk / "recipe.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    for key in ("words", "more", "synonyms", "held_out"):
        path.write_text(path.read_text().replace(f'{key} = "training', f'{key} = "{ROOT}/training'))
    return path


def test_train_words_changes_the_text_tower_alone(config: Path) -> None:
    train_words.main(config)
    desk = config.parent
    before, after = (load_file(desk / name / WEIGHTS) for name in ("model", "run"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert {name.partition(".")[0] for name in changed} == {"text"}
    table = "text.token_embedding.weight"
    rows = (before[table] != after[table]).any(1)
    assert 50 < int(rows.sum()) < 1000
    log = log_of(desk / "run")
    assert log[0]["kept"] == pytest.approx(0, abs=1e-5)
    losses = [row["loss"] for row in log]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    made = (desk / "run" / MADE).read_text().splitlines()
    assert made
    assert read_typed_words().tested().issuperset(made)
    assert checkpoint.load(desk / "run").encoder.embedding_dim == 16


def test_texts_of_training_are_not_of_the_test_half_or_held_out(config: Path) -> None:
    _, known = train_words._texts(read_settings(config, train_words.Settings))
    assert len(known) == 40
    assert read_typed_words().tested().isdisjoint(known)
    assert without_held_out(known, [*read_held_out(ROOT / "training/configs/held_out.toml")]) == known
