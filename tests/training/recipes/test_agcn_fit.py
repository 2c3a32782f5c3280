"""Training on frozen features: the loss by hand, and several processes as one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fashion_retrieval import checkpoint
from tests.support.drawn_pack import log_of
from tests.support.drawn_products import recipe, write_products, write_toml
from training import train_agcn
from training.engine import distributed
from training.engine.distributed import DistributedEnv
from training.engine.loop import generator
from training.recipes.agcn_data import load_dataset
from training.recipes.agcn_fit import sample_batch
from training.recipes.losses import composition_loss


def test_composition_loss_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=-1) for n in (3, 5))
    targets, scale = torch.tensor([4, 0, 4]), torch.tensor(7.0)
    cosines = 7 * (query @ gallery.T).double().numpy()
    rows = np.arange(3)
    for negatives, columns in (("gallery", [0, 1, 2, 3, 4]), ("batch", [0, 4])):
        total = np.log(np.exp(cosines[:, columns]).sum(1)) - cosines[rows, targets.numpy()]
        loss = composition_loss(query, gallery, targets, scale, negatives)  # type: ignore[arg-type]
        assert loss.item() == pytest.approx(total.mean(), abs=1e-6)


def test_two_processes_are_one_with_the_whole_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process leads, a second one follows it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    base = recipe(write_products(tmp_path / "pack"), tmp_path)
    plan = replace(base.optimization, steps=8, ema=0.9, checkpoint_every=8)
    base = replace(
        base,
        optimization=plan,
        composer=replace(base.composer, dropout=0.0),
        negatives="batch",
        validate_every=4,
        sampling="epoch",
    )
    configs = {
        name: write_toml(
            replace(base, output=str(tmp_path / name), cache=str(tmp_path / f"{name}_cache")), tmp_path / f"{name}.toml"
        )
        for name in ("one", "two")
    }
    train_agcn.main(configs["one"])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "training.train_agcn", str(configs["two"])]
    environment = {**os.environ, **shared, "RANK": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as follower:
        for name, value in {**shared, "RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(distributed, "_TIMEOUT", timedelta(seconds=100))
        train_agcn.main(configs["two"])
        said, _ = follower.communicate()
    assert (follower.returncode, said) == (0, "")
    assert capsys.readouterr().out.count("model with its composer written to") == 2
    for ours, theirs in zip(log_of(tmp_path / "two"), log_of(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    two, one = (load_file(tmp_path / name / "model/composer.safetensors") for name in ("two", "one"))
    assert two.keys() == one.keys()
    for name, value in two.items():
        torch.testing.assert_close(value, one[name], rtol=1e-3, atol=1e-4)


def test_an_epoch_sees_each_triplet_once(tmp_path: Path) -> None:
    settings = replace(recipe(write_products(tmp_path / "pack"), tmp_path), derived=0, derived_share=0.0, batch_size=9)
    env = DistributedEnv(0, 1, torch.device("cpu"))
    dataset = load_dataset(settings, checkpoint.load(Path(settings.model)).encoder.eval(), env)
    assert len(dataset.triplets) == 27
    wanted = sorted(example.right[0] for example in dataset.triplets)
    for sampling, same in (("epoch", True), ("chance", False)):
        told = replace(settings, sampling=sampling)  # type: ignore[arg-type]
        for epoch in range(2):
            steps = range(3 * epoch, 3 * epoch + 3)
            drawn = [sample_batch(told, dataset, step, generator(0, step), env).targets for step in steps]
            assert (sorted(torch.cat(drawn).tolist()) == wanted) == same


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
