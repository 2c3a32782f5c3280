"""Resume equals a straight run, in half precision too; what can't be resumed is left as it is."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fashion_retrieval.errors import ConfigError
from training.engine.errors import TrainingError
from training.engine.loop import generator, train
from training.engine.optimizer import OptimizerConfig

PLAN = OptimizerConfig(steps=6, lr=0.05, warmup=2, weight_decay=0.1, ema=0.5, checkpoint_every=3)


def run(folder, *, stop_at=None):
    torch.manual_seed(0)
    modules = nn.ModuleDict({"net": nn.Linear(4, 1)})

    def loss_fn(rng, step):
        if step == stop_at:
            raise KeyboardInterrupt
        rows = torch.randn(8, 4, generator=rng)
        return (modules["net"](rows).squeeze(1) - rows.sum(1)).square().mean(), {}

    train(modules, loss_fn, PLAN, folder, lr_scales={})
    return modules.state_dict()


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_train_resumed_equals_a_straight_run(tmp_path):
    straight = run(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", stop_at=5)
    resumed = run(tmp_path / "resumed")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert losses(tmp_path / "straight") == losses(tmp_path / "resumed")
    assert losses(tmp_path / "straight")[-1] < losses(tmp_path / "straight")[0]


def test_generator_depends_on_seed_and_step_alone():
    draws = [torch.rand(1, generator=generator(*key)).item() for key in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


class Net(nn.Module):
    """A layer with dropout."""

    def __init__(self):
        super().__init__()
        self.line, self.drop = nn.Linear(4, 1), nn.Dropout(0.2)

    def forward(self, rows):
        return self.line(self.drop(rows)).squeeze(1)


def half_precision(folder, *, steps=6, stop_at=None, size=1.0):
    torch.manual_seed(0)
    modules = nn.ModuleDict({"net": Net()})
    plan = replace(PLAN, steps=steps, amp="fp16", warmup=0)

    def loss_fn(rng, step):
        if step == stop_at:
            raise KeyboardInterrupt
        rows = torch.randn(8, 4, generator=rng)
        return (modules["net"](rows).float() - rows.sum(1)).square().mean() * size, {}

    train(modules, loss_fn, plan, folder, lr_scales={})
    return modules.state_dict()


def test_train_in_fp16_resumes_with_its_loss_scale_and_dropout(tmp_path):
    straight = half_precision(tmp_path / "straight", size=1e-3)
    with pytest.raises(KeyboardInterrupt):
        half_precision(tmp_path / "resumed", stop_at=5, size=1e-3)
    saved = torch.load(tmp_path / "resumed" / "checkpoint.pt", weights_only=True)
    assert saved["scaler"]["scale"] == 65536
    assert saved["scaler"]["_growth_tracker"] == 3
    resumed = half_precision(tmp_path / "resumed", size=1e-3)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert losses(tmp_path / "straight") == losses(tmp_path / "resumed")


def test_train_with_a_gradient_that_overflows_in_fp16_leaves_the_weights_and_halves_the_scale(tmp_path):
    torch.manual_seed(0)
    before = nn.ModuleDict({"net": Net()}).state_dict()
    after = half_precision(tmp_path, steps=1, size=1e3)
    assert all(torch.equal(before[name], after[name]) for name in before)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["scaler"]["scale"] == 32768
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line["loss_scale"] == 65536
    assert np.isfinite(line["loss"])


def test_train_refuses_a_config_with_faults(tmp_path):
    modules = nn.ModuleDict({"net": nn.Linear(1, 1)})
    for plan, fault in ((replace(PLAN, lr=-1.0, ema=2.0), "'lr' must be greater than 0.*; 'ema' must be"),
                        (replace(PLAN, steps=0, epochs=3), "call `in_steps`")):  # fmt: skip
        with pytest.raises(ConfigError, match=fault):
            train(modules, lambda rng, step: (torch.zeros(()), {}), plan, tmp_path / "out", lr_scales={})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None])
def test_train_names_a_checkpoint_that_is_damaged_or_of_another_run(tmp_path, damage):
    run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    if damage is None:
        torch.save({"modules": {}, "optimizer": {}, "average": {}, "best": {}, "step": 1}, path)
    else:
        path.write_bytes(damage)
    log = (tmp_path / "log.jsonl").read_text()
    with pytest.raises(ConfigError, match=rf"{path} is of another recipe or damaged \(.*\); move it away") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "log.jsonl").read_text() == log


def scripted(folder, losses, *, accumulate):
    """Train on losses given in advance, one a batch; `nan` among them too."""
    modules = nn.ModuleDict({"net": nn.Linear(1, 1)})
    given = iter(losses)

    def loss_fn(rng, step):
        value = next(given)
        return modules["net"].weight.sum() * 0 + value, {"part": value / 2}

    steps = len(losses) // accumulate
    train(modules, loss_fn, replace(PLAN, steps=steps, accumulate=accumulate, checkpoint_every=1), folder, lr_scales={})


def test_train_logs_the_mean_of_accumulated_batches(tmp_path):
    scripted(tmp_path, [1.0, 3.0, 2.0, 6.0], accumulate=2)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["loss"], row["part"]) for row in rows] == [(2.0, 1.0), (4.0, 2.0)]


def test_train_stops_at_a_loss_that_is_not_finite_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match=r"^the loss of step 2 is nan; run again .* with a lower lr") as caught:
        scripted(tmp_path, [1.0, 1.0, float("nan"), 1.0], accumulate=1)
    assert "\n" not in str(caught.value)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_train_resumes_a_checkpoint_of_the_release_before(tmp_path):
    straight = run(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", stop_at=4)
    path = tmp_path / "resumed" / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == {"modules", "optimizer", "scaler", "average", "best", "step"}  # 0.1 wrote the same keys
    assert saved["average"].keys() == saved["modules"].keys()
    del saved["scaler"]  # the first ones had none
    torch.save(saved, path)
    resumed = run(tmp_path / "resumed")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
