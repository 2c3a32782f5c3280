"""`fashion-retrieval export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fashion_retrieval.cli.options import AsJson, ModelId, Revision
from fashion_retrieval.cli.photos import find_photos
from fashion_retrieval.errors import InputError

if TYPE_CHECKING:
    from fashion_retrieval.checkpoint.export_manifest import Export
    from fashion_retrieval.export.accuracy import Labeled


def export(
    model_id: ModelId,
    to: Annotated[str, typer.Option("--to", help="openvino or onnx.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The model folder to write.")],
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 (openvino) or int8.")] = "fp32",
    calibrate: Annotated[
        list[str] | None, typer.Option("--calibrate", metavar="PHOTOS", help="For int8: photos like yours.")
    ] = None,
    labeled: Annotated[
        Path | None, typer.Option("--labeled", metavar="FOLDER", help="A folder of photos for each category.")
    ] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Export a model for another runtime, and measure its accuracy against torch in float32."""
    from fashion_retrieval import download_model
    from fashion_retrieval.export.export import check_request, export_model

    check_request(to, precision, calibrated=bool(calibrate))
    photos, _ = find_photos(calibrate or ())
    exported = export_model(
        download_model(model_id, revision=revision),
        out,
        backend=to,
        precision=precision,
        model_id=model_id,
        calibrate=photos,
        labeled=_read_labeled(labeled) if labeled else None,
    )
    if as_json:
        typer.echo(json.dumps(exported.parity | {"default": exported.default}, indent=2))
    else:
        _show(exported)
    typer.echo(f"{to} {precision} in {out}", err=True)


def _read_labeled(folder: Path) -> Labeled:
    from fashion_retrieval.export.accuracy import Labeled

    if not folder.is_dir():
        raise InputError(f"--labeled must be a folder with a subfolder for each category, found none at {folder}")
    found = {inner.name: find_photos([str(inner)], "skip")[0] for inner in sorted(folder.iterdir()) if inner.is_dir()}
    filled = {name: photos for name, photos in found.items() if photos}
    if len(filled) < 2:
        expected = "a subfolder of photos for each of at least two categories"
        raise InputError(f"--labeled must hold {expected}, {folder} has {len(filled)}")
    pairs = [(photo, name) for name, photos in filled.items() for photo in photos]
    return Labeled([photo for photo, _ in pairs], [name for _, name in pairs])


def _show(exported: Export) -> None:
    from fashion_retrieval.export.accuracy import failed_criterion

    metrics = exported.parity
    table = Table("", "torch float32", f"{exported.backend} {exported.precision}")
    for name, words in (("image", "images"), ("text", "texts"), ("query", "composed queries")):
        if f"{name}_cosine_min" in metrics:
            least, mean = metrics[f"{name}_cosine_min"], metrics[f"{name}_cosine_mean"]
            table.add_row(f"{words}, cosine: mean (least)", "1", f"{mean:.6f} ({least:.6f})")
    for name, words in (("precision", "category, precision"), ("recall_at_10", "same category, recall@10")):
        if name in metrics:
            table.add_row(words, f"{metrics[f'{name}_torch']:.4f}", f"{metrics[name]:.4f}")
    speed, ratio = metrics["images_per_second"], metrics["speed_ratio"]
    table.add_row("photos a second", f"{metrics['images_per_second_torch']:.1f}", f"{speed:.1f} ({ratio:.2f}x)")
    Console().print(table)
    reason = failed_criterion(exported.precision, metrics)
    chosen = f"takes torch ({reason}); ask for it with backend={exported.backend!r}" if reason else "takes it"
    typer.echo(f"backend='auto' {chosen}")
