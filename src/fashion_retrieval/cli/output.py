"""The CLI's output: results as a table, JSON Lines or CSV, and files that appear whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fashion_retrieval._utils.files import check_target, write_atomically, write_text, write_together

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from fashion_retrieval import Garment, Match, Recognition, Refinement, Taxonomy

    Recognized: TypeAlias = Iterator[tuple[Path, Recognition]]

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Formats of pictures by the name's ending."""
BOARDS = (*PICTURES, ".html", ".csv", ".jsonl")
"""What a turn can be saved as."""
_LONGEST_STEM = 200
_FIXED = ("photo", "garment", "category", "score", "kind", "x1", "y1", "x2", "y2", "area", "color", "hex")
"""Columns of CSV, before those of attributes."""


def print_table(results: Recognized) -> None:
    """One table for the whole run, at its end, also after an error: a row per garment, the photo named in the first."""
    table = _table("photo", "#", "garment", "score", "color", "attributes")
    try:
        for photo, recognition in results:
            if not recognition.garments:
                table.add_row(Text(str(photo)), "", Text("nothing found", style="dim"), "", "", "")
            for number, garment in enumerate(recognition.garments, start=1):
                words = [f"{a.label} {a.probability:.2f}" for a in garment.attributes.values() if a.status == "visible"]
                category, score = garment.category.name.replace("_", " "), f"{garment.category.probability:.2f}"
                cells = map(Text, (category, score, garment.color or "", ", ".join(words)))
                table.add_row(Text(str(photo) if number == 1 else ""), str(number), *cells)
            table.add_section()
    finally:
        if table.row_count:
            Console().print(table)


def print_json(results: Recognized, *, masks: bool) -> None:
    """JSON Lines: one object per photo, as soon as it is known; `source` is the path as it was found."""
    for photo, recognition in results:
        print(json.dumps(recognition.to_dict(masks=masks) | {"source": str(photo)}), flush=True)


def print_csv(results: Recognized) -> None:
    """One row per garment, with a column and a probability per attribute group; without garments the header alone."""
    writer = None
    try:
        for photo, recognition in results:
            for number, garment in enumerate(recognition.garments, start=1):
                row = {"photo": str(photo), "garment": number} | _fields(garment)
                writer = writer or _csv_writer(row)
                writer.writerow(row)
    finally:
        if writer is None:
            _csv_writer(_FIXED)


def print_coco(results: Recognized, taxonomy: Taxonomy) -> None:
    """One COCO data set for the whole run, at its end, also after an error; files are named as they were found."""
    from fashion_retrieval import to_coco

    found: dict[Path, Recognition] = {}
    try:
        for photo, recognition in results:
            found[photo] = recognition.compact()
    finally:
        print(json.dumps(to_coco(found.values(), file_names=found, taxonomy=taxonomy)))


def save_cards(results: Recognized, folder: Path) -> Recognized:
    """Pass the results on and save a card of each as PNG, under names that never collide within a run.

    `dress.jpg` -> `dress.png`; a second `dress` becomes `dress-2.png`.
    """
    taken: set[str] = set()
    for photo, recognition in results:
        yield photo, recognition
        stem = os.fsencode(photo.stem)[:_LONGEST_STEM].decode("utf-8", "ignore")
        names = chain([f"{stem}.png"], (f"{stem}-{number}.png" for number in count(2)))
        name = next(name for name in names if name.casefold() not in taken)
        taken.add(name.casefold())
        write_picture(folder / name, recognition.draw())


def print_matches(matches: Sequence[Match], *, as_json: bool = False) -> None:
    """One line of JSON a match, or a table: category, color and attributes where any match has them."""
    if as_json:
        for rank, match in enumerate(matches, start=1):
            typer.echo(json.dumps({"rank": rank} | match.to_dict()))
        return
    if not matches:
        typer.echo("nothing found")
        return
    rows = []
    for rank, match in enumerate(matches, start=1):
        category, color = (str(match.fields.get(name) or "") for name in ("category", "color"))
        words = (category.replace("_", " "), color, ", ".join(match.words))
        rows.append((str(rank), match.id, f"{match.score:.3f}", *words))
    headings = ("#", "id", "score", "category", "color", "attributes")
    shown = [place for place in range(len(headings)) if place < 3 or any(row[place] for row in rows)]
    table = _table(*(headings[place] for place in shown))
    for row in rows:
        table.add_row(*(Text(row[place]) for place in shown))
    Console().print(table)


def print_groups(groups: Sequence[Sequence[str]]) -> None:
    """A table of groups of ids."""
    if not groups:
        typer.echo("nothing found")
        return
    table = _table("#", "near-duplicates of each other")
    for number, group in enumerate(groups, start=1):
        table.add_row(str(number), Text("\n".join(group)))
    Console().print(table)


def check_board(path: Path) -> None:
    """Refuse a file that a turn could not be saved in, before anything is computed."""
    check_target(path, BOARDS)


def write_board(target: Path, turns: Refinement) -> None:
    """Save the last turn by the name's ending: its board as a picture or a page, or its results as rows."""
    ending = target.suffix.lower()
    if ending in PICTURES:
        write_picture(target, turns.draw())
    elif ending == ".html":
        write_text(target, turns.to_html())
    else:
        turns.history[-1].matches.save(target)


def write_picture(target: Path, picture: Image.Image) -> None:
    """Save as PNG, JPEG or WebP, by the name's ending."""
    with write_atomically(target) as part:
        picture.save(part, format=PICTURES[target.suffix.lower()], quality=92)


def write_embeddings(target: Path, ids: Sequence[str], rows: Sequence[NDArray[np.float32]]) -> None:
    """Write (D,) embeddings and their ids.

    `.npy` gets the ids beside it (`.ids.txt`, one a line), both or neither; `.parquet` has the columns `id` and
    `embedding`.
    """
    import numpy as np

    embeddings = np.stack(rows)
    if target.suffix == ".npy":
        with write_together(target.with_suffix(".ids.txt"), target) as (names, part):
            names.write_bytes("".join(f"{name}\n" for name in ids).encode())
            with part.open("wb") as file:  # by its own write, whose errors say why: np.save's tell of numbers alone
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(embeddings))
                file.write(embeddings.data)
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


def _csv_writer(columns: Iterable[str]) -> csv.DictWriter[str]:
    writer = csv.DictWriter(sys.stdout, list(columns), lineterminator="\n")
    writer.writeheader()
    return writer


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
