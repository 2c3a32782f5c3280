"""Train every composer on the same frozen features by the same recipe, with several seeds, and compare them.

python -m training.compare_composers training/configs/compare_composers.toml

The same command goes on after an interruption: a finished run is kept in `output`/NAME/SEED/run.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import typer

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.errors import FashionRetrievalError
from fashion_retrieval.hub.download import resolve
from training.comparison.figures import difference, figures_of
from training.comparison.runs import NAMES, TEXT_TOKENS, Contender, Start, claim, composer_config, flops_of_a_query, run
from training.composers import COMPOSERS
from training.data.triplets import GROUPS
from training.engine.distributed import alone
from training.engine.errors import one_line_errors
from training.engine.settings import read_settings
from training.evaluation.composed import read_sets
from training.evaluation.results_file import provenance, write_results
from training.recipes import agcn_settings
from training.recipes.agcn_data import load_material, with_photos_of
from training.reports.comparison import comparison_page


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    results: str
    """The JSON file to write; a Markdown table comes beside it."""
    seeds: list[int]
    recipe: agcn_settings.Settings
    """For all of them; its `variant` is not read."""
    composers: list[str] = field(default_factory=lambda: list(NAMES))
    starts: list[Start] = field(default_factory=lambda: ["sum"])
    """Of the literature's composers: "sum" makes each a change to the sum of both embeddings, "text" to the text's, as
    AGCN's text branch is; "own" takes its result as published."""

    def faults(self) -> list[str]:
        """What can't be."""
        strange = [name for name in self.composers if name not in NAMES]
        listed: dict[str, Sequence[object]] = {"composers": self.composers, "starts": self.starts, "seeds": self.seeds}
        faults = [f"composers: {', '.join(strange)} unknown (known: {', '.join(NAMES)})"] if strange else []
        faults += [
            f"{key} must list something, each once"
            for key, values in listed.items()
            if not values or len(set(values)) < len(values)
        ]
        return faults


def contenders(settings: Settings) -> list[Contender]:
    """AGCN first, since all others are compared with it."""
    names = sorted(settings.composers, key=lambda name: (name != "agcn", NAMES.index(name)))
    return [Contender(name, start) for name in names for start in (settings.starts if name in COMPOSERS else (None,))]


def compare(settings: Settings) -> dict[str, Any]:
    """Run all that is missing and write the results after each composer.

    A composer that fails leaves the others as they are; it is named in the results.
    """
    recipe, output = settings.recipe, Path(settings.results)
    world = alone()
    bundle = checkpoint.load(resolve(recipe.model))
    told = provenance(FashionModel(bundle, model_id=recipe.model, device="cpu"), recipe.model, asdict(settings))
    encoder = bundle.encoder.to(world.device).eval().requires_grad_(False)
    claim(recipe, encoder.fingerprint)
    root = Path(recipe.data)
    fashioniq, protocol = (root, "all") if recipe.source == "fashioniq" else (None, None)
    sets = read_sets(root, fashioniq, protocol, "val", GROUPS, recipe.missing)
    material = with_photos_of(load_material(recipe, encoder, world), sets, Path(recipe.cache), world)
    config = composer_config(recipe, material)
    results: dict[str, Any] = told | {"source": recipe.source, "split": "val", "triplets": len(material.triplets)}
    results |= {"tokens": {"image": material.tokens.shape[1], "text": TEXT_TOKENS}}
    results |= {"left_out": list(material.remarks), "composers": {}, "failed": {}}
    best: Sequence[dict[str, Any]] = []
    for contender in contenders(settings):
        seeds = settings.seeds[:1] if contender.name == "sum" else settings.seeds
        try:
            runs = [run(contender, seed, recipe, material, sets, world) for seed in seeds]
        except FashionRetrievalError as error:
            results["failed"][contender.key] = str(error)
            typer.echo(f"{contender.key} failed: {error}", err=True)
        else:
            best = runs if contender.name == "agcn" else best
            row = asdict(contender) | figures_of(runs)
            row["flops"] = flops_of_a_query(contender, config, material.tokens.shape[1])
            row["agcn_is_ahead_by"] = difference(best, runs) if best and contender.name != "agcn" else None
            results["composers"][contender.key] = row
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
