"""Everything that can be measured with the data at hand, in one results file."""

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
from training.evaluation.composed import read_sets
from training.evaluation.deepfashion import View
from training.evaluation.results_file import provenance, write_results
from training.reports import sections
from training.reports.sections import Models, Section
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
    """Folders of data sets, None for those not at hand, and the results file of a comparison of composers."""

    pack: Path | None
    deepfashion: Path | None
    fashioniq: Path | None
    comparison: Path


def measure_all(models: Models, roots: Roots, path: Path, *, missing: str, seed: int = 0) -> list[str]:
    """Measure part after part, and write the results after each.

    Returns:
        A line for each part that failed; the results name it, and the parts without data.

    Raises:
        ConfigError: A folder does not exist, or there is no data at all; nothing is measured.
    """
    gone = [str(root) for root in (roots.pack, roots.deepfashion, roots.fashioniq) if root and not root.is_dir()]
    if gone:
        raise ConfigError(f"no such folder: {', '.join(gone)}; give the data sets' own, or leave the option out")
    composing = {name: model for name, model in models.items() if model.config.composer is not None}
    results: dict[str, Any] = {
        "models": {name: provenance(model, name, {}) for name, model in models.items()},
        "config": {name: str(getattr(roots, name)) for name in Roots.__slots__} | {"missing": missing},
        "seed": seed,
        "parts": {},
        "failed": {},
        "not_run": _not_run(roots, composes=bool(composing)),
    }
    if results["not_run"].keys() == TITLES.keys():
        raise ConfigError("nothing can be measured; give --data, --deepfashion, --fashioniq or --results")
    paragraphs: list[str] = []
    parts = _parts(models, composing, roots, missing, seed)
    for name in (name for name in TITLES if name not in results["not_run"]):
        typer.echo(f"{TITLES[name]} …", err=True)
        try:
            section = parts[name]()
        except (FashionRetrievalError, OSError) as error:
            results["failed"][name] = " ".join(str(error).split())
        else:
            section.show()
            compared = {"against_first": section.against_first, "resampling": section.resampling}
            results["parts"][name] = section.results | compared
            paragraphs += [f"## {TITLES[name]}", *section.paragraphs]
        reasons = results["failed"] | results["not_run"]
        unmeasured = [f"{TITLES[part]}: {why}" for part, why in reasons.items()]
        write_results(results, path, page("Figures", *paragraphs, "## Not measured", *unmeasured))
    return [f"{TITLES[name]}: {why}" for name, why in results["failed"].items()]


def _not_run(roots: Roots, *, composes: bool) -> dict[str, str]:
    """Why parts can't be measured, by part."""
    why: dict[str, str] = {}
    for root, what in (("pack", "the open data pack"), ("deepfashion", "DeepFashion"), ("fashioniq", "FashionIQ")):
        if getattr(roots, root) is None:
            why |= {name: f"no folder of {what} was given" for name in TITLES if name.endswith(root)}
    if roots.deepfashion and not (roots.deepfashion / CAPTIONS).is_file():
        why["retrieval_deepfashion"] = f"no {CAPTIONS}; make it with `python -m training.prepare captions`"
    if not composes:
        why |= {name: "no model has a composer" for name in TITLES if name.startswith("composed")}
    if not roots.comparison.is_file():
        why["ablation"] = f"no {roots.comparison}; make it with `python -m training.compare_composers`"
    return why


def _parts(
    models: Models, composing: Models, roots: Roots, missing: str, seed: int
) -> dict[str, Callable[[], Section]]:
    """How each part is measured; those of `_not_run` can't be called."""
    pack, fashion, iq = (root or Path() for root in (roots.pack, roots.deepfashion, roots.fashioniq))
    views = [View.MASKED_CROP if (fashion / MASKS).is_dir() else View.CROP, View.WHOLE_PHOTO]

    def composed(fashioniq: Path | None, protocol: str | None) -> Section:
        sets = read_sets(pack, fashioniq, protocol, "val", GROUPS, missing)
        return sections.composed_of(composing, sets, seed=seed)

    return {
        "recognition_pack": lambda: sections.recognition_of_pack(models, pack, "val", seed=seed),
        "segmentation_pack": lambda: sections.segmentation_of_pack(models, pack, "val"),
        "retrieval_pack": lambda: sections.retrieval_of_pack(models, pack, "val", seed=seed),
        "composed_pack": lambda: composed(None, None),
        "recognition_deepfashion": lambda: sections.recognition_of_deepfashion(
            models, fashion, "test", views, seed=seed
        ),
        "retrieval_deepfashion": lambda: sections.retrieval_of_deepfashion(models, fashion, "test", seed=seed),
        "composed_fashioniq": lambda: composed(iq, "all"),
        "ablation": lambda: sections.ablation_of(roots.comparison, None, seed=seed),
    }
