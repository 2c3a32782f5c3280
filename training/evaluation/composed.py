"""Composed retrieval: a reference photo and a modification text against a gallery, ranked by cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import InputError
from training.data.fashioniq import Protocol as FashionIQProtocol
from training.data.fashioniq import read_fashioniq
from training.data.pairs import Gallery, read_pairs
from training.data.triplets import CaptionMode, ComposedSet, Group, join_captions
from training.evaluation.metrics import rank_targets, recall_at_k, recall_metrics
from training.evaluation.significance import ItemScores

KS = (10, 50)
_BATCH = 64

Ranks = NDArray[np.int64]


class Composer(Protocol):
    """The methods of `FashionModel` that are measured here."""

    def encode(self, *, images: list[Path], progress: bool = False) -> NDArray[np.float32]:
        """Photos -> (N, D)."""

    def compose(self, reference_image: Any, modification_text: Any) -> NDArray[np.float32]:  # noqa: ANN401  # lists
        """Pairs of a photo and a text -> (N, D)."""


def evaluate_composed(
    model: Composer, sets: Sequence[ComposedSet], *, captions: CaptionMode = CaptionMode.BOTH, seed: int = 0
) -> dict[str, Any]:
    """Metrics of a model by protocol.

    Each query and each photo is encoded once, however many protocols and groups it is in.
    """
    groups = [group for one in sets for group in one.groups]
    queries = _compose(model, [query for group in groups for query in _queries(group, captions)])
    photos = list(dict.fromkeys(group.photos[name] for group in groups for name in group.gallery))
    rows = dict(zip(photos, model.encode(images=photos, progress=True), strict=True))
    metrics = {}
    for one in sets:
        ranks = {}
        for group in one.groups:
            composed = np.stack([queries[query] for query in _queries(group, captions)])
            gallery = np.stack([rows[group.photos[name]] for name in group.gallery])
            ranks[group.name] = rank_targets(composed, gallery, group.target_rows, group.excluded_rows)
        metrics[one.protocol] = protocol_metrics(one, ranks, seed=seed)
    return metrics


def read_sets(
    data: Path, fashioniq: Path | None, protocol: str | None, split: str, groups: Sequence[str], missing: str
) -> list[ComposedSet]:
    """The pack's pairs against both galleries or, if its folder is given, FashionIQ under the wanted protocols.

    Raises:
        InputError: An argument has an unknown value, or a protocol is given without FashionIQ.
        ConfigError: Files have faults, or photos are missing.
    """
    if fashioniq is not None:
        wanted = list(FashionIQProtocol) if protocol == "all" else [protocol or FashionIQProtocol.ORIGINAL]
        return [read_fashioniq(fashioniq, split, protocol=p, groups=groups, missing=missing) for p in wanted]
    if protocol is not None:
        raise InputError(f"protocol {protocol!r} is one of FashionIQ's; give its folder with --fashioniq")
    galleries = (Gallery.SPLIT, Gallery.FULL)
    return [read_pairs(data, split, gallery=g, groups=groups, missing=missing) for g in galleries]


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


Query = tuple[Path, str]
"""A reference photo and a text."""


def _queries(group: Group, captions: CaptionMode) -> list[Query]:
    return [(group.photos[t.candidate], join_captions(t.captions, captions)) for t in group.triplets]


def _compose(model: Composer, queries: list[Query]) -> dict[Query, NDArray[np.float32]]:
    unique = list(dict.fromkeys(queries))
    rows: dict[Query, NDArray[np.float32]] = {}
    starts = range(0, len(unique), _BATCH)
    for start in tracked(starts, "composing queries", len(starts), shown=True, unit="batches"):
        batch = unique[start : start + _BATCH]
        photos, texts = [photo for photo, _ in batch], [text for _, text in batch]
        rows.update(zip(batch, model.compose(photos, texts), strict=True))
    return rows


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
