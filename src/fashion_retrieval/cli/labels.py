"""Labels of photos, from a CSV file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion_retrieval.errors import InputError

NO_LABELS = ("", "not_visible", "not_applicable")
_PHOTO = "photo"
_BOX = ("x1", "y1", "x2", "y2")

Corners = tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class LabelTable:
    """What a CSV says of photos, row by row: their paths, labels by column, None where there is none, and boxes."""

    photos: list[Path]
    labels: dict[str, list[str | None]]
    boxes: list[Corners]


def read_labels(labels: Path, folder: Path, groups: Sequence[str] = ()) -> LabelTable:
    """Read the columns photo, a path in the folder, and those named; without a name all. x1, y1, x2, y2 are a box.

    Raises:
        InputError: No such folder, no readable CSV, a column is missing, or a line has a fault.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of photos, found none at {folder}; check the path")
    try:
        with labels.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, strict=True)
            there = list(table.fieldnames or ())
            wanted = (_PHOTO, *groups)
            if not set(wanted) <= set(there):
                got = f"got {', '.join(there) or 'none'!r:.120}; rename one"
                raise InputError(f"{labels} must have the columns {' and '.join(wanted)}, {got}")
            if twice := [name for name, times in Counter(there).items() if name and times > 1]:
                raise InputError(f"{labels} must name each column once, got {twice[0]!r:.80} twice; rename one")
            rows = [_row(row, folder, f"{labels}, line {table.line_num}") for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"labels {labels} can't be read as CSV in UTF-8 ({error}); check the file") from error
    names = groups or [name for name in there if name not in (_PHOTO, *_BOX)]
    columns = {name: [_label(row.get(name)) for _, _, row in rows] for name in names}
    return LabelTable([photo for photo, _, _ in rows], columns, [box for _, box, _ in rows])


def _row(row: dict[str | Any, str | Any], folder: Path, where: str) -> tuple[Path, Corners, dict[str, str | None]]:
    photo, corners = (row[_PHOTO] or "").strip(), [row.get(name) or "" for name in _BOX]
    if not photo:
        raise InputError(f"{where} must name a photo, got none; correct that line")
    if beyond := ", ".join(filter(None, row.get(None) or ())):  # where csv.DictReader puts them
        got = f"got {beyond!r:.80} behind the last; put a cell that holds a comma into quotes"
        raise InputError(f"{where} must have a cell for each column, {got}")
    try:
        box = tuple(float(corner) for corner in corners) if any(corners) else None
    except ValueError as error:
        raise InputError(f"{where} must have numbers in {', '.join(_BOX)} or nothing, got {corners}") from error
    return folder / photo, box, row


def _label(cell: str | None) -> str | None:
    label = (cell or "").strip()
    return None if label in NO_LABELS else label
