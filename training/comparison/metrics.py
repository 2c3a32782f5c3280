"""Metrics of a composer over its seeds, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.composed import KS
from training.evaluation.edits import MAP

Run = Mapping[str, Any]
Scores = list[NDArray[np.float64]]
"""(S, Q) by group: how well each query was answered with each seed, in [0, 1]."""
_ROUNDS = 1000
_OF_A_RUN = ("seed", "steps", "best_step", "held_out_recall")


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """Metrics in [0, 1] of one run a seed: the mean over the seeds with 95% intervals over queries and seeds.

    `spread` is the sample standard deviation of each average over the seeds; None for a single seed. `photos_worth` is
    what each recall loses with wrong photos.
    """
    protocols: dict[str, Any] = {}
    for protocol in runs[0]["ranks"]:
        hits = _hits([run["ranks"][protocol] for run in runs])
        groups = {
            group: _metrics({measure: [rows[place]] for measure, rows in hits.items()})
            for place, group in enumerate(runs[0]["ranks"][protocol])
        }
        protocols[protocol] = {"groups": groups, "average": _metrics(hits) | _by_seed(hits)}
        draws = [_hits(draw) for draw in zip(*(run["wrong_photo"][protocol] for run in runs), strict=True)]
        wrong = {measure: _mean([draw[measure] for draw in draws]) for measure in hits}
        lost = {m: [right - other for right, other in zip(hits[m], wrong[m], strict=True)] for m in hits}
        protocols[protocol]["photos_worth"] = _metrics(lost)
    edited = _edits(runs)
    return {
        "parameters": runs[0]["parameters"],
        "runs": [{key: run[key] for key in _OF_A_RUN if key in run} for run in runs],
        "protocols": protocols,
        "edits": _metrics(edited) | _by_seed(edited) if edited else None,
    }


def difference(first: Sequence[Run], second: Sequence[Run]) -> dict[str, Any]:
    """How far the first runs are ahead, by protocol and of "edits": a paired bootstrap over the same queries.

    Each measure, and under "mean" and "interval" the mean of them.
    """
    sets = [{p: _hits([run["ranks"][p] for run in runs]) for p in first[0]["ranks"]} for runs in (first, second)]
    ours, theirs = (found | {"edits": _edits(runs)} for found, runs in zip(sets, (first, second), strict=True))
    ahead = {}
    for name in (name for name, measured in ours.items() if measured):
        left, right = _mean([*ours[name].values()]), _mean([*theirs[name].values()])
        ahead[name] = {"mean": _macro(left) - _macro(right), "interval": _interval(left, right)}
        for measure, scores in ours[name].items():
            other = theirs[name][measure]
            ahead[name][measure] = _macro(scores) - _macro(other)
            ahead[name][f"{measure}_interval"] = _interval(scores, other)
    return ahead


def _hits(ranks: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Scores]:
    """Recalls from the ranks of each seed by group."""
    by_group = [np.array([of_seed[group] for of_seed in ranks]) for group in ranks[0]]
    return {f"recall_at_{k}": [np.asarray(of_group <= k, dtype=np.float64) for of_group in by_group] for k in KS}


def _edits(runs: Sequence[Run]) -> dict[str, Scores]:
    return {MAP: [np.array([run["edits"] for run in runs])]} if "edits" in runs[0] else {}


def _mean(several: Sequence[Scores]) -> Scores:
    return [np.asarray(np.mean(of_group, axis=0)) for of_group in zip(*several, strict=True)]


def _metrics(measured: Mapping[str, Scores]) -> dict[str, Any]:
    """Each measure and its interval, unweighted over the groups."""
    means = {measure: _macro(scores) for measure, scores in measured.items()}
    return means | {f"{measure}_interval": _interval(scores) for measure, scores in measured.items()}


def _by_seed(measured: Mapping[str, Scores]) -> dict[str, Any]:
    """Each seed's measures, and their spread."""
    seeds = [
        [float(np.mean(row)) for row in zip(*(g.mean(1) for g in scores), strict=True)] for scores in measured.values()
    ]
    spread = [float(np.std(of_measure, ddof=1)) for of_measure in seeds] if len(seeds[0]) > 1 else None
    return {"seeds": [list(of_seed) for of_seed in zip(*seeds, strict=True)], "spread": spread}


def _macro(scores: Scores) -> float:
    return float(np.mean([of_group.mean() for of_group in scores]))


def _interval(first: Scores, second: Scores | None = None) -> list[float]:
    """A 95% percentile bootstrap of the macro average, or of how far the first is ahead on the same queries.

    Seeds of each are drawn, and queries within each group.
    """
    generator = np.random.default_rng(0)

    def drawn(count: int) -> NDArray[np.float64]:  # (R, count): how often each is drawn, as shares
        return generator.multinomial(count, np.full(count, 1 / count), size=_ROUNDS) / count

    both = [(scores, drawn(len(scores[0])), sign) for scores, sign in ((first, 1), (second, -1)) if scores]
    means = np.zeros(_ROUNDS)
    for place, of_group in enumerate(first):
        queries = drawn(of_group.shape[1])
        means += sum(sign * ((seeds @ scores[place]) * queries).sum(1) for scores, seeds, sign in both)
    return [round(float(np.quantile(means / len(first), q)), 4) for q in (0.025, 0.975)]
