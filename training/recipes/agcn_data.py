"""What composers are trained on: triplets as rows of frozen features."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.encoder import Encoder
from training.data.derived import derive, read_products
from training.data.edits import EditSet, edits
from training.data.fashioniq import read_fashioniq
from training.data.features import TextTokens, image_features
from training.data.manifest import read_lines
from training.data.pairs import Pairs, read_pairs
from training.data.triplets import ComposedSet, Group, Triplet
from training.engine.distributed import DistributedEnv
from training.engine.loop import generator
from training.recipes.agcn_settings import Settings

_OTHERS = ("Footwear", "Accessories", "Shoes", "Hat")
"""Labels of photos that no wish about a garment means, as the data pack has them."""
_MOST_EDITS = 3000
"""Of each attribute group: most labels that differ are colors."""


class Example(NamedTuple):
    """A training triplet."""

    reference: int  # row of the reference photo in `TripletDataset.tokens`
    right: tuple[int, ...]  # rows in `TripletDataset.gallery` of the photos that answer it; most have one, the target
    captions: tuple[str, str]


class Source(NamedTuple):
    """Triplets of one kind, and the fraction of each batch that comes from them."""

    share: float
    examples: list[Example]
    needs_photo: bool  # the texts say only what changes


@dataclass(frozen=True, slots=True)
class TripletDataset:
    """Everything that a composer is trained and validated on."""

    tokens: Tensor  # (N, 1 + k, d) float16 of every photo, on the CPU
    rows: dict[Path, int]  # row of `tokens` by photo
    texts: TextTokens
    sources: tuple[Source, ...]  # the first is what people wrote of the target; its share is what the others leave
    gallery: Tensor  # (M, d) float32, L2-normalized, on the CPU: the photos that answer and their negatives
    others: int  # rows at the gallery's end that answer nothing: photos of shoes, bags, hats
    validation: tuple[Group, ...]  # for early stopping, with galleries of their own
    remarks: tuple[str, ...]  # one line for each group of which something was left out

    @property
    def triplets(self) -> list[Example]:
        """Those of the first source: an epoch is once through them."""
        return self.sources[0].examples

    def photo_tokens(self, photos: Sequence[Path]) -> Tensor:
        """(n, 1 + k, d) float32."""
        return self.tokens[[self.rows[photo] for photo in photos]].float()

    def embeddings(self, photos: Sequence[Path]) -> Tensor:
        """(n, d) float32: the pooled ones, without a copy of all tokens."""
        return self.tokens[[self.rows[photo] for photo in photos], 0].float()


def load_dataset(settings: Settings, encoder: Encoder, env: DistributedEnv) -> TripletDataset:
    """Read the triplets and encode their photos, or read the features from the cache."""
    root = Path(settings.data)
    read = _read(settings, root)
    held_out = held_out_photos(read, settings.held_out)
    held = [hold_out(data, held_out) for data in read]
    validation = tuple(group for _, groups in held for group in groups)
    if settings.source == "fashioniq" and not settings.held_out:
        read.append(read_fashioniq(root, "val", protocol="original", missing=settings.missing))
        validation = read[-1].groups
    seed, labeled = settings.optimization.seed, list[Triplet]()
    if settings.derived:
        known = read_products(root, Path(settings.pseudo_labels) if settings.pseudo_labels else None)
        labeled = derive(known, settings.derived, generator(seed))
    edited = edits(root, "train", most=_MOST_EDITS, seed=seed, training=True) if settings.edits_share else None
    groups = [group for data, _ in held for group in data.groups]
    others = read_others(root, settings.others, seed)
    photos = {photo: row for row, photo in enumerate(_photos([*groups, *validation], edited, others))}
    names = {name: path for group in groups for name, path in group.photos.items()}
    listed = [group.photos[name] for group in groups for name in group.gallery]
    listed += [edited.photos[name] for name in edited.gallery] if edited else []
    seen = [photo for photo in dict.fromkeys(listed) if photo not in held_out]
    place = {photo: row for row, photo in enumerate(seen)}
    tokens = image_features(encoder, [*photos], Path(settings.cache), env)

    def examples(asked: Iterable[tuple[Path, Iterable[Path], tuple[str, str]]]) -> list[Example]:
        """Those of which the reference and an answer may be seen."""
        found = ((photo, tuple(place[one] for one in right if one in place), texts) for photo, right, texts in asked)
        return [
            Example(photos[photo], right, texts) for photo, right, texts in found if right and photo not in held_out
        ]

    written, *changes = (
        examples((g.photos[t.candidate], [g.photos[t.target]], t.captions) for g in data.groups for t in g.triplets)
        for data, _ in held
    )
    derived = examples(
        (names[t.candidate], [names[t.target]], t.captions)
        for t in labeled
        if t.candidate in names and t.target in names
    )
    replaced = (
        []
        if edited is None
        else examples(
            (edited.photos[query.reference], [edited.photos[name] for name in query.right], (query.text, ""))
            for query in edited.queries
        )
    )
    more = [Source(settings.derived_share, derived, needs_photo=False)]
    more += [Source(settings.changes_share, found, needs_photo=True) for found in changes]
    more += [Source(settings.edits_share, replaced, needs_photo=True)]
    more = [source for source in more if source.examples and source.share]
    return TripletDataset(
        tokens=tokens,
        rows=photos,
        texts=TextTokens(encoder),
        sources=(Source(1 - sum(source.share for source in more), written, needs_photo=False), *more),
        gallery=functional.normalize(tokens[[photos[photo] for photo in [*seen, *others]], 0].float(), dim=-1),
        others=len(others),
        validation=validation,
        remarks=tuple(
            f"{data.split} {group.name}: {len(group.missing)} photos missing, {len(group.left_out)} triplets left out"
            for data in read
            for group in data.groups
            if group.missing
        ),
    )


def _read(settings: Settings, root: Path) -> list[ComposedSet]:
    """What people wrote, to train on: of the target first, then of what changes."""
    if settings.source == "fashioniq":
        return [read_fashioniq(root, "train", protocol="val_split", missing=settings.missing)]
    kinds = [Pairs.PAIRS, Pairs.CHANGES] if settings.changes_share else [Pairs.PAIRS]
    return [read_pairs(root, "train", pairs=kind, missing=settings.missing) for kind in kinds]


def _photos(groups: Iterable[Group], edited: EditSet | None, others: Iterable[Path]) -> list[Path]:
    photos = [photo for group in groups for photo in group.photos.values()]
    return list(dict.fromkeys([*photos, *(edited.photos.values() if edited else ()), *others]))


def read_others(root: Path, count: int, seed: int) -> list[Path]:
    """At most `count` photos of the train split that show no garment of any attribute: shoes, bags, hats."""
    if not count:
        return []
    photos = [
        root / f"{name}/train/{row['id']}.jpg"
        for name, known in (("products", "master_category"), ("clothing", "label"))
        for row in read_lines(root / f"{name}.jsonl", "train")
        if row[known] in _OTHERS
    ]
    order = torch.randperm(len(photos), generator=generator(seed))
    return [photos[row] for row in order[:count].tolist()]


def with_photos(dataset: TripletDataset, photos: Iterable[Path], cache: Path, env: DistributedEnv) -> TripletDataset:
    """The dataset with the tokens of an evaluation's photos added."""
    new = [photo for photo in dict.fromkeys(photos) if photo not in dataset.rows]
    if not new:
        return dataset
    tokens = image_features(dataset.texts.encoder, new, cache, env)
    rows = dataset.rows | {photo: len(dataset.tokens) + row for row, photo in enumerate(new)}
    return replace(dataset, tokens=torch.cat([dataset.tokens, tokens]), rows=rows)


def held_out_photos(sets: Sequence[ComposedSet], fraction: float) -> frozenset[Path]:
    """A fraction of each group's targets, by the checksums of their ids: training must see them in no way."""
    targets: dict[str, set[Path]] = {}
    for group in (group for data in sets for group in data.groups):
        targets.setdefault(group.name, set()).update(group.photos[t.target] for t in group.triplets)
    held: set[Path] = set()
    for of_group in targets.values():
        ordered = sorted(of_group, key=lambda photo: (zlib.crc32(photo.stem.encode()), photo))
        held.update(ordered[: math.ceil(fraction * len(ordered))])
    return frozenset(held)


def hold_out(data: ComposedSet, held: frozenset[Path]) -> tuple[ComposedSet, tuple[Group, ...]]:
    """Split off the triplets whose target is held out, for validation, in the galleries as they are.

    A triplet whose reference alone is held out is in neither part.
    """
    kept, validation = [], []
    for group in data.groups:
        asked = tuple(t for t in group.triplets if group.photos[t.target] in held)
        rest = tuple(t for t in group.triplets if held.isdisjoint((group.photos[t.target], group.photos[t.candidate])))
        if not rest:
            raise ConfigError(
                f"held_out must leave triplets to train on in every group, {group.name} has none; make it smaller"
            )
        kept.append(replace(group, triplets=rest))
        validation += [replace(group, triplets=asked)] * bool(asked)
    return replace(data, groups=tuple(kept)), tuple(validation)
