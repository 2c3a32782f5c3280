"""Which garments a step sees, and which of their crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fashion_retrieval.errors import ConfigError
from training.data.crops import Crop
from training.data.manifest import Sample
from training.engine.loop import generator

_SHUFFLE = 2**31
"""A counter that keeps the shuffling of epochs apart from the random numbers of steps."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Garments that are sampled together."""

    samples: Sequence[Sample]
    per_step: int  # how many of them each step sees
    masked: bool  # whether each has a mask, and so a second crop


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's garments."""

    garments: Tensor  # (g,) int64, rows of all samples
    masked: Tensor  # (g,) bool, garments with a second crop
    crop_rows: Tensor  # (p,) int64, rows of the crops: one a garment, then the masked crops

    def of_crops(self, values: Tensor) -> Tensor:
        """(g, …) of the garments -> (p, …) of their crops."""
        return torch.cat([values, values[self.masked]])

    def by_garment(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(p, d) of all crops -> (g, d) of the crops, and (g, d) of the masked crops, or the crops without a mask."""
        crops = features[: len(self.garments)]
        masked = crops.clone()
        masked[self.masked.to(features.device)] = features[len(self.garments) :]
        return crops, masked


class Batches:
    """Samples the garments of a step, alike on every process and in a resumed run."""

    def __init__(self, pools: Sequence[Pool], weights: Tensor | None, seed: int) -> None:
        """Lay out the samples, pool after pool, then the masked crops; no weights draw each sample once an epoch."""
        short = [f"{p.per_step} of {len(p.samples)}" for p in pools if p.per_step > len(p.samples)]
        if short:
            raise ConfigError(f"a step can't draw {', '.join(short)} garments without repeats; draw fewer, or add data")
        self.pools, self.weights, self.seed = pools, weights, seed
        self.samples = [sample for pool in pools for sample in pool.samples]
        self.crops = [Crop(sample, masked=False) for sample in self.samples]
        self._second = torch.full((len(self.samples),), -1)
        for first, pool in self._placed():
            if pool.masked:
                rows = torch.arange(first, first + len(pool.samples))
                self._second[rows] = torch.arange(len(rows)) + len(self.crops)
                self.crops += [Crop(sample, masked=True) for sample in pool.samples]

    @property
    def steps_per_epoch(self) -> float:
        """Steps until each garment of the slowest pool was seen once."""
        return max(len(pool.samples) / pool.per_step for pool in self.pools)

    def draw(self, step: int, rng: torch.Generator) -> Batch:
        """The garments of a step, from 0."""
        drawn = []
        for number, (first, pool) in enumerate(self._placed()):
            if self.weights is None:
                rows = epoch_rows(len(pool.samples), pool.per_step, step, self.seed + number)
            else:
                rows = torch.multinomial(self.weights[first : first + len(pool.samples)], pool.per_step, generator=rng)
            drawn.append(first + rows)
        garments = torch.cat(drawn)
        second = self._second[garments]
        return Batch(garments, second >= 0, torch.cat([garments, second[second >= 0]]))

    def _placed(self) -> list[tuple[int, Pool]]:
        """Each pool with the row of its first sample."""
        ends = [0]
        for pool in self.pools:
            ends.append(ends[-1] + len(pool.samples))
        return list(zip(ends, self.pools, strict=False))


def epoch_rows(total: int, count: int, step: int, seed: int) -> Tensor:
    """(count,) int64: the step's part of a sequence of shuffled epochs, in each of which all `total` rows come once.

    A batch that spans the end of an epoch may hold a row twice.
    """
    parts = []
    place, end = step * count, (step + 1) * count
    while place < end:
        epoch, first = divmod(place, total)
        order = torch.randperm(total, generator=generator(seed, _SHUFFLE, epoch))
        parts.append(order[first : first + end - place])
        place += len(parts[-1])
    return torch.cat(parts)
