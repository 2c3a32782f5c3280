"""`fashion-retrieval fit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fashion_retrieval.cli import options
from fashion_retrieval.cli.labels import read_labels


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

    table = read_labels(labels, photos, [attribute])
    fashion = FashionModel.from_pretrained(model, device=device, dtype=dtype, backend=backend)
    fitted = fashion.fit_attribute(
        attribute,
        table.photos,
        table.labels[attribute],
        boxes=table.boxes,
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
