"""Texts without photos, for distilling the text tower."""

from __future__ import annotations

import json
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer

from fashion_retrieval.taxonomy import Taxonomy, attribute_prompts, category_prompts
from training.data.manifest import COLORS, read_lines


def fashion_texts(root: Path) -> list[str]:
    """Captions, product names and prompts of the training split, each once, sorted."""
    texts: set[str] = set()
    for path in sorted((root / "fashioniq/captions").glob("cap.*.train.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            texts.update(caption.strip() for caption in row["captions"])
    for row in read_lines(root / "pairs.jsonl", "train"):
        texts.update(row["captions"])
    for row in read_lines(root / "products.jsonl", "train"):
        texts.update({row["name"], f"a photo of {row['base_colour'].lower()} {row['article_type'].lower()}"})
    for name in ("default", "deepfashion"):
        taxonomy = Taxonomy.load(name)
        for value in taxonomy.category.values:
            for color in COLORS:
                texts.update(category_prompts(taxonomy.category, value, color))
            for group in taxonomy.attributes:
                for attribute in group.values:
                    texts.update(attribute_prompts(group, attribute, value))
    return sorted(text for text in texts if text)


def vocabulary_words() -> dict[int, str]:
    """Whole words of CLIP's vocabulary by token: general language beside the fashion texts."""
    tokenizer = SimpleTokenizer()
    words = {}
    for token, piece in tokenizer.decoder.items():
        word = piece.removesuffix("</w>")
        if piece.endswith("</w>") and len(word) > 2 and word.isascii() and word.isalpha():
            words[token] = word
    return words
