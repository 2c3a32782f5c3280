"""The annotations of DeepFashion (Anno_fine) as values of the taxonomy "deepfashion"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.taxonomy import Taxonomy
from training.data.deepfashion_files import Faults, annotation_folder, integers, photo_id, read_list, read_rows

PUBLISHED = {"train": 14_000, "val": 2_000, "test": 4_000}
"""Number of photos by split; the paper trains on train and val."""

_TAXONOMY = Taxonomy.load("deepfashion")
ATTRIBUTES = {group.name: tuple(value.name for value in group.values) for group in _TAXONOMY.attributes}
"""The 26 columns by group."""
CATEGORIES = tuple(value.name for value in _TAXONOMY.category.values)
"""By number, from 1."""

MERGED = dict.fromkeys(("Cape", "Nightdress", "Shirtdress", "Sundress"), "Dress")
"""Categories that the data set no longer uses."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Annotated:
    """One row of a split."""

    id: str  # `<item>/img_00000037`; a photo that comes again gets `+1`, `+2` … at its end
    path: str  # as the split file has it
    box: Box  # xyxy in pixels as annotated; it may pass the photo's edge
    category: str  # after merging
    attributes: dict[str, str]  # value by group; groups without exactly one positive are left out
    positives: dict[str, int]  # number of positives of those groups


@dataclass(frozen=True, slots=True)
class Annotations:
    """The content of the text files."""

    splits: dict[str, list[Annotated]]
    faults: Faults  # they stop a training
    repeated: int = 0  # rows with the photo of an earlier row
    disagreements: int = 0  # photos whose labels in list_attr_img.txt differ from those of their split


def inspect_annotations(root: Path) -> Annotations:
    """Read all text files and collect their faults, without opening a photo."""
    faults = Faults()
    folder = annotation_folder(root)
    if folder is None:
        faults.add("no folder Anno_fine in", str(root))
        return Annotations({}, faults)
    seen: Counter[str] = Counter()
    splits = {split: _read_split(folder, split, seen, faults) for split in PUBLISHED}
    disagreements = _check_lists(folder, splits, faults)
    repeated = sum(count - 1 for count in seen.values())
    return Annotations(splits, faults, repeated, disagreements)


def read_annotations(root: Path) -> Annotations:
    """Read all text files; one ConfigError names all faults."""
    annotations = inspect_annotations(root)
    refuse(root, annotations.faults)
    return annotations


def refuse(root: Path, faults: Faults) -> None:
    """Raise ConfigError if there is a fault; its one line names all kinds."""
    lines = faults.lines()
    if lines:
        raise ConfigError(f"{root}: {'; '.join(lines)}; `python -m training.prepare check {root}` shows more")


def _read_split(folder: Path, split: str, seen: Counter[str], faults: Faults) -> list[Annotated]:
    names = [f"{split}{part}.txt" for part in ("", "_attr", "_cate", "_bbox", "_landmarks")]
    optional = names.pop() if not (folder / names[-1]).is_file() else None  # landmarks are not used
    files = {name: read_rows(folder / name, faults) for name in names}
    counts = {name: len(rows) for name, rows in files.items() if rows is not None}
    if len(set(counts.values())) > 1:
        faults.add(f"rows of {split} don't align:", ", ".join(f"{name} {count}" for name, count in counts.items()))
    if len(counts) < len(names) or len(set(counts.values())) > 1:
        return []
    if not counts[names[0]]:
        faults.add("no rows in", names[0])
    columns = [rows for rows in files.values() if rows is not None]
    if optional is None:
        for line, text in enumerate(columns.pop(), start=1):
            if integers(text, 16) is None:
                faults.add(f"not 16 integers in {split}_landmarks.txt line", line)
    found = (_read_row(split, line, texts, seen, faults) for line, texts in enumerate(zip(*columns, strict=True), 1))
    return [row for row in found if row is not None]


def _read_row(split: str, line: int, texts: Sequence[str], seen: Counter[str], faults: Faults) -> Annotated | None:
    path, attr, cate, bbox = texts
    name, labels, category, box = photo_id(path), integers(attr, 26), integers(cate, 1), integers(bbox, 4)
    if name is None:
        faults.add(f"photo outside the root or of no item in {split}.txt line", line)
    if labels is None or not set(labels) <= {-1, 0, 1}:
        labels = None
        faults.add(f"not 26 labels of 0 or 1 in {split}_attr.txt line", line)
    if category is None or not 1 <= category[0] <= len(CATEGORIES):
        category = None
        faults.add(f"no category from 1 to {len(CATEGORIES)} in {split}_cate.txt line", line)
    if box is None:
        faults.add(f"not 4 integers in {split}_bbox.txt line", line)
    elif box[0] >= box[2] or box[1] >= box[3]:
        box = None
        faults.add(f"box of no area in {split}_bbox.txt line", line)
    if name is None or labels is None or category is None or box is None:
        return None
    label = CATEGORIES[category[0] - 1]
    again = f"+{seen[name]}" if seen[name] else ""
    seen[name] += 1
    found = positives(labels)
    return Annotated(
        name + again,
        path,
        (box[0], box[1], box[2], box[3]),
        MERGED.get(label, label),
        _single(found),
        {group: len(values) for group, values in found.items() if len(values) != 1},
    )


def positives(labels: Sequence[int]) -> dict[str, list[str]]:
    """Positive values by group of the 26 labels: 1 is positive, 0 is not, nor is -1 as in coarse files."""
    marks = iter(labels)
    return {group: [value for value in values if next(marks) == 1] for group, values in ATTRIBUTES.items()}


def _single(found: dict[str, list[str]]) -> dict[str, str]:
    return {group: values[0] for group, values in found.items() if len(values) == 1}


def _check_lists(folder: Path, splits: dict[str, list[Annotated]], faults: Faults) -> int:
    """Check the lists that exist; returns the number of photos whose labels differ from those of the splits."""
    expected = {
        "list_attr_cloth.txt": [value for values in ATTRIBUTES.values() for value in values],
        "list_category_cloth.txt": [category.lower() for category in CATEGORIES],
    }
    lists = {path.name: read_list(path, faults) for path in sorted(folder.glob("list_*.txt"))}
    for name, names in expected.items():
        got = [row.rsplit(None, 1)[0].lower() for row in lists.get(name, []) if row]
        wrong = [f"{i} {g!r:.40} is not {e!r}" for i, (g, e) in enumerate(zip(got, names, strict=False), 1) if g != e]
        if got and (wrong or len(got) != len(names)):
            faults.add(f"{name} has {len(got)} names, expected {len(names)};", wrong[0] if wrong else "others")
    labeled = {row.id: row.attributes for rows in splits.values() for row in rows}
    differ = 0
    for line, row in enumerate(lists.get("list_attr_img.txt", []), start=3):
        path, _, marks = row.partition(" ")
        photo, labels = photo_id(path), integers(marks, 26)
        if photo is None or labels is None:
            faults.add("no photo with 26 labels in list_attr_img.txt line", line)
        elif photo in labeled:
            differ += _single(positives(labels)) != labeled[photo]
    return differ
