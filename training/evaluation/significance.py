"""Runs compared by the scores of their single items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fashion_retrieval._utils.significance import ItemScores

Metrics = Mapping[str, Any]


def compare_with_first(
    runs: Mapping[str, Metrics], scores: Callable[[Metrics], Mapping[str, ItemScores]], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Each later run against the first, metric by metric; p is not corrected for the number of comparisons."""
    first, *others = [(name, scores(metrics)) for name, metrics in runs.items()]
    return [
        {"first": first[0], "other": name, "measure": measure, **found.compare(first[1][measure], seed=seed)}
        for name, measured in others
        for measure, found in measured.items()
    ]
