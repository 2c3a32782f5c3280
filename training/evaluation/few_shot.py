"""A group that the encoder was not trained on, from a few labeled photos a value: a probe against the prompts alone."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval import FashionModel, Taxonomy
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval._utils.scores import accuracy, expected_calibration_error, macro_f1, stratified_interval
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.images.load import load_pixels
from fashion_retrieval.inference.fitting import one_garment
from fashion_retrieval.models.probe_fit import fit
from fashion_retrieval.models.towers import Floats
from fashion_retrieval.taxonomy import Group
from training.data.manifest import read_lines

CONFIG = Path(__file__).parents[1] / "configs/few_shot.toml"
JUDGED = "season"
"""The group whose labels and words no training had: the bar is on it."""
_WEARABLE = frozenset({"Apparel", "Accessories", "Footwear"})
_BATCH = 16

Views = dict[Path, tuple[Floats, Floats]]
"""By photo what its attributes are read from, and the probabilities of its category."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labeled photos of one group: in `train` to draw examples from, in another split to test on.

    Attributes:
        group: Values and prompts; values are called as the labels.
        train: Photos by value.
        test: Photos with the position of the value.
    """

    group: Group
    train: dict[str, list[Path]]
    test: list[tuple[Path, int]]

    def draw(self, shots: int, seed: int) -> list[tuple[Path, int]]:
        """So many photos of each value, with its position."""
        generator = np.random.default_rng(seed)
        pairs = []
        for place, value in enumerate(self.group.values):
            photos = self.train[value.name]
            pairs += [(photos[i], place) for i in generator.permutation(len(photos))[:shots]]
        return pairs


def evaluate_few_shot(
    model: FashionModel, root: Path, split: str, *, shots: int = 16, seeds: int = 8, rounds: int = 1000
) -> dict[str, Any]:
    """Metrics by group, and the gain in macro-F1 over the prompts; means over as many draws of examples as `seeds`.

    Intervals are 95% percentile bootstraps over test photos and draws, both with replacement.

    Raises:
        ConfigError: A value has too few photos in the pack.
    """
    sets = read_label_sets(root, split, shots)
    draws = {name: [one.draw(shots, seed) for seed in range(seeds)] for name, one in sets.items()}
    photos = {photo for one in sets.values() for photo, _ in one.test}
    photos |= {photo for of_group in draws.values() for drawn in of_group for photo, _ in drawn}
    views = _look(model, sorted(photos))
    groups = {name: _measure(model, one, draws[name], views, rounds) for name, one in sets.items()}
    mean = float(np.mean([found["macro_f1_gain"] for found in groups.values()]))
    return {
        "shots": shots,
        "seeds": seeds,
        "split": split,
        "judged": JUDGED,
        "macro_f1_gain": groups[JUDGED]["macro_f1_gain"],
        "mean_macro_f1_gain": mean,
        "groups": groups,
    }


def read_label_sets(root: Path, split: str, shots: int, config: Path = CONFIG) -> dict[str, LabelSet]:
    """The groups of the configuration with their photos."""
    found = {}
    for name, about in tomllib.loads(config.read_text(encoding="utf-8")).items():
        described = {name: {"template": about["template"], "values": about["values"]}}
        (group,) = Taxonomy.load({"category": {"values": ["top", "dress"]}, "attributes": described}).attributes
        parts = {part: _photos(root, part, about, group) for part in ("train", split)}
        few = sorted(value.name for value in group.values if len(parts["train"][value.name]) < shots)
        if few:
            raise ConfigError(f"{root} must have {shots} training photos of each {name}, {', '.join(few)} has fewer")
        places = {value.name: place for place, value in enumerate(group.values)}
        test = [(photo, places[value]) for value, photos in parts[split].items() for photo in photos]
        found[name] = LabelSet(group, parts["train"], test)
    return found


def _photos(root: Path, split: str, about: dict[str, Any], group: Group) -> dict[str, list[Path]]:
    """The photos of a split by value, each of one garment."""
    found: dict[str, list[Path]] = {value.name: [] for value in group.values}
    for row in read_lines(root / f"{about['file']}.jsonl", split):
        label, source = row.get(about["field"]), row.get("source", about["file"])
        name = str(label).lower() if isinstance(label, bool) else label
        if name in found and source != "street" and row.get("master_category", "Apparel") in _WEARABLE:
            found[name].append(root / source / split / f"{row['id']}.jpg")
    return found


def _look(model: FashionModel, photos: Sequence[Path]) -> Views:
    recognizer = model.recognizer("default", 1)
    found: Views = {}
    starts = range(0, len(photos), _BATCH)
    for start in tracked(starts, "photos", len(starts), shown=True, unit="batches"):
        batch = photos[start : start + _BATCH]
        seen = [one_garment(load_pixels(photo), None, model.segmenter, 0) for photo in batch]
        found.update(zip(batch, zip(*recognizer.views(seen, batch_size=_BATCH), strict=True), strict=True))
    return found


def _measure(
    model: FashionModel, one: LabelSet, draws: list[list[tuple[Path, int]]], views: Views, rounds: int
) -> dict[str, Any]:
    recognizer, names = model.recognizer("default", 1), [value.name for value in one.group.values]

    def inputs(pairs: Sequence[tuple[Path, int]]) -> tuple[Floats, Floats, NDArray[np.int64]]:
        rows, categories = (np.stack(part) for part in zip(*(views[photo] for photo, _ in pairs), strict=True))
        by_prompts = recognizer.by_prompts(rows, categories, one.group)
        return rows, by_prompts, np.array([place for _, place in pairs])

    rows, by_prompts, truth = inputs(one.test)
    guesses, scores, unseen = [], defaultdict(list), []
    for drawn in draws:
        embeddings, prior, labels = inputs(drawn)
        probe, judged = fit(embeddings, prior, labels, names)
        found = np.stack([probe.correct(*pair, names) for pair in zip(by_prompts, rows, strict=True)])
        guesses.append(found.argmax(1))
        for key, value in _scores(found, truth).items():
            scores[key].append(value)
        unseen.append(_scores(judged, labels)["accuracy"])
    prompts, answers, base = _scores(by_prompts, truth), np.array(guesses), by_prompts.argmax(1)

    def gain(drawn: list[NDArray[np.int64]]) -> float:
        photos, seeds = drawn
        right = [macro_f1(truth[photos], answers[seed][photos]) for seed in seeds]
        return float(np.mean(right)) - macro_f1(truth[photos], base[photos])

    return {
        "values": {name: int((truth == place).sum()) for place, name in enumerate(names)},
        "prompts": prompts,
        "probe": {key: float(np.mean(values)) for key, values in scores.items()},
        "macro_f1_by_seed": scores["macro_f1"],
        "macro_f1_gain": float(np.mean(scores["macro_f1"])) - prompts["macro_f1"],
        "macro_f1_gain_interval": stratified_interval([len(truth), len(draws)], gain, rounds=rounds),
        "accuracy_said_by_cross_validation": float(np.mean(unseen)),
    }


def _scores(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> dict[str, float]:
    confidence, predicted = probabilities.max(1).astype(np.float64), probabilities.argmax(1)
    return {
        "accuracy": accuracy(truth, predicted),
        "macro_f1": macro_f1(truth, predicted),
        "calibration_error": expected_calibration_error(confidence, predicted == truth),
    }
