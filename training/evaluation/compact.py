"""The embedded model's own figures on the open data pack: recognition, unseen words, segmentation, and the bars."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from training.data.io import read_json
from training.data.manifest import GROUPS
from training.evaluation.recognition import embed_split, evaluate_recognition, evaluate_words
from training.evaluation.results_file import rounded, versions
from training.evaluation.segmentation import evaluate_segmentation

HELD_OUT = Path(__file__).parents[1] / "configs/held_out.toml"


class Part(StrEnum):
    """What to measure."""

    ALL = "all"
    RECOGNITION = "recognition"
    SEGMENTATION = "segmentation"


def measure(model: FashionModel, data: Path, split: str, part: Part, *, seed: int = 0) -> dict[str, Any]:
    """Figures of a model on a split; see the module's files for what each means.

    Raises:
        ConfigError: Files of the pack that are missing or have faults.
    """
    figures: dict[str, Any] = {"model": model.model_id, "sha256": dict(model.config.sha256), "split": split}
    figures["versions"] = versions()
    if part in (Part.ALL, Part.RECOGNITION):
        agreement = _agreement(data / "agreement.json")
        garments = embed_split(model, data, split)
        figures["recognition"] = evaluate_recognition(model, garments, seed=seed) | {"annotators_agree": agreement}
        figures["unseen_words"] = evaluate_words(model, garments, data, split, HELD_OUT)
    if part in (Part.ALL, Part.SEGMENTATION):
        figures["segmentation"] = evaluate_segmentation(model, data, split, read_json(data / "street_labels.json"))
    return rounded(figures)  # type: ignore[no-any-return]


def _agreement(path: Path) -> dict[str, float]:
    """How often two annotation passes of the pack gave the same label, by group, in the `deepfashion` vocabulary."""
    rows = read_json(path)
    try:
        return {group: rows.get(f"{group}_deepfashion", rows[group])["agreement"] for group in GROUPS}
    except (AttributeError, KeyError, TypeError):
        raise ConfigError(f"{path} must give the agreement of {', '.join(GROUPS)}; see the pack's README.md") from None


def bars(figures: dict[str, Any], folder: Path) -> list[tuple[str, float, float]]:
    """(what, measured, wanted) for each figure the embedded model must reach."""
    recognition, segmentation = figures["recognition"], figures["segmentation"]
    every = recognition["deepfashion"]["all"]
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return [
        ("mean precision of six groups", every["mean_precision"], 0.88),
        ("mean macro-F1", every["mean_macro_f1"], 0.72),
        ("mean precision on street", recognition["deepfashion"]["street"]["mean_precision"], 0.77),
        ("category, top-1 of the pack's", recognition["category"]["top1"], 0.75),
        ("dominant color, top-1 of 13", recognition["color"]["top1"], 0.80),
        ("region over whole photo on street", recognition["views_on_street"]["region_over_whole_photo"], 0.08),
        ("segmenter, clothing IoU", segmentation["clothing_iou"], 0.80),
        ("segmenter, garments found", segmentation["found"], 0.75),
        ("end to end recall on street", segmentation["end_to_end"]["category_right_and_box"], 0.50),
        ("unseen words, precision over chance", figures["unseen_words"]["over_chance"], 2.5),
        ("embedded files, MB (at most 60)", round(size, 1), 60.0),
    ]
