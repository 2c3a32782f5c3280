"""Train every composer on the same frozen features by the same recipe, with several seeds, and compare them.

python -m training.compare_composers training/configs/compare_composers.toml

The same command goes on after an interruption: a finished run is kept in `output`/NAME/SEED/run.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import typer
from torch import nn

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.config import ComposerConfig
from fashion_retrieval.errors import ConfigError, FashionRetrievalError
from fashion_retrieval.hub import resolve
from fashion_retrieval.models.composer import Composer
from training import train_agcn
from training.compare_figures import difference, figures_of
from training.compare_runs import Bank, TextTokens, fit, rank_groups, with_photos
from training.compare_table import write_table
from training.composers import COMPOSERS
from training.composers.base import Anchored
from training.data.triplets import GROUPS, ComposedSet, Missing
from training.evaluate import provenance, read_sets, write_figures
from training.loop import read_settings

VARIANTS = ("sum", "only_text", "only_image", "add", "agcn")
"""AGCN and its ablations: `ComposerConfig.variant`."""
NAMES = (*VARIANTS, *COMPOSERS)
Start = Literal["sum", "text", "own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    results: str
    """The JSON file to write; a Markdown table comes beside it."""
    seeds: list[int]
    recipe: train_agcn.Settings
    """For all of them; its `variant` is not read."""
    composers: list[str] = field(default_factory=lambda: list(NAMES))
    starts: list[Start] = field(default_factory=lambda: ["sum"])
    """Of the literature's composers: "sum" makes each a change to the sum of both embeddings, "text" to the text's, as
    AGCN's text branch is; "own" takes its result as published."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A row of the table."""

    name: str
    start: Start | None
    """None for AGCN and its ablations, which have no choice."""

    @property
    def key(self) -> str:
        """What its folder is called."""
        return self.name if self.start is None else f"{self.name}_{self.start}"

    def build(self, config: ComposerConfig) -> nn.Module:
        """The module, randomly initialised."""
        if self.start is None:
            return Composer(replace(config, variant=self.name))
        composer = COMPOSERS[self.name](config)
        if self.start == "own":
            return composer
        return Anchored(composer, config.embedding_dim, with_photo=self.start == "sum")


def read_comparison(path: Path) -> Settings:
    """The settings of a TOML file.

    Raises:
        ConfigError: The file has faults.
    """
    settings = read_settings(path, Settings)
    faults = [f"composers: {name} is unknown" for name in settings.composers if name not in NAMES]
    faults += [
        f"starts: {start} is unknown; known are {', '.join(get_args(Start))}"
        for start in settings.starts
        if start not in get_args(Start)
    ]
    faults += [f"{key} must list something, each once" for key in ("composers", "starts", "seeds")
               if not (listed := getattr(settings, key)) or len(set(listed)) < len(listed)]  # fmt: skip
    if faults:
        raise ConfigError(f"{path}: {'; '.join(faults)}; composers are {', '.join(NAMES)}")
    return settings


def contenders(settings: Settings) -> list[Contender]:
    """AGCN first, since all others are compared with it."""
    names = sorted(settings.composers, key=lambda name: (name != "agcn", NAMES.index(name)))
    return [Contender(name, start) for name in names for start in (settings.starts if name in COMPOSERS else (None,))]


def claim(recipe: train_agcn.Settings, fingerprint: str) -> None:
    """Take the output folder for this recipe and encoder.

    Raises:
        ConfigError: It holds runs of others, whose figures must not be mixed with these.
    """
    elsewhere = {"output", "cache", "variant"}
    ours = {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.name not in elsewhere}
    ours |= {"composer": asdict(recipe.composer), "optimisation": asdict(recipe.optimisation), "encoder": fingerprint}
    path = Path(recipe.output) / "recipe.json"
    text = json.dumps(ours, indent=2, sort_keys=True) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{path.parent} holds runs of another recipe or encoder; choose another output, or delete it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def run(
    contender: Contender, seed: int, recipe: train_agcn.Settings, bank: Bank, sets: Sequence[ComposedSet]
) -> dict[str, Any]:
    """Train and measure one composer, or read what was measured before."""
    folder = Path(recipe.output) / contender.key / str(seed)
    done = folder / "run.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return found
    torch.manual_seed(seed)
    config = ComposerConfig(
        embedding_dim=bank.tokens.shape[-1], encoder=bank.texts.encoder.fingerprint, **asdict(recipe.composer)
    )
    composer = contender.build(config).to(bank.device)
    size = sum(parameter.numel() for parameter in composer.parameters())
    recipe = replace(recipe, optimisation=replace(recipe.optimisation, seed=seed))
    training = fit(composer, recipe, bank, folder) if size else {}
    ranks = {one.protocol: rank_groups(composer, one.groups, bank) for one in sets}
    measured = {
        "seed": seed,
        "parameters": size,
        **training,
        "ranks": {protocol: {g: r.tolist() for g, r in groups.items()} for protocol, groups in ranks.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = done.with_suffix(".partial")
    partial.write_text(json.dumps(measured), encoding="utf-8")
    partial.replace(done)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return measured


def compare(settings: Settings) -> dict[str, Any]:
    """Run all that is missing and write the results after each composer.

    A composer that fails leaves the others as they are; it is named in the results.
    """
    recipe = settings.recipe
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bundle = checkpoint.load(resolve(recipe.model))
    told = provenance(FashionModel(bundle, model_id=recipe.model, device="cpu"), recipe.model, asdict(settings))
    encoder = bundle.encoder.to(device).eval().requires_grad_(False)
    claim(recipe, encoder.fingerprint)
    root = Path(recipe.data)
    fashioniq, protocol = (root, "all") if recipe.source == "fashioniq" else (None, None)
    sets = read_sets(root, fashioniq, protocol, "val", GROUPS, Missing.ERROR)
    material = train_agcn.load_material(recipe, encoder, device)
    bank = with_photos(Bank(material, material.tokens, material.rows, TextTokens(encoder), device), sets, recipe)
    results: dict[str, Any] = told | {"source": recipe.source, "split": "val", "triplets": len(material.triplets)}
    results |= {"composers": {}, "failed": {}}
    best: list[dict[str, Any]] = []
    for contender in contenders(settings):
        seeds = settings.seeds[:1] if contender.name == "sum" else settings.seeds
        try:
            runs = [run(contender, seed, recipe, bank, sets) for seed in seeds]
        except FashionRetrievalError as error:
            results["failed"][contender.key] = str(error)
            typer.echo(f"{contender.key} failed: {error}", err=True)
        else:
            best = runs if contender.name == "agcn" else best
            ahead = difference(best, runs) if best and contender.name != "agcn" else None
            results["composers"][contender.key] = asdict(contender) | figures_of(runs) | {"agcn_is_ahead_by": ahead}
        write_figures(results, Path(settings.results))
        write_table(results, Path(settings.results).with_suffix(".md"))
    return results


def main(config: Path) -> None:
    """Compare by a TOML file."""
    try:
        failed = compare(read_comparison(config))["failed"]
    except FashionRetrievalError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if failed:
        typer.echo(f"error: {', '.join(failed)} failed; delete their folders and run again", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
