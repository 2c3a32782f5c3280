"""Train the composer (AGCN), or one of its ablations, on the frozen features of an encoder.

python -m training.train_agcn training/configs/agcn_compact.toml
torchrun --nproc-per-node 2 -m training.train_agcn training/configs/agcn_fashioniq.toml
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
import typer

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.config import ComposerConfig, ModelConfig
from fashion_retrieval.hub.download import resolve
from fashion_retrieval.models.composer import Composer
from training.engine.distributed import DistributedEnv, distributed_env, single_process
from training.engine.errors import one_line_errors
from training.engine.settings import read_settings
from training.recipes.agcn_data import load_dataset
from training.recipes.agcn_fit import fit
from training.recipes.agcn_settings import Settings


def train(settings: Settings, bundle: Bundle, env: DistributedEnv | None = None) -> Composer:
    """Run the recipe on the bundle's encoder and return the composer with its best weights."""
    env = env or single_process()
    torch.manual_seed(settings.optimization.seed)
    encoder = bundle.encoder.to(env.device).eval().requires_grad_(False)
    shape = ComposerConfig(
        embedding_dim=encoder.embedding_dim,
        variant=settings.variant,
        encoder=encoder.fingerprint,
        **asdict(settings.composer),
    )
    composer = Composer(shape).to(env.device)
    if not list(composer.parameters()):
        return composer.eval()
    env.rows(settings.batch_size)  # refuses a batch that can't be split, before anything runs
    dataset = load_dataset(settings, encoder, env)
    if env.is_main_process:
        for line in dataset.remarks:
            typer.echo(line, err=True)
    fit(composer, settings, dataset, Path(settings.output), env)
    return composer


def write(composer: Composer, bundle: Bundle, settings: Settings) -> Path:
    """Write the composer with the model whose encoder it was trained on; returns the folder."""
    card = replace(bundle.config or ModelConfig(name=settings.model), composer=composer.config)
    joined = replace(bundle, encoder=bundle.encoder.cpu(), composer=composer.cpu(), config=card)
    model = FashionModel(joined, model_id=card.name, device="cpu")
    return model.save_pretrained(Path(settings.output) / "model")


def main(config: Path) -> None:
    """Train by a TOML file; the same command goes on after an interruption."""
    with distributed_env() as env, one_line_errors():
        settings = read_settings(config, Settings)
        bundle = checkpoint.load(resolve(settings.model))
        composer = train(settings, bundle, env)
        if env.is_main_process:
            typer.echo(f"model with its composer written to {write(composer, bundle, settings)}")


if __name__ == "__main__":
    typer.run(main)
