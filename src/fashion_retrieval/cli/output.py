"""The CLI's output: recognitions as a table, JSON Lines or CSV, and files that appear whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fashion_retrieval._utils.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from fashion_retrieval import Garment, Match, Recognition

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Formats of pictures by the name's ending."""
_LONGEST_STEM = 200


class Report:
    """Takes one recognition after the other; `close` is called once, also after an error."""

    def add(self, photo: Path, recognition: Recognition) -> None:
        """Take the recognition of one photo."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is left."""


class TableReport(Report):
    """One table for the whole run, at its end."""

    def __init__(self) -> None:
        self.table = _table("photo", "#", "garment", "score", "color", "attributes")

    def add(self, photo: Path, recognition: Recognition) -> None:
        """One row per garment; the photo is named in the first."""
        if not recognition.garments:
            self.table.add_row(Text(str(photo)), "", Text("nothing found", style="dim"), "", "", "")
        for number, garment in enumerate(recognition.garments, start=1):
            self.table.add_row(Text(str(photo) if number == 1 else ""), str(number), *_cells(garment))
        self.table.add_section()

    def close(self) -> None:
        """Print the table, if anything came."""
        if self.table.row_count:
            Console().print(self.table)


class JsonReport(Report):
    """JSON Lines: one object per photo, as soon as it is known; `source` is the path as it was found."""

    def __init__(self, *, masks: bool) -> None:
        self.masks = masks

    def add(self, photo: Path, recognition: Recognition) -> None:
        """One line."""
        print(json.dumps(recognition.to_dict(masks=self.masks) | {"source": str(photo)}), flush=True)


class CsvReport(Report):
    """One row per garment, with a column and a probability per attribute group."""

    fixed = ("photo", "garment", "category", "score", "kind", "x1", "y1", "x2", "y2", "area", "color", "hex")

    def __init__(self) -> None:
        self.writer: csv.DictWriter[str] | None = None

    def add(self, photo: Path, recognition: Recognition) -> None:
        """No row for a photo with nothing in it."""
        for number, garment in enumerate(recognition.garments, start=1):
            writer = self.writer or self._start(garment.attributes)
            writer.writerow({"photo": str(photo), "garment": number} | _fields(garment))

    def close(self) -> None:
        """Write the header alone, where no garment came."""
        if self.writer is None:
            self._start(())

    def _start(self, groups: Iterable[str]) -> csv.DictWriter[str]:
        names = [name for group in groups for name in (group, f"{group}_score")]
        self.writer = csv.DictWriter(sys.stdout, [*self.fixed, *names], lineterminator="\n")
        self.writer.writeheader()
        return self.writer


class CardFolder:
    """Saves recognition cards as PNG, one per photo, under names that never collide within a run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.taken: set[str] = set()

    def save(self, photo: Path, recognition: Recognition) -> Path:
        """`dress.jpg` -> `dress.png`; a second `dress` becomes `dress-2.png`."""
        target = self.folder / self._name(photo)
        write_picture(target, recognition.draw())
        return target

    def _name(self, photo: Path) -> str:
        stem = os.fsencode(photo.stem)[:_LONGEST_STEM].decode("utf-8", "ignore")
        name, number = f"{stem}.png", 1
        while name.casefold() in self.taken:
            number += 1
            name = f"{stem}-{number}.png"
        self.taken.add(name.casefold())
        return name


def match_table(matches: Sequence[Match]) -> Table:
    """Rank, id and score; category, color and attributes where any match has them."""
    rows = [(str(rank), match.id, f"{match.score:.3f}", *_known(match)) for rank, match in enumerate(matches, start=1)]
    headings = ("#", "id", "score", "category", "color", "attributes")
    shown = [place for place in range(len(headings)) if place < 3 or any(row[place] for row in rows)]
    table = _table(*(headings[place] for place in shown))
    for row in rows:
        table.add_row(*(Text(row[place]) for place in shown))
    return table


def write_picture(target: Path, picture: Image.Image) -> None:
    """Save as PNG, JPEG or WebP, by the name's ending."""
    with write_atomically(target) as part:
        picture.save(part, format=PICTURES[target.suffix.lower()], quality=92)


def write_embeddings(target: Path, ids: Sequence[str], rows: Sequence[NDArray[np.float32]]) -> None:
    """Write (D,) embeddings and their ids.

    `.npy` gets the ids beside it (`.ids.txt`, one a line); `.parquet` has the columns `id` and `embedding`.
    """
    import numpy as np

    embeddings = np.stack(rows)
    if target.suffix == ".npy":
        with write_atomically(target.with_suffix(".ids.txt")) as part:
            part.write_bytes("".join(f"{name}\n" for name in ids).encode())
        with write_atomically(target) as part:
            np.save(part, embeddings)
        return
    import pyarrow
    from pyarrow import parquet

    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(embeddings.ravel()), embeddings.shape[1])
    with write_atomically(target) as part:
        parquet.write_table(pyarrow.table({"id": pyarrow.array(ids, pyarrow.string()), "embedding": column}), part)


def _table(*headings: str) -> Table:
    table = Table(highlight=False)
    for heading in headings:
        numeric = heading in {"#", "score"}
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    return table


def _cells(garment: Garment) -> tuple[Text, ...]:
    words = [f"{a.label} {a.probability:.2f}" for a in garment.attributes.values() if a.status == "visible"]
    texts = (garment.category.name, f"{garment.category.probability:.2f}", garment.color or "", ", ".join(words))
    return tuple(map(Text, texts))


def _known(match: Match) -> tuple[str, str, str]:
    """Category, color, and all other fields in words."""
    category, color = (str(match.fields.get(name) or "") for name in ("category", "color"))
    return category.replace("_", " "), color, ", ".join(match.words)


def _fields(garment: Garment) -> dict[str, Any]:
    row: dict[str, Any] = {
        "category": garment.category.name,
        "score": round(garment.category.probability, 6),
        "kind": garment.kind,
        **dict(zip(("x1", "y1", "x2", "y2"), (round(value, 2) for value in garment.box), strict=True)),
        "area": round(garment.area, 6),
        "color": garment.color,
        "hex": garment.colors[0].hex if garment.colors else None,
    }
    for group, attribute in garment.attributes.items():
        row |= {group: attribute.value or attribute.status, f"{group}_score": round(attribute.probability, 6)}
    return row
