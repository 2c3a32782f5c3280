"""FashionIQ: captions and image splits as published, photos in any common layout.

    ROOT/captions/cap.{dress,shirt,toptee}.{train,val}.json      ROOT/image_splits/split.{…}.{…}.json
    ROOT/images/ID.jpg, also in a folder by category, as .png, or under resized_image/

Protocols: `original` searches the whole split and keeps the reference; `original_noref` leaves each query's reference
out; `val_split` searches the references and targets of the captions, without the query's reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from fashion_retrieval.errors import ConfigError, InputError
from training.data.io import read_json
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

SPLITS = ("train", "val", "test")
_FOLDERS = ("images", "resized_image")
_SUFFIXES = (".jpg", ".jpeg", ".png")


class Protocol(StrEnum):
    """Which photos are searched."""

    ORIGINAL = "original"
    ORIGINAL_NOREF = "original_noref"
    VAL_SPLIT = "val_split"


def read_fashioniq(
    root: Path,
    split: str,
    *,
    protocol: str = Protocol.ORIGINAL,
    groups: Sequence[str] = GROUPS,
    missing: str = Missing.ERROR,
) -> ComposedSet:
    """Triplets, galleries and photos of "train" or "val"; rows of "test" have no target, and are refused."""
    policy = member(Missing, missing, "missing")
    annotated = read_annotations(root, split, protocol=protocol, groups=groups)
    where = f"{root} (images/ or resized_image/, flat or by category)"
    found = with_photos(annotated, partial(find_photos, root), policy, where)
    leaks = leaked(root, split)
    if leaks is not None:
        found = tuple(replace(g, leaked=tuple(i for i in g.gallery if i in leaks[g.name])) for g in found)
    return ComposedSet("fashioniq", split, str(protocol), found)


def read_annotations(
    root: Path, split: str, *, protocol: str = Protocol.ORIGINAL, groups: Sequence[str] = GROUPS
) -> list[Group]:
    """Triplets and galleries of a split, without their photos; one ConfigError names all faults."""
    kind = member(Protocol, protocol, "protocol")
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not root.is_dir():
        raise ConfigError(f"{root} is no folder; expected FashionIQ's, with captions/ and image_splits/")
    found, faults = [], []
    for name in check_groups(groups):
        group, more = _read_group(root, split, name, kind)
        found.append(group)
        faults += more
    if faults:
        raise ConfigError(f"FashionIQ in {root}: {'; '.join(faults)}")
    return found


def _read_group(root: Path, split: str, name: str, protocol: Protocol) -> tuple[Group, list[str]]:
    """A group without photos, and the faults of its files."""
    faults: list[str] = []
    captions, listing = Path(f"captions/cap.{name}.{split}.json"), _listing(name, split)
    rows = _read_list(root / captions, faults)
    ids = _read_list(root / listing, faults)
    if not all(isinstance(i, str) for i in ids):
        faults.append(f"{listing} must list ids, each a text")
        ids = []
    triplets, more = parse_triplets(rows, str(captions))
    if protocol == Protocol.VAL_SPLIT:
        ids = [i for t in triplets for i in (t.candidate, t.target)]
    group = Group(name, tuple(triplets), tuple(dict.fromkeys(ids)), protocol == Protocol.ORIGINAL)
    whole = not faults and not more
    return group, faults + more + (gallery_faults(group, str(listing)) if whole else [])


def _listing(name: str, split: str) -> Path:
    return Path(f"image_splits/split.{name}.{split}.json")


def _read_list(path: Path, faults: list[str]) -> list[Any]:
    """A JSON list with entries; if the file has none, an empty list and a line in `faults`."""
    where = path.relative_to(path.parents[1])
    try:
        value = read_json(path)
    except ConfigError as error:
        faults.append(str(error).replace(str(path), str(where)))
        return []
    if isinstance(value, list) and value:
        return value
    faults.append(f"{where} must be a JSON list with entries, got {'[]' if value == [] else type(value).__name__}")
    return []


def leaked(root: Path, split: str) -> dict[str, set[str]] | None:
    """Ids of each group's split that are in the train split of any group: in FashionIQ, of another one.

    None for "train" itself, or if some of the files are missing.
    """
    if split == "train" or not all((root / _listing(g, s)).is_file() for g in GROUPS for s in (split, "train")):
        return None
    train = {name for group in GROUPS for name in read_json(root / _listing(group, "train"))}
    return {group: train & set(read_json(root / _listing(group, split))) for group in GROUPS}


def find_photos(root: Path, group: str) -> dict[str, Path]:
    """Photo by id; a folder by category goes before a flat one, images/ before resized_image/, .jpg before .png."""
    photos: dict[str, Path] = {}
    for folder in (root / name / inner for name in _FOLDERS for inner in (group, "")):
        if folder.is_dir():
            paths = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES]
            for path in sorted(paths, key=lambda path: (_SUFFIXES.index(path.suffix.lower()), path.name)):
                photos.setdefault(path.stem, path)
    return photos
