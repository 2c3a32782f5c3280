"""Metrics of a composer over its seeds, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.composed import KS
from training.evaluation.metrics import stratified_interval

Run = Mapping[str, Any]
Hits = Sequence[NDArray[np.float64]]
"""(S, Q) by group: for each seed and query, the fraction of the ks at which its target is found."""


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """Recalls in [0, 1] of one run a seed: the mean over the seeds with 95% intervals over queries and seeds.

    `spread` is the sample standard deviation of each average recall over the seeds; None for a single seed.
    """
    protocols = {}
    for protocol in runs[0]["ranks"]:
        ranks = _ranks(runs, protocol)
        average = _recalls(ranks)
        by_seed = [[float(np.mean([(r[s] <= k).mean() for r in ranks.values()])) for k in KS] for s in range(len(runs))]
        average["seeds"] = by_seed
        average["spread"] = (
            [float(np.std(of_k, ddof=1)) for of_k in zip(*by_seed, strict=True)] if len(runs) > 1 else None
        )
        groups = {name: _recalls({name: of_group}) for name, of_group in ranks.items()}
        protocols[protocol] = {"groups": groups, "average": average}
    kept = ("seed", "steps", "best_step", "held_out_recall")
    return {
        "parameters": runs[0]["parameters"],
        "runs": [{key: run[key] for key in kept if key in run} for run in runs],
        "protocols": protocols,
    }


def difference(first: Sequence[Run], second: Sequence[Run]) -> dict[str, Any]:
    """The difference of the mean recalls, first - second, by protocol: a paired bootstrap over the same queries."""
    ahead = {}
    for protocol in first[0]["ranks"]:
        ours, theirs = (_hits(_ranks(runs, protocol), KS) for runs in (first, second))
        ahead[protocol] = {"mean": _macro(ours) - _macro(theirs), "interval": _interval_of_difference(ours, theirs)}
    return ahead


def _recalls(ranks: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Each recall and its interval, unweighted over the groups."""
    metrics: dict[str, Any] = {}
    for k in KS:
        hits = _hits(ranks, (k,))
        metrics[f"recall_at_{k}"] = _macro(hits)
        metrics[f"recall_at_{k}_interval"] = _interval(hits)
    return metrics


def _interval(hits: Hits) -> list[float]:
    """An interval over resampled seeds, and resampled queries within each group."""
    counts = [len(hits[0]), *(of_group.shape[1] for of_group in hits)]
    return stratified_interval(counts, lambda drawn: _mean(hits, drawn[0], drawn[1:]))


def _interval_of_difference(first: Hits, second: Hits) -> list[float]:
    """An interval over resampled seeds of each, and queries resampled for both."""
    counts = [len(first[0]), len(second[0]), *(of_group.shape[1] for of_group in first)]
    return stratified_interval(
        counts, lambda drawn: _mean(first, drawn[0], drawn[2:]) - _mean(second, drawn[1], drawn[2:])
    )


def _ranks(runs: Sequence[Run], protocol: str) -> dict[str, NDArray[np.int64]]:
    """(S, Q) by group: seeds and queries."""
    groups = runs[0]["ranks"][protocol]
    return {name: np.array([run["ranks"][protocol][name] for run in runs]) for name in groups}


def _hits(ranks: Mapping[str, NDArray[np.int64]], ks: Sequence[int]) -> list[NDArray[np.float64]]:
    return [np.mean([of_group <= k for k in ks], axis=0) for of_group in ranks.values()]


def _macro(hits: Hits) -> float:
    return float(np.mean([of_group.mean() for of_group in hits]))


def _mean(hits: Sequence[NDArray[np.float64]], seeds: NDArray[np.int64], queries: Sequence[NDArray[np.int64]]) -> float:
    """The macro average over the resampled seeds and queries."""
    return _macro([of_group[np.ix_(seeds, rows)] for of_group, rows in zip(hits, queries, strict=True)])
