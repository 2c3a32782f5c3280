"""The settings of a composer's training: one TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, with_config

from fashion_retrieval.config import RESIDUALS, VARIANTS
from training.engine.optimizer import OptimizerConfig
from training.engine.settings import (
    SCHEMA,
    AtLeastOne,
    Count,
    FractionBelowOne,
    NonNegative,
    Positive,
    one_of,
    requires,
)
from training.engine.tracking import Tracker

Negatives = Literal["batch", "gallery"]


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Size of the composer; see `ComposerConfig`."""

    width: AtLeastOne
    depth: AtLeastOne
    heads: AtLeastOne
    hidden: AtLeastOne
    dropout: FractionBelowOne = 0.1
    residual: Annotated[str, one_of(RESIDUALS)] = "text"

    @field_validator("heads")
    @classmethod
    def _divide_the_width(cls, heads: int, info: ValidationInfo) -> int:
        if info.data.get("width", heads) % heads:
            raise ValueError(f"'composer.heads' must divide the width, {info.data['width']}, got {heads}")
        return heads


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str
    source: Literal["pairs", "fashioniq"]
    model: str
    """A model id or folder with the encoder. Training writes it, with the composer, into `output`/model."""
    output: str
    cache: str
    composer: Shape
    optimization: OptimizerConfig
    variant: Annotated[str, one_of(VARIANTS)] = "agcn"
    batch_size: Annotated[int, Field(ge=2)] = 128
    sampling: Literal["chance", "epoch"] = "chance"
    """"chance": at random; "epoch": each triplet once an epoch, in a shuffled order."""
    temperature: Positive = 0.07
    """Initial value of the learned tau', which cosines are divided by."""
    negatives: Negatives = "batch"
    """Negatives of a target: the other targets of the batch (eq. 14), or the whole training gallery."""
    missing: Literal["error", "report"] = "error"
    """"report" trains and validates without the photos that are missing; see `Missing`."""
    derived: Count = 0
    """Number of triplets made from labels (`training.data.derived`); for the source "pairs"."""
    derived_share: Annotated[FractionBelowOne, requires("derived")] = 0.0
    """Fraction of each batch that comes from them."""
    changes_share: FractionBelowOne = 0.0
    """Fraction of each batch from pairs whose captions say only what changes; for the source "pairs"."""
    edits_share: FractionBelowOne = 0.0
    """Fraction of each batch that replaces one labeled value (`training.data.edits`); for the source "pairs"."""
    others: Count = 0
    """Number of photos of shoes, bags, hats and the like that are negatives of every query; for the source "pairs"."""
    wrong_photo: Annotated[NonNegative, requires("changes_share", "edits_share")] = 0.0
    """Weight of a loss on those two: with the photo of another one a query must be farther from its target."""
    wrong_text: Annotated[NonNegative, requires("changes_share", "edits_share")] = 0.0
    """The same with the text of another query."""
    pseudo_labels: Annotated[str, requires("derived")] = ""
    held_out: FractionBelowOne = 0.0
    """Fraction of each group's target photos that training must see in no way; their triplets are for early stopping.
    FashionIQ without it uses its val split."""
    validate_every: Count = 0
    patience: Annotated[Count, requires("validate_every")] = 0
    lr_scales: dict[str, float] = field(default_factory=dict)
    tracking: list[Tracker] = field(default_factory=list)
    """Trackers beside `output`/log.jsonl."""

    @field_validator("sampling")
    @classmethod
    def _no_accumulation_of_epochs(cls, sampling: str, info: ValidationInfo) -> str:
        if sampling == "epoch" and "optimization" in info.data and info.data["optimization"].accumulate > 1:
            raise ValueError("'accumulate' can't be with sampling = \"epoch\"; use a larger 'batch_size'")
        return sampling

    @field_validator(
        "derived", "derived_share", "pseudo_labels", "changes_share", "edits_share", "others", mode="before"
    )
    @classmethod
    def _for_pairs_only(cls, value: float | str, info: ValidationInfo) -> float | str:
        if value and info.data.get("source") == "fashioniq":
            raise ValueError(f"'{info.field_name}' can't be with source = \"fashioniq\"; take it out")
        return value

    @field_validator("derived_share", "changes_share", "edits_share")
    @classmethod
    def _leave_a_share_to_the_pairs(cls, share: float, info: ValidationInfo) -> float:
        before = sum(info.data.get(name, 0.0) for name in ("derived_share", "changes_share"))  # those validated so far
        if share and before + share >= 1:
            raise ValueError(
                "'derived_share', 'changes_share' and 'edits_share' must leave a part of the batch to the pairs, "
                f"got {before + share:g} with '{info.field_name}'; make them smaller"
            )
        return share

    @field_validator("validate_every")
    @classmethod
    def _pairs_need_a_held_out_part(cls, every: int, info: ValidationInfo) -> int:
        if every and info.data.get("source") == "pairs" and not info.data.get("held_out", True):
            raise ValueError("'validate_every' needs 'held_out' where source is \"pairs\"")
        return every
