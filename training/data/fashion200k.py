"""Fashion200k (Han et al., 2017) as TIRG tests on it (Vo et al., 2019).

    ROOT/labels/{dress,jacket,pants,skirt,top}_test_detect_all.txt    photo TAB score TAB caption, a line each
    ROOT/test_queries.txt                                             two photos a line: the reference and a target
    ROOT/women/...                                                    the photos, as the labels name them

A query says in which word the captions differ, "replace red with blue"; right is every photo of the gallery, all of the
split, whose caption is the target's.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from fashion_retrieval.errors import ConfigError, InputError
from training.data.edits import Edit, EditSet
from training.data.io import readable, shown

KINDS = ("dress", "jacket", "pants", "skirt", "top")
SPLITS = ("train", "test")
QUERIES = "test_queries.txt"


def read_fashion200k(root: Path, split: str = "test") -> EditSet:
    """The test queries and all photos of the test split, which alone has queries; one ConfigError names all faults."""
    if split != "test":
        raise InputError(f"the queries of Fashion200k are those of its split 'test', got {split!r}; take that one")
    faults: list[str] = []
    captions = _read_captions(root, "test", faults)
    pairs = _read_pairs(root / QUERIES, captions, faults)
    photos = {name: root / name for name in captions}
    unreadable = [name for name, photo in photos.items() if not readable(photo)]
    if unreadable:
        faults.append(f"{len(unreadable)} photos are missing or can't be read: {shown(unreadable)}")
    _check(root, faults)
    alike: dict[str, list[str]] = defaultdict(list)
    for name, caption in captions.items():
        alike[caption].append(name)
    queries = []
    for reference, target in pairs:
        old, new = difference(captions[reference], captions[target])
        right = tuple(name for name in alike[captions[target]] if name != reference)
        queries.append(Edit(reference, f"replace {old} with {new}", right, old=old, new=new))
    return EditSet("fashion200k", "test", tuple(queries), tuple(captions), photos)


def read_captions(root: Path, split: str) -> dict[str, str]:
    """Caption by photo of the split "train" or "test"; one ConfigError names all faults."""
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    faults: list[str] = []
    captions = _read_captions(root, split, faults)
    _check(root, faults)
    return captions


def difference(old: str, new: str) -> tuple[str, str]:
    """The first word of each caption that the other lacks or, where it lacks none, the last one, as TIRG has it."""
    words, others = old.split(), new.split()
    missing = next((word for word in words if word not in others), words[-1])
    return missing, next((word for word in others if word not in words), others[-1])


def _read_captions(root: Path, split: str, faults: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in KINDS:
        path = root / "labels" / f"{kind}_{split}_detect_all.txt"
        rows = [[part.strip() for part in line.split("\t")] for line in _lines(path, faults)]
        wrong = [place for place, row in enumerate(rows, 1) if len(row) != 3 or not row[0] or not row[2]]
        if wrong:
            faults.append(
                f"{path.name}: {len(wrong)} lines are not photo, score, caption; the first is line {wrong[0]}"
            )
        found |= {row[0]: row[2] for place, row in enumerate(rows, 1) if place not in wrong}
    return found


def _read_pairs(path: Path, captions: dict[str, str], faults: list[str]) -> list[tuple[str, str]]:
    rows = [line.split() for line in _lines(path, faults)]
    wrong = [place for place, row in enumerate(rows, 1) if len(row) != 2 or row[0] == row[1]]
    if wrong:
        faults.append(f"{path.name}: {len(wrong)} lines are not two photos; the first is line {wrong[0]}")
        return []
    unknown = sorted({name for row in rows for name in row} - captions.keys())
    if unknown:
        faults.append(f"{path.name}: {len(unknown)} photos have no caption in labels/: {shown(unknown)}")
    return [(reference, target) for reference, target in rows]


def _lines(path: Path, faults: list[str]) -> list[str]:
    """The lines of a file that are not empty; if there are none, a line in `faults`."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()]
    except OSError as error:
        faults.append(f"{path.name} is missing" if isinstance(error, FileNotFoundError) else f"{path.name}: {error}")
        return []
    if not lines:
        faults.append(f"{path.name} is empty")
    return lines


def _check(root: Path, faults: list[str]) -> None:
    if faults:
        advice = "take labels/ and women/ as published, and test_queries.txt as TIRG has it"
        raise ConfigError(f"Fashion200k in {root}: {'; '.join(faults)}; {advice}")
