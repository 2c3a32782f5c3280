"""Write docs/reproduce.md: the paper's tables, how to measure them, and what was measured here.

python -m training.reproduce
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import with_config

from fashion_retrieval.config import VARIANTS
from fashion_retrieval.errors import ConfigError
from training.data.io import read_json
from training.engine.errors import one_line_errors
from training.engine.settings import SCHEMA, read_settings
from training.evaluation.paper import TITLES, read_paper
from training.evaluation.results_file import RESULTS, words, write_text
from training.evaluation.significance import Metrics
from training.reports.pages import ROOT, render, table
from training.reports.tables import comparison_paragraphs, paper_table

PAGE = ROOT / "docs/reproduce.md"
TEXTS = Path(__file__).parent / "reproduce.toml"


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class TableText:
    """What the page says about a table; one table of the TOML file."""

    name: str
    data: str
    hardware: str
    commands: list[str]
    instead: str
    not_run: str


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The TOML file."""

    table_1: TableText
    table_2: TableText
    table_3: TableText
    table_4: TableText
    table_5: TableText


def reproduce(results: Path = RESULTS, texts: Path = TEXTS) -> str:
    """The page, from results files and texts.

    Raises:
        ConfigError: A file that is missing or has faults.
    """
    measured = {}
    for key, runs in MEASURED.items():
        try:
            measured[key] = paper_table(key, runs(results))
        except (KeyError, TypeError) as error:
            remedy = "measure again with `python -m training.evaluate`"
            raise ConfigError(f"{results}: {key} lacks {error}; {remedy}") from None
    ahead = read_json(results / "ablation.json")["against_first"]
    compared = {key: list(comparison_paragraphs(ahead)) if key == "table_5" else [] for key in MEASURED}
    proofs = [
        {"heading": heading, "text": text, "facts": list(facts(read_json(results / name)))}
        for name, (heading, text) in PROOFS.items()
        if (results / name).is_file()
    ]
    tables = asdict(read_settings(texts, Texts))
    values = {"tables": tables, "measured": measured, "compared": compared, "proofs": proofs}
    return render("reproduce.md", paper=read_paper(), **values) + "\n"


def _composed_rows(results: Path) -> dict[str, Metrics]:
    composers = read_json(results / "compare_composers.json")["composers"].values()
    literature = [row for row in composers if row["name"] not in VARIANTS or row["name"] == "agcn"]
    rows = {TITLES[row["name"]]: row["protocols"]["full"] for row in literature}
    return {"compact": read_json(results / "composed_val.json")["protocols"]["full"], **rows}


def _view_rows(results: Path) -> dict[str, Metrics]:
    views = read_json(results / "compact_val.json")["recognition"]["views_on_street"]
    return {f"compact, {words(view)}": {"mean_precision": views[view]} for view in ("whole_photo", "masked_crop")}


def _variant_rows(results: Path) -> dict[str, Metrics]:
    variants = read_json(results / "ablation.json")["variants"]
    return {TITLES[name]: variants[name]["protocols"]["full"] for name in VARIANTS}


MEASURED: dict[str, Callable[[Path], dict[str, Metrics]]] = {
    "table_1": lambda r: {"compact": read_json(r / "compact_val.json")["recognition"]["deepfashion"]["all"]},
    "table_2": lambda r: {"compact": read_json(r / "retrieval_val.json")["retrieval"]},
    "table_3": _composed_rows,
    "table_4": _view_rows,
    "table_5": _variant_rows,
}
"""Runs measured here, from a folder of results files, by table of the paper."""
PROOFS = {
    "memory_vit_b_32.json": (
        "Memory of the paper's recipe",
        "Gigabytes at the paper's batch, computed from small batches on the CPU and checked against larger ones, by "
        "release 0.1. On a GPU each training logs what it really took.",
    ),
    "chain_vit_b_32.json": (
        "The whole chain at the paper's architecture",
        "On the open data pack, from a random start and for a few steps: that it runs, not how good it gets.",
    ),
}
"""Results files that show the recipes at work, each with heading and text; those that are missing are left out."""


def facts(found: Mapping[str, Any]) -> Iterator[str]:
    """Any results file as Markdown: single values as one table, each list of rows as a table of its own."""
    single = dict(_flat(found, ()))
    rows = {name: value for name, value in single.items() if isinstance(value, list)}
    yield table(["", ""], [[name, _text(value)] for name, value in single.items() if name not in rows])
    for name, listed in rows.items():
        if all(isinstance(row, Mapping) for row in listed):
            columns = list(dict.fromkeys(column for row in listed for column in row))
            yield f"{name}:"
            yield table(
                [words(column) for column in columns],
                [[_text(row.get(column, "")) for column in columns] for row in listed],
            )
        else:
            yield f"{name}: {', '.join(map(_text, listed))}"


def _flat(found: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*path, key))
        else:
            yield words(" / ".join((*path, key))), value


def _text(value: object) -> str:
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
