"""The command `fashion-retrieval`, over the public names; they are imported inside the commands to start quickly."""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fashion_retrieval._utils.cpu import keep_to_quota
from fashion_retrieval.cli.encode import encode
from fashion_retrieval.cli.evaluate import evaluate
from fashion_retrieval.cli.export import export
from fashion_retrieval.cli.fit import fit
from fashion_retrieval.cli.gallery import duplicates, index, migrate, search
from fashion_retrieval.cli.mcp import mcp
from fashion_retrieval.cli.options import AsJson, Commands, Device, Dtype, ModelId, Revision
from fashion_retrieval.cli.recognize import recognize
from fashion_retrieval.cli.refine import refine
from fashion_retrieval.cli.serve import serve

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
models = typer.Typer(help="List, download, convert and describe models.", no_args_is_help=True)
for command in (recognize, fit, evaluate, encode, export, index, migrate, search, duplicates, refine, serve, mcp):
    app.command()(command)
app.add_typer(models, name="models")


def _show_version(wanted: bool) -> None:
    if wanted:
        from fashion_retrieval import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What is in a photo of clothes, and photos like it: recognition, galleries, search by photo and text."""


@models.command("list")
def list_(as_json: AsJson = False) -> None:
    """Name models for photos of clothes: license, size, and what of each was tried here."""
    from dataclasses import asdict

    from fashion_retrieval import list_models

    if as_json:
        typer.echo(json.dumps([asdict(model) for model in list_models()], indent=2))
        return
    listed = list_models()
    rows = [("model", "license", "commercial", "numbers", "MB")]
    rows += [(m.id, m.license, m.commercial, str(m.embedding_dim or "?"), str(m.megabytes or "?")) for m in listed]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    notes = ["", *(f"{model.state}: {model.description}" for model in listed)]
    for row, note in zip(rows, notes, strict=True):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if note:
            typer.echo(fill(note, 80, initial_indent="  ", subsequent_indent="  "))


@models.command()
def download(
    model_id: ModelId,
    revision: Revision = None,
    require_commercial: Annotated[
        bool, typer.Option("--require-commercial", help="Refuse a license that does not clearly allow commercial use.")
    ] = False,
) -> None:
    """Put a model into the cache, and print its folder."""
    from fashion_retrieval import download_model

    typer.echo(download_model(model_id, revision=revision, require_commercial=require_commercial))


@models.command()
def convert(folder: Annotated[Path, typer.Argument(help="A model folder whose weights are pickles.")]) -> None:
    """Rewrite pickled weights as safetensors, beside them; only tensors are read, in a process of their own."""
    from fashion_retrieval.export.pickles import convert_folder

    for path, count in convert_folder(folder).items():
        typer.echo(f"{path}: {count} tensors")


@models.command()
def info(model_id: ModelId, revision: Revision = None, as_json: AsJson = False) -> None:
    """Load a model and tell what it is: files, sizes, license, training data, measured figures."""
    from dataclasses import asdict

    from fashion_retrieval import FashionModel, download_model, list_models

    folder = download_model(model_id, revision=revision)
    model = FashionModel.from_pretrained(model_id, revision=revision, device="cpu", dtype="float32")
    config = model.config.to_dict()
    if isinstance(config.get("taxonomy"), Mapping):
        config["taxonomy"] = config["taxonomy"].get("name", "custom")
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    parameters = sum(weight.numel() for weight in model.encoder.parameters())
    description: dict[str, Any] = {"id": model.model_id, "folder": str(folder), "embedding_dim": model.embedding_dim}
    description |= {"encoder_parameters": parameters, "bytes": sizes, "config": config}
    for entry in (known for known in list_models() if known.id == model_id):
        description["listed"] = asdict(entry) | {
            "figures": list(map(str, entry.figures)),
            "sources": list(entry.sources),
        }
    _show(description, as_json)


@app.command()
def doctor(
    device: Device = "auto",
    dtype: Dtype = "auto",
    backends: Annotated[
        bool, typer.Option("--backends", help="Compare what the installed backends compute; takes minutes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the installation: versions, device, caches, the embedded model, and a timed self-test."""
    from fashion_retrieval import doctor as examine

    findings = examine(device=device, dtype=dtype, backends=backends)
    _show(findings, as_json)
    if findings["problems"]:
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    keep_to_quota()
    gc.set_threshold(50_000, 20, 20)  # importing torch makes much and no garbage: a fifth less time for one photo
    atexit.register(gc.freeze)  # or the end of the process spends most of a second on looking for torch's garbage
    try:
        try:
            app(prog_name="fashion-retrieval")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _show(data: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(data, indent=2))
        return
    table = Table.grid(padding=(0, 2))
    for name, value in _flat(data):
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(table)


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{prefix}{key}", str(value)
