"""Scores of single items: a metric with its interval, and the difference of two models with its p.

An item is what the bootstrap draws with replacement: a garment with all its labels, or a query. A metric is the
unweighted mean over groups of the mean over a group's items: mean precision of six groups, recall of three categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.scores import stratified_interval
from fashion_retrieval.errors import InputError

ROUNDS = 10_000
"""Rounds of the approximate randomization; the bootstrap has 1,000."""
_ROUNDS_AT_ONCE = 500
_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class ItemScores:
    """How well each item was answered.

    Attributes:
        values: (N, G) float64 in [0, 1], item by group; NaN where the item has no label of the group. Every item has
            one of some group, every group has an item.
        strata: How many consecutive items form each stratum; the bootstrap draws from each stratum separately.
    """

    values: NDArray[np.float64]
    strata: tuple[int, ...]

    @classmethod
    def of_groups(cls, groups: Sequence[NDArray[np.floating] | NDArray[np.bool_]]) -> ItemScores:
        """Items of one group each, (Q,) a group; each group is a stratum."""
        sizes = tuple(map(len, groups))
        values = np.full((sum(sizes), len(groups)), np.nan)
        values[np.arange(sum(sizes)), np.repeat(np.arange(len(groups)), sizes)] = np.concatenate(groups)
        return cls(values, sizes)

    @classmethod
    def of_labels(cls, columns: Sequence[NDArray[np.floating]]) -> ItemScores:
        """Items that may be of several groups, (N,) a group with NaN where an item has no label of it; one stratum."""
        values = np.stack(columns, axis=1)
        values = values[:, ~np.isnan(values).all(axis=0)]
        values = values[~np.isnan(values).all(axis=1)]
        return cls(values, (len(values),))

    def mean(self, rows: NDArray[np.int64] | slice = slice(None)) -> float:
        """The metric over all items, or over drawn ones; a group of which none was drawn does not count."""
        chosen = self.values[rows]
        known = ~np.isnan(chosen)
        counts = known.sum(axis=0)
        sums = np.where(known, chosen, 0.0).sum(axis=0)
        return float((sums[counts > 0] / counts[counts > 0]).mean())

    def interval(self, *, seed: int = 0) -> list[float]:
        """95% percentile bootstrap of the metric over the items."""
        starts = np.cumsum((0, *self.strata[:-1]))
        return stratified_interval(
            self.strata,
            lambda drawn: self.mean(np.concatenate([s + rows for s, rows in zip(starts, drawn, strict=True)])),
            seed=seed,
        )

    def compare(self, other: ItemScores, *, seed: int = 0, rounds: int = ROUNDS) -> dict[str, Any]:
        """How far these scores are ahead of another model's on the same items.

        Args:
            other: Scores of the same items and groups.
            seed: Seed of the bootstrap and of the randomization.
            rounds: Rounds of the randomization.

        Returns:
            `difference`; its 95% `interval`, a paired percentile bootstrap over the items; `p`, two-sided, of an
            approximate randomization that swaps the two models' answers to an item at random.

        Raises:
            InputError: The items are not the same.
        """
        if self.strata != other.strata or not np.array_equal(np.isnan(self.values), np.isnan(other.values)):
            raise InputError(
                f"two models can be compared on the same items alone, got {self.values.shape} and {other.values.shape} "
                "with other labels; measure both on the same data"
            )
        differences = ItemScores(self.values - other.values, self.strata)
        known = ~np.isnan(differences.values)
        parts = np.where(known, differences.values, 0.0) / (known.sum(axis=0) * known.shape[1])
        return {
            "difference": differences.mean(),
            "interval": differences.interval(seed=seed),
            "p": randomization_p(parts.sum(axis=1), rounds=rounds, seed=seed),
        }


def randomization_p(differences: NDArray[np.floating], *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """Two-sided p of a sum of (N,) paired differences under random signs (Noreen, 1989); at least 1 / (rounds + 1)."""
    moved = np.asarray(differences, dtype=np.float64)
    moved = moved[moved != 0]
    observed, generator, reached = abs(moved.sum()), np.random.default_rng(seed), 0
    for start in range(0, rounds, _ROUNDS_AT_ONCE):
        shape = min(_ROUNDS_AT_ONCE, rounds - start), len(moved)
        signs = generator.integers(2, size=shape, dtype=np.int8) * 2.0 - 1.0
        reached += int((np.abs(signs @ moved) >= observed - _TOLERANCE).sum())
    return (1 + reached) / (1 + rounds)
