"""Data parallelism: two processes compute what one does with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from fashion_retrieval.errors import ConfigError
from tests.support.drawn_pack import log_of, write_pack
from tests.support.paths import ROOT
from tests.support.tiny import tiny_folder
from tests.support.torchrun_worker import gradients, two_linear_towers
from training import train_raf_clip
from training.engine.distributed import DistributedEnv, distributed_env, single_process
from training.engine.settings import read_settings
from training.engine.weights import load_encoder
from training.recipes.raf_clip_settings import Settings


def test_distributed_env_without_torchrun_is_one_process():
    with distributed_env() as env:
        assert (env.rank, env.world_size, env.is_main_process) == (0, 1, True)
    batch = torch.arange(6)
    assert torch.equal(batch[env.rows(6)], batch)
    assert env.all_gather(batch) is batch
    assert env.all_values(3.5) == [3.5]


def test_distributed_env_splits_a_batch_in_its_order_or_refuses_it():
    envs = [DistributedEnv(rank, 3, torch.device("cpu")) for rank in range(3)]
    assert [torch.arange(6)[env.rows(6)].tolist() for env in envs] == [[0, 1], [2, 3], [4, 5]]
    assert [env.is_main_process for env in envs] == [True, False, False]
    with pytest.raises(ConfigError, match="a batch of 8 can't be shared evenly by 3 processes; choose a multiple"):
        envs[0].rows(8)


RECIPE = """
data = "{root}"
init = ["{root}/start"]
output = "{root}/{name}"
taxonomy = "default"
targets = "identity"
alpha = 0.5
cache_size = [40, 36]
size_schedule = [[0, 32, 32]]
whole_garments = 3
masked_garments = 2
extra_garments = 3
{more}
[optimization]
steps = 3
lr = 1e-3
ema = 0.5
"""


def test_two_processes_compute_what_one_does(tmp_path):
    write_pack(tmp_path)
    tiny_folder(tmp_path / "start")
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(RECIPE.format(root=tmp_path, name="one", more=""))
    two.write_text(RECIPE.format(root=tmp_path, name="two", more="micro_batch = 2\ngradient_checkpointing = true"))
    straight = train_raf_clip.train(read_settings(one, Settings)).clip.state_dict()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.support.torchrun_worker", str(two), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    loss, whole = gradients(two_linear_towers(), single_process())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["loss"] == pytest.approx(loss, abs=1e-14)
        assert found["values"] == [10.0, 11.0]
        image, text, odd, unused = found["gradients"]
        torch.testing.assert_close(image, whole[0], rtol=0, atol=1e-14)
        torch.testing.assert_close(text, whole[1], rtol=0, atol=1e-14)
        torch.testing.assert_close(odd, whole[2] / 2, rtol=0, atol=1e-14)  # one of two had it
        assert unused is None  # stays as it is, without weight decay

    assert done.stdout.count(f"encoder written to {tmp_path}/two") == 1
    curves = [[row["loss"] for row in log_of(tmp_path / name)] for name in ("one", "two")]
    assert len(curves[0]) == 3
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    together = load_encoder(tmp_path / "two").clip.state_dict()
    for name, value in straight.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-5)


def test_train_refuses_crops_that_cannot_be_split_before_reading_anything(tmp_path):
    tiny_folder(tmp_path / "start")
    path = tmp_path / "a.toml"
    path.write_text(RECIPE.format(root=tmp_path, name="out", more=""))
    with pytest.raises(ConfigError, match=r"^10 crops a step can't be shared evenly by 3 processes$"):
        train_raf_clip.train(read_settings(path, Settings), DistributedEnv(0, 3, torch.device("cpu")))
    assert not (tmp_path / "out").exists()
