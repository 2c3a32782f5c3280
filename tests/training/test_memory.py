"""What a forward pass saves, the peak of a step, and a recipe's table; figures worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.support.tiny import altered, tiny_folder
from training.engine.settings import read_settings
from training.memory import LARGER, SMALL, checked, main, table
from training.memory_saved import Peak, Saved, on_line, saved_by
from training.memory_step import Recipe, moments
from training.recipes.raf_clip_settings import Settings
from training.train_raf_clip import CONFIGS


class Stack(nn.Module):
    """Two blocks of a linear layer and a ReLU, then a linear layer."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(10, 10), nn.ReLU()) for _ in range(2))
        self.head = nn.Linear(10, 3)

    def forward(self, rows, *, checkpointed=False):
        for block in self.blocks:
            rows = checkpoint(block, rows, use_reentrant=False) if checkpointed else block(rows)
        return self.head(rows)


def test_what_is_saved_is_each_layers_input_once():
    stack, rows = Stack(), torch.zeros(7, 10)
    found = saved_by(lambda: stack(rows), stack)
    row = 7 * 10 * 4  # of what is 10 wide: the input, and the output of each ReLU, which the next layer reads
    assert found == Saved(0, (2 * row, row), (row, row))
    assert (found.plain, found.checkpointed) == (3 * row, 4 * row)


def test_a_larger_batch_lies_on_the_line():
    stack = Stack()
    small = {n: saved_by(lambda n=n: stack(torch.zeros(n, 10)), stack) for n in (2, 4)}
    assert on_line(small, 16) == saved_by(lambda: stack(torch.zeros(16, 10)), stack)
    constant = {2: Saved(7.0, (3.0,), (1.0,)), 4: Saved(9.0, (5.0,), (1.0,))}
    assert on_line(constant, 0) == Saved(5.0, (1.0,), (1.0,))


def test_the_peak_counts_what_is_alive():
    with Peak() as peak:
        first = torch.zeros(1000)
        second = first + 1
        view = second[:10]
        del first
        third = torch.zeros(500)
        del second
        assert peak.held == 4 * 1500
        del view
    assert (peak.held, peak.most) == (4 * 500, 4 * 2000)
    del third
    assert peak.held == 0


def recipe(folder: Path, **changes) -> Recipe:
    settings = read_settings(CONFIGS / "raf_clip_vit_b_32.toml", Settings)
    settings = replace(settings, init=[str(folder)], size_schedule=[[0, 64, 64]], cache_size=[64, 64])
    return Recipe(replace(settings, **changes), "unused")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tower = {"image_size": 64, "patch_size": 4, "layers": 3}
    return tiny_folder(tmp_path_factory.mktemp("start"), altered(vision_cfg=tower))


def test_small_batches_predict_larger_ones_and_whole_steps(folder):
    tiny = recipe(folder)
    found = checked(tiny, tiny.measured(SMALL))
    ratios = [ratio for by_batch in found["saved"].values() for ratio in by_batch.values()]
    assert len(ratios) == 2 * len(LARGER)
    assert ratios == pytest.approx([1.0] * len(ratios), abs=0.01)
    assert len(found["steps"]) == 6
    plain = [step["ratio"] for step in found["steps"] if not (step["gradient_checkpointing"] or step["micro_batch"])]
    assert plain[-1] == pytest.approx(1, abs=0.1)  # the smaller ones are nearly all weights


def test_the_options_take_less_memory_in_fact_and_in_the_table(folder):
    tiny = recipe(folder)
    towers, step = tiny.measured(SMALL), tiny.step(24)
    assert (step.pictures, step.texts) == (48, 24 * 7)
    variants = [(False, 0), (True, 0), (False, 8), (True, 8)]
    computed, measured = (
        [
            moments(tiny, towers, step, checkpointing=c, micro_batch=m).most if how else
            tiny.measured_peak(step, checkpointing=c, micro_batch=m)
            for c, m in variants
        ]
        for how in (True, False)
    )  # fmt: skip
    assert computed[0] > 1.5 * max(computed[1:])
    assert measured[0] > 1.5 * max(measured[1:])
    assert computed[0] == pytest.approx(measured[0], rel=0.1)


def test_a_table_adds_up(folder):
    tiny = recipe(folder)
    rows = table(tiny, tiny.measured(SMALL), 256, 16)
    weights = sum(value.numel() * 4 for value in tiny.encoder.clip.state_dict().values())
    for row in rows:
        assert row["weights"] == round(weights / 1e9, 3)
        assert row["pictures"] == round(512 * 3 * 64 * 64 * 4 / 1e9, 3)
        fuller = max(row["end_of_forward"], row["late_in_backward"])
        always = sum(row[name] for name in ("weights", "adamw", "ema", "pictures"))
        assert row["peak"] == pytest.approx(always + fuller, abs=0.003)
        assert row["fits"]
    averaged = recipe(folder, optimization=replace(tiny.settings.optimization, ema=0.9))
    assert averaged.always(averaged.step(2))["ema"] == weights
    locked = recipe(folder, lock_text=True)
    assert locked.step(8).texts == 0
    assert sum(locked.gradients()) < sum(tiny.gradients())


def test_the_command_writes_what_it_prints(folder, tmp_path, capsys):
    config = tmp_path / "a.toml"
    text = (CONFIGS / "raf_clip_vit_b_32.toml").read_text().replace("runs/laion_vit_b_32", str(folder))
    config.write_text(text.replace("[[0, 224, 224]]", "[[0, 64, 64]]"))
    main(config, micro_batch=8, out=tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["encoder"], written["amp"], written["step"]["garments"]) == (str(folder), "bf16", 256)
    printed = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert printed == [list(written["gb"][0]), *(list(map(str, row.values())) for row in written["gb"])]


def test_the_recorded_table_of_the_papers_recipe_is_under_24_gb():
    recorded = json.loads((CONFIGS.parent / "results" / "memory_vit_b_32.json").read_text())
    assert (recorded["config"], recorded["step"]["pictures"]) == ("raf_clip_vit_b_32.toml", 512)
    assert all(row["peak"] < 24 for row in recorded["gb"])
    assert all(abs(ratio - 1) < 0.01 for ratios in recorded["check"]["saved"].values() for ratio in ratios.values())
