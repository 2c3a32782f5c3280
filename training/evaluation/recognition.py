"""Recognition from labeled regions: attributes, category, color, calibration, unseen words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.inference.colors import PALETTE, dominant_colors
from fashion_retrieval.models.zero_shot import attribute_view
from fashion_retrieval.taxonomy import Taxonomy, Value
from training.data.crops import read_crop
from training.data.io import readable, shown
from training.data.manifest import GROUPS, Sample, labeled_samples, read_held_out, read_lines, region_mask
from training.evaluation.attribute_groups import Guesses, Nouns, group_figures, guess_group, marks, precision_outcomes
from training.evaluation.metrics import accuracy, macro_f1
from training.evaluation.significance import Outcomes

# Column of attributes.jsonl -> group of the deepfashion taxonomy, and label -> its value (the pack's README).
DEEPFASHION_GROUPS = {
    "texture": "texture", "sleeve": "sleeve_length", "length": "dress_length",
    "neckline": "neckline", "fabric": "fabric", "fit": "fit",
}  # fmt: skip
DEEPFASHION_VALUES = {
    "texture": dict.fromkeys(["dotted", "animal", "other_print", "colour_block"], "graphic"),
    "neckline": {
        **dict.fromkeys(["crew", "scoop", "boat"], "crew_neckline"), "v": "v_neckline", "square": "square_neckline",
        **dict.fromkeys(["collar", "turtleneck", "hooded", "strapless_halter", "none"], "no_neckline"),
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Embedded:
    """A split's garments as the model sees them: rows of each tensor are (d,) embeddings, L2-normalized."""

    samples: list[Sample]
    masks: list[NDArray[np.bool_]]
    colors: list[str]
    whole: Tensor
    crop: Tensor
    masked: Tensor

    @property
    def view(self) -> Tensor:
        """What attributes are read from."""
        return attribute_view(self.crop, self.masked)


def embed_split(model: FashionModel, root: Path, split: str) -> Embedded:
    """Encode whole photo, crop and masked crop of each labeled garment, and measure its color.

    Raises:
        ConfigError: Labels with faults, none in that split, or photos or masks that can't be read.
    """
    samples = labeled_samples(root, split)
    broken = [f.name for s in samples for f in (s.photo, s.mask) if f is not None and not readable(f)]
    if broken or not samples:
        fault = (
            f"{len(broken)} photos or masks can't be read: {shown(broken)}" if broken else f"none of split {split!r}"
        )
        raise ConfigError(f"labeled garments in {root}: {fault}; see the pack's README.md")
    recognizer = model._recognizer(None, 1)
    crop = recognizer.embed([read_crop(s, masked=False) for s in samples], 32)
    whole, masked = crop.clone(), crop.clone()
    rows = [i for i, s in enumerate(samples) if s.mask is not None]
    masked[rows] = recognizer.embed([read_crop(samples[i], masked=True) for i in rows], 32)
    whole[rows] = recognizer.embed([_photo(samples[i]) for i in rows], 32)
    masks = [_mask(model, sample) for sample in samples]
    colors = [_pixel_color(sample, mask) for sample, mask in zip(samples, masks, strict=True)]
    return Embedded(samples, masks, colors, whole, crop, masked)


def _photo(sample: Sample) -> Image.Image:
    with Image.open(sample.photo) as photo:
        return photo.convert("RGB")


def _mask(model: FashionModel, sample: Sample) -> NDArray[np.bool_]:
    """The labeled mask or, where the pack has none, that of the largest garment found."""
    photo = _photo(sample)
    mask = region_mask(sample)
    if mask is None and model.segmenter is not None:
        mask = next((region.mask for region in model.segmenter.segment(photo)), None)
    return np.ones((photo.height, photo.width), dtype=bool) if mask is None else mask


def _pixel_color(sample: Sample, mask: NDArray[np.bool_]) -> str:
    """The color for the category prompt."""
    return dominant_colors(np.asarray(_photo(sample)), mask)[0].name


def _final_colors(model: FashionModel, data: Embedded, nouns: list[Nouns]) -> list[str]:
    """The dominant color that recognition reports."""
    recognizer = model._recognizer("default", 1)
    rows = zip(data.samples, data.masks, data.masked, nouns, strict=True)
    return [recognizer.colors(np.asarray(_photo(s)), mask, row, noun[0][0])[0].name for s, mask, row, noun in rows]


def evaluate_recognition(model: FashionModel, data: Embedded, *, seed: int = 0) -> dict[str, Any]:
    """All figures of a split's labeled garments."""
    sources = np.array([s.source for s in data.samples])
    categories = _categories(model, data)
    nouns = _nouns(model, categories)
    figures: dict[str, Any] = {"garments": len(data.samples)}
    guesses = _deepfashion(model, data, data.view, nouns)
    figures["deepfashion"] = {"all": group_figures(guesses, np.ones(len(sources), bool))}
    figures["deepfashion"] |= {name: group_figures(guesses, sources == name) for name in sorted(set(sources.tolist()))}
    right = marks(guesses, len(sources))
    figures["deepfashion"]["all"]["mean_precision_interval"] = precision_outcomes(right).interval(seed=seed)
    figures["right"] = right
    figures["views_on_street"] = _views(model, data, sources, nouns)
    figures["category"] = _category_figures(data, categories, sources, seed)
    named = [(s.source, s.color or "", c) for s, c in zip(data.samples, _final_colors(model, data, nouns), strict=True)]
    figures["color"] = {"top1": accuracy([truth for _, truth, _ in named], [guess for *_, guess in named])}
    figures["color"]["top1_interval"] = _share_interval([truth == guess for _, truth, guess in named], seed)
    for name in sorted(set(sources.tolist())):
        figures["color"][name] = float(np.mean([truth == guess for source, truth, guess in named if source == name]))
    figures["default"] = _default_figures(model, data, nouns)
    return figures


def _share_interval(hits: list[bool], seed: int) -> list[float]:
    return Outcomes.of_groups([np.array(hits)]).interval(seed=seed)


def _categories(model: FashionModel, data: Embedded) -> list[Tensor]:
    recognizer = model._recognizer("default", 1)
    return [recognizer.category_probabilities(row, color) for row, color in zip(data.crop, data.colors, strict=True)]


def _nouns(model: FashionModel, categories: list[Tensor]) -> list[Nouns]:
    """The likeliest categories of each garment: what attribute prompts are about."""
    recognizer = model._recognizer("default", 1)
    return [recognizer.nouns(shares) for shares in categories]


def _deepfashion(model: FashionModel, data: Embedded, embeddings: Tensor, nouns: list[Nouns]) -> Guesses:
    recognizer = model._recognizer("deepfashion", 1)
    groups = {group.name: group for group in recognizer.taxonomy.attributes}
    guesses: Guesses = {}
    for column in GROUPS:
        mapping = DEEPFASHION_VALUES.get(column, {})
        truths = {
            i: mapping.get(s.attributes[column], s.attributes[column])
            for i, s in enumerate(data.samples)
            if column in s.attributes
        }
        guesses[column] = guess_group(recognizer, groups[DEEPFASHION_GROUPS[column]], embeddings, nouns, truths)
    return guesses


def _views(model: FashionModel, data: Embedded, sources: np.ndarray, nouns: list[Nouns]) -> dict[str, Any]:
    """The paper's Table 4 on street photos: whole photo, crop, masked crop."""
    street = sources == "street"
    if not street.any():
        return {}
    views = {"whole_photo": data.whole, "crop": data.crop, "masked_crop": data.masked, "as_recognized": data.view}
    means = {n: group_figures(_deepfashion(model, data, e, nouns), street)["mean_precision"] for n, e in views.items()}
    return {**means, "region_over_whole_photo": means["masked_crop"] - means["whole_photo"]}


def _category_figures(data: Embedded, categories: list[Tensor], sources: np.ndarray, seed: int) -> dict[str, Any]:
    """Top-1 among the pack's categories, and among all of the default taxonomy."""
    names = [value.name for value in Taxonomy.load("default").category.values]
    pack = _pack_categories(data)
    inside = torch.tensor([name in pack for name in names])
    truth = [s.category or "" for s in data.samples]
    closed = [names[int((shares.cpu() * inside).argmax())] for shares in categories]
    opened = [names[int(shares.argmax())] for shares in categories]
    figures: dict[str, Any] = {
        "top1": accuracy(truth, closed),
        "top1_of_all": accuracy(truth, opened),
        "macro_f1": macro_f1(truth, closed),
    }
    figures["top1_interval"] = _share_interval([t == g for t, g in zip(truth, closed, strict=True)], seed)
    for name in sorted(set(sources.tolist())):
        rows = np.flatnonzero(sources == name)
        figures[name] = accuracy([truth[i] for i in rows], [closed[i] for i in rows])
    return figures


PACK_EXTRAS = frozenset(
    {"sneakers", "dress_shoes", "heels", "flats", "sandals", "flip_flops", "boots", "handbag", "backpack", "clutch"}
    | {"wallet", "hat", "scarf", "belt", "tie", "sunglasses", "watch", "jewellery", "socks"}
)
"""Categories of the default taxonomy that attributes.jsonl does not label."""


def _pack_categories(data: Embedded) -> set[str]:
    return {value.name for value in Taxonomy.load("default").category.values} - PACK_EXTRAS


def _default_figures(model: FashionModel, data: Embedded, nouns: list[Nouns]) -> dict[str, Any]:
    """The pack's own vocabulary, as users get it."""
    recognizer = model._recognizer("default", 1)
    groups = {group.name: group for group in recognizer.taxonomy.attributes}
    guesses = {}
    for column in GROUPS:
        truths = {i: s.attributes[column] for i, s in enumerate(data.samples) if column in s.attributes}
        guesses[column] = guess_group(recognizer, groups[column], data.view, nouns, truths)
    return group_figures(guesses, np.ones(len(data.samples), bool))


def evaluate_words(model: FashionModel, data: Embedded, root: Path, split: str, words_file: Path) -> dict[str, Any]:
    """Words that no training text contained, each as a user would bring it: in a taxonomy of his own.

    A word takes the place of the values that it means ("plaid" that of "lattice"), or joins the colors. Garments that
    carry a label of its group are ranked by the word's probability; the figure is the precision of the top n, n the
    number of garments the word is true of. Chance is their share. `by_word_alone` ranks by the cosine to the word's
    prompt, with no other value to weigh it against.
    """
    words = read_held_out(words_file)
    recognizer = model._recognizer("default", 1)
    groups = {group.name: group for group in recognizer.taxonomy.attributes}
    color_values = tuple(Value(name, (name,)) for name in PALETTE)
    groups["base_colour"] = replace(groups["texture"], name="base_colour", values=color_values, applies_to=None)
    nouns = _nouns(model, _categories(model, data))
    shown = {
        f: [(data.view[i], nouns[i], s.attributes[f]) for i, s in enumerate(data.samples) if f in s.attributes]
        for f in GROUPS
    }
    shown["base_colour"] = _products(model, root, split)
    results = {}
    for word, meaning in words.items():
        rows, group = shown[meaning["field"]], groups[meaning["field"]]
        hits = np.array([label in meaning["values"] for *_, label in rows])
        if hits.sum():
            others = tuple(value for value in group.values if value.name not in meaning["values"])
            asked = replace(group, values=(*others, Value(word, (word,))))
            scores = [float(recognizer.attribute_probabilities(row, asked, noun)[-1]) for row, noun, _ in rows]
            alone = model.encode(texts=[f"a photo of {word} {noun}" for noun in _NOUNS]).mean(0)
            cosines = torch.stack([row for row, *_ in rows]).cpu().numpy() @ alone
            results[word] = {
                "precision": _top_precision(np.array(scores), hits),
                "by_word_alone": _top_precision(cosines, hits),
                "chance": float(hits.mean()),
                "true": int(hits.sum()),
            }
    means = {k: float(np.mean([r[k] for r in results.values()])) for k in ("precision", "by_word_alone", "chance")}
    over = {"over_chance": means["precision"] / means["chance"]}
    return {"words": results, "count": len(results), **means, **over}


_NOUNS = ("garment", "t-shirt", "dress", "shirt", "trousers", "sweater", "jacket", "top")


def _products(model: FashionModel, root: Path, split: str) -> list[tuple[Tensor, Nouns, str]]:
    """Embedding, likeliest category and shop color of each product photo of something to wear."""
    rows = [r for r in read_lines(root / "products.jsonl", split) if r["master_category"] in _WEARABLE]
    photos = [root / "products" / split / f"{row['id']}.jpg" for row in rows]
    embeddings = torch.from_numpy(model.encode(images=list(photos))).to(model.device)
    recognizer = model._recognizer("default", 1)
    nouns = _nouns(model, [recognizer.category_probabilities(row, "plain") for row in embeddings])
    return list(zip(embeddings, nouns, (row["base_colour"] for row in rows), strict=True))


_WEARABLE = frozenset({"Apparel", "Accessories", "Footwear"})


def _top_precision(scores: NDArray[np.floating], hits: NDArray[np.bool_]) -> float:
    """The share of hits among as many best scores as there are hits."""
    return float(hits[np.argsort(-scores)[: int(hits.sum())]].mean())
