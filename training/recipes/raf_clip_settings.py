"""The settings of an encoder's training (RaF-CLIP), one TOML file, and what must hold between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from training.data.augment import ZOOM
from training.engine.optimizer import Optimization
from training.engine.tracking import Tracker
from training.recipes.losses import Targets

Sampling = Literal["epoch", "weighted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str
    init: list[str]
    """Encoders to start from; of several, the mean of their weights."""
    output: str
    taxonomy: str
    targets: Targets
    alpha: float
    optimization: Optimization
    pseudo_labels: str = ""
    """Folder of `training.pseudo_label`."""
    vocabulary_weight: float = 0.0
    reworded: float = 0.0
    smoothing: float = 0.0
    lock_text: bool = False
    freeze: list[str] = field(default_factory=list)
    lr_scales: dict[str, float] = field(default_factory=dict)
    layer_decay: float = 1.0
    """Factor on the learning rate a transformer block or CNN stage, from the output down; 1 is none."""
    interpolate: float = 1.0
    """How far the written weights lie on the way from the start to the trained ones (WiSE-FT); 1 is all of it."""

    whole_garments: int = 0
    """Garments a step without a mask; then of those with one, and of other photos. Together they are the batch."""
    masked_garments: int = 0
    extra_garments: int = 0
    sampling: Sampling = "weighted"
    """"epoch": each garment once an epoch, in a shuffled order; "weighted": by chance, see `balance`."""
    balance: float = 0.0
    """A garment is drawn with the count of its rarest label to the power of minus this."""

    cache: str = ""
    """Folder of the crops; by default in `output`."""
    cache_size: list[int] = field(default_factory=lambda: [256, 256])
    size_schedule: list[list[int]] = field(default_factory=lambda: [[0, 224, 224]])
    """From which step on, height and width."""
    augmentation: bool = True
    zoom: list[float] = field(default_factory=lambda: [*ZOOM])
    erased: float = 0.0

    micro_batch: int = 0
    """Pictures, and texts, whose activations are held at a time (`training.engine.grad_cache`); 0 is all."""
    gradient_checkpointing: bool = False
    """Keep only what goes into each block, and compute the rest again: less memory, a third more time."""
    compile: bool = False
    tracking: list[Tracker] = field(default_factory=list)
    """Beside the log."""

    @property
    def pictures(self) -> int:
        """Pictures a step: a garment with a mask is seen twice."""
        return self.whole_garments + 2 * self.masked_garments + self.extra_garments

    def image_size(self, step: int) -> tuple[int, int]:
        """(h, w) in pixels at a step."""
        return next((h, w) for start, h, w in reversed(self.size_schedule) if step >= start)

    def faults(self) -> list[str]:
        """What can't be, and what can't be with another setting."""
        counts = self.whole_garments, self.masked_garments, self.extra_garments
        shares = {"alpha": self.alpha, "reworded": self.reworded, "smoothing": self.smoothing, "erased": self.erased}
        factors = {"layer_decay": self.layer_decay, "interpolate": self.interpolate}
        rules = {
            "init must name a folder": bool(self.init),
            "garments a step must be 0 or more each, and 2 or more in all": min(counts) >= 0 and sum(counts) >= 2,
            **{f"{name} must be in [0, 1], got {value}": 0 <= value <= 1 for name, value in shares.items()},
            **{f"{name} must be in (0, 1], got {value}": 0 < value <= 1 for name, value in factors.items()},
            f"balance must be 0 or more, got {self.balance}": self.balance >= 0,
            f"vocabulary_weight must be 0 or more, got {self.vocabulary_weight}": self.vocabulary_weight >= 0,
            f"micro_batch must be 0 or more, got {self.micro_batch}": self.micro_batch >= 0,
            "reworded and smoothing need vocabulary_weight": self.vocabulary_weight > 0
            or not (self.reworded or self.smoothing),
            'balance can\'t be with sampling = "epoch"': self.sampling != "epoch" or not self.balance,
            'accumulate can\'t be with sampling = "epoch"; use micro_batch': self.sampling != "epoch"
            or self.optimization.accumulate == 1,
            "erased can't be without augmentation": self.augmentation or not self.erased,
        }
        return [fault for fault, holds in rules.items() if not holds] + self._faults_of_sizes()

    def _faults_of_sizes(self) -> list[str]:
        cache, rows = self.cache_size, self.size_schedule
        if len(cache) != 2 or min(cache) < 1:
            return [f"cache_size must be height and width in pixels, got {cache}"]
        if not rows or any(len(row) != 3 or min(row[1:]) < 1 for row in rows):
            return [f"size_schedule must list [step, height, width], got {rows}"]
        starts = [row[0] for row in rows]
        rules = {
            f"size_schedule must begin with step 0 and rise, got steps {starts}": starts[0] == 0
            and starts == sorted(set(starts)),
            f"size_schedule must not exceed cache_size {cache}, got {rows}": all(
                height <= cache[0] and width <= cache[1] for _, height, width in rows
            ),
            f"zoom must be least and most, above 0, got {self.zoom}": len(self.zoom) == 2
            and 0 < self.zoom[0] <= self.zoom[1],
        }
        return [fault for fault, holds in rules.items() if not holds]
