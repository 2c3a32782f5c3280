"""The embedded model on the open data pack: recognition, unseen words, segmentation, and the targets to reach."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import Any

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from training.data.io import read_json
from training.data.manifest import GROUPS
from training.evaluation.recognition import embed_split, evaluate_recognition
from training.evaluation.results_file import rounded, versions
from training.evaluation.segmentation import evaluate_segmentation
from training.evaluation.unseen_words import evaluate_unseen_words

HELD_OUT = Path(__file__).parents[1] / "configs/held_out.toml"
TARGETS = (
    ("mean precision of six groups", "recognition/deepfashion/all/mean_precision", 0.88),
    ("mean macro-F1", "recognition/deepfashion/all/mean_macro_f1", 0.72),
    ("mean precision on street", "recognition/deepfashion/street/mean_precision", 0.77),
    ("category, top-1 of the pack's", "recognition/category/top1", 0.75),
    ("dominant color, top-1 of 13", "recognition/color/top1", 0.80),
    ("region over whole photo on street", "recognition/views_on_street/region_over_whole_photo", 0.08),
    ("segmenter, clothing IoU", "segmentation/clothing_iou", 0.80),
    ("segmenter, garments found", "segmentation/found", 0.75),
    ("end to end recall on street", "segmentation/end_to_end/category_right_and_box", 0.50),
    ("unseen words, precision over chance", "unseen_words/over_chance", 2.5),
)
"""What the embedded model must reach: (name, path into the results, least value)."""


class Part(StrEnum):
    """What to measure."""

    ALL = "all"
    RECOGNITION = "recognition"
    SEGMENTATION = "segmentation"


def measure(model: FashionModel, data: Path, split: str, part: Part, *, seed: int = 0) -> dict[str, Any]:
    """Metrics of a model on a split of the open data pack.

    Raises:
        ConfigError: Files of the pack are missing or have faults.
    """
    results: dict[str, Any] = {"model": model.model_id, "sha256": dict(model.config.sha256), "split": split}
    results["versions"] = versions()
    if part in (Part.ALL, Part.RECOGNITION):
        agreement = _agreement(data / "agreement.json")
        garments = embed_split(model, data, split)
        results["recognition"] = evaluate_recognition(model, garments, seed=seed) | {"annotators_agree": agreement}
        results["unseen_words"] = evaluate_unseen_words(model, garments, data, split, HELD_OUT)
    if part in (Part.ALL, Part.SEGMENTATION):
        results["segmentation"] = evaluate_segmentation(model, data, split, read_json(data / "street_labels.json"))
    return rounded(results)  # type: ignore[no-any-return]


def _agreement(path: Path) -> dict[str, float]:
    """How often two annotation passes of the pack gave the same label, by group, in the `deepfashion` vocabulary."""
    rows = read_json(path)
    try:
        return {group: rows.get(f"{group}_deepfashion", rows[group])["agreement"] for group in GROUPS}
    except (AttributeError, KeyError, TypeError):
        raise ConfigError(f"{path} must give the agreement of {', '.join(GROUPS)}; see the pack's README.md") from None


def targets(results: Mapping[str, Any], folder: Path) -> list[tuple[str, float, float]]:
    """(name, measured, wanted) for each of `TARGETS` and the size of the model folder in MB."""
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    measured = [(name, value_at(results, path), wanted) for name, path, wanted in TARGETS]
    return [*measured, ("embedded files, MB (at most 60)", round(size, 1), 60.0)]


def value_at(results: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401  # any JSON value
    """The value at "key/key/key" of a results file."""
    return reduce(lambda found, key: found[key], path.split("/"), results)
