"""Rates by step and by layer, groups, and the average of the weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.support.tiny import tiny_clip
from training.engine.optimizer import (
    Optimization,
    layer_scales,
    learning_rate,
    lr_scale,
    parameter_groups,
    update_average,
)

PLAN = Optimization(steps=6, lr=0.05, warmup=2)


def test_the_schedule_warms_up_and_ends_at_zero():
    assert [learning_rate(step, PLAN) for step in (0, 1, 2)] == pytest.approx([0.025, 0.05, 0.05])
    assert learning_rate(PLAN.steps, PLAN) == pytest.approx(0)
    assert learning_rate(4, replace(PLAN, warmup=0)) == pytest.approx(0.05 * 0.25)


def test_a_constant_rate_stays_after_warm_up():
    constant = replace(PLAN, schedule="constant")
    assert [learning_rate(step, constant) for step in (0, 1, 2, 5)] == pytest.approx([0.025, 0.05, 0.05, 0.05])


def test_epochs_become_steps():
    plan = Optimization(epochs=150, lr=1.0)
    assert plan.faults() == []
    assert plan.in_steps(16_000 / 256) == Optimization(steps=9375, lr=1.0)  # the paper's
    assert Optimization(epochs=0.5, lr=1.0).in_steps(7).steps == 4
    assert PLAN.in_steps(100) is PLAN


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"epochs": 1}, "steps or epochs must be above 0, and not both"),
        ({"steps": 0}, "steps or epochs must be above 0, and not both"),
        ({"steps": -1}, "steps and epochs must not be negative"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"warmup": 7}, "warmup must not exceed the 6 steps, got 7"),
        ({"amp": "fp8"}, "amp must be off, bf16 or fp16, got fp8"),
        ({"schedule": "linear"}, "schedule must be cosine or constant, got linear"),
        ({"ema": 1.0}, r"ema must be in [0, 1), got 1.0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_is_named(change, fault):
    assert fault in replace(PLAN, **change).faults()


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


def test_the_average_follows_fast_at_first():
    layer = nn.Linear(1, 1, bias=False)
    average = {"weight": torch.zeros(1, 1)}
    nn.init.ones_(layer.weight)
    update_average(average, layer, 0.9, 0)
    assert average["weight"].item() == pytest.approx(0.9)  # 1 / 10 of it stays
    update_average(average, layer, 0.9, 1000)
    assert average["weight"].item() == pytest.approx(0.91)
