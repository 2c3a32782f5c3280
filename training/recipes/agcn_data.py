"""What composers are trained on: triplets as rows of frozen features."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.encoder import Encoder
from training.data.derived import derive, read_products
from training.data.fashioniq import read_fashioniq
from training.data.features import TextTokens, image_features
from training.data.pairs import read_pairs
from training.data.triplets import ComposedSet, Group, Triplet
from training.engine.distributed import DistributedEnv
from training.engine.loop import generator
from training.recipes.agcn_settings import Settings


class Example(NamedTuple):
    """A training triplet."""

    reference: int  # row of the reference photo in `TripletDataset.tokens`
    target: int  # row of the target photo in `TripletDataset.gallery`
    captions: tuple[str, str]


@dataclass(frozen=True, slots=True)
class TripletDataset:
    """Everything that a composer is trained and validated on."""

    tokens: Tensor  # (N, 1 + k, d) float16 of every photo, on the CPU
    rows: dict[Path, int]  # row of `tokens` by photo
    texts: TextTokens
    triplets: list[Example]  # written by people
    derived: list[Example]  # made from labels; may be empty
    gallery: Tensor  # (M, d) float32, L2-normalized, on the CPU: the target photos and their negatives
    validation: tuple[Group, ...]  # for early stopping, with galleries of their own
    remarks: tuple[str, ...]  # one line for each group of which something was left out

    def photo_tokens(self, photos: Sequence[Path]) -> Tensor:
        """(n, 1 + k, d) float32."""
        return self.tokens[[self.rows[photo] for photo in photos]].float()


def load_dataset(settings: Settings, encoder: Encoder, env: DistributedEnv) -> TripletDataset:
    """Read the triplets and encode their photos, or read the features from the cache."""
    root = Path(settings.data)
    if settings.source == "fashioniq":
        train = read_fashioniq(root, "train", protocol="val_split", missing=settings.missing)
    else:
        train = read_pairs(root, "train", missing=settings.missing)
    read = [train]
    train, validation = hold_out(train, settings.held_out)
    if settings.source == "fashioniq" and not settings.held_out:
        read.append(read_fashioniq(root, "val", protocol="original", missing=settings.missing))
        validation = read[-1].groups
    labeled: list[Triplet] = []
    if settings.derived:
        known = read_products(root, Path(settings.pseudo_labels) if settings.pseudo_labels else None)
        labeled = derive(known, settings.derived, generator(settings.optimization.seed))
    photos = list(dict.fromkeys(photo for g in (*train.groups, *validation) for photo in g.photos.values()))
    rows = {photo: row for row, photo in enumerate(photos)}
    where = {name: path for group in train.groups for name, path in group.photos.items()}
    gallery = list(dict.fromkeys(rows[group.photos[name]] for group in train.groups for name in group.gallery))
    place = {row: index for index, row in enumerate(gallery)}
    tokens = image_features(encoder, photos, Path(settings.cache), env)
    triplets = [
        Example(rows[g.photos[t.candidate]], place[rows[g.photos[t.target]]], t.captions)
        for g in train.groups
        for t in g.triplets
    ]
    derived = [
        Example(rows[where[t.candidate]], place[rows[where[t.target]]], t.captions)
        for t in labeled
        if t.candidate in where and t.target in where
    ]
    return TripletDataset(
        tokens=tokens,
        rows=rows,
        texts=TextTokens(encoder),
        triplets=triplets,
        derived=derived,
        gallery=functional.normalize(tokens[gallery, 0].float(), dim=-1),
        validation=validation,
        remarks=tuple(
            f"{data.split} {group.name}: {len(group.missing)} photos missing, {len(group.left_out)} triplets left out"
            for data in read
            for group in data.groups
            if group.missing
        ),
    )


def with_photos_of(
    dataset: TripletDataset, sets: Sequence[ComposedSet], cache: Path, env: DistributedEnv
) -> TripletDataset:
    """The dataset with the tokens of an evaluation's photos added."""
    photos = dict.fromkeys(photo for one in sets for group in one.groups for photo in group.photos.values())
    new = [photo for photo in photos if photo not in dataset.rows]
    if not new:
        return dataset
    tokens = image_features(dataset.texts.encoder, new, cache, env)
    rows = dataset.rows | {photo: len(dataset.tokens) + row for row, photo in enumerate(new)}
    return replace(dataset, tokens=torch.cat([dataset.tokens, tokens]), rows=rows)


def hold_out(data: ComposedSet, fraction: float) -> tuple[ComposedSet, tuple[Group, ...]]:
    """Split off a fraction of each group's targets, with their triplets, for validation."""
    if not fraction:
        return data, ()
    kept, validation = [], []
    for group in data.groups:
        targets = sorted({t.target for t in group.triplets}, key=lambda name: zlib.crc32(name.encode()))
        held = set(targets[: math.ceil(fraction * len(targets))])
        kept.append(replace(group, triplets=tuple(t for t in group.triplets if t.target not in held)))
        validation.append(replace(group, triplets=tuple(t for t in group.triplets if t.target in held)))
    if not all(group.triplets for group in kept):
        raise ConfigError(f"held_out must leave triplets to train on in every group, got {fraction}; make it smaller")
    return replace(data, groups=tuple(kept)), tuple(validation)
