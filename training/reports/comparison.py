"""The comparison of composers as Markdown, with the paper's recalls in the last column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.evaluation.paper import TITLES, read_paper
from training.reports.pages import render

_STARTS = {"sum": "sum of both", "text": "text", "own": "as published", None: ""}


def comparison_page(results: Mapping[str, Any]) -> str:
    """One table a protocol.

    Args:
        results: What `training.compare_composers` measured.
    """
    paper = read_paper()
    rows = sorted(results["composers"].values(), key=lambda row: [*TITLES].index(row["name"]))
    published = {}
    for table in (paper["table_5"], paper["table_3"]):  # of a composer in both, Table 3 counts
        for title, recalls in table["rows"].items():
            average = dict(zip(table["columns"], recalls, strict=True))
            published[title] = f"{average['average R@10']:.2f} / {average['average R@50']:.2f}"
    values = {"titles": TITLES, "starts": _STARTS, "published": published}
    return render("comparison.md", results=results, rows=rows, source=paper["source"], **values) + "\n"
