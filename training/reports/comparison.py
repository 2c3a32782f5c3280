"""The comparison of composers as Markdown, with the paper's recalls in the last column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.evaluation.paper import TITLES, read_paper
from training.reports.pages import render

_STARTS = {"sum": "sum of both", "text": "text", "own": "as published", None: ""}


def comparison_page(results: Mapping[str, Any]) -> str:
    """One table a protocol, and one of edits; variations of the recipe last.

    Args:
        results: What `training.compare_composers` measured.
    """
    paper = read_paper()
    published = {}
    for table in (paper["table_5"], paper["table_3"]):  # of a composer in both, Table 3 counts
        for title, recalls in table["rows"].items():
            average = dict(zip(table["columns"], recalls, strict=True))
            published[title] = f"{average['average R@10']:.2f} / {average['average R@50']:.2f}"
    found = sorted(results["composers"].values(), key=lambda row: [*TITLES].index(row["name"]))
    titles = [TITLES[row["name"]] for row in found]
    rows = [
        row | {"title": title, "published": published.get(title, "")} for row, title in zip(found, titles, strict=True)
    ]
    varied = results["variations"]
    rows += [row | {"title": f"AGCN, `{name}`", "published": ""} for name, row in varied.items()]
    changes = {name: dict(_flat(results["config"]["variations"][name])) for name in varied}
    values = {"starts": _STARTS, "variations": changes, "source": paper["source"]}
    return render("comparison.md", results=results, rows=rows, **values) + "\n"


def _flat(changes: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of a TOML table with dots."""
    for key, value in changes.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value
