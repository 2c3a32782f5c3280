"""The settings of a composer's training, one TOML file, and what must hold between them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from fashion_retrieval.config import SCHEMA_VERSION, ModelConfig
from fashion_retrieval.errors import ConfigError
from training.engine.optimizer import Optimization
from training.engine.tracking import Tracker

Negatives = Literal["batch", "gallery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Size of the composer; see `ComposerConfig`."""

    width: int
    depth: int
    heads: int
    hidden: int
    dropout: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str
    source: Literal["pairs", "fashioniq"]
    model: str
    """Whose encoder: a model id or folder. Training writes it with the composer into `output`/model."""
    output: str
    cache: str
    composer: Shape
    optimization: Optimization
    variant: str = "agcn"
    batch_size: int = 128
    sampling: Literal["chance", "epoch"] = "chance"
    """"epoch": each triplet once an epoch, in a shuffled order."""
    temperature: float = 0.07
    """Start of the learned tau': cosines are divided by it."""
    negatives: Negatives = "batch"
    """Which other photos a target is told from: the targets of the batch (eq. 14), or all of the training gallery."""
    missing: Literal["error", "report"] = "error"
    """"report" trains and validates without the photos that are not there; see `Missing`."""
    derived: int = 0
    """Triplets made from labels (`training.data.derived`), of the source "pairs"."""
    derived_share: float = 0.0
    """Part of each batch that they are."""
    pseudo_labels: str = ""
    held_out: float = 0.0
    """Part of the training triplets kept for early stopping; FashionIQ without it is validated on its val split."""
    validate_every: int = 0
    patience: int = 0
    lr_scales: dict[str, float] = field(default_factory=dict)
    tracking: list[Tracker] = field(default_factory=list)
    """Where figures go beside `output`/log.jsonl."""

    def faults(self) -> list[str]:
        """What can't be, and what can't be with another setting."""
        of_pairs = [name for name in ("derived", "derived_share", "pseudo_labels") if getattr(self, name)]
        foreign = of_pairs if self.source == "fashioniq" else []
        idle = [name for name in of_pairs if not self.derived]
        unasked = self.validate_every > 0 and self.source == "pairs" and not self.held_out
        rules = {
            f"batch_size must be 2 or more, got {self.batch_size}": self.batch_size >= 2,
            'accumulate can\'t be with sampling = "epoch"; use a larger batch_size': self.sampling != "epoch"
            or self.optimization.accumulate == 1,
            f"temperature must be above 0, got {self.temperature}": self.temperature > 0,
            f"derived must be 0 or more, got {self.derived}": self.derived >= 0,
            f"derived_share must be in [0, 1), got {self.derived_share}": 0 <= self.derived_share < 1,
            f"held_out must be in [0, 1), got {self.held_out}": 0 <= self.held_out < 1,
            f"validate_every must be 0 or more, got {self.validate_every}": self.validate_every >= 0,
            f"patience must be 0 or more, got {self.patience}": self.patience >= 0,
            "patience needs validate_every": self.validate_every != 0 or not self.patience,
            "validate_every needs held_out where source is pairs": not unasked,
            f"{', '.join(foreign)} can't be with source fashioniq; take them out": not foreign,
            f"{', '.join(idle)} can't be without derived": not idle,
        }
        return [fault for fault, holds in rules.items() if not holds] + self._faults_of_shape()

    def _faults_of_shape(self) -> list[str]:
        """What the model's own configuration would say of this composer."""
        composer = {"embedding_dim": 1, "encoder": "0" * 64, "variant": self.variant, **asdict(self.composer)}
        try:
            ModelConfig.from_dict({"schema_version": SCHEMA_VERSION, "name": "-", "composer": composer}, where="it")
        except ConfigError as error:
            return [str(error).partition(": ")[2].replace("'composer.variant'", "'variant'")]
        return []
