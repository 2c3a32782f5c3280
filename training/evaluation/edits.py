"""Edits of one attribute: the share of queries with a right photo among the first, and mAP@10; and stability.

R@k (Vo et al., 2019): a query is answered if any of its right photos is among the first k. mAP@10 is the mean of
`average_precision_at_10`. A query's own reference is never found. All are means over the queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.ranking import top_rows
from fashion_retrieval._utils.scores import mean_interval
from fashion_retrieval._utils.significance import ItemScores
from training.data.edits import EditSet, average_precision_at_10, reworded, with_wrong_references
from training.evaluation.queries import (
    COMPOSED,
    DRAWS,
    WRONG_PHOTO,
    Answers,
    Composer,
    Query,
    check_draws,
    ways_metrics,
)

KS = (1, 10, 50)
MAP = "map_at_10"

Scores = dict[str, NDArray[np.float64]]
"""(Q,) in [0, 1] by name: of a measure (`recall_at_k`, `map_at_10`) or of a wording."""


def evaluate_edits(model: Composer, data: EditSet, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Metrics by way to ask (`training.evaluation.queries`), and of "composed" by attribute group.

    Args:
        model: Who answers.
        data: Queries and gallery.
        draws: Wrong photos that each query is asked with, of which the mean counts; 0 asks with none.
        seed: Seed of the wrong photos and of the intervals.
    """
    check_draws(draws)
    wrong = [with_wrong_references(data, seed=seed + draw) for draw in range(draws)]
    answers = _ask(model, [data], wrong)
    scores = {way: _scores_of(data, answers, way) for way in answers.ways}
    if wrong:
        drawn = [_scores_of(one, answers, WRONG_PHOTO) for one in wrong]
        scores[WRONG_PHOTO] = {name: np.asarray(np.mean([s[name] for s in drawn], axis=0)) for name in drawn[0]}
    groups = _places(query.group for query in data.queries)
    ways = {way: {name: ItemScores.of_groups([row]) for name, row in of_way.items()} for way, of_way in scores.items()}
    return {
        "queries": len(data.queries),
        "gallery": len(data.gallery),
        "right": float(np.mean([len(query.right) for query in data.queries])),
        "ways": ways_metrics(ways, seed=seed),
        "scores": {name: row.tolist() for name, row in scores[COMPOSED].items()},
        "groups": {
            group: {"queries": int(rows.sum()), **_means(scores[COMPOSED], rows)} for group, rows in groups.items()
        },
    }


def evaluate_wordings(model: Composer, data: EditSet, *, seed: int = 0) -> dict[str, Any]:
    """R@10 of the same wishes in each wording, and its spread over the wordings: (best - worst) / mean.

    Of all queries, by attribute group and by value asked for; the fewer queries, the larger it is by chance. None where
    no wording found anything.
    """
    sets = reworded(data)
    answers = _ask(model, [*sets.values()], [])
    hits = {name: _scores_of(one, answers, COMPOSED)["recall_at_10"] for name, one in sets.items()}
    groups = _places(query.group for query in data.queries)
    values = _places(f"{query.group} {query.new}" for query in data.queries)
    return {
        "queries": len(data.queries),
        "gallery": len(data.gallery),
        "spread": spread(_means(hits)),
        "wordings": {
            name: {"recall_at_10": float(row.mean()), "recall_at_10_interval": mean_interval(row, seed=seed)}
            for name, row in hits.items()
        },
        "groups": {name: _of_wordings(hits, rows) for name, rows in groups.items()},
        "values": {name: _of_wordings(hits, rows) for name, rows in values.items()},
    }


def edit_scores(data: EditSet, queries: NDArray[np.floating], gallery: NDArray[np.floating]) -> Scores:
    """Scores by measure of composed queries, (Q, D) in the order of the data's, against its gallery, (N, D)."""
    right = data.right_rows
    top = top_rows(queries, gallery, max(KS), data.excluded_rows)
    hits = np.array([np.isin(found, rows) for found, rows in zip(top, right, strict=True)])
    scores = {f"recall_at_{k}": np.asarray(hits[:, :k].any(axis=1), dtype=np.float64) for k in KS}
    return scores | {MAP: average_precision_at_10(hits, np.array([len(rows) for rows in right]))}


def composed_edits(found: Mapping[str, Any]) -> dict[str, ItemScores]:
    """Scores of the queries behind each measure of `evaluate_edits`, of "composed"."""
    return {name: ItemScores.of_groups([np.array(row)]) for name, row in found["scores"].items()}


def spread(recalls: Mapping[str, float]) -> float | None:
    """(best - worst) / mean over the wordings; None if all are 0."""
    means = [*recalls.values()]
    return (max(means) - min(means)) / float(np.mean(means)) if any(means) else None


def _ask(model: Composer, sets: Sequence[EditSet], wrong: Sequence[EditSet]) -> Answers:
    asked, asked_wrong = ([query for one in some for query in _queries(one)] for some in (sets, wrong))
    return Answers.of(model, asked, asked_wrong, (one.photos[name] for one in sets for name in one.gallery))


def _scores_of(data: EditSet, answers: Answers, way: str) -> Scores:
    gallery = answers.gallery(data.photos[name] for name in data.gallery)
    return edit_scores(data, answers.stack(way, _queries(data)), gallery)


def _queries(data: EditSet) -> list[Query]:
    return [(data.photos[query.reference], query.text) for query in data.queries]


def _places(keys: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """(Q,) bool by key: the queries of each; a key that is empty is left out."""
    listed = np.array([*keys])
    return {key: np.asarray(listed == key) for key in dict.fromkeys(listed.tolist()) if key}


def _means(scores: Scores, rows: NDArray[np.bool_] | slice = slice(None)) -> dict[str, float]:
    return {name: float(row[rows].mean()) for name, row in scores.items()}


def _of_wordings(hits: Scores, rows: NDArray[np.bool_]) -> dict[str, Any]:
    recalls = _means(hits, rows)
    return {"queries": int(rows.sum()), "recall_at_10": recalls, "spread": spread(recalls)}
