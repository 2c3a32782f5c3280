"""Write docs/reproduce.md: the paper's tables, how to measure them, and what was measured here.

python -m training.reproduce
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fashion_retrieval.config import VARIANTS
from fashion_retrieval.errors import ConfigError
from training.data.io import read_json
from training.engine.errors import one_line_errors
from training.engine.settings import read_settings
from training.evaluation.paper import TITLES, read_paper
from training.evaluation.results_file import RESULTS, write_text
from training.reports.tables import (
    Cell,
    beside_paper,
    composed_cells,
    differences,
    recognition_cells,
    retrieval_cells,
    table,
)

PAGE = Path(__file__).parents[1] / "docs/reproduce.md"
TEXTS = Path(__file__).parent / "reproduce.toml"
Figures = Mapping[str, Any]
_INTRODUCTION = """\
# Reproduce the paper

For each table of the paper ({source})
the commands that measure it at full size, and what was measured without its data. The commands run in a clone,
installed with `pip install -e '.[train]'`; [Data for training](guides/data.md) says how the data sets are laid out, and
[Method](method.md#measuring) how figures are measured. `python -m training.evaluate all --deepfashion
../data/deepfashion --fashioniq ../data/fashioniq` writes all that the data at hand allow into one file.

Rows in bold were measured here, with 95% intervals where the results file has them; they are figures of other data and
other models than the paper's, and can't be compared with them. Hours are left out, since none of the trainings at full
size was run here. This page is made by `python -m training.reproduce` from `training/results`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is said of a table; one table of the TOML file."""

    name: str
    data: str
    hardware: str
    commands: list[str]
    instead: str
    not_run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The TOML file."""

    table_1: Told
    table_2: Told
    table_3: Told
    table_4: Told
    table_5: Told


def reproduce(results: Path = RESULTS, texts: Path = TEXTS) -> str:
    """The page, from results files and texts.

    Raises:
        ConfigError: A file that is missing or has faults.
    """
    parts = [_INTRODUCTION.format(source=read_paper()["source"])]
    said = read_settings(texts, Texts)
    for key, rows in MEASURED.items():
        told: Told = getattr(said, key)
        commands = "\n".join(told.commands)
        try:
            measured = rows(results)
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{results}: {key} lacks {error}; measure again with `python -m training.evaluate`"
            ) from None
        ahead = read_json(results / "ablation.json")["against_first"] if key == "table_5" else []
        parts += [
            f"## {told.name}",
            f"**Data.** {told.data} **Hardware.** {told.hardware}",
            f"```bash\n{commands}\n```",
            f"**Measured here.** {told.instead}",
            beside_paper(key, measured),
            *differences(ahead),
            f"**Not run.** {told.not_run}",
        ]
    return "\n\n".join([*parts, *_proofs(results)]) + "\n"


def _table_1(results: Path) -> dict[str, list[Cell]]:
    found = read_json(results / "compact_val.json")
    return {"compact": recognition_cells(found["recognition"]["deepfashion"]["all"])}


def _table_2(results: Path) -> dict[str, list[Cell]]:
    return {"compact": retrieval_cells(read_json(results / "retrieval_val.json")["retrieval"])}


def _table_3(results: Path) -> dict[str, list[Cell]]:
    rows = {"compact": composed_cells(read_json(results / "composed_val.json")["protocols"]["full"])}
    composers = read_json(results / "compare_composers.json")["composers"].values()
    literature = [row for row in composers if row["name"] not in VARIANTS or row["name"] == "agcn"]
    return rows | {TITLES[row["name"]]: composed_cells(row["protocols"]["full"]) for row in literature}


def _table_4(results: Path) -> dict[str, list[Cell]]:
    views = read_json(results / "compact_val.json")["recognition"]["views_on_street"]
    return {
        f"compact, {name}": [*[None] * 6, (views[view], None)]
        for name, view in (("whole photo", "whole_photo"), ("masked crop", "masked_crop"))
    }


def _table_5(results: Path) -> dict[str, list[Cell]]:
    variants = read_json(results / "ablation.json")["variants"]
    return {TITLES[name]: composed_cells(variants[name]["protocols"]["full"]) for name in VARIANTS}


MEASURED: dict[str, Callable[[Path], dict[str, list[Cell]]]] = {
    "table_1": _table_1,
    "table_2": _table_2,
    "table_3": _table_3,
    "table_4": _table_4,
    "table_5": _table_5,
}
"""Rows from results files, by table."""
PROOFS = {
    "memory_vit_b_32.json": (
        "Memory of the paper's recipe",
        "Gigabytes at the paper's batch, computed from small batches on the CPU and checked against larger ones: "
        "`python -m training.memory training/configs/raf_clip_vit_b_32.toml --check`.",
    ),
    "chain_vit_b_32.json": (
        "The whole chain at the paper's architecture",
        "On the open data pack, from a random start and for a few steps: that it runs, not how good it gets.",
    ),
}
"""Results files that show the recipes at work, each with heading and text; those that aren't there are left out."""


def _proofs(results: Path) -> Iterator[str]:
    for name, (heading, text) in PROOFS.items():
        path = results / name
        if path.is_file():
            yield f"## {heading}"
            yield text
            yield from facts(read_json(path))


def facts(found: Figures) -> Iterator[str]:
    """Any results file as Markdown: what is single as one table, lists of rows as a table each."""
    single = dict(_flat(found, ()))
    rows = {name: value for name, value in single.items() if isinstance(value, list)}
    yield table(["", ""], [[name, _said(value)] for name, value in single.items() if name not in rows])
    for name, listed in rows.items():
        if all(isinstance(row, Mapping) for row in listed):
            columns = list(dict.fromkeys(column for row in listed for column in row))
            yield f"{name}:"
            yield table(
                [column.replace("_", " ") for column in columns],
                [[_said(row.get(column, "")) for column in columns] for row in listed],
            )
        else:
            yield f"{name}: {', '.join(map(_said, listed))}"


def _flat(found: Figures, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*path, key))
        else:
            yield " / ".join((*path, key)).replace("_", " "), value


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main(output: Annotated[Path, typer.Option(help="The page to write.")] = PAGE) -> None:
    """Write the page."""
    with one_line_errors():
        write_text(output, reproduce())
    typer.echo(f"written to {output}")


if __name__ == "__main__":
    typer.run(main)
