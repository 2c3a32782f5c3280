"""Make a model folder, write its card, publish it.

python -m training.export model training/configs/export_compact.toml
python -m training.export composer training/configs/export_compact.toml runs/agcn_compact/model
python -m training.export segmenter training/configs/export_compact.toml runs/segmenter_compact_both
python -m training.export bfloat16 training/configs/export_compact.toml
python -m training.export card training/configs/export_compact.toml
python -m training.export push src/fashion_retrieval/assets/compact your-name/compact --dry-run
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fashion_retrieval import FashionModel
from fashion_retrieval.checkpoint.folder import load
from training.engine.errors import one_line_errors
from training.engine.settings import read_settings
from training.export.folder import publish
from training.export.recipe import Settings, described, in_bfloat16, joined, with_composer, with_segmenter

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Config = Annotated[Path, typer.Argument(help="A TOML file of training/configs/export_*.toml.")]


@app.command()
def model(config: Config) -> None:
    """Join what was trained, calibrate, save, load again and compare; the folder appears whole or not at all."""
    with one_line_errors():
        settings = read_settings(config, Settings)
        publish(joined(settings), settings)


@app.command()
def composer(
    config: Config, trained: Annotated[Path, typer.Argument(help="The model that training.train_agcn wrote.")]
) -> None:
    """Put a composer into the model folder whose encoder it was trained on."""
    with one_line_errors():
        settings = read_settings(config, Settings)
        publish(with_composer(settings, trained), settings)


@app.command()
def segmenter(
    config: Config, trained: Annotated[Path, typer.Argument(help="The run of training.train_segmenter.")]
) -> None:
    """Put a segmenter into the model folder; embeddings stay as they are."""
    with one_line_errors():
        settings = read_settings(config, Settings)
        publish(with_segmenter(settings, trained), settings)


@app.command()
def bfloat16(config: Config) -> None:
    """Round the folder's image tower, by what photos show it, to weights that bfloat16 holds exactly."""
    with one_line_errors():
        settings = read_settings(config, Settings)
        publish(in_bfloat16(settings), settings, source=load(Path(settings.output)))


@app.command()
def card(config: Config) -> None:
    """Write license, training data and measured figures into the folder's configuration and card; no weight changes."""
    with one_line_errors():
        settings = read_settings(config, Settings)
        publish(described(settings), settings)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    repo_id: Annotated[str, typer.Argument(help="The Hub's, org/name; made where it does not exist.")],
    private: Annotated[bool, typer.Option(help="Whether a new repository is private.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made where it does not exist; main if none.")] = None,
    message: Annotated[str, typer.Option(help="First line of the commit.")] = "Upload with fashion-retrieval",
    dry_run: Annotated[bool, typer.Option(help="Only list what would be sent, without a network.")] = False,
) -> None:
    """Upload a model folder, its card written for REPO_ID; the token is HF_TOKEN's or that of `hf auth login`."""
    with one_line_errors():
        loaded = FashionModel.from_pretrained(folder, device="cpu", backend="torch")
        typer.echo(
            loaded.push_to_hub(repo_id, private=private, revision=revision, commit_message=message, dry_run=dry_run)
        )


if __name__ == "__main__":
    app()
