"""What every composer of a comparison is asked: the sets of the data, each with wrong photos too, and edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.data.edits import EditSet, edits
from training.data.triplets import GROUPS, ComposedSet, Group, join_captions, with_wrong_photos
from training.evaluation.composed import read_sets
from training.evaluation.edits import MAP, edit_scores
from training.evaluation.metrics import rank_targets
from training.evaluation.queries import DRAWS, OnFeatures, Query
from training.recipes.agcn_data import TripletDataset
from training.recipes.agcn_settings import Settings

_BATCH = 128


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries and galleries of the val split."""

    sets: tuple[ComposedSet, ...]  # each under a protocol of its own
    edits: EditSet | None  # of the open data pack

    @classmethod
    def of(cls, recipe: Settings) -> Asked:
        """FashionIQ under its three protocols, or all that the open data pack has."""
        root, policy = Path(recipe.data), recipe.missing
        if recipe.source == "fashioniq":
            return cls(tuple(read_sets(root, root, "all", "val", GROUPS, policy)), None)
        return cls(tuple(read_sets(root, None, None, "val", GROUPS, policy)), edits(root, "val"))

    @property
    def photos(self) -> list[Path]:
        """Of galleries and references, each once."""
        found = [photo for one in self.sets for group in one.groups for photo in group.photos.values()]
        return list(dict.fromkeys([*found, *(self.edits.photos.values() if self.edits else ())]))


def ask(composer: nn.Module, asked: Asked, dataset: TripletDataset, device: torch.device) -> dict[str, Any]:
    """What a composer, in eval mode, answers, as JSON has it; each query is composed once.

    `ranks` of the targets, from 1, by protocol and group; `wrong_photo`, by protocol the same of each draw of wrong
    photos; `edits`, the average precision at 10 of each edit, if there are any.
    """
    model = OnFeatures(composer, dataset.texts, dataset.photo_tokens, device)
    known: dict[Query, NDArray[np.float32]] = {}

    def composed(queries: Sequence[Query]) -> NDArray[np.float32]:
        new = [query for query in dict.fromkeys(queries) if query not in known]
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            rows = model.compose([photo for photo, _ in batch], [text for _, text in batch])
            known.update(zip(batch, rows, strict=True))
        return np.stack([known[query] for query in queries])

    def ranks(group: Group) -> list[int]:
        queries = composed([(group.photos[t.candidate], join_captions(t.captions)) for t in group.triplets])
        gallery = dataset.embeddings([group.photos[name] for name in group.gallery]).numpy()
        found: list[int] = rank_targets(queries, gallery, group.target_rows, group.excluded_rows).tolist()
        return found

    answers: dict[str, Any] = {"ranks": {}, "wrong_photo": {}}
    for one in asked.sets:
        wrong = [with_wrong_photos(one, seed=draw) for draw in range(DRAWS)]
        found, *drawn = ({group.name: ranks(group) for group in data.groups} for data in (one, *wrong))
        answers["ranks"][one.protocol], answers["wrong_photo"][one.protocol] = found, drawn
    if (data := asked.edits) is not None:
        queries = composed([(data.photos[query.reference], query.text) for query in data.queries])
        gallery = dataset.embeddings([data.photos[name] for name in data.gallery]).numpy()
        answers["edits"] = edit_scores(data, queries, gallery)[MAP].tolist()
    return answers
