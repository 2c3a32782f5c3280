"""Composed retrieval: a reference photo and a modification text against a gallery, ranked by cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.significance import ItemScores
from fashion_retrieval.errors import InputError
from training.data.fashioniq import Protocol as FashionIQProtocol
from training.data.fashioniq import read_fashioniq
from training.data.pairs import Gallery, Pairs, read_pairs
from training.data.triplets import CaptionMode, ComposedSet, Group, join_captions, member, with_wrong_photos
from training.evaluation.metrics import rank_targets, recall_at_k, recall_metrics
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

KS = (10, 50)

Ranks = NDArray[np.int64]


def evaluate_composed(
    model: Composer,
    sets: Sequence[ComposedSet],
    *,
    captions: CaptionMode = CaptionMode.BOTH,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Metrics of a model by protocol, and under "ways" those of other ways to ask (`training.evaluation.queries`).

    Each query and each photo is encoded once, however many protocols and groups it is in.

    Args:
        model: Who answers.
        sets: The data, each under a protocol of its own.
        captions: How two captions become one text.
        draws: Wrong photos that each query is asked with, of which the mean counts; 0 asks with none.
        seed: Seed of the wrong photos and of the intervals.
    """
    check_draws(draws)
    wrong = [[with_wrong_photos(one, seed=seed + draw) for draw in range(draws)] for one in sets]
    answers = Answers.of(
        model,
        (query for one in sets for group in one.groups for query in _queries(group, captions)),
        (query for drawn in wrong for one in drawn for group in one.groups for query in _queries(group, captions)),
        (group.photos[name] for one in sets for group in one.groups for name in group.gallery),
    )

    def ranks(one: ComposedSet, way: str) -> dict[str, Ranks]:
        return {
            group.name: rank_targets(
                answers.stack(way, _queries(group, captions)),
                answers.gallery(group.photos[name] for name in group.gallery),
                group.target_rows,
                group.excluded_rows,
            )
            for group in one.groups
        }

    metrics = {}
    for one, drawn in zip(sets, wrong, strict=True):
        found = {way: [ranks(one, way)] for way in answers.ways}
        if drawn:
            found[WRONG_PHOTO] = [ranks(asked, WRONG_PHOTO) for asked in drawn]
        metrics[one.protocol] = protocol_metrics(one, found[COMPOSED][0], seed=seed)
        metrics[one.protocol]["ways"] = ways_metrics({way: _scores(r) for way, r in found.items()}, seed=seed)
    return metrics


def read_sets(
    data: Path,
    fashioniq: Path | None,
    protocol: str | None,
    split: str,
    groups: Sequence[str],
    missing: str,
    pairs: str | None = None,
) -> list[ComposedSet]:
    """The pack's pairs or, if its folder is given, FashionIQ under the wanted protocols.

    Of the pack, `pairs` under `split` and `full`, and `changes` under `changes_split`, `changes_full` and, without the
    query's reference, `changes_split_noref` and `changes_full_noref`; `pairs` chooses one of both.

    Raises:
        InputError: An argument has an unknown value, or a protocol is given without FashionIQ.
        ConfigError: Files have faults, or photos are missing.
    """
    if fashioniq is not None:
        if pairs is not None:
            raise InputError(f"pairs {str(pairs)!r} are the data pack's; leave them out with --fashioniq")
        wanted = list(FashionIQProtocol) if protocol == "all" else [protocol or FashionIQProtocol.ORIGINAL]
        return [read_fashioniq(fashioniq, split, protocol=p, groups=groups, missing=missing) for p in wanted]
    if protocol is not None:
        raise InputError(f"protocol {protocol!r} is one of FashionIQ's; give its folder with --fashioniq")
    galleries = {Pairs.PAIRS: (Gallery.SPLIT, Gallery.FULL), Pairs.CHANGES: tuple(Gallery)}
    sets = []
    for kind in Pairs if pairs is None else [member(Pairs, pairs, "pairs")]:
        for gallery in galleries[kind]:
            read = read_pairs(data, split, pairs=kind, gallery=gallery, groups=groups, missing=missing)
            sets.append(read if kind == Pairs.PAIRS else replace(read, protocol=f"{kind}_{gallery}"))
    return sets


def remarks(sets: Sequence[ComposedSet]) -> list[str]:
    """What a reader of the results must know: missing photos, and targets that were trained on."""
    lines = []
    for data in sets:
        for group in data.groups:
            where = f"{data.protocol} {group.name}:"
            if group.missing:
                lines.append(f"{where} {len(group.missing)} photos missing, {len(group.left_out)} queries left out")
            if group.leaked:
                lines.append(
                    f"{where} {len(group.leaked)} photos of the gallery are in the train split of another group"
                )
    return lines


def _queries(group: Group, captions: CaptionMode) -> list[Query]:
    return [(group.photos[t.candidate], join_captions(t.captions, captions)) for t in group.triplets]


def _scores(draws: Sequence[Mapping[str, Ranks]]) -> dict[str, ItemScores]:
    """Recalls of each query, the mean over the draws."""
    return {
        f"recall_at_{k}": ItemScores.of_groups([np.mean([r[name] <= k for r in draws], axis=0) for name in draws[0]])
        for k in KS
    }


def average_recall(ranks: Mapping[str, Ranks], k: int) -> float:
    """The unweighted mean of the groups' recall at k."""
    return float(np.mean([recall_at_k(of_group, k) for of_group in ranks.values()]))


def protocol_metrics(data: ComposedSet, ranks: Mapping[str, Ranks], *, seed: int = 0) -> dict[str, Any]:
    """Metrics of one protocol: galleries, recalls as fractions with 95% intervals, ranks by query.

    Ranks are (Q,) int64 from 1 by group, in the order of its triplets.
    """
    average: dict[str, Any] = {}
    for k in KS:
        average[f"recall_at_{k}"] = average_recall(ranks, k)
        average[f"recall_at_{k}_interval"] = _macro_interval(ranks, (k,), seed)
    average["mean"] = float(np.mean([average[f"recall_at_{k}"] for k in KS]))
    average["mean_interval"] = _macro_interval(ranks, KS, seed)
    groups = {group.name: _group_metrics(group, ranks[group.name], seed) for group in data.groups}
    return {
        "reference_kept": all(group.reference_kept for group in data.groups),
        "missing": len({name for group in data.groups for name in group.missing}),
        "average": average,
        "groups": groups,
    }


def _group_metrics(group: Group, ranks: Ranks, seed: int) -> dict[str, Any]:
    leaked = None if group.leaked is None else {*group.leaked}
    return {
        "queries": len(group.triplets),
        "gallery": len(group.gallery),
        "empty_captions": group.empty_captions,
        "leaked": None if leaked is None else len(leaked),
        "leaked_targets": None if leaked is None else sum(t.target in leaked for t in group.triplets),
        "missing": list(group.missing),
        "left_out": [f"{t.candidate} -> {t.target}" for t in group.left_out],
        **recall_metrics(ranks, KS, seed=seed),
    }


def _macro_interval(ranks: Mapping[str, Ranks], ks: Sequence[int], seed: int) -> list[float]:
    hits = [np.mean([of_group <= k for k in ks], axis=0) for of_group in ranks.values()]
    return ItemScores.of_groups(hits).interval(seed=seed)


def composed_scores(metrics: Mapping[str, Any]) -> dict[str, ItemScores]:
    """Scores behind each average recall of `evaluate_composed`; an item is a query, drawn within its group."""
    return {
        f"{protocol} R@{k}": ItemScores.of_groups([np.array(row["ranks"]) <= k for row in found["groups"].values()])
        for protocol, found in metrics.items()
        for k in KS
    }
