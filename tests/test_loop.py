"""Resume equals a straight run; settings reject what they don't know."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from fashion_retrieval.errors import ConfigError
from training.loop import Optimisation, cosine_lr, generator, optimise, read_settings
from training.train_raf_clip import Settings

PLAN = Optimisation(steps=6, lr=0.05, warmup=2, weight_decay=0.1, ema=0.5, checkpoint_every=3)


def run(folder, *, stop_at=None):
    torch.manual_seed(0)
    modules = nn.ModuleDict({"net": nn.Linear(4, 1)})

    def loss_fn(chance, step):
        if step == stop_at:
            raise KeyboardInterrupt
        rows = torch.randn(8, 4, generator=chance)
        return (modules["net"](rows).squeeze(1) - rows.sum(1)).square().mean(), {}

    optimise(modules, loss_fn, PLAN, folder, lr_scales={})
    return modules.state_dict()


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_resume_equals_a_straight_run(tmp_path):
    straight = run(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", stop_at=5)
    resumed = run(tmp_path / "resumed")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert losses(tmp_path / "straight") == losses(tmp_path / "resumed")
    assert losses(tmp_path / "straight")[-1] < losses(tmp_path / "straight")[0]


def test_the_schedule_warms_up_and_ends_at_zero():
    assert [cosine_lr(step, PLAN) for step in (0, 1, 2)] == pytest.approx([0.025, 0.05, 0.05])
    assert cosine_lr(PLAN.steps, PLAN) == pytest.approx(0)
    assert cosine_lr(4, replace(PLAN, warmup=0)) == pytest.approx(0.05 * 0.25)


def test_chance_depends_on_seed_and_step_alone():
    draws = [torch.rand(1, generator=generator(*key)).item() for key in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


@pytest.mark.parametrize(("text", "fault"), [("stpes = 3", "unknown keys stpes"), ("data = ", "can't be read")])
def test_settings_with_a_fault(tmp_path, text, fault):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=fault):
        read_settings(tmp_path / "a.toml", Settings)
