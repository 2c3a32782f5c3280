"""The settings of an encoder's training (RaF-CLIP): one TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, with_config

from training.data.augment import ZOOM
from training.data.cuts import FOLDS
from training.engine.optimizer import OptimizerConfig
from training.engine.settings import (
    SCHEMA,
    Count,
    Fraction,
    ImageSize,
    NonNegative,
    Positive,
    PositiveFraction,
    requires,
)
from training.engine.tracking import Tracker
from training.recipes.losses import Targets

Sampling = Literal["epoch", "weighted"]


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str
    init: Annotated[list[str], Field(min_length=1)]
    """Encoders to start from; the weights of several are averaged."""
    output: str
    taxonomy: str
    targets: Targets
    alpha: Fraction
    optimization: OptimizerConfig
    pseudo_labels: str = ""
    """Folder that `training.pseudo_label` wrote."""
    vocabulary_weight: NonNegative = 0.0
    reworded: Annotated[Fraction, requires("vocabulary_weight")] = 0.0
    smoothing: Annotated[Fraction, requires("vocabulary_weight")] = 0.0
    lock_text: bool = False
    freeze: list[str] = field(default_factory=list)
    lr_scales: dict[str, float] = field(default_factory=dict)
    layer_decay: PositiveFraction = 1.0
    """Factor on the learning rate for each transformer block or CNN stage, from the output down; 1 is none."""
    interpolate: PositiveFraction = 1.0
    """How far the written weights lie on the way from the start to the trained ones (WiSE-FT); 1 is all of it."""

    whole_garments: Count = 0
    """Garments a step without a mask; then garments with one, and other photos. Together they are the batch."""
    masked_garments: Count = 0
    extra_garments: Count = 0
    sampling: Sampling = "weighted"
    """"epoch": each garment once an epoch, in a shuffled order; "weighted": at random, see `balance`."""
    balance: NonNegative = 0.0
    """A garment's weight is the count of its rarest label to the power of minus this."""

    cuts: Fraction = 0.0
    """How many of the garments of known extent are shown in part (`training.data.cuts`), what is hidden so labeled."""
    fold: Annotated[int, Field(ge=-1, lt=FOLDS)] = -1
    """A part of the photos to leave out, to choose settings on; -1 is none."""

    cache: str = ""
    """Folder of the crops; by default in `output`."""
    cache_size: ImageSize = field(default_factory=lambda: [256, 256])
    size_schedule: Annotated[list[tuple[int, int, int]], Field(min_length=1)] = field(
        default_factory=lambda: [(0, 224, 224)]
    )
    """[step, height, width]: the input size from that step on."""
    augmentation: bool = True
    zoom: Annotated[list[Positive], Field(min_length=2, max_length=2)] = field(default_factory=lambda: [*ZOOM])
    erased: Annotated[Fraction, requires("augmentation")] = 0.0

    micro_batch: Count = 0
    """Crops, and texts, whose activations are held at a time (`training.engine.grad_cache`); 0 is all."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block and compute the rest again: less memory, a third more time."""
    compile: bool = False
    tracking: list[Tracker] = field(default_factory=list)
    """Trackers beside the log."""

    @property
    def crops_per_step(self) -> int:
        """Crops a step; a garment with a mask has two."""
        return self.whole_garments + 2 * self.masked_garments + self.extra_garments

    def image_size(self, step: int) -> tuple[int, int]:
        """(h, w) in pixels at a step."""
        return next((h, w) for start, h, w in reversed(self.size_schedule) if step >= start)

    @field_validator("extra_garments")
    @classmethod
    def _at_least_two(cls, extra: int, info: ValidationInfo) -> int:
        if info.data.get("whole_garments", 2) + info.data.get("masked_garments", 2) + extra < 2:
            raise ValueError("'whole_garments', 'masked_garments' and 'extra_garments' must be 2 or more together")
        return extra

    @field_validator("sampling")
    @classmethod
    def _no_accumulation_of_epochs(cls, sampling: Sampling, info: ValidationInfo) -> Sampling:
        if sampling == "epoch" and "optimization" in info.data and info.data["optimization"].accumulate > 1:
            raise ValueError("'accumulate' can't be with sampling = \"epoch\"; use 'micro_batch'")
        return sampling

    @field_validator("balance")
    @classmethod
    def _no_balance_of_epochs(cls, balance: float, info: ValidationInfo) -> float:
        if balance and info.data.get("sampling") == "epoch":
            raise ValueError("'balance' can't be with sampling = \"epoch\"; take one out")
        return balance

    @field_validator("size_schedule")
    @classmethod
    def _within_cache(cls, rows: list[tuple[int, int, int]], info: ValidationInfo) -> list[tuple[int, int, int]]:
        starts, cache = [start for start, _, _ in rows], info.data.get("cache_size")
        if starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"'size_schedule' must begin with step 0 and rise, got steps {starts}")
        if any(min(height, width) < 1 for _, height, width in rows):
            raise ValueError(f"'size_schedule' must have sizes of 1 pixel or more, got {rows}")
        if cache and any(height > cache[0] or width > cache[1] for _, height, width in rows):
            raise ValueError(f"'size_schedule' must not exceed 'cache_size', {cache}, got {rows}")
        return rows

    @field_validator("zoom")
    @classmethod
    def _least_and_most(cls, zoom: list[float]) -> list[float]:
        if zoom[0] > zoom[1]:
            raise ValueError(f"'zoom' must be the least and the most, got {zoom}")
        return zoom
