"""`fashion-retrieval recognize`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fashion_retrieval.cli import options
from fashion_retrieval.cli.options import report_failures, successes
from fashion_retrieval.cli.output import print_coco, print_csv, print_json, print_table, save_cards
from fashion_retrieval.cli.photos import find_photos, name_photos, parse_box


def recognize(
    paths: options.Paths,
    model: options.Model = "compact",
    taxonomy: Annotated[str | None, typer.Option(help="default, deepfashion, or a YAML or JSON file.")] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="X1,Y1,X2,Y2", help="A region in pixels; repeatable.")
    ] = None,
    no_segmenter: Annotated[bool, typer.Option("--no-segmenter", help="Take the whole photo as one region.")] = False,
    top_k: Annotated[int, typer.Option(min=1, help="How many categories and values to tell.")] = 3,
    format_: Annotated[
        Literal["table", "json", "csv", "coco", "yolo"] | None,
        typer.Option("--format", help="table (the default), json (Lines), csv, coco, or yolo, which goes to --out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines: one object per photo.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV: one row per garment.")] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Add the masks to --json, as run lengths.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="For --format yolo: data.yaml and labels/.")] = None,
    save: Annotated[Path | None, typer.Option(metavar="DIR", help="Save a card per photo as PNG.")] = None,
    max_pixels: options.MaxPixels = None,
    batch_size: options.BatchSize = 16,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    backend: options.Backend = "auto",
    on_error: options.OnError = "raise",
) -> None:
    """Tell what garments are in photos."""
    from fashion_retrieval import FashionModel, to_yolo

    chosen = {format_ or "", "json" if as_json else "", "csv" if as_csv else ""} - {""} or {"table"}
    if len(chosen) > 1:
        raise typer.BadParameter("--format, --json and --csv exclude each other")
    shown = chosen.pop()
    if masks and shown != "json":
        raise typer.BadParameter("--masks goes with --json")
    if (shown == "yolo") != bool(out):
        raise typer.BadParameter("--format yolo and --out DIR go together")
    boxes = [parse_box(text) for text in box or ()]
    named, failures = name_photos(paths, on_error=on_error, suffix=".txt") if out else ({}, [])
    photos, failures = (list(named.values()), failures) if out else find_photos(paths, on_error)
    if boxes and len(photos) != 1:
        raise typer.BadParameter(f"--box is for a single photo, got {len(photos)}")
    finder = None if no_segmenter else "auto"
    given: dict[str, Any] = {"segmenter": finder, "taxonomy": taxonomy, "top_k": top_k, "keep_image": save is not None}
    given["max_pixels"] = max_pixels
    if save:
        save.mkdir(parents=True, exist_ok=True)
    fashion = FashionModel.from_pretrained(model, device=device, dtype=dtype, backend=backend)
    if not boxes:
        results = fashion.recognize_many(photos, batch_size=batch_size, on_error=on_error, **given)
    else:
        results = iter([fashion.recognize(photos[0], boxes=boxes, **given)])
    recognized = successes(photos, results, failures, streaming=shown in ("json", "csv"))
    if save:
        recognized = save_cards(recognized, save)
    if shown == "json":
        print_json(recognized, masks=masks)
    elif shown == "csv":
        print_csv(recognized)
    elif shown == "coco":
        print_coco(recognized, fashion.recognizer(taxonomy).taxonomy)
    elif out:
        labels = {photo: name for name, photo in named.items()}
        found = (replace(recognition, source=labels[photo]) for photo, recognition in recognized)
        print(to_yolo(found, out, taxonomy=fashion.recognizer(taxonomy).taxonomy))
    else:
        print_table(recognized)
    report_failures(failures)
