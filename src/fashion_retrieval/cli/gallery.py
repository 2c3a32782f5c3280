"""`fashion-retrieval index`, `search` and `duplicates`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fashion_retrieval.cli import options
from fashion_retrieval.cli.options import report_failures
from fashion_retrieval.cli.output import BOARDS, check_board, print_groups, print_matches, write_board
from fashion_retrieval.cli.photos import name_photos

GalleryUri = Annotated[str, typer.Argument(metavar="GALLERY", help="Its folder, or the URI of its server.")]
GalleryModel = Annotated[str | None, typer.Option("--model", help="Instead of the model the gallery was built with.")]
Where = Annotated[str | None, typer.Option(metavar="FILTER", help="\"category = 'dress' and color = 'red'\"")]
TopK = Annotated[int, typer.Option("--top-k", min=1, help="How many results.")]


def index(
    paths: options.Paths,
    gallery: GalleryUri,
    recognize: Annotated[
        bool, typer.Option("--recognize/--no-recognize", help="Recognize each photo, for --where.")
    ] = True,
    taxonomy: Annotated[str | None, typer.Option(help="default, deepfashion, or a YAML or JSON file.")] = None,
    prefix: Annotated[str, typer.Option(help="Put before every id.")] = "",
    model: options.Model = "compact",
    revision: options.Revision = None,
    max_pixels: options.MaxPixels = None,
    batch_size: options.BatchSize = 1_024,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    backend: options.Backend = "auto",
    on_error: options.OnError = "raise",
    dimensions: options.Dimensions = None,
    precision: options.StoredPrecision = "float32",
) -> None:
    """Add photos to a gallery. A photo's id is its path below the folder given, or its file name.

    Photos that are there already are left alone unless they changed: after an interruption the same command goes on.
    """
    from fashion_retrieval import FashionModel, Gallery

    photos, failures = name_photos(paths, prefix, on_error)
    place = str(Path(model).absolute()) if Path(model).is_dir() else model
    fashion = FashionModel.from_pretrained(place, revision=revision, device=device, dtype=dtype, backend=backend)
    made: dict[str, Any] = {"taxonomy": taxonomy, "dimensions": dimensions, "precision": precision}
    with Gallery.create(gallery, fashion, recognize=recognize, exist_ok=True, **made) as store:
        files = [photo.absolute() for photo in photos.values()]
        reading: dict[str, Any] = {"batch_size": batch_size, "on_error": on_error, "max_pixels": max_pixels}
        report = store.add(files, list(photos), progress=sys.stderr.isatty(), **reading)
        store.optimize()
    counts = f"{report.added} added, {report.updated} updated, {report.unchanged} unchanged"
    typer.echo(f"{counts}, {len(report.failures) + len(failures)} failed")
    report_failures([*failures, *((str(files[failure.index]), failure.error) for failure in report.failures)])


def migrate(
    gallery: GalleryUri,
    model: Annotated[str, typer.Option("--model", help="The new model: 'compact', a folder or a Hub repository.")],
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the photos lie now, if they moved.")] = None,
    dimensions: options.Dimensions = None,
    revision: options.Revision = None,
    max_pixels: options.MaxPixels = None,
    batch_size: options.BatchSize = 1_024,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    backend: options.Backend = "auto",
    on_error: options.OnError = "raise",
) -> None:
    """Move a gallery to another model: its photos are encoded again from their files.

    The gallery is searched as before until all is done. After an interruption the same command goes on.
    """
    from fashion_retrieval import FashionModel, Gallery

    place = str(Path(model).absolute()) if Path(model).is_dir() else model
    with Gallery.open(gallery, None) as store:
        fashion = FashionModel.from_pretrained(place, revision=revision, device=device, dtype=dtype, backend=backend)
        reading: dict[str, Any] = {"batch_size": batch_size, "on_error": on_error, "max_pixels": max_pixels}
        report = store.migrate(fashion, dimensions=dimensions, root=root, progress=sys.stderr.isatty(), **reading)
    typer.echo(f"{report.count} in the gallery, {report.encoded} encoded, {len(report.failures)} failed")
    report_failures([(failure.source, failure.error) for failure in report.failures])


def search(
    gallery: GalleryUri,
    text: Annotated[str | None, typer.Option(help="What it looks like; with a photo, what to change.")] = None,
    image: Annotated[Path | None, typer.Option(metavar="PHOTO", help="A photo to start from.")] = None,
    id_: Annotated[str | None, typer.Option("--id", metavar="ID", help="A photo of the gallery to start from.")] = None,
    where: Where = None,
    top_k: TopK = 10,
    exclude: Annotated[list[str] | None, typer.Option(metavar="ID", help="Leave out; repeatable.")] = None,
    offset: Annotated[int, typer.Option(min=0, help="How many results to pass over.")] = 0,
    min_score: Annotated[float | None, typer.Option(min=-1, max=1, help="Leave out results of lower scores.")] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="The best result of each of its values.")
    ] = None,
    unique: Annotated[bool, typer.Option("--unique", help="Leave out near-duplicates of better results.")] = False,
    text_weight: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="From 0, the photo alone, to 1, the text alone; 0.5 is both as composed."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Tell how much of photo and text the query has.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines: one object per result.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The board (.png, .html) or rows (.csv, .jsonl).")
    ] = None,
    max_pixels: options.MaxPixels = None,
    model: GalleryModel = None,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    backend: options.Backend = "auto",
) -> None:
    """Find photos of a gallery by a text, a photo, or a photo and what to change about it."""
    from fashion_retrieval import Refinement

    start = id_ if image is None else image
    if text is None and start is None:
        raise typer.BadParameter("give --text, --image or --id")
    if image is not None and id_ is not None:
        raise typer.BadParameter("--image and --id exclude each other")
    if text is not None and not text.strip():
        raise typer.BadParameter("--text must not be empty")
    if text_weight is not None and (text is None or start is None):
        raise typer.BadParameter("--text-weight goes with --text and a photo")
    if save and save.suffix.lower() not in BOARDS:
        raise typer.BadParameter(f"--save must end in {', '.join(BOARDS)}, got {save.name!r}")
    if save:
        check_board(save)
    loading: dict[str, Any] = {"revision": revision, "device": device, "dtype": dtype, "backend": backend}
    turns = Refinement.open(gallery, model, max_pixels=max_pixels, **loading)
    with turns.gallery:
        reference = turns.gallery.get(id_) if id_ is not None else image
        asked: dict[str, Any] = {"top_k": top_k, "where": where, "exclude": exclude or (), "offset": offset}
        asked |= {"min_score": min_score, "group_by": group_by, "unique": unique}
        matches = turns.ask(text, reference, text_weight=text_weight, **asked)
        if text is not None and (understood := turns.history[-1].understood) != " ".join(text.split()):
            typer.echo(f"understood: {understood}", err=True)
        if explain:
            why = turns.explain()
            typer.echo(json.dumps({"explanation": why.to_dict()}, ensure_ascii=False) if as_json else str(why))
        print_matches(matches, as_json=as_json)
        if save:
            write_board(save, turns)


def duplicates(gallery: GalleryUri, model: GalleryModel = None, as_json: options.AsJson = False) -> None:
    """List near-duplicates in a gallery: photos that were encoded, resized, slightly cropped or lit anew."""
    from fashion_retrieval import Refinement

    with Refinement.open(gallery, model).gallery as store:
        groups = store.duplicates(progress=sys.stderr.isatty())
    if as_json:
        typer.echo(json.dumps(groups, ensure_ascii=False))
    else:
        print_groups(groups)
