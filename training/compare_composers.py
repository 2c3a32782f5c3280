"""Train every composer on the same frozen features by the same recipe, with several seeds, and compare them.

python -m training.compare_composers training/configs/compare_composers.toml

Variations of the recipe, each trained as AGCN, show what an improvement is worth: `[variations.no_wrong_photo]`, and
below it `wrong_photo = 0.0`. The same command goes on after an interruption; a finished run is kept in
`output`/NAME/SEED/run.json. Two processes share the work with `--part 0/2` and `--part 1/2`; the command without a part
then writes the results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationInfo, field_validator, with_config

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.errors import FashionRetrievalError, InputError
from fashion_retrieval.hub.download import resolve
from training.comparison.asked import Asked
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
from training.engine.distributed import single_process
from training.engine.errors import one_line_errors
from training.engine.settings import SCHEMA, Count, from_mapping, one_of, read_settings
from training.evaluation.results_file import provenance, write_results
from training.recipes import agcn_settings
from training.recipes.agcn_data import TripletDataset, load_dataset, with_photos
from training.reports.comparison import comparison_page

_SHARED = ("data", "source", "model", "output", "cache", "variant", "tracking")
"""What no variation may change."""


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    results: str
    """The JSON file to write; a Markdown table comes beside it."""
    seeds: list[Count]
    recipe: agcn_settings.Settings
    """The recipe of all; its `variant` is not read."""
    composers: list[Annotated[str, one_of(NAMES)]] = field(default_factory=lambda: list(NAMES))
    starts: list[Initialization] = field(default_factory=lambda: ["sum"])
    """How the literature's composers are initialized: "sum" makes each a change to the sum of both embeddings, "text" a
    change to the text's, as AGCN's text branch is; "own" takes its result as published."""
    variations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name, what a variation changes in the recipe."""

    @field_validator("seeds", "composers", "starts")
    @classmethod
    def _each_once(cls, values: list[Any], info: ValidationInfo) -> list[Any]:
        if not values or len(set(values)) < len(values):
            raise ValueError(f"'{info.field_name}' must list something, each once, got {values}")
        return values

    @field_validator("variations")
    @classmethod
    def _change_the_recipe(cls, variations: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name, changes in variations.items():
            if not re.fullmatch("[a-z][a-z0-9_]*", name):
                raise ValueError(f"'variations' must have names of small letters, digits and _, got {name!r}")
            if not changes or set(changes) & set(_SHARED):
                raise ValueError(f"'variations.{name}' must change something, but none of {', '.join(_SHARED)}")
            if "recipe" in info.data:
                varied(info.data["recipe"], name, changes)
        return variations


def varied(recipe: agcn_settings.Settings, name: str, changes: Mapping[str, Any]) -> agcn_settings.Settings:
    """The recipe of a variation, with an output of its own; one ConfigError names all faults."""
    whole = _merged(asdict(recipe), changes) | {"output": str(Path(recipe.output) / "variations" / name)}
    return from_mapping(whole, agcn_settings.Settings, f"variation {name!r}")


def _merged(whole: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    tables = {key: _merged(whole[key], value) for key, value in changes.items() if isinstance(whole.get(key), Mapping)
              and isinstance(value, Mapping)}  # fmt: skip
    return {**whole, **changes, **tables}


def methods(settings: Settings) -> list[Method]:
    """The rows to run; AGCN first, since all others are compared with it."""
    names = sorted(settings.composers, key=lambda name: (name != "agcn", NAMES.index(name)))
    return [Method(name, start) for name in names for start in (settings.starts if name in COMPOSERS else (None,))]


def compare(settings: Settings, part: tuple[int, int] = (0, 1)) -> dict[str, Any]:
    """Run all that is missing and write the results after each composer.

    A composer that fails is named in the results and stops no other. Of a part, (index, number of parts), the runs are
    trained and no results written.
    """
    recipe, env, asked = settings.recipe, single_process(), Asked.of(settings.recipe)
    bundle = checkpoint.load(resolve(recipe.model))
    origin = provenance(FashionModel(bundle, model_id=recipe.model, device="cpu"), recipe.model, asdict(settings))
    encoder = bundle.encoder.to(env.device).eval().requires_grad_(False)

    def load(wanted: agcn_settings.Settings) -> TripletDataset:
        init_or_resume(wanted, encoder.fingerprint)
        return with_photos(load_dataset(wanted, encoder, env), asked.photos, Path(recipe.cache), env)

    dataset = load(recipe)

    def rows() -> Iterator[tuple[Method, str | None, agcn_settings.Settings, TripletDataset]]:
        for method in methods(settings):
            yield method, None, recipe, dataset
        for name, changes in settings.variations.items():
            other = varied(recipe, name, changes)
            yield Method("agcn", None), name, other, replace(load(other), texts=dataset.texts)

    results: dict[str, Any] = origin | {"source": recipe.source, "split": "val", "triplets": len(dataset.triplets)}
    results |= {"tokens": {"image": dataset.tokens.shape[1], "text": TEXT_TOKENS}}
    results |= {"left_out": list(dataset.remarks), "composers": {}, "variations": {}, "failed": {}}
    best: Sequence[dict[str, Any]] = []
    index, parts = part
    begun = 0
    for method, variation, own, features in rows():
        key, seeds = variation or method.key, settings.seeds[:1] if method.name == "sum" else settings.seeds
        mine = [seed for place, seed in enumerate(seeds, begun) if place % parts == index]
        begun += len(seeds)
        try:
            runs = [run(method, seed, own, features, asked, env) for seed in mine]
        except FashionRetrievalError as error:
            results["failed"][key] = str(error)
            typer.echo(f"{key} failed: {error}", err=True)
        else:
            if parts > 1:
                continue
            is_agcn = method.name == "agcn" and variation is None
            best = runs if is_agcn else best
            row = asdict(method) | summarize(runs)
            row["flops"] = flops_of_a_query(method, composer_config(own, features), features.tokens.shape[1])
            row["agcn_is_ahead_by"] = difference(best, runs) if best and not is_agcn else None
            results["variations" if variation else "composers"][key] = row
        if parts == 1:
            write_results(results, Path(settings.results), comparison_page(results))
    return results


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise InputError(f"--part must be INDEX/NUMBER, as 0/2 and 1/2, got {text!r}")
    return int(found[1]), int(found[2])


def main(
    config: Path,
    part: Annotated[str, typer.Option(help="INDEX/NUMBER: train this part of the runs, as 0/2 or 1/2.")] = "0/1",
) -> None:
    """Compare by a TOML file."""
    with one_line_errors():
        failed = compare(read_settings(config, Settings), _part(part))["failed"]
    if failed:
        typer.echo(f"error: {', '.join(failed)} failed; delete their folders and run again", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
