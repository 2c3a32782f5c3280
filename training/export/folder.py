"""A model folder that appears whole, and only after it was read back and found to be what was trained."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from fashion_retrieval import FashionModel
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.config import CONFIG_NAME, ModelConfig
from training.export.compare import compare
from training.export.parts import RUNTIMES, check_output
from training.export.recipe import Settings


def publish(bundle: Bundle, settings: Settings, *, source: Bundle | None = None) -> None:
    """Save a bundle as the recipe's output, once what was saved is loaded again and compared; the rest is said.

    Args:
        bundle: What is saved.
        settings: Of the recipe.
        source: What it must agree with; without it, the bundle as it is.

    Raises:
        ConfigError: The output holds what is no model.
        WeightsError: What was saved is too far from what was trained; the output is as it was.
    """
    output = Path(settings.output)
    model = FashionModel(bundle, model_id=settings.card_id, dtype="float32")
    trained = FashionModel(source, model_id=settings.card_id, dtype="float32") if source else model
    with replaced(output) as folder:
        model.save_pretrained(folder, card_id=settings.card_id)
        saved = FashionModel.from_pretrained(folder, device=trained.device, dtype="float32", backend="torch")
        agreement = compare(trained, saved)
        agreement.check(least_cosine=settings.least_cosine, least_pixels=settings.least_pixels)
        gone = _keep_runtimes(output, folder)
    typer.echo(agreement)
    for name in gone:
        typer.echo(f"{name} held other weights and is gone; export the model again")
    size = sum(path.stat().st_size for path in output.iterdir())
    typer.echo(f"{settings.name} written to {output}: {size / 1e6:.1f} MB, encoder {saved.fingerprint[:12]}…")


def _keep_runtimes(output: Path, folder: Path) -> list[str]:
    """Copy exported models into the new folder where the weights are the same; the names of those left out."""
    there = [name for name in RUNTIMES if (output / name).is_dir()]
    if there and _weights(output) == _weights(folder):
        for name in there:
            shutil.copytree(output / name, folder / name)
        return []
    return there


def _weights(folder: Path) -> dict[str, str]:
    """Digests of the weights, as the folder's own configuration has them; none where it can't be read."""
    path = folder / CONFIG_NAME
    try:
        sha256 = ModelConfig.from_dict(json.loads(path.read_bytes()), str(path)).sha256
    except (OSError, ValueError):
        return {}
    return {name: digest for name, digest in sha256.items() if name.endswith(".safetensors")}


@contextmanager
def replaced(output: Path) -> Iterator[Path]:
    """An empty folder to fill; it takes the place of `output` at the end, unless an error was raised.

    Raises:
        ConfigError: `output` is a file, or holds files that are no model's: they would be lost.
    """
    output = output.resolve()
    check_output(output)
    mark = uuid.uuid4().hex[:8]
    folder, old = (output.with_name(f".{output.name}.{mark}.{kind}") for kind in ("new", "old"))
    folder.mkdir(parents=True)
    try:
        yield folder
        if output.exists():
            output.rename(old)
        try:
            folder.rename(output)
        except OSError:
            if old.exists():
                old.rename(output)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
