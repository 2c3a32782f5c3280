"""The composer and its ablations (the paper's Table 5), from what `training.compare_composers` measured.

The variants were trained alike on the same features, with several seeds; metrics are means over the seeds. AGCN's lead
over each is copied from that file, a paired bootstrap over queries and seeds. Its p is of an approximate randomization
that swaps the two variants' answers to a query at random, each answer the mean over the seeds: it holds for these
trained composers, not for others that might be trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fashion_retrieval.config import VARIANTS
from fashion_retrieval.errors import ConfigError
from training.data.io import read_json
from training.evaluation.composed import KS
from training.evaluation.paper import TITLES
from training.evaluation.significance import ItemScores

_ROUNDED = 6e-5


def evaluate_ablation(results: Path, runs: Path | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Metrics of the five variants of a comparison.

    `runs` holds the ranks; None takes the folder of the comparison's recipe. Without ranks there is no p.

    Raises:
        ConfigError: A file is missing or was not written by that command, variants are missing in it, or the runs are
            those of another comparison.
    """
    compared = read_json(results)
    try:
        found = {name: compared["composers"].get(name) for name in VARIANTS}
        where = Path(compared["config"]["recipe"]["output"]) if runs is None else runs
    except (AttributeError, KeyError, TypeError):
        raise ConfigError(f"{results} is no results file of `python -m training.compare_composers`") from None
    missing = [name for name, row in found.items() if row is None]
    if missing:
        raise ConfigError(f"{results} lacks {', '.join(missing)}; name all of {', '.join(VARIANTS)} in its config")
    gone = [name for name, row in found.items() if not all(path.is_file() for path in _run_files(where / name, row))]
    if gone and runs is not None:
        raise ConfigError(f"{where} lacks runs of {', '.join(gone)}; give the folder of {results}'s runs")
    answers = {} if gone else {name: _answers(where / name, row) for name, row in found.items()}
    leads = []
    for name in (one for one in VARIANTS if one != "agcn"):
        for protocol, lead in found[name]["agcn_is_ahead_by"].items():
            p = answers["agcn"][protocol].compare(answers[name][protocol], seed=seed)["p"] if answers else None
            row = {"first": TITLES[name], "other": TITLES["agcn"], "measure": f"{protocol}, mean of R@10 and R@50"}
            leads.append(row | {"difference": lead["mean"], "interval": lead["interval"], "p": p})
    keys = ("model", "fingerprint", "sha256", "versions", "commit", "source", "split")
    metrics = {"results": results.name, "seed": seed, "variants": found, "against_first": leads}
    return {key: compared.get(key) for key in keys} | metrics


def _run_files(folder: Path, row: Mapping[str, Any]) -> list[Path]:
    return [folder / str(run["seed"]) / "run.json" for run in row["runs"]]


def _answers(folder: Path, row: Mapping[str, Any]) -> dict[str, ItemScores]:
    """By protocol, for each query the fraction of seeds and ks at which its target was found.

    Raises:
        ConfigError: They do not give the metrics of the row.
    """
    ranks = [read_json(path)["ranks"] for path in _run_files(folder, row)]
    found = {}
    for protocol, measured in row["protocols"].items():
        hits = [
            np.mean([[np.array(of_seed[protocol][group]) <= k for k in KS] for of_seed in ranks], axis=(0, 1))
            for group in measured["groups"]
        ]
        found[protocol] = ItemScores.of_groups(hits)
        wanted = float(np.mean([measured["average"][f"recall_at_{k}"] for k in KS]))
        if abs(found[protocol].mean() - wanted) > _ROUNDED:
            raise ConfigError(f"{folder} holds runs of another comparison: {protocol} is {found[protocol].mean():.4f}, "
                              f"not {wanted:.4f}; give the right folder with --runs")  # fmt: skip
    return found
