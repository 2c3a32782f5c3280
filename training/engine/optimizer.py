"""AdamW's settings, the learning rate of each step and of each parameter, and the average of the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

_BLOCK = re.compile(r"\b(?:resblocks|blocks|stages|layers|layer)\.?(\d+)\.")
_STEM = re.compile(
    r"\b(?:class_embedding|positional_embedding|ln_pre|token_embedding|(?<=^visual\.)(?:conv|bn)\d"  # open_clip
    r"|conv_stem|(?<=trunk\.)bn1|patch_embed|cls_token|pos_embed|stem|norm_pre)\b"  # timm
)
"""What comes before a tower's first block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimization:
    """AdamW with linear warm-up.

    Attributes:
        steps: How many; 0 where `epochs` says it.
        epochs: Or how often each example is seen, on average; 0 where `steps` says it.
        lr: The highest learning rate.
        schedule: Of the rate after warm-up: half a cosine down to zero, or as it is.
        warmup: Steps in which the rate rises to `lr`.
        accumulate: Batches whose gradients make a step, each with a loss of its own.
        clip_norm: The gradient is made at most so long.
        amp: Mixed precision; "fp16" with a loss scale that finds its size.
        ema: How much of the averaged weights stays at each step; 0 keeps no average.
        checkpoint_every: Steps.
    """

    steps: int = 0
    epochs: float = 0
    lr: float
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 0
    weight_decay: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    accumulate: int = 1
    clip_norm: float = 1.0
    amp: Literal["off", "bf16", "fp16"] = "off"
    ema: float = 0.0
    checkpoint_every: int = 200
    seed: int = 0

    def faults(self) -> list[str]:
        """What can't be."""
        rules = {
            "steps or epochs must be above 0, and not both": (self.steps > 0) != (self.epochs > 0),
            "steps and epochs must not be negative": self.steps >= 0 and self.epochs >= 0,
            f"lr must be above 0, got {self.lr}": self.lr > 0,
            f"warmup must be 0 or more, got {self.warmup}": self.warmup >= 0,
            f"warmup must not exceed the {self.steps} steps, got {self.warmup}": not self.steps
            or self.warmup <= self.steps,
            f"weight_decay must be 0 or more, got {self.weight_decay}": self.weight_decay >= 0,
            f"beta1 and beta2 must be in [0, 1), got {self.beta1} and {self.beta2}": 0 <= self.beta1 < 1
            and 0 <= self.beta2 < 1,
            f"eps must be above 0, got {self.eps}": self.eps > 0,
            f"accumulate must be 1 or more, got {self.accumulate}": self.accumulate >= 1,
            f"clip_norm must be above 0 (inf for none), got {self.clip_norm}": self.clip_norm > 0,
            f"ema must be in [0, 1), got {self.ema}": 0 <= self.ema < 1,
            f"checkpoint_every must be 1 or more, got {self.checkpoint_every}": self.checkpoint_every >= 1,
            f"amp must be off, bf16 or fp16, got {self.amp}": self.amp in ("off", "bf16", "fp16"),
            f"schedule must be cosine or constant, got {self.schedule}": self.schedule in ("cosine", "constant"),
        }
        return [fault for fault, holds in rules.items() if not holds]

    def in_steps(self, steps_per_epoch: float) -> Optimization:
        """With `steps` instead of `epochs`; as it is where it has steps."""
        return replace(self, steps=math.ceil(self.epochs * steps_per_epoch), epochs=0) if self.epochs else self


def learning_rate(step: int, optimization: Optimization) -> float:
    """Of a step, from 0: linear warm-up to `lr`, then the schedule."""
    if step < optimization.warmup:
        return optimization.lr * (step + 1) / optimization.warmup
    if optimization.schedule == "constant":
        return optimization.lr
    done = (step - optimization.warmup) / max(1, optimization.steps - optimization.warmup)
    return optimization.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], *, lr_scales: Mapping[str, float] | None = None, weight_decay: float
) -> list[dict[str, Any]]:
    """Split into decayed matrices and undecayed vectors.

    Args:
        named: Parameters; those that need no gradient are left out.
        lr_scales: See `lr_scale`.
        weight_decay: Of matrices.
    """
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
    """Factors on the rate that fall towards the input of each tower (layer-wise decay).

    The projections behind the last block learn at the full rate, the last block at `decay` of it, the one before at
    its square, and so on; what is before the first block as one block more.

    Args:
        names: Of the parameters of an open_clip model; blocks are those of a transformer or stages of a CNN.
        decay: Factor a block.

    Returns:
        Factor by name.
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


def update_average(average: dict[str, Tensor], modules: nn.Module, decay: float, step: int) -> None:
    """Move averaged weights towards those of the modules; fast in the first steps, so that the start is forgotten."""
    decay = min(decay, (step + 1) / (step + 10))
    for name, value in modules.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
