"""Composed retrieval as data: a reference photo, two relative captions and a target, in a gallery of photos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fashion_retrieval.errors import ConfigError, InputError
from training.data.io import readable, shown

GROUPS = ("shirt", "dress", "toptee")
"""Groups of products, in the order of the paper's tables."""
Kind = TypeVar("Kind", bound=StrEnum)


class CaptionMode(StrEnum):
    """How two captions become one text; in the result the first letter is a capital."""

    BOTH = "c1_and_c2"
    SWAPPED = "c2_and_c1"
    FIRST = "c1"
    SECOND = "c2"


class Missing(StrEnum):
    """What to do about missing or unreadable photos.

    "error" refuses them; "report" leaves them out of the gallery, with the triplets that need them, and lists both.
    """

    ERROR = "error"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Triplet:
    """The ids of the reference photo and of the target, and two captions that say how they differ."""

    candidate: str
    target: str
    captions: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """The queries of one group and the gallery they search."""

    name: str  # one of `GROUPS`
    triplets: tuple[Triplet, ...]  # the queries; every target is in the gallery
    gallery: tuple[str, ...]  # ids, each once
    reference_kept: bool  # whether a query's own reference photo may be found
    photos: Mapping[str, Path] = field(default_factory=dict)  # by id, of gallery and references
    missing: tuple[str, ...] = ()  # ids without a readable photo, left out of the gallery
    left_out: tuple[Triplet, ...] = ()  # for want of the candidate's or target's photo
    leaked: tuple[str, ...] | None = None  # ids of the gallery that are training photos of another group

    @property
    def target_rows(self) -> NDArray[np.int64]:
        """(Q,) int64: the row of each query's target in the gallery."""
        rows = {name: row for row, name in enumerate(self.gallery)}
        return np.array([rows[t.target] for t in self.triplets], dtype=np.int64)

    @property
    def excluded_rows(self) -> NDArray[np.int64]:
        """(Q,) int64: the row of each query's reference photo to exclude, or -1."""
        rows = {} if self.reference_kept else {name: row for row, name in enumerate(self.gallery)}
        return np.array([rows.get(t.candidate, -1) for t in self.triplets], dtype=np.int64)

    @property
    def empty_captions(self) -> int:
        """Number of triplets with a caption without words, for which the other one is used alone."""
        return sum(not all(map(clean, t.captions)) for t in self.triplets)


@dataclass(frozen=True, slots=True)
class ComposedSet:
    """A split of a data set under one protocol, which says what the galleries hold."""

    source: str
    split: str
    protocol: str
    groups: tuple[Group, ...]


def with_wrong_photos(data: ComposedSet, *, seed: int = 0) -> ComposedSet:
    """The same queries, each with a random other photo of its group in place of the reference.

    What is lost by it is the photo's worth: a composer that loses nothing does not look at its photo. The photo drawn
    is neither the target nor the right reference, and a reference of the same data where there are enough.
    """
    generator = np.random.default_rng(seed)
    return replace(data, groups=tuple(_with_wrong_photos(group, generator) for group in data.groups))


def _with_wrong_photos(group: Group, generator: np.random.Generator) -> Group:
    candidates = sorted({t.candidate for t in group.triplets})
    triplets = []
    for triplet in group.triplets:
        pool = candidates if len(candidates) > 2 else sorted(group.photos)
        others = [name for name in pool if name not in (triplet.candidate, triplet.target)]
        if not others:
            raise ConfigError(f"{group.name} needs a third photo to ask with a wrong one; take another group")
        triplets.append(replace(triplet, candidate=others[int(generator.integers(len(others)))]))
    return replace(group, triplets=tuple(triplets))


def clean(caption: str) -> str:
    """The caption without spaces and punctuation at its ends."""
    return caption.strip(" .?,\t\r\n")


def join_captions(captions: tuple[str, str], mode: CaptionMode = CaptionMode.BOTH) -> str:
    """The text of a query: "Is red and has long sleeves". A caption without words is left out."""
    first, second = map(clean, captions)
    if mode in (CaptionMode.SWAPPED, CaptionMode.SECOND):
        first, second = second, first
    parts = [part for part in (first, second) if part]
    text = " and ".join(parts if mode in (CaptionMode.BOTH, CaptionMode.SWAPPED) else parts[:1])
    return text[:1].upper() + text[1:]


def training_caption(captions: tuple[str, str], generator: torch.Generator) -> str:
    """The text in one of the four modes at random, 25% each."""
    modes = list(CaptionMode)
    return join_captions(captions, modes[int(torch.randint(len(modes), (), generator=generator))])


def parse_triplets(rows: Sequence[Any], where: str) -> tuple[list[Triplet], list[str]]:
    """Triplets from rows as FashionIQ has them, and a line for each kind of fault; `where` names the file."""
    triplets: list[Triplet] = []
    faults: dict[str, list[int]] = {}
    for number, row in enumerate(rows, 1):
        fault = _fault(row)
        if fault:
            faults.setdefault(fault, []).append(number)
        else:
            triplets.append(Triplet(row["candidate"], row["target"], tuple(row["captions"])))
    return triplets, [f"{where}: {len(n)} rows {fault}, the first is row {n[0]}" for fault, n in faults.items()]


def _fault(row: Any) -> str | None:  # noqa: ANN401  # any JSON value
    if not isinstance(row, dict) or not isinstance(row.get("candidate"), str) or not row["candidate"]:
        return "have no candidate"
    if not isinstance(row.get("target"), str) or not row["target"]:
        return "have no target and can't be measured (rows of a test split have none; use train or val)"
    captions = row.get("captions")
    if not isinstance(captions, list) or len(captions) != 2 or not all(isinstance(c, str) for c in captions):
        return "have no two captions"
    if not any(map(clean, captions)):
        return "have no words in either caption"
    return "have their candidate as target" if row["candidate"] == row["target"] else None


def gallery_faults(group: Group, where: str) -> list[str]:
    """A line if targets are not in the gallery; `where` names the file that lists it."""
    listed = set(group.gallery)
    absent = list(dict.fromkeys(t.target for t in group.triplets if t.target not in listed))
    return [f"{group.name}: {len(absent)} targets are not in {where}: {shown(absent)}"] if absent else []


def member(kind: type[Kind], value: str, name: str) -> Kind:
    """The value as a member of an enumeration, or an InputError whose message begins with `name`."""
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{name} must be one of {', '.join(kind)}, got {value!r}") from None


def check_groups(groups: Sequence[str]) -> tuple[str, ...]:
    """The groups, each once; an unknown one, or none at all, is refused."""
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown or not groups:
        raise InputError(f"groups must be some of {', '.join(GROUPS)}, got {', '.join(unknown) or 'none'}")
    return tuple(dict.fromkeys(groups))


def with_photos(
    groups: Sequence[Group], photos_of: Callable[[str], Mapping[str, Path]], missing: Missing, where: str
) -> tuple[Group, ...]:
    """The groups with their photos, by id; unreadable ones are refused, or go to `missing` and `left_out`."""
    found = tuple(_with_photos(group, photos_of(group.name)) for group in groups)
    faulty = [g for g in found if g.missing and (missing == Missing.ERROR or not g.triplets)]
    if faulty:
        counts = [f"{g.name} {len(g.missing)} of {len(g.missing) + len(g.photos)} ({shown(g.missing)})" for g in faulty]
        silent = [g.name for g in faulty if not g.triplets]
        advice = "get them, or go on without them with missing='report', which lists them all"
        if silent:
            advice = f"no query of {', '.join(silent)} can be asked; get the photos"
        raise ConfigError(f"photos are missing or can't be read in {where}: {'; '.join(counts)}; {advice}")
    return found


def _with_photos(group: Group, photos: Mapping[str, Path]) -> Group:
    needed = dict.fromkeys([*group.gallery, *(t.candidate for t in group.triplets)])
    found = {name: photos[name] for name in needed if name in photos and readable(photos[name])}
    asked = tuple(t for t in group.triplets if t.candidate in found and t.target in found)
    return replace(
        group,
        triplets=asked,
        gallery=tuple(name for name in group.gallery if name in found),
        photos=found,
        missing=tuple(name for name in needed if name not in found),
        left_out=tuple(t for t in group.triplets if t.candidate not in found or t.target not in found),
    )
