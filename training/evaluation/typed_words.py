"""Words as people type them: what they mean to the text tower, with no photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval import FashionModel
from fashion_retrieval.taxonomy import SHIPPED, Taxonomy, attribute_prompts, category_prompts
from training.data.manifest import COLORS, read_captions, read_lines
from training.data.typed_words import TypedWord, TypedWords

Rows = NDArray[np.float32]
_ENOUGH = 0.9
"""Two spellings of one word are at least so near."""
_PLAIN = "plain"
_SEEN_ON = "dress"
"""What attributes and colors are said of: all groups make sense for it."""


def evaluate_typed_words(
    model: FashionModel,
    words: TypedWords,
    *,
    made: frozenset[str] = frozenset(),
    before: FashionModel | None = None,
    data: Path,
) -> dict[str, Any]:
    """Accuracy of words and likeness of spellings: the half that trains, the half that tests, and its `unseen` part.

    A word's category is the likeliest by the prompts that recognition asks with, of the word alone and of "a photo of
    a" word; attributes and colors are said of a dress. Unseen are texts of the test half that no training text
    contains, as far as `made` lists them. With a model of `before`, `kept` is the cosine of the embeddings that texts
    of the known vocabulary have in the two.
    """
    tested = words.tested()
    every = frozenset(word.text for word in words.words) | {b for pairs in words.pairs.values() for _, b in pairs}
    parts = {"train": every - tested, "test": tested, "unseen": tested - made}
    results: dict[str, Any] = {
        name: {
            "category": _categories(model, [w for w in words.words if w.group == "category" and w.text in part]),
            "attributes": _attributes(model, [w for w in words.words if w.group != "category" and w.text in part]),
            "pairs": _pairs(model, words, part),
        }
        for name, part in parts.items()
    }
    if before is not None:
        results["kept"] = {name: _kept(model, before, texts) for name, texts in _known_texts(data).items()}
    return results


def _categories(model: FashionModel, words: Sequence[TypedWord]) -> dict[str, Any]:
    recognizer = model.recognizer("default", 1)
    names = [value.name for value in recognizer.taxonomy.category.values]

    def named(template: str) -> list[tuple[str, float]]:
        rows = recognizer.prompts.rows([template.format(word.text) for word in words])
        found = [recognizer.category_probabilities(row, _PLAIN) for row in rows]
        return [
            (names[int(row.argmax())], float(row[names.index(word.meanings[0])]))
            for word, row in zip(words, found, strict=True)
        ]

    alone = named("{}")
    return {
        "words": len(words),
        "top1": _share(alone, words),
        "top1_in_a_photo": _share(named("a photo of a {}"), words),
        "mean_probability": float(np.mean([probability for _, probability in alone])),
        "wrong": {w.text: name for w, (name, _) in zip(words, alone, strict=True) if name not in w.meanings},
    }


def _share(found: Sequence[tuple[str, float]], words: Sequence[TypedWord]) -> float:
    return float(np.mean([name in word.meanings for (name, _), word in zip(found, words, strict=True)]))


def _attributes(model: FashionModel, words: Sequence[TypedWord]) -> dict[str, Any]:
    taxonomy = Taxonomy.load("default")
    noun = next(value for value in taxonomy.category.values if value.name == _SEEN_ON)
    prompts = {g.name: {v.name: attribute_prompts(g, v, noun)[0] for v in g.values} for g in taxonomy.attributes}
    prompts["color"] = {c: category_prompts(taxonomy.category, noun, c)[0] for c in COLORS}
    wrong = {}
    for word in words:
        values = prompts[word.group]
        scores = model.encode(texts=[*values.values()]) @ model.encode(texts=[f"a photo of {word.text} {_SEEN_ON}"])[0]
        found = [*values][int(scores.argmax())]
        if found not in word.meanings:
            wrong[f"{word.group}: {word.text}"] = found
    return {"words": len(words), "top1": 1 - len(wrong) / len(words), "wrong": wrong}


def _pairs(model: FashionModel, words: TypedWords, part: frozenset[str]) -> dict[str, Any]:
    kinds = {kind: [pair for pair in pairs if pair[1] in part] for kind, pairs in words.pairs.items()}
    pairs = [pair for found in kinds.values() for pair in found]
    cosines = _cosines(model, [first for first, _ in pairs], model, [second for _, second in pairs])
    by_pair = dict(zip(pairs, cosines.tolist(), strict=True))
    return {
        **_spread(cosines),
        "share_at_0.9": float((cosines >= _ENOUGH).mean()),
        "by_kind": {kind: float(np.mean([by_pair[pair] for pair in found])) for kind, found in kinds.items() if found},
        "below": {" / ".join(pair): cosine for pair, cosine in by_pair.items() if cosine < _ENOUGH},
    }


def _cosines(model: FashionModel, texts: Sequence[str], other: FashionModel, others: Sequence[str]) -> Rows:
    rows: Rows = (model.encode(texts=[*texts]) * other.encode(texts=[*others])).sum(1)
    return rows


def _spread(cosines: Rows) -> dict[str, Any]:
    return {"count": len(cosines), "mean": float(cosines.mean()), "least": float(cosines.min())}


def _kept(model: FashionModel, before: FashionModel, texts: Sequence[str]) -> dict[str, Any]:
    return _spread(_cosines(model, texts, before, texts))


def _known_texts(data: Path) -> Mapping[str, list[str]]:
    """Prompts of the shipped taxonomies in plain, and the pack's captions and product names of `val`."""
    prompts = set()
    for taxonomy in map(Taxonomy.load, SHIPPED):
        for value in taxonomy.category.values:
            prompts |= {*category_prompts(taxonomy.category, value, _PLAIN)}
            prompts |= {
                p for group in taxonomy.attributes for v in group.values for p in attribute_prompts(group, v, value)
            }
    captions = {text for found in read_captions(data, "val").values() for text in found}
    names = {row["name"] for row in read_lines(data / "products.jsonl", "val")}
    return {"prompts": sorted(prompts), "captions": sorted(captions), "names": sorted(names)}
