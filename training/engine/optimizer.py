"""AdamW's settings, the learning rate of each step and of each parameter, and the average of the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, with_config
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from training.engine.settings import SCHEMA, AtLeastOne, Count, FractionBelowOne, NonNegative, Positive

_BLOCK = re.compile(r"\b(?:resblocks|blocks|stages|layers|layer)\.?(\d+)\.")
_STEM = re.compile(
    r"\b(?:class_embedding|positional_embedding|ln_pre|token_embedding|(?<=^visual\.)(?:conv|bn)\d"  # open_clip
    r"|conv_stem|(?<=trunk\.)bn1|patch_embed|cls_token|pos_embed|stem|norm_pre)\b"  # timm
)
"""What comes before a tower's first block."""


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up."""

    steps: Count = 0  # 0 where `epochs` is given
    epochs: NonNegative = 0  # how often each example is seen on average; 0 where `steps` is given
    lr: Positive  # peak learning rate
    schedule: Literal["cosine", "constant"] = "cosine"  # after warm-up: half a cosine down to zero, or constant
    warmup: Count = 0  # steps in which the rate rises to `lr`
    weight_decay: NonNegative = 0.2
    beta1: FractionBelowOne = 0.9
    beta2: FractionBelowOne = 0.98
    eps: Positive = 1e-6
    accumulate: AtLeastOne = 1  # batches whose gradients make a step; each has a loss of its own
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=True)] = 1.0  # largest gradient norm; inf clips nothing
    amp: Literal["off", "bf16", "fp16"] = "off"  # mixed precision; "fp16" with a dynamic loss scale
    ema: FractionBelowOne = 0.0  # decay of the averaged weights; 0 keeps no average
    checkpoint_every: AtLeastOne = 200  # steps between two checkpoints
    seed: int = 0

    @field_validator("epochs")
    @classmethod
    def _steps_or_epochs(cls, epochs: float, info: ValidationInfo) -> float:
        if "steps" in info.data and (info.data["steps"] > 0) == (epochs > 0):
            raise ValueError("'steps' or 'epochs' must be above 0, and not both")
        return epochs

    @field_validator("warmup")
    @classmethod
    def _within_steps(cls, warmup: int, info: ValidationInfo) -> int:
        if 0 < info.data.get("steps", 0) < warmup:
            raise ValueError(f"'warmup' must not exceed the {info.data['steps']} steps, got {warmup}")
        return warmup

    def in_steps(self, steps_per_epoch: float) -> OptimizerConfig:
        """With `steps` instead of `epochs`; as it is where it has steps."""
        return replace(self, steps=math.ceil(self.epochs * steps_per_epoch), epochs=0) if self.epochs else self


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """Of a step, from 0: linear warm-up to `lr`, then the schedule."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], *, lr_scales: Mapping[str, float] | None = None, weight_decay: float
) -> list[dict[str, Any]]:
    """Trainable parameters by their `lr_scale` and decay: matrices decay, vectors don't."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((lr_scale(name, lr_scales or {}), decay), []).append(parameter)
    return [{"params": p, "lr_scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()]


def lr_scale(name: str, scales: Mapping[str, float]) -> float:
    """A parameter's factor on the rate, by the start of its name; the longest start that fits counts."""
    fitting = max((start for start in scales if name.startswith(start)), key=len, default=None)
    return 1.0 if fitting is None else scales[fitting]


def layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """Factor on the rate by name, falling by `decay` a block towards the input of each tower (layer-wise decay).

    The projections behind the last block learn at the full rate, the last block at `decay` of it, the one before at its
    square, and so on; what is before the first block as one block more. Names are those of an open_clip model's
    parameters; blocks are those of a transformer or stages of a CNN.
    """
    names = list(names)
    scales = {}
    for visual in (True, False):
        tower = [name for name in names if name.startswith("visual.") is visual]
        numbers = {name: int(match[1]) for name in tower if (match := _BLOCK.search(name))}
        lowest, highest = min(numbers.values(), default=0), max(numbers.values(), default=-1)
        for name in tower:
            below = lowest - 1 if _STEM.search(name) else highest + 1
            scales[name] = decay ** (highest + 1 - numbers.get(name, below))
    return scales


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of a model's weights and buffers, updated with `update_parameters`.

    The decay rises to `decay` over the first steps, so that the initialization is soon forgotten.
    """

    def average(averaged: Iterable[Tensor], values: Iterable[Tensor], step: Tensor | int) -> None:
        weight = 1 - min(decay, int(step) / (int(step) + 9))
        for mean, value in zip(averaged, values, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)

    averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    averaged.n_averaged.fill_(1)  # else the first update would copy the model instead of averaging
    return averaged
