"""Paired, interleaved rounds: every contender runs once a round, in an order drawn anew; noise hits all alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.progress import Progress

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one contender, a round each, with the quotient to another contender's in the same round.

    Attributes:
        seconds: (rounds,) of the contender.
        ratios: (rounds,) how many times its time the other one took; above 1 the contender is faster.
    """

    seconds: tuple[float, ...]
    ratios: tuple[float, ...]

    def milliseconds(self, items: int = 1) -> dict[str, float]:
        """Median and quartiles of the time of one item; `items` are what a round works through."""
        return quartiles([1e3 * second / items for second in self.seconds])

    def ratio(self) -> dict[str, float]:
        """Median and quartiles of the ratios."""
        return quartiles(self.ratios)


def interleave(
    contenders: Mapping[str, Run], rounds: int, *, warm_ups: int = 1, seed: int = 0, label: str = "rounds"
) -> dict[str, list[float]]:
    """Seconds of every contender in every round, after untimed runs of all."""
    order, rng = list(contenders), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    with Progress(transient=True) as progress:
        task = progress.add_task(label, total=(rounds + warm_ups) * len(order))
        for number in range(rounds + warm_ups):
            rng.shuffle(order)
            for name in order:
                progress.update(task, description=f"{label}: {name}")
                start = time.perf_counter()
                contenders[name]()
                spent = time.perf_counter() - start
                if number >= warm_ups:
                    seconds[name].append(spent)
                progress.advance(task)
    return seconds


def paired(seconds: Mapping[str, Sequence[float]], name: str, against: str) -> Timing:
    """How a contender stands to another one of the same rounds."""
    ratios = [other / own for other, own in zip(seconds[against], seconds[name], strict=True)]
    return Timing(tuple(seconds[name]), tuple(ratios))


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median, first and third quartile."""
    low, middle, high = np.quantile(np.asarray(values), (0.25, 0.5, 0.75)).tolist()
    return {"median": round(middle, 4), "q1": round(low, 4), "q3": round(high, 4)}
