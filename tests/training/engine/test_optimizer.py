"""Rates by step and by layer, groups, and the average of the weights."""

from dataclasses import replace

import pytest
from torch import nn

from fashion_retrieval.errors import ConfigError
from tests.support.tiny import tiny_clip
from training.engine.optimizer import (
    OptimizerConfig,
    averaged_model,
    layer_scales,
    learning_rate,
    lr_scale,
    parameter_groups,
)
from training.engine.settings import check_settings

PLAN = OptimizerConfig(steps=6, lr=0.05, warmup=2)


def test_the_schedule_warms_up_and_ends_at_zero():
    assert [learning_rate(step, PLAN) for step in (0, 1, 2)] == pytest.approx([0.025, 0.05, 0.05])
    assert learning_rate(PLAN.steps, PLAN) == pytest.approx(0)
    assert learning_rate(4, replace(PLAN, warmup=0)) == pytest.approx(0.05 * 0.25)


def test_a_constant_rate_stays_after_warm_up():
    constant = replace(PLAN, schedule="constant")
    assert [learning_rate(step, constant) for step in (0, 1, 2, 5)] == pytest.approx([0.025, 0.05, 0.05, 0.05])


def test_epochs_become_steps():
    plan = OptimizerConfig(epochs=150, lr=1.0)
    check_settings(plan, "plan")
    assert plan.in_steps(16_000 / 256) == OptimizerConfig(steps=9375, lr=1.0)  # the paper's
    assert OptimizerConfig(epochs=0.5, lr=1.0).in_steps(7).steps == 4
    assert PLAN.in_steps(100) is PLAN


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"epochs": 1}, "'steps' or 'epochs' must be above 0, and not both"),
        ({"steps": 0}, "'steps' or 'epochs' must be above 0, and not both"),
        ({"steps": -1}, "'steps' must be greater than or equal to 0, got -1"),
        ({"lr": 0.0}, "'lr' must be greater than 0, got 0.0"),
        ({"warmup": 7}, "'warmup' must not exceed the 6 steps, got 7"),
        ({"amp": "fp8"}, "'amp' must be 'off', 'bf16' or 'fp16', got 'fp8'"),
        ({"schedule": "linear"}, "'schedule' must be 'cosine' or 'constant', got 'linear'"),
        ({"ema": 1.0}, "'ema' must be less than 1, got 1.0"),
        ({"checkpoint_every": 0}, "'checkpoint_every' must be greater than or equal to 1, got 0"),
    ],
)
def test_optimizer_config_names_its_faults(change, fault):
    with pytest.raises(ConfigError) as caught:
        check_settings(replace(PLAN, **change), "plan")
    assert str(caught.value) == f"plan has 1 fault(s): {fault}"


def test_optimizer_config_may_clip_nothing():
    check_settings(replace(PLAN, clip_norm=float("inf")), "plan")


def test_layers_learn_slower_towards_the_input():
    names = [name for name, _ in tiny_clip().named_parameters()]
    scales = layer_scales(names, 0.5)
    assert scales.keys() == set(names)
    wanted = {
        "visual.conv1.weight": 0.125, "visual.class_embedding": 0.125, "visual.ln_pre.weight": 0.125,
        "visual.transformer.resblocks.0.mlp.c_fc.weight": 0.25, "visual.transformer.resblocks.1.ln_1.bias": 0.5,
        "visual.ln_post.weight": 1, "visual.proj": 1,
        "token_embedding.weight": 0.125, "positional_embedding": 0.125,
        "transformer.resblocks.0.attn.in_proj_weight": 0.25, "transformer.resblocks.1.attn.in_proj_weight": 0.5,
        "ln_final.weight": 1, "text_projection": 1, "logit_scale": 1,
    }  # fmt: skip
    assert {name: scales[name] for name in wanted} == wanted


def test_stages_of_a_cnn_count_as_layers():
    names = ["conv_stem.weight", "bn1.bias", "blocks.0.0.conv.weight", "blocks.2.1.bn1.weight", "conv_head.weight"]
    scales = layer_scales([*(f"visual.trunk.{name}" for name in names), "visual.head.proj.weight"], 0.5)
    assert list(scales.values()) == [0.0625, 0.0625, 0.125, 0.5, 1, 1]
    resnet = ["visual.conv1.weight", "visual.bn3.bias", "visual.layer1.0.conv1.weight", "visual.layer4.1.bn1.weight"]
    assert list(layer_scales([*resnet, "visual.attnpool.c_proj.weight"], 0.5).values()) == [
        0.03125, 0.03125, 0.0625, 0.5, 1
    ]  # fmt: skip


def test_the_longest_start_of_a_name_counts():
    scales = {"clip.visual": 2.0, "clip.visual.transformer.resblocks.1.": 3.0}
    assert lr_scale("clip.visual.transformer.resblocks.1.ln_1.bias", scales) == 3
    assert lr_scale("clip.visual.transformer.resblocks.10.ln_1.bias", scales) == 2
    assert lr_scale("clip.text_projection", scales) == 1


def test_vectors_are_not_decayed_and_frozen_ones_left_out():
    layer = nn.Linear(3, 2)
    groups = parameter_groups(layer.named_parameters(), lr_scales={"weight": 0.5}, weight_decay=0.1)
    assert [(group["lr_scale"], group["weight_decay"]) for group in groups] == [(0.5, 0.1), (1, 0)]
    layer.weight.requires_grad_(False)
    assert len(parameter_groups(layer.named_parameters(), weight_decay=0.1)) == 1


def test_averaged_model_follows_fast_at_first():
    layer = nn.BatchNorm1d(1)
    nn.init.zeros_(layer.weight)
    average = averaged_model(layer, 0.9)
    nn.init.ones_(layer.weight)
    layer.running_var.fill_(3)
    layer.num_batches_tracked.fill_(7)
    average.update_parameters(layer)
    assert average.module.weight.item() == pytest.approx(0.9)  # 1 / 10 of the start stays
    assert average.module.running_var.item() == pytest.approx(2.8)
    assert average.module.num_batches_tracked == 7
    average.n_averaged.fill_(1001)
    average.update_parameters(layer)
    assert average.module.weight.item() == pytest.approx(0.91)
