"""Pictures for the model's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first

_COLORS = {"products": "#2563eb", "clothing": "#059669", "street": "#d97706"}


def plot_groups(groups: dict[str, Any], agreement: dict[str, float], path: Path) -> None:
    """Precision per attribute group and source, with how far two annotation passes agree."""
    names = [name for name, row in groups["all"].items() if isinstance(row, dict)]
    sources = [source for source in _COLORS if source in groups]
    places, width = np.arange(len(names)), 0.8 / len(sources)
    figure, axes = plt.subplots(figsize=(9, 3.6), dpi=160, layout="constrained")
    for row, source in enumerate(sources):
        heights = [groups[source][name]["precision"] for name in names]
        bars = axes.bar(places + (row - 1) * width, heights, width * 0.92, color=_COLORS[source], label=source)
        axes.bar_label(bars, fmt=lambda value: f"{value:.2f}".lstrip("0"), fontsize=7, padding=1)
    for place, name in zip(places, names, strict=True):
        label = "two annotation passes agree" if place == 0 else "_nolegend_"
        axes.hlines(agreement[name], place - 0.42, place + 0.42, color="#16181d", linewidth=1.4, label=label)
    axes.set_xticks(places, names)
    axes.set_ylim(0.5, 1.02)
    axes.set_ylabel("precision (top-1)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=4, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.16), fontsize=8)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
