"""All that can be measured with the data at hand, in one results file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from fashion_retrieval.errors import ConfigError, FashionRetrievalError
from training.data.deepfashion import MASKS
from training.data.triplets import GROUPS
from training.evaluation.captions import CAPTIONS
from training.evaluation.composed import read_sets, remarks
from training.evaluation.deepfashion import View
from training.evaluation.results_file import provenance, write_figures
from training.reports.recognition_sections import (
    Models,
    Section,
    recognition_of_deepfashion,
    recognition_of_pack,
    segmentation_of_pack,
)
from training.reports.retrieval_sections import ablation_of, composed_of, retrieval_of_deepfashion, retrieval_of_pack
from training.reports.tables import page

TITLES = {
    "recognition_pack": "Recognition, open data pack",
    "segmentation_pack": "Segmentation, open data pack",
    "retrieval_pack": "Names and photos, open data pack",
    "composed_pack": "Composed retrieval, open data pack",
    "recognition_deepfashion": "Tables 1 and 4, DeepFashion",
    "retrieval_deepfashion": "Table 2, DeepFashion",
    "composed_fashioniq": "Table 3, FashionIQ",
    "ablation": "Table 5, the composer's ablations",
}
"""The parts, in the order in which they are measured."""


@dataclass(frozen=True, slots=True)
class Roots:
    """Folders of data sets, None for one that isn't at hand, and the results of a comparison of composers."""

    pack: Path | None
    deepfashion: Path | None
    fashioniq: Path | None
    comparison: Path


def measure_all(models: Models, roots: Roots, path: Path, *, missing: str, seed: int = 0) -> list[str]:
    """Measure part after part and write the results after each.

    Args:
        models: The first is what the others are compared with.
        roots: What there is.
        path: The JSON file; a Markdown file comes beside it.
        missing: What missing photos of composed retrieval mean.
        seed: Of intervals and tests.

    Returns:
        A line for each part that failed; the results name it, and what was left out for want of data.

    Raises:
        ConfigError: A folder that isn't there, or none at all; nothing is measured.
    """
    gone = [str(root) for root in (roots.pack, roots.deepfashion, roots.fashioniq) if root and not root.is_dir()]
    if gone:
        raise ConfigError(f"no such folder: {', '.join(gone)}; give the data sets' own, or leave the option out")
    figures: dict[str, Any] = {
        "models": {name: provenance(model, name, {}) for name, model in models.items()},
        "config": {name: str(getattr(roots, name)) for name in Roots.__slots__} | {"missing": missing},
        "seed": seed,
        "parts": {},
        "failed": {},
        "not_run": _absent(models, roots),
    }
    if figures["not_run"].keys() == TITLES.keys():
        raise ConfigError("nothing can be measured; give --data, --deepfashion, --fashioniq or --results")
    paragraphs: list[str] = []
    for name, part in _parts(models, roots, missing, seed).items():
        if name in figures["not_run"]:
            continue
        typer.echo(f"{TITLES[name]} …", err=True)
        try:
            section = part()
        except (FashionRetrievalError, OSError) as error:
            figures["failed"][name] = " ".join(str(error).split())
        else:
            for line in section.lines:
                typer.echo(line)
            figures["parts"][name] = {
                **section.figures,
                "against_first": section.against_first,
                "resampling": section.resampling,
            }
            paragraphs += [f"## {TITLES[name]}", *section.paragraphs]
        untold = [f"{TITLES[n]}: {why}" for kind in ("failed", "not_run") for n, why in figures[kind].items()]
        write_figures(figures, path, page("Figures", *paragraphs, "## Not measured", *untold))
    return [f"{TITLES[name]}: {why}" for name, why in figures["failed"].items()]


def _absent(models: Models, roots: Roots) -> dict[str, str]:
    """What can't be measured for want of data, and why."""
    why: dict[str, str] = {}
    for root, what in (("pack", "the open data pack"), ("deepfashion", "DeepFashion"), ("fashioniq", "FashionIQ")):
        if getattr(roots, root) is None:
            why |= {name: f"no folder of {what} was given" for name in TITLES if name.endswith(root)}
    if roots.deepfashion and not (roots.deepfashion / CAPTIONS).is_file():
        why["retrieval_deepfashion"] = f"no {CAPTIONS}; make it with `python -m training.prepare captions`"
    if not any(_composing(models)):
        why |= {name: "no model has a composer" for name in TITLES if name.startswith("composed")}
    if not roots.comparison.is_file():
        why["ablation"] = f"no {roots.comparison}; make it with `python -m training.compare_composers`"
    return why


def _parts(models: Models, roots: Roots, missing: str, seed: int) -> dict[str, Callable[[], Section]]:
    """How each is measured; those of `_absent` can't be called."""
    pack, fashion, iq = (root or Path() for root in (roots.pack, roots.deepfashion, roots.fashioniq))
    region = View.MASKED_CROP if (fashion / MASKS).is_dir() else View.CROP
    composing = _composing(models)

    def composed(fashioniq: Path | None, protocol: str | None) -> Section:
        sets = read_sets(pack, fashioniq, protocol, "val", GROUPS, missing)
        for line in remarks(sets):
            typer.echo(line, err=True)
        return composed_of(composing, sets, seed=seed)

    return {
        "recognition_pack": lambda: recognition_of_pack(models, pack, "val", seed=seed),
        "segmentation_pack": lambda: segmentation_of_pack(models, pack, "val"),
        "retrieval_pack": lambda: retrieval_of_pack(models, pack, "val", seed=seed),
        "composed_pack": lambda: composed(None, None),
        "recognition_deepfashion": lambda: recognition_of_deepfashion(
            models, fashion, "test", [region, View.WHOLE_PHOTO], seed=seed
        ),
        "retrieval_deepfashion": lambda: retrieval_of_deepfashion(models, fashion, "test", seed=seed),
        "composed_fashioniq": lambda: composed(iq, "all"),
        "ablation": lambda: ablation_of(roots.comparison, None, seed=seed),
    }


def _composing(models: Models) -> Models:
    return {name: model for name, model in models.items() if model.config.composer is not None}
