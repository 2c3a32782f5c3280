"""What a model got right, item by item: a figure with its interval, and the difference of two models with its p.

An item is what is drawn with replacement by the bootstrap: a garment with all its labels, or a query. A figure is the
unweighted mean over groups of the mean over a group's items: mean precision of six groups, recall of three categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import InputError
from training.evaluation.metrics import stratified_interval

ROUNDS = 10_000
"""Of the approximate randomization; the bootstrap has 1,000."""
_AT_ONCE = 500
_SAME = 1e-12
Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How well each item was answered.

    Attributes:
        values: (N, G) float64 in [0, 1], item by group; NaN where the item says nothing about the group. Every item
            says something about one, every group has an item.
        strata: Sizes of the runs of items that the bootstrap draws from for themselves, in their order.
    """

    values: NDArray[np.float64]
    strata: tuple[int, ...]

    @classmethod
    def of_groups(cls, groups: Sequence[NDArray[np.floating] | NDArray[np.bool_]]) -> Outcomes:
        """Items of one group each, (Q,) a group; each group is a stratum."""
        sizes = tuple(len(of_group) for of_group in groups)
        values = np.full((sum(sizes), len(groups)), np.nan)
        for column, (end, of_group) in enumerate(zip(np.cumsum(sizes), groups, strict=True)):
            values[end - len(of_group) : end, column] = of_group
        return cls(values, sizes)

    @classmethod
    def of_labels(cls, columns: Sequence[NDArray[np.floating]]) -> Outcomes:
        """Items that may be of several groups, (N,) a group with NaN where an item has no label of it; one stratum."""
        values = np.stack(columns, axis=1)
        values = values[:, ~np.isnan(values).all(axis=0)]
        values = values[~np.isnan(values).all(axis=1)]
        return cls(values, (len(values),))

    def mean(self, rows: NDArray[np.int64] | slice = slice(None)) -> float:
        """The figure, of all items or of drawn ones; a group of which none was drawn does not count."""
        chosen = self.values[rows]
        known = ~np.isnan(chosen)
        counts = known.sum(axis=0)
        sums = np.where(known, chosen, 0.0).sum(axis=0)
        return float((sums[counts > 0] / counts[counts > 0]).mean())

    def interval(self, *, seed: int = 0) -> list[float]:
        """95% percentile bootstrap of the figure over the items."""
        starts = np.cumsum((0, *self.strata[:-1]))
        return stratified_interval(
            self.strata,
            lambda drawn: self.mean(np.concatenate([s + rows for s, rows in zip(starts, drawn, strict=True)])),
            seed=seed,
        )

    def against(self, other: Outcomes, *, seed: int = 0, rounds: int = ROUNDS) -> dict[str, Any]:
        """How far this one is ahead of another on the same items.

        Args:
            other: Of the same items and groups.
            seed: Of the bootstrap and of the randomization.
            rounds: Of the randomization.

        Returns:
            `difference`; its 95% `interval`, a paired percentile bootstrap over the items; `p`, two-sided, of an
            approximate randomization that swaps the two models' answers to an item by chance.

        Raises:
            InputError: The items are not the same.
        """
        if self.strata != other.strata or not np.array_equal(np.isnan(self.values), np.isnan(other.values)):
            raise InputError(
                f"two models can be compared on the same items alone, got {self.values.shape} and {other.values.shape} "
                "with other labels; measure both on the same data"
            )
        gaps = Outcomes(self.values - other.values, self.strata)
        known = ~np.isnan(gaps.values)
        shares = np.where(known, gaps.values, 0.0) / (known.sum(axis=0) * known.shape[1])
        return {
            "difference": gaps.mean(),
            "interval": gaps.interval(seed=seed),
            "p": randomization_p(shares.sum(axis=1), rounds=rounds, seed=seed),
        }


def randomization_p(gaps: NDArray[np.floating], *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """Two-sided p of a sum of paired differences, were each as likely to have the other sign (Noreen, 1989).

    Args:
        gaps: (N,) one difference an item.
        rounds: Random choices of the signs; p is at least 1 / (rounds + 1).
        seed: Of the signs.
    """
    moved = np.asarray(gaps, dtype=np.float64)
    moved = moved[moved != 0]
    observed, chance, reached = abs(moved.sum()), np.random.default_rng(seed), 0
    for start in range(0, rounds, _AT_ONCE):
        signs = chance.integers(2, size=(min(_AT_ONCE, rounds - start), len(moved)), dtype=np.int8) * 2.0 - 1.0
        reached += int((np.abs(signs @ moved) >= observed - _SAME).sum())
    return (1 + reached) / (1 + rounds)


def against_first(
    runs: Mapping[str, Figures], outcomes: Callable[[Figures], Mapping[str, Outcomes]], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Each later run against the first, measure by measure; p is not corrected for their number.

    Args:
        runs: Figures by name of the run.
        outcomes: Their outcomes by name of the measure.
        seed: As in `Outcomes.against`.
    """
    first, *others = [(name, outcomes(figures)) for name, figures in runs.items()]
    return [
        {"first": first[0], "other": name, "measure": measure, **found.against(first[1][measure], seed=seed)}
        for name, measured in others
        for measure, found in measured.items()
    ]
