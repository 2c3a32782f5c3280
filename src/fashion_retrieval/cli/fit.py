"""`fashion-retrieval fit`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

import typer

from fashion_retrieval.cli import options
from fashion_retrieval.errors import InputError

_STATUSES = ("not_visible", "not_applicable")
_BOX = ("x1", "y1", "x2", "y2")

Row = tuple[Path, str | None, tuple[float, ...] | None]
"""A photo, its label and its box."""


def fit(
    attribute: Annotated[str, typer.Argument(help="The attribute group, which is also the column of its labels.")],
    labels: Annotated[Path, typer.Argument(help="CSV with the columns photo and ATTRIBUTE; x1, y1, x2, y2 if known.")],
    photos: Annotated[Path, typer.Argument(help="The folder that the photos' paths start from.")],
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="The model folder to write.")],
    model: options.Model = "compact",
    taxonomy: Annotated[str | None, typer.Option(help="default, deepfashion, or a YAML or JSON file.")] = None,
    no_segmenter: Annotated[bool, typer.Option("--no-segmenter", help="Take the whole photo as one region.")] = False,
    max_pixels: options.MaxPixels = None,
    batch_size: options.BatchSize = 16,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    backend: options.Backend = "auto",
    on_error: options.OnError = "skip",
    as_json: options.AsJson = False,
) -> None:
    """Learn an attribute from labeled photos, tell how well, and save the model."""
    import sys

    from fashion_retrieval import FashionModel

    rows = _read(labels, photos, attribute)
    fashion = FashionModel.from_pretrained(model, device=device, dtype=dtype, backend=backend)
    fitted = fashion.fit_attribute(
        attribute,
        [photo for photo, _, _ in rows],
        [label for _, label, _ in rows],
        boxes=[box for _, _, box in rows],
        segmenter=None if no_segmenter else "auto",
        taxonomy=taxonomy,
        batch_size=batch_size,
        on_error=on_error,
        progress=sys.stderr.isatty(),
        max_pixels=max_pixels,
    )
    fashion.save_pretrained(output, card_id=str(output))
    for failure in fitted.failures:
        typer.echo(f"warning: skipped {failure.error}", err=True)
    typer.echo(json.dumps(fitted.to_dict(), indent=2) if as_json else str(fitted))
    typer.echo(f"model in {output}", err=True)


def _read(labels: Path, folder: Path, attribute: str) -> list[Row]:
    if not folder.is_dir():
        raise InputError(f"expected a folder of photos, found none at {folder}; check the path")
    try:
        with labels.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, strict=True)
            missing = [name for name in ("photo", attribute) if name not in (table.fieldnames or ())]
            if missing:
                got = ", ".join(table.fieldnames or ()) or "none"
                raise InputError(f"{labels} must have the columns photo and {attribute}, got {got!r:.120}; rename one")
            return [_row(row, folder, attribute, f"{labels}, line {table.line_num}") for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"labels {labels} can't be read as CSV in UTF-8 ({error}); check the file") from error


def _row(row: dict[str, str | None], folder: Path, attribute: str, where: str) -> Row:
    photo, label, corners = row["photo"], (row[attribute] or "").strip(), [row.get(name) or "" for name in _BOX]
    if not photo:
        raise InputError(f"{where} must name a photo, got none; correct that line")
    try:
        box = tuple(float(corner) for corner in corners) if any(corners) else None
    except ValueError as error:
        raise InputError(f"{where} must have numbers in {', '.join(_BOX)} or nothing, got {corners}") from error
    return folder / photo, None if label in ("", *_STATUSES) else label, box
