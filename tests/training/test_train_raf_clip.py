"""RaF-CLIP's recipe end to end on a drawn data pack: options, resuming, what is refused, the command."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from fashion_retrieval import checkpoint
from fashion_retrieval.errors import ConfigError
from tests.support.drawn_pack import log_of, write_pack
from tests.support.paths import ROOT
from tests.support.tiny import tiny_clip, tiny_folder
from training import train_raf_clip
from training.data.augment import Changes, apply_changes
from training.data.cuts import fold_of
from training.data.manifest import read_held_out
from training.engine.loop import generator
from training.engine.optimizer import OptimizerConfig
from training.engine.settings import read_settings
from training.engine.weights import load_encoder
from training.recipes import raf_clip_objective
from training.recipes.losses import Targets
from training.train_raf_clip import HELD_OUT, Settings

HELD_OUT_WORDS = list(read_held_out(HELD_OUT))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("start"))


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def recipe(pack: Path, start: Path, output: Path) -> Settings:
    return Settings(
        data=str(pack),
        init=[str(start)],
        output=str(output),
        taxonomy="default",
        targets="same_text",
        alpha=0.5,
        optimization=OptimizerConfig(steps=2, lr=1e-3, warmup=1, checkpoint_every=2),
        vocabulary_weight=1.0,
        smoothing=0.05,
        balance=0.5,
        lock_text=True,
        cache_size=[40, 36],
        size_schedule=[[0, 32, 32]],
        whole_garments=4,
        masked_garments=3,
        extra_garments=2,
    )


FIRST_LOSS: dict[Targets, float] = {"identity": 6.50206, "same_text": 6.45536}


@pytest.mark.parametrize("lock_text", [True, False])
@pytest.mark.parametrize("targets", ["identity", "same_text"])
def test_raf_clip_starts_at_its_golden_loss(
    pack: Path, start: Path, tmp_path: Path, targets: Targets, lock_text: bool
) -> None:
    settings = replace(recipe(pack, start, tmp_path), targets=targets, lock_text=lock_text)
    trained = train_raf_clip.train(settings).clip.state_dict()
    log = log_of(tmp_path)
    assert [row["step"] for row in log] == [0, 1]
    assert log[0]["loss"] == pytest.approx(FIRST_LOSS[targets], abs=1e-3)
    assert all(np.isfinite(list(row.values())).all() for row in log)
    before = tiny_clip().state_dict()
    moved = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    of_text = {
        "token_embedding.weight",
        "text_projection",
        "ln_final.weight",
        "transformer.resblocks.1.mlp.c_fc.weight",
    }
    assert {"visual.proj", "visual.conv1.weight", "logit_scale"} <= moved
    assert of_text & moved == (set() if lock_text else of_text)


def test_cuts_change_what_is_seen_and_said(
    pack: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[Tensor] = []
    refitted = raf_clip_objective.refit

    def counted(crop: Tensor, part: Tensor) -> Tensor:
        parts.append(part)
        return refitted(crop, part)

    monkeypatch.setattr(raf_clip_objective, "refit", counted)
    losses = []
    for cuts in (0.0, 1.0, 1.0):
        parts.clear()
        train_raf_clip.train(replace(recipe(pack, start, tmp_path / str(len(losses))), cuts=cuts))
        losses.append([row["loss"] for row in log_of(tmp_path / str(len(losses)))])
    assert losses[1] == losses[2] != losses[0]
    assert len(parts) > 6  # every garment of known extent, in two steps
    assert all((part[:2] < part[2:]).all() and part.min() >= 0 and part.max() <= 1 for part in parts)


def test_a_fold_is_left_out(pack: Path, start: Path, tmp_path: Path) -> None:
    settings = replace(recipe(pack, start, tmp_path), whole_garments=1, masked_garments=1, extra_garments=1)
    every = [s.photo for pool in train_raf_clip.read_pools(pack, settings) for s in pool.samples]
    fold = fold_of(every[0])
    kept = [s.photo for pool in train_raf_clip.read_pools(pack, replace(settings, fold=fold)) for s in pool.samples]
    assert kept == [photo for photo in every if fold_of(photo) != fold]
    assert len(kept) < len(every)


def test_the_parts_of_the_loss_add_up_and_it_falls(pack: Path, start: Path, tmp_path: Path) -> None:
    base = recipe(pack, start, tmp_path)
    plan = replace(base.optimization, steps=12, lr=3e-3, checkpoint_every=12)
    train_raf_clip.train(replace(base, optimization=plan, alpha=0.25, vocabulary_weight=2.0, whole_garments=6))
    log = log_of(tmp_path)
    for row in log:
        groups = [row[f"V_{name}"] for name in ("texture", "sleeve", "length", "neckline", "fabric", "fit")]
        vocabulary = 0.75 * (row["V_category"] + row["V_color"]) / 2 + 0.25 * float(np.mean(groups))
        assert row["loss"] == pytest.approx(0.75 * row["L_c"] + 0.25 * row["L_a"] + 2 * vocabulary, abs=1e-4)
    losses = [row["loss"] for row in log]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.2


def test_an_interrupted_run_goes_on_exactly(
    pack: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = OptimizerConfig(steps=4, lr=1e-3, warmup=1, ema=0.5, checkpoint_every=2)
    base = replace(recipe(pack, start, tmp_path / "straight"), optimization=plan, lock_text=False)
    straight = train_raf_clip.train(base).clip.state_dict()
    steps: list[int] = []

    def stopping(crops: Tensor, size: tuple[int, int], changes: Changes | None) -> Tensor:
        steps.append(len(steps))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return apply_changes(crops, size, changes)

    resumed = replace(base, output=str(tmp_path / "resumed"))
    with monkeypatch.context() as patch:
        patch.setattr(raf_clip_objective, "apply_changes", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_raf_clip.train(resumed)
        assert len(log_of(tmp_path / "resumed")) == 3  # the last of them is past the checkpoint and done again
    found = train_raf_clip.train(resumed).clip.state_dict()
    assert found.keys() == straight.keys()
    assert all(torch.equal(found[name], straight[name]) for name in straight)
    assert log_of(tmp_path / "resumed") == log_of(tmp_path / "straight")


def test_a_run_killed_while_it_writes_its_checkpoint_goes_on_exactly(pack: Path, start: Path, tmp_path: Path) -> None:
    config = tmp_path / "recipe.toml"
    config.write_text(
        f'data = "{pack}"\ninit = ["{start}"]\noutput = "{tmp_path}/killed"\ntaxonomy = "default"\n'
        'targets = "identity"\nalpha = 0.5\ncache_size = [40, 36]\nsize_schedule = [[0, 32, 32]]\n'
        'whole_garments = 4\nmasked_garments = 2\nsampling = "epoch"\n[optimization]\nepochs = 3.5\nlr = 1e-3\n'
        'ema = 0.5\ncheckpoint_every = 2\namp = "bf16"\n'
    )
    settings = read_settings(config, Settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads)  # said in both processes: Ray leaves OMP_NUM_THREADS=1 to those started after it
    straight = train_raf_clip.train(replace(settings, output=str(tmp_path / "straight"))).clip.state_dict()
    killed = (
        "import os, signal, sys; from pathlib import Path\n"
        "from training import train_raf_clip; from training.engine import loop\n"
        f"import torch; torch.set_num_threads({threads})\n"
        "sync, calls = os.fsync, []\n"
        "def fsync(number):\n    calls.append(number)\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if len(calls) == 2 else sync(number)\n"
        "loop.os.fsync = fsync\ntrain_raf_clip.main(Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(config)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len([*(tmp_path / "killed").glob(".*.partial.pt")]) == 1
    assert torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)["step"] == 2
    assert len(log_of(tmp_path / "killed")) == 4
    found = train_raf_clip.train(settings).clip.state_dict()
    assert all(torch.equal(found[name], straight[name]) for name in straight)
    assert not [*(tmp_path / "killed").glob(".*.partial.pt")]
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "straight")
    assert len(log_of(tmp_path / "killed")) == 6  # 3.5 epochs of 6 photos without a mask, 4 a step


def test_weights_end_between_the_start_and_the_trained_ones(pack: Path, start: Path, tmp_path: Path) -> None:
    base = replace(recipe(pack, start, tmp_path / "all"), lock_text=False)
    trained = train_raf_clip.train(base).clip.state_dict()
    half = train_raf_clip.train(replace(base, interpolate=0.25, output=str(tmp_path / "part"))).clip.state_dict()
    before = tiny_clip().state_dict()
    for name, value in half.items():
        torch.testing.assert_close(value, before[name] + 0.25 * (trained[name] - before[name]))
    assert not torch.equal(half["visual.proj"], trained["visual.proj"])


def test_layer_decay_scales_the_first_step_of_each_layer(pack: Path, start: Path, tmp_path: Path) -> None:
    plan = OptimizerConfig(steps=1, lr=1e-3, eps=1e-12, weight_decay=0.0, schedule="constant")
    base = replace(recipe(pack, start, tmp_path), optimization=plan, lock_text=False, layer_decay=0.5)
    after = train_raf_clip.train(replace(base, lr_scales={"clip.visual.proj": 3.0})).clip.state_dict()
    before = tiny_clip().state_dict()
    moved = {
        "visual.conv1.weight": 1.25e-4, "visual.transformer.resblocks.0.mlp.c_fc.weight": 2.5e-4,
        "visual.transformer.resblocks.1.mlp.c_fc.weight": 5e-4, "visual.proj": 3e-3,
        "transformer.resblocks.0.mlp.c_fc.weight": 2.5e-4, "text_projection": 1e-3,
    }  # fmt: skip
    for name, step in moved.items():  # AdamW's first step is the rate, in the direction of the gradient
        assert (after[name] - before[name]).abs().median().item() == pytest.approx(step, rel=0.01)


@pytest.mark.parametrize("option", [{"micro_batch": 4}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_options_that_save_memory_change_nothing_else(
    pack: Path, start: Path, tmp_path: Path, option: dict[str, Any], amp: Literal["off", "bf16"]
) -> None:
    plan = OptimizerConfig(steps=2, lr=1e-3, amp=amp)
    base = replace(recipe(pack, start, tmp_path / "plain"), optimization=plan, lock_text=False)
    base = replace(base, cache=str(tmp_path / "crops"), vocabulary_weight=0.0, smoothing=0.0)
    plain = train_raf_clip.train(base).clip.state_dict()
    other = train_raf_clip.train(replace(base, output=str(tmp_path / "other"), **option)).clip.state_dict()
    curves = [[row["loss"] for row in log_of(tmp_path / name)] for name in ("plain", "other")]
    near = {"off": 1e-6, "bf16": 1e-2}[amp]
    assert curves[1] == pytest.approx(curves[0], rel=near)
    apart = torch.cat([(other[name] - value).abs().flatten() for name, value in plain.items()])
    assert apart.mean().item() < near * plan.lr
    assert [path.name for path in (tmp_path / "other").iterdir() if path.is_dir()] == []


def test_without_augmentation_a_garment_is_seen_as_it_is(pack: Path, start: Path, tmp_path: Path) -> None:
    crops = torch.randint(0, 256, (3, 3, 40, 36), dtype=torch.uint8, generator=generator(0, 1))
    assert torch.equal(apply_changes(crops, (40, 36), None), crops / 255)
    smaller = apply_changes(crops, (20, 18), None)
    assert smaller.shape == (3, 3, 20, 18)
    assert smaller.mean().item() == pytest.approx(crops.float().mean().item() / 255, abs=0.01)
    base = replace(recipe(pack, start, tmp_path), augmentation=False, whole_garments=6, masked_garments=3)
    base = replace(base, extra_garments=0, cache_size=[32, 32], targets="identity", vocabulary_weight=0, smoothing=0)
    train_raf_clip.train(replace(base, optimization=OptimizerConfig(steps=2, lr=1e-12, schedule="constant")))
    first, second = (row["loss"] for row in log_of(tmp_path))
    assert first == pytest.approx(second, abs=1e-4)  # the same nine garments, in another order


def test_train_refuses_what_the_encoder_cannot_do_before_reading_anything(start: Path, tmp_path: Path) -> None:
    wrong = replace(recipe(tmp_path / "nowhere", start, tmp_path / "out"), freeze=["visual.conv2"])
    wrong = replace(wrong, size_schedule=[(0, 24, 32)], lr_scales={"visual": 2.0})
    with pytest.raises(ConfigError, match=r"2 fault\(s\): 'smoothing' needs .*; 'zoom' must be the least and the most"):
        train_raf_clip.train(replace(wrong, smoothing=0.1, reworded=0.0, vocabulary_weight=0.0, zoom=[2.0, 1.0]))
    with pytest.raises(ConfigError) as caught:
        train_raf_clip.train(wrong)
    assert str(caught.value).split("; ") == [
        "freeze: no parameter begins with visual.conv2",
        "lr_scales: no parameter begins with visual",
        "size_schedule must be 32 by 32 pixels throughout, the size of this transformer",
    ]
    assert not (tmp_path / "out").exists()


def test_main_reports_a_fault_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "recipe.toml"
    config.write_text('data = "x"\nstep = 3\n[optimization]\nsteps = 1\nepochs = 1\nlr = 1\n')
    with pytest.raises(SystemExit, match="1"):
        train_raf_clip.main(config)
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "unknown keys step (known: " in said.err
    for name in ("alpha", "init", "output", "targets", "taxonomy"):
        assert f"'{name}' is missing; " in said.err
    assert "'steps' or 'epochs' must be above 0, and not both" in said.err


def test_the_command_writes_a_model_of_averaged_weights(
    pack: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, config = tmp_path / "out", tmp_path / "recipe.toml"
    config.write_text(
        f'data = "{pack}"\ninit = ["{start}"]\noutput = "{output}"\ntaxonomy = "default"\ntargets = "identity"\n'
        "alpha = 0.5\nlock_text = true\ncache_size = [40, 36]\nsize_schedule = [[0, 32, 32]]\nwhole_garments = 4\n"
        'freeze = ["visual.conv1"]\n[optimization]\nsteps = 1\nlr = 1e-2\nema = 0.9\n'
    )
    train_raf_clip.main(config)
    assert capsys.readouterr().out.endswith(f"encoder written to {output}\n")
    saved = torch.load(output / "checkpoint.pt", weights_only=True)
    written = load_encoder(output).clip.state_dict()
    assert all(torch.equal(value, saved["average"][f"clip.{name}"]) for name, value in written.items())
    assert not torch.equal(written["visual.proj"], saved["modules"]["clip.visual.proj"])
    assert torch.equal(written["visual.conv1.weight"], tiny_clip().state_dict()["visual.conv1.weight"])
    assert torch.equal(checkpoint.load(output).encoder.clip.state_dict()["visual.proj"], written["visual.proj"])
