"""The comparison as Markdown, with the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.evaluation.composed import KS
from training.evaluation.paper import TITLES, read_paper

_STARTS = {"sum": "sum of both", "text": "text", "own": "as published", None: ""}


def markdown(results: Mapping[str, Any]) -> str:
    """One table a protocol.

    Args:
        results: The results of `training.compare_composers`.
    """
    paper = read_paper()
    rows = sorted(results["composers"].values(), key=lambda row: [*TITLES].index(row["name"]))
    tokens = results["tokens"]
    parts = [
        "Recall in percent, R@10 / R@50: the mean over the seeds, ± their standard deviation; under the average its "
        "95% interval over queries and seeds. How far AGCN is ahead in the mean of both is paired by query. The "
        f"paper's figures are those of FashionIQ, with other features: {paper['source']}.",
        f"MFLOP: of the composer's matrix products for a query of {tokens['image']} image and {tokens['text']} text "
        "tokens, a multiply-add as two; the encoder, the same for all, comes on top.",
    ]
    parts += results["left_out"]
    for protocol in rows[0]["protocols"] if rows else ():
        parts.append(f"### {results['source']}, {results['split']}, protocol {protocol}")
        parts.append(_table(rows, protocol, paper))
    parts += [f"{name} failed: {why}" for name, why in results["failed"].items()]
    return "\n\n".join(parts) + "\n"


def _table(rows: list[Mapping[str, Any]], protocol: str, paper: Mapping[str, Any]) -> str:
    groups = list(rows[0]["protocols"][protocol]["groups"])
    header = ["composer", "start", *groups, "average", "AGCN ahead by", "seeds", "parameters", "MFLOP"]
    lines = [[*header, "paper, average"], ["---"] * (len(header) + 1)]
    for row in rows:
        found = row["protocols"][protocol]
        average = found["average"]
        intervals = " / ".join(_range(average[f"recall_at_{k}_interval"]) for k in KS)
        ahead = (row["agcn_is_ahead_by"] or {}).get(protocol)
        lines.append(
            [
                TITLES[row["name"]],
                _STARTS[row["start"]],
                *(_pair(found["groups"][group]) for group in groups),
                f"{_pair(average)}{_spread(average)}<br>{intervals}",
                f"{100 * ahead['mean']:+.2f} ({_range(ahead['interval'])})" if ahead else "",
                str(len(row["runs"])),
                f"{row['parameters']:,}",
                f"{row['flops'] / 1e6:.2f}",
                _published(TITLES[row["name"]], paper),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _pair(row: Mapping[str, Any]) -> str:
    return " / ".join(f"{100 * row[f'recall_at_{k}']:.2f}" for k in KS)


def _spread(average: Mapping[str, Any]) -> str:
    return f" (± {' / '.join(f'{100 * of_k:.2f}' for of_k in average['spread'])})" if average["spread"] else ""


def _range(interval: list[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _published(title: str, paper: Mapping[str, Any]) -> str:
    """The average of Table 3, or of Table 5; empty for a composer that is in neither."""
    for table in ("table_3", "table_5"):
        if title in paper[table]["rows"]:
            figures = dict(zip(paper[table]["columns"], paper[table]["rows"][title], strict=True))
            return f"{figures['average R@10']:.2f} / {figures['average R@50']:.2f}"
    return ""
