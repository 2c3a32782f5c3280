"""The composer and its ablations (the paper's Table 5), from what `training.compare_composers` measured.

The variants were trained alike on the same features, with several seeds, and so were the variations of the recipe, each
as AGCN; metrics are means over the seeds. AGCN's lead over each is copied from that file, a paired bootstrap over
queries and seeds. Its p is of an approximate randomization that swaps the two variants' answers to a query at random,
each answer the mean over the seeds: it holds for these trained composers, not for others that might be trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fashion_retrieval._utils.significance import ItemScores
from fashion_retrieval.config import VARIANTS
from fashion_retrieval.errors import ConfigError
from training.data.io import read_json
from training.evaluation.composed import KS
from training.evaluation.edits import MAP
from training.evaluation.paper import TITLES

_ROUNDED = 6e-5
_MEASURES = {"mean": ("interval", "mean of R@10 and R@50"), "recall_at_10": ("recall_at_10_interval", "R@10"),
             MAP: (f"{MAP}_interval", "mAP@10")}  # fmt: skip
"""By key of a lead: the key of its interval, and the measure in words."""


def evaluate_ablation(results: Path, runs: Path | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Metrics of the five variants of a comparison, and of the variations of its recipe.

    `runs` holds the ranks; None takes the folder of the comparison's recipe. Without ranks there is no p.

    Raises:
        ConfigError: A file is missing or was not written by that command, variants are missing in it, or the runs are
            those of another comparison.
    """
    compared = read_json(results)
    try:
        found = {name: compared["composers"].get(name) for name in VARIANTS}
        varied = compared.get("variations", {})
        where = Path(compared["config"]["recipe"]["output"]) if runs is None else runs
    except (AttributeError, KeyError, TypeError):
        raise ConfigError(f"{results} is no results file of `python -m training.compare_composers`") from None
    missing = [name for name, row in found.items() if row is None]
    if missing:
        raise ConfigError(f"{results} lacks {', '.join(missing)}; name all of {', '.join(VARIANTS)} in its config")
    rows = found | {f"variations/{name}/agcn": row for name, row in varied.items()}  # by folder below the runs
    gone = [name for name, row in rows.items() if not all(path.is_file() for path in _run_files(where / name, row))]
    if gone and runs is not None:
        raise ConfigError(f"{where} lacks runs of {', '.join(gone)}; give the folder of {results}'s runs")
    answers = {} if gone else {name: _answers(where / name, row) for name, row in rows.items()}
    leads = []
    for name, row in rows.items():
        first = TITLES[name] if name in found else f"AGCN, {name.split('/')[1]}"
        for asked, lead in (row["agcn_is_ahead_by"] or {}).items():
            for key, (bounds, words) in _MEASURES.items():
                if key not in lead or (key == "mean" and MAP in lead):
                    continue
                pair = [answers[of][asked, key] for of in ("agcn", name)] if answers else []
                p = pair[0].compare(pair[1], seed=seed)["p"] if pair else None
                told = {"first": first, "other": TITLES["agcn"], "measure": f"{asked}, {words}"}
                leads.append(told | {"difference": lead[key], "interval": lead[bounds], "p": p})
    keys = ("model", "fingerprint", "sha256", "versions", "commit", "source", "split")
    metrics = {"results": results.name, "seed": seed, "variants": found, "variations": varied, "against_first": leads}
    return {key: compared.get(key) for key in keys} | metrics


def _run_files(folder: Path, row: Mapping[str, Any]) -> list[Path]:
    return [folder / str(run["seed"]) / "run.json" for run in row["runs"]]


def _answers(folder: Path, row: Mapping[str, Any]) -> dict[tuple[str, str], ItemScores]:
    """By protocol and measure, how well each query was answered, the mean over the seeds; under "mean" over the ks.

    Raises:
        ConfigError: They do not give the metrics of the row.
    """
    runs = [read_json(path) for path in _run_files(folder, row)]
    found: dict[tuple[str, str], ItemScores] = {}
    for protocol, measured in row["protocols"].items():
        ranks = [np.array([run["ranks"][protocol][group] for run in runs]) for group in measured["groups"]]
        hits = {k: [(of_group <= k).mean(0) for of_group in ranks] for k in KS}
        found |= {(protocol, f"recall_at_{k}"): ItemScores.of_groups(hits[k]) for k in KS}
        found[protocol, "mean"] = ItemScores.of_groups(
            [np.mean(both, axis=0) for both in zip(*hits.values(), strict=True)]
        )
        wanted = float(np.mean([measured["average"][f"recall_at_{k}"] for k in KS]))
        if abs(found[protocol, "mean"].mean() - wanted) > _ROUNDED:
            came = f"{protocol} is {found[protocol, 'mean'].mean():.4f}, not {wanted:.4f}"
            raise ConfigError(f"{folder} holds runs of another comparison: {came}; give the right folder with --runs")
    if row.get("edits"):
        found["edits", MAP] = ItemScores.of_groups([np.mean([run["edits"] for run in runs], axis=0)])
    return found
