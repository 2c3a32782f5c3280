"""Train every composer on the same frozen features by the same recipe, with several seeds, and compare them.

python -m training.compare_composers training/configs/compare_composers.toml

The same command goes on after an interruption; a finished run is kept in `output`/NAME/SEED/run.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationInfo, field_validator, with_config

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.errors import FashionRetrievalError
from fashion_retrieval.hub.download import resolve
from training.comparison.metrics import difference, summarize
from training.comparison.runs import (
    NAMES,
    TEXT_TOKENS,
    Initialization,
    Method,
    composer_config,
    flops_of_a_query,
    init_or_resume,
    run,
)
from training.composers import COMPOSERS
from training.data.triplets import GROUPS
from training.engine.distributed import single_process
from training.engine.errors import one_line_errors
from training.engine.settings import SCHEMA, one_of, read_settings
from training.evaluation.composed import read_sets
from training.evaluation.results_file import provenance, write_results
from training.recipes import agcn_settings
from training.recipes.agcn_data import load_dataset, with_photos_of
from training.reports.comparison import comparison_page


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    results: str
    """The JSON file to write; a Markdown table comes beside it."""
    seeds: list[int]
    recipe: agcn_settings.Settings
    """The recipe of all; its `variant` is not read."""
    composers: list[Annotated[str, one_of(NAMES)]] = field(default_factory=lambda: list(NAMES))
    starts: list[Initialization] = field(default_factory=lambda: ["sum"])
    """How the literature's composers are initialized: "sum" makes each a change to the sum of both embeddings, "text" a
    change to the text's, as AGCN's text branch is; "own" takes its result as published."""

    @field_validator("seeds", "composers", "starts")
    @classmethod
    def _each_once(cls, values: list[Any], info: ValidationInfo) -> list[Any]:
        if not values or len(set(values)) < len(values):
            raise ValueError(f"'{info.field_name}' must list something, each once, got {values}")
        return values


def methods(settings: Settings) -> list[Method]:
    """The rows to run; AGCN first, since all others are compared with it."""
    names = sorted(settings.composers, key=lambda name: (name != "agcn", NAMES.index(name)))
    return [Method(name, start) for name in names for start in (settings.starts if name in COMPOSERS else (None,))]


def compare(settings: Settings) -> dict[str, Any]:
    """Run all that is missing and write the results after each composer.

    A composer that fails is named in the results and stops no other.
    """
    recipe, output = settings.recipe, Path(settings.results)
    env = single_process()
    bundle = checkpoint.load(resolve(recipe.model))
    origin = provenance(FashionModel(bundle, model_id=recipe.model, device="cpu"), recipe.model, asdict(settings))
    encoder = bundle.encoder.to(env.device).eval().requires_grad_(False)
    init_or_resume(recipe, encoder.fingerprint)
    root = Path(recipe.data)
    fashioniq, protocol = (root, "all") if recipe.source == "fashioniq" else (None, None)
    sets = read_sets(root, fashioniq, protocol, "val", GROUPS, recipe.missing)
    dataset = with_photos_of(load_dataset(recipe, encoder, env), sets, Path(recipe.cache), env)
    config = composer_config(recipe, dataset)
    results: dict[str, Any] = origin | {"source": recipe.source, "split": "val", "triplets": len(dataset.triplets)}
    results |= {"tokens": {"image": dataset.tokens.shape[1], "text": TEXT_TOKENS}}
    results |= {"left_out": list(dataset.remarks), "composers": {}, "failed": {}}
    best: Sequence[dict[str, Any]] = []
    for method in methods(settings):
        seeds = settings.seeds[:1] if method.name == "sum" else settings.seeds
        try:
            runs = [run(method, seed, recipe, dataset, sets, env) for seed in seeds]
        except FashionRetrievalError as error:
            results["failed"][method.key] = str(error)
            typer.echo(f"{method.key} failed: {error}", err=True)
        else:
            best = runs if method.name == "agcn" else best
            row = asdict(method) | summarize(runs)
            row["flops"] = flops_of_a_query(method, config, dataset.tokens.shape[1])
            row["agcn_is_ahead_by"] = difference(best, runs) if best and method.name != "agcn" else None
            results["composers"][method.key] = row
        write_results(results, output, comparison_page(results))
    return results


def main(config: Path) -> None:
    """Compare by a TOML file."""
    with one_line_errors():
        failed = compare(read_settings(config, Settings))["failed"]
    if failed:
        typer.echo(f"error: {', '.join(failed)} failed; delete their folders and run again", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
