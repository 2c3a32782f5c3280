"""`fashion-retrieval evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashion_retrieval._utils.files import check_target, write_text
from fashion_retrieval.cli import options
from fashion_retrieval.cli.labels import LabelTable, read_labels
from fashion_retrieval.cli.output import PICTURES, write_picture
from fashion_retrieval.errors import InputError

if TYPE_CHECKING:
    from fashion_retrieval import FashionModel
    from fashion_retrieval.results import Evaluation
    from fashion_retrieval.shards import RetrievalEvaluation

_BOARDS = (".html", *PICTURES)


def evaluate(
    photos: Annotated[
        list[Path], typer.Argument(help="The folder that the photos' paths start from; for --queries Parquet files.")
    ],
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="CSV with the columns photo and a group each; x1, y1, x2, y2 if known."),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(metavar="COLUMN|FILE", help="Texts, or photos in a Parquet file, to be found."),
    ] = None,
    relevant: Annotated[
        str | None, typer.Option(metavar="COLUMN,...", help="For photos as queries: what they have in common.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For texts as queries: JSON with the right item_ID of each."),
    ] = None,
    text_weight: Annotated[float, typer.Option(min=0, max=0.99, help="Share of the column text in the search.")] = 0.0,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A folder or Hub repository, by default 'compact'; repeatable.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", help="A column to evaluate; repeatable. By default all groups.")
    ] = None,
    taxonomy: Annotated[str | None, typer.Option(help="default, deepfashion, or a YAML or JSON file.")] = None,
    no_segmenter: Annotated[bool, typer.Option("--no-segmenter", help="Take the whole photo as one region.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the worst answers as a board: .html or a picture.")
    ] = None,
    worst: Annotated[int, typer.Option(min=1, max=200, help="How many of them.")] = 24,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write all results as .json.")] = None,
    max_pixels: options.MaxPixels = None,
    batch_size: options.BatchSize = 16,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    backend: options.Backend = "auto",
    on_error: options.OnError = "skip",
    as_json: options.AsJson = False,
) -> None:
    """Tell how well models recognize your own labeled photos, and which is ahead of the first.

    With --queries: how well texts or photos find their photos in Parquet files with a column image.
    """
    from fashion_retrieval import download_model

    names = model or ["compact"]
    if bool(labels) == bool(queries) or (labels and len(photos) != 1):
        raise typer.BadParameter("give either --labels and a folder, or --queries and Parquet files")
    if labels and (relevant or truth or text_weight):
        raise typer.BadParameter("--relevant, --truth and --text-weight go with --queries")
    if queries and (group or taxonomy or no_segmenter or save):
        raise typer.BadParameter("--group, --taxonomy, --no-segmenter and --save go with --labels")
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"--model must name each model once, got {', '.join(names)}")
    for target, endings in ((save, _BOARDS), (output, (".json",))):
        if target:
            check_target(target, endings)
    table = read_labels(labels, photos[0], group or ()) if labels else LabelTable([], {}, [])
    if labels and not table.photos:
        raise InputError(f"{labels} must have a line for each photo, got none; add photos and labels")
    for name in names:
        download_model(name)  # so that no name is found to be wrong after the work on another
    reading: dict[str, Any] = {"batch_size": batch_size, "max_pixels": max_pixels, "on_error": on_error}
    reading["progress"] = sys.stderr.isatty()
    loading: dict[str, Any] = {"device": device, "dtype": dtype, "backend": backend}
    if labels:
        how = {"segmenter": None if no_segmenter else "auto", "taxonomy": taxonomy}
        results: Iterator[Any] = _recognized(names, table, labels, loading, reading | how, chosen=bool(group))
    else:
        asked = {"relevant": relevant.split(",") if relevant else (), "truth": truth, "text_weight": text_weight}
        results = _retrieved(names, photos, queries or "", loading, reading | asked)
    found, compared, told = list[Any](), list[Any](), ""
    for one in results:
        for failure in () if found else one.failures:
            typer.echo(f"warning: skipped {'' if labels else f'{failure.source}: '}{failure.error}", err=True)
        if not as_json:
            typer.echo(f"{one}\n")
        compared += [one.compare(found[0])] if found else []
        found.append(one)
        both = {"evaluations": found, "comparisons": compared}
        told = json.dumps({name: [each.to_dict() for each in of] for name, of in both.items()}, indent=2)
        if output:
            write_text(output, f"{told}\n")  # after each model: an error of the next one loses nothing
        if save:
            _write_board(save if len(found) == 1 else save.with_stem(f"{save.stem}-{len(found)}"), one, worst)
    if as_json:
        typer.echo(told)
    elif compared:
        typer.echo("\n\n".join(map(str, compared)))


def _recognized(
    names: list[str], table: LabelTable, labels: Path, loading: dict[str, Any], how: dict[str, Any], *, chosen: bool
) -> Iterator[Evaluation]:
    from fashion_retrieval import FashionModel

    for name in names:
        fashion = FashionModel.from_pretrained(name, **loading)
        columns = table.labels if chosen else _columns(table, fashion, how["taxonomy"], labels, told=name != names[0])
        yield fashion.evaluate(table.photos, columns, boxes=table.boxes, **how)


def _retrieved(
    names: list[str], photos: list[Path], queries: str, loading: dict[str, Any], how: dict[str, Any]
) -> Iterator[RetrievalEvaluation]:
    from fashion_retrieval import FashionModel
    from fashion_retrieval.shards import evaluate_retrieval

    asked = Path(queries) if queries.endswith(".parquet") else queries
    for name in names:
        yield evaluate_retrieval(FashionModel.from_pretrained(name, **loading), photos, asked, **how)


def _columns(
    table: LabelTable, fashion: FashionModel, taxonomy: str | None, labels: Path, *, told: bool
) -> dict[str, list[str | None]]:
    """The columns that a model can be evaluated on; the others are told on stderr."""
    asked = fashion.recognizer(taxonomy).taxonomy
    known = ("category", "color", *(group.name for group in asked.attributes))
    used = {name: column for name, column in table.labels.items() if name in known and any(column)}
    if not used:
        got, remedy = ", ".join(table.labels) or "none", "rename one"
        if empty := [name for name in table.labels if name in known]:
            got, remedy = f"{', '.join(empty)} without any", "fill it in"
        raise InputError(f"{labels} must have labels in a column of {', '.join(known)}, got {got!r:.120}; {remedy}")
    if not told and (others := [name for name in table.labels if name not in used]):
        typer.echo(f"not evaluated, no group or without labels: {', '.join(others)}", err=True)
    return used


def _write_board(target: Path, evaluation: Evaluation, count: int) -> None:
    if target.suffix.lower() == ".html":
        write_text(target, evaluation.to_html(count))
    else:
        write_picture(target, evaluation.draw(count))
    typer.echo(f"worst answers in {target}", err=True)
