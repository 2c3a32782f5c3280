"""Checks of FashionIQ's root."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fashion_retrieval.errors import ConfigError
from training.data.fashioniq import Protocol, find_photos, leaked, read_annotations
from training.data.triplets import Group
from training.prepare.photos import look_at_all
from training.prepare.report import Count, Report, sort_photos

PUBLISHED = {
    "dress": {"train": (5_985, 11_452), "val": (2_017, 3_817)},
    "shirt": {"train": (5_988, 19_036), "val": (2_038, 6_346)},
    "toptee": {"train": (6_027, 16_121), "val": (1_961, 5_373)},
}
"""Published triplets and photos of each split."""
VAL_GALLERY = {"dress": 2_628, "shirt": 3_089, "toptee": 2_902}
"""Published size of the gallery of the protocol `val_split`."""


def check_fashioniq(root: Path, *, decode: bool, workers: int) -> Report:
    """Counts, photos, captions and leaks of the train and val splits, and gaps in the test rows."""
    groups: dict[str, list[Group]] = {}
    sizes, notes, faults = [], {}, []
    for split in ("train", "val"):
        try:
            groups[split] = read_annotations(root, split)
        except ConfigError as error:
            faults.append(str(error))
            continue
        for group in groups[split]:
            triplets, photos = PUBLISHED[group.name][split]
            sizes.append(Count(f"{group.name} {split} triplets", len(group.triplets), triplets))
            sizes.append(Count(f"{group.name} {split} photos", len(group.gallery), photos))
        captions = [triplet.captions for group in groups[split] for triplet in group.triplets]
        empty, wordless = sum(map(_has_empty, captions)), sum(group.empty_captions for group in groups[split])
        notes[f"{split} rows with an empty caption"] = empty
        notes[f"{split} rows with a caption of punctuation alone"] = wordless - empty
    if "val" in groups:
        for group in read_annotations(root, "val", protocol=Protocol.VAL_SPLIT):
            sizes.append(Count(f"{group.name} val gallery of val_split", len(group.gallery), VAL_GALLERY[group.name]))
    leaks = leaked(root, "val") if len(groups) == 2 else None
    if leaks is not None:
        notes["val photos in another group's train split"] = len(set().union(*leaks.values()))
    rows = [row for path in sorted((root / "captions").glob("cap.*.test.json")) for row in _test_rows(path)]
    notes["test rows without a target"] = sum("target" not in row for row in rows)
    notes["test rows with an empty caption"] = sum(_has_empty(row.get("captions") or ()) for row in rows)
    paths = _photos(root, [group for split in groups.values() for group in split])
    good, bad = sort_photos(paths, look_at_all(list(paths.values()), decode=decode, workers=workers))
    return Report("fashioniq", str(root), sizes, notes, faults, "pixels" if decode else "headers", good, bad)


def _photos(root: Path, groups: Iterable[Group]) -> dict[str, Path]:
    """File by id; the path it should have if a group lacks it."""
    present, absent = dict[str, Path](), dict[str, Path]()
    for group in groups:
        found = find_photos(root, group.name)
        ids = dict.fromkeys([*group.gallery, *(triplet.candidate for triplet in group.triplets)])
        present |= {i: found[i] for i in ids if i in found}
        absent |= {i: root / "images" / f"{i}.jpg" for i in ids if i not in found}
    return present | absent


def _has_empty(captions: Sequence[object]) -> bool:
    return any(not str(caption).strip() for caption in captions)


def _test_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a test file; none if it can't be read, since nothing is trained on it."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
