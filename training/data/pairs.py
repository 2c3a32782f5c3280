"""Composed retrieval on the open data pack: pairs over products.jsonl, in FashionIQ's form.

The captions of pairs.jsonl nearly describe the target; those of pairs_changes.jsonl say only what changes, so that the
reference is needed. Galleries: `split` holds all products of the group in that split, `full` adds those of the train
split as distractors. The query's reference stays in them, or is left out (`_noref`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from fashion_retrieval.errors import ConfigError
from training.data.io import read_rows, shown
from training.data.triplets import (
    GROUPS,
    ComposedSet,
    Group,
    Missing,
    check_groups,
    gallery_faults,
    member,
    parse_triplets,
    with_photos,
)


class Gallery(StrEnum):
    """Which products are searched; "_noref" leaves out the query's own reference."""

    SPLIT = "split"
    FULL = "full"
    SPLIT_NOREF = "split_noref"
    FULL_NOREF = "full_noref"


class Pairs(StrEnum):
    """Which pairs of the pack: captions that nearly describe the target, or that say only what changes."""

    PAIRS = "pairs"
    CHANGES = "changes"


_FILES = {Pairs.PAIRS: "pairs.jsonl", Pairs.CHANGES: "pairs_changes.jsonl"}


def read_pairs(
    root: Path,
    split: str,
    *,
    pairs: str = Pairs.PAIRS,
    gallery: str = Gallery.SPLIT,
    groups: Sequence[str] = GROUPS,
    missing: str = Missing.ERROR,
) -> ComposedSet:
    """Triplets, galleries and photos of a split of the open data pack; one ConfigError names all faults."""
    kind, policy = member(Gallery, gallery, "gallery"), member(Missing, missing, "missing")
    source, names = member(Pairs, pairs, "pairs"), check_groups(groups)
    kept, file = kind in (Gallery.SPLIT, Gallery.FULL), _FILES[source]
    faults: list[str] = []
    rows = read_rows(root / file, ("group", "split"), faults)
    products = read_rows(root / "products.jsonl", ("id", "split", "group"), faults)
    if not faults:
        faults = _row_faults(rows, products, file, split, names)
    whole_train = kind in (Gallery.FULL, Gallery.FULL_NOREF) and split != "train"
    splits = [split, "train"] if whole_train else [split]
    found = []
    for name in () if faults else names:
        triplets, more = parse_triplets([r for r in rows if (r["group"], r["split"]) == (name, split)], f"{name} pairs")
        listed = [p["id"] for s in splits for p in products if (p["group"], p["split"]) == (name, s)]
        group = Group(name, tuple(triplets), tuple(listed), reference_kept=kept)
        faults += more or gallery_faults(group, f"the {split} products of the group")
        found.append(group)
    if faults:
        raise ConfigError(f"{source} in {root}: {'; '.join(faults)}")
    photos = {p["id"]: root / "products" / p["split"] / f"{p['id']}.jpg" for p in products}
    whole = with_photos(found, lambda _: photos, policy, str(root / "products"))
    return ComposedSet(str(source), split, str(kind), whole)


def _row_faults(
    rows: list[dict[str, Any]], products: list[dict[str, Any]], file: str, split: str, names: tuple[str, ...]
) -> list[str]:
    """Faults of rows that could be read."""
    unknown = sorted({str(row["group"]) for row in rows} - set(GROUPS))
    faults = [f"{file} has unknown groups: {shown(unknown)}; known are {', '.join(GROUPS)}"] if unknown else []
    twice = [name for name, count in Counter(p["id"] for p in products).items() if count > 1]
    if twice:
        faults.append(f"products.jsonl lists {len(twice)} ids more than once: {shown(twice)}")
    splits = sorted({str(row["split"]) for row in rows})
    if split not in splits:
        return [*faults, f"{file} has no rows of split {split!r}; it has {', '.join(splits)}"]
    empty = [n for n in names if not any((row["group"], row["split"]) == (n, split) for row in rows)]
    if empty:
        faults.append(f"{file} has no rows of {', '.join(empty)} in split {split!r}; choose other groups")
    return faults
