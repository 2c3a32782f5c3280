"""`fashion-retrieval recognize`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashion_retrieval.cli import options
from fashion_retrieval.cli.options import Failed, load_model, progress, report_failures, usage_error
from fashion_retrieval.cli.output import CardFolder, CsvReport, JsonReport, Report, TableReport
from fashion_retrieval.cli.photos import find_photos, parse_box

if TYPE_CHECKING:
    from fashion_retrieval import Failure, Recognition


def recognize(
    paths: options.Paths,
    model: options.Model = "compact",
    taxonomy: Annotated[str | None, typer.Option(help="default, deepfashion, or a YAML or JSON file.")] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="X1,Y1,X2,Y2", help="A region in pixels; repeatable.")
    ] = None,
    no_segmenter: Annotated[bool, typer.Option("--no-segmenter", help="Take the whole photo as one region.")] = False,
    top_k: Annotated[int, typer.Option(min=1, help="How many categories and values to tell.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines: one object per photo.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV: one row per garment.")] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Add the masks to --json, as run lengths.")] = False,
    save: Annotated[Path | None, typer.Option(metavar="DIR", help="Save a card per photo as PNG.")] = None,
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Refuse photos with more pixels.")] = None,
    batch_size: options.BatchSize = 16,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    backend: options.Backend = "auto",
    on_error: options.OnError = "raise",
) -> None:
    """Tell what garments are in photos."""
    if as_json and as_csv:
        usage_error("--json and --csv exclude each other")
    if masks and not as_json:
        usage_error("--masks goes with --json")
    boxes = [parse_box(text) for text in box or ()]
    photos, failures = find_photos(paths, on_error)
    if boxes and len(photos) != 1:
        usage_error(f"--box is for a single photo, got {len(photos)}")
    given: dict[str, Any] = {"segmenter": None if no_segmenter else "auto", "taxonomy": taxonomy, "top_k": top_k}
    if max_pixels:
        given["max_pixels"] = max_pixels
    cards = CardFolder(save) if save else None
    report: Report = JsonReport(masks=masks) if as_json else CsvReport() if as_csv else TableReport()
    fashion = load_model(model, device=device, dtype=dtype, backend=backend)
    results: Iterator[Recognition | Failure]
    if boxes:
        results = iter([fashion.recognize(photos[0], boxes=boxes, **given)])
    else:
        results = fashion.recognize_many(photos, batch_size=batch_size, on_error=on_error, **given)
    _write(photos, progress(results, len(photos), streaming=as_json or as_csv), report, cards, failures)
    report_failures(failures)


def _write(
    photos: list[Path],
    results: Iterator[Recognition | Failure],
    report: Report,
    cards: CardFolder | None,
    failures: list[Failed],
) -> None:
    """Report each recognition, with its card; a failure joins the failures. What was reported is shown in any case."""
    from fashion_retrieval import Failure

    try:
        for photo, result in zip(photos, results, strict=True):
            if isinstance(result, Failure):
                failures.append((str(photo), result.error))
                continue
            report.add(photo, result)
            if cards:
                cards.save(photo, result)
    finally:
        report.close()
