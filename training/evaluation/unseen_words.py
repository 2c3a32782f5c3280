"""Recognition of words that no training text contained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval import FashionModel
from fashion_retrieval.inference.colors import PALETTE
from fashion_retrieval.inference.recognition import CategoryContext
from fashion_retrieval.models.towers import Floats
from fashion_retrieval.taxonomy import Group, Value
from training.data.manifest import GROUPS, read_held_out, read_lines
from training.evaluation.recognition import Garments

_NOUNS = ("garment", "t-shirt", "dress", "shirt", "trousers", "sweater", "jacket", "top")
_WEARABLE = frozenset({"Apparel", "Accessories", "Footwear"})

Labeled = tuple[Floats, CategoryContext, str]
"""Embedding (d,) of a garment, its likeliest categories, and its label."""


def evaluate_unseen_words(
    model: FashionModel, garments: Garments, root: Path, split: str, words_file: Path
) -> dict[str, Any]:
    """Precision of words, each in a taxonomy as a user would write it.

    A word takes the place of the values that it means ("plaid" that of "lattice"), or joins the colors. Garments with a
    label of its group are ranked by the probability of the word; its precision is that of the top n, where the word is
    true of n garments. Chance is their fraction. `by_word_alone` ranks by the cosine to the prompt of the word, without
    other values to compare with.
    """
    recognizer = model.recognizer("default", 1)
    groups = {group.name: group for group in recognizer.taxonomy.attributes}
    palette = tuple(Value(name, (name,)) for name in PALETTE)
    groups["base_colour"] = replace(groups["texture"], name="base_colour", values=palette, applies_to=None)
    view = garments.view
    labeled = {
        name: [(view[i], garments.contexts[i], label) for i, label in garments.labels(name).items()] for name in GROUPS
    }
    labeled["base_colour"] = _products(model, root, split)
    words = {}
    for word, meaning in read_held_out(words_file).items():
        rows = labeled[meaning["field"]]
        true = np.array([label in meaning["values"] for *_, label in rows])
        if true.any():
            group = _with_word(groups[meaning["field"]], word, meaning["values"])
            scores = [float(recognizer.attribute_probabilities(row, group, context)[-1]) for row, context, _ in rows]
            prompt = model.encode(texts=[f"a photo of {word} {noun}" for noun in _NOUNS]).mean(0)
            cosines = np.stack([row for row, *_ in rows]) @ prompt
            words[word] = {
                "precision": _top_precision(np.array(scores), true),
                "by_word_alone": _top_precision(cosines, true),
                "chance": float(true.mean()),
                "true": int(true.sum()),
            }
    keys = ("precision", "by_word_alone", "chance")
    means = {key: float(np.mean([row[key] for row in words.values()])) for key in keys}
    return {"words": words, "count": len(words), **means, "over_chance": means["precision"] / means["chance"]}


def _with_word(group: Group, word: str, meant: list[str]) -> Group:
    """The group with the word as its last value, in the place of those that it means."""
    others = tuple(value for value in group.values if value.name not in meant)
    return replace(group, values=(*others, Value(word, (word,))))


def _products(model: FashionModel, root: Path, split: str) -> list[Labeled]:
    """Each product of something to wear, with its shop color."""
    rows = [row for row in read_lines(root / "products.jsonl", split) if row["master_category"] in _WEARABLE]
    photos = [root / "products" / split / f"{row['id']}.jpg" for row in rows]
    embeddings = model.encode(images=photos)
    recognizer = model.recognizer("default", 1)
    contexts = [recognizer.category_context(recognizer.category_probabilities(row, "plain")) for row in embeddings]
    return list(zip(embeddings, contexts, (row["base_colour"] for row in rows), strict=True))


def _top_precision(scores: NDArray[np.floating], true: NDArray[np.bool_]) -> float:
    """Fraction of true rows among the best-scored, as many as there are true rows."""
    return float(true[np.argsort(-scores)[: int(true.sum())]].mean())
