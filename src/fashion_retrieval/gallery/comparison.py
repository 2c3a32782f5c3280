"""What a board tells: results beside the reference and the modification text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from fashion_retrieval.gallery.items import garment_fields
from fashion_retrieval.gallery.vocabulary import COLOR, vocabulary_of
from fashion_retrieval.gallery.wish import read_wish
from fashion_retrieval.images.inputs import ImageInput, describe
from fashion_retrieval.images.load import load_image
from fashion_retrieval.results import Attribute, Explanation, Match, Recognition
from fashion_retrieval.results.board import DETAIL, Board, Change, Tile
from fashion_retrieval.taxonomy import Taxonomy

CATEGORY = "category"

BoardReference: TypeAlias = Match | Recognition | ImageInput


def tell_board(
    matches: Sequence[Match],
    *,
    reference: BoardReference | None = None,
    text: str | None = None,
    taxonomy: Taxonomy | Mapping[str, Any] | str | Path = "default",
    caption: str | None = None,
    max_pixels: int | None = None,
    explanation: Explanation | None = None,
) -> Board:
    """A query and its results, each with the values that differ from the reference, first those the text asked for.

    Without recognition of both, results have their color and category. Of a Recognition, its largest garment is
    compared. `caption` is a line under the query, `explanation` where it comes from. Photos with more than `max_pixels`
    can't be read.
    """
    comparison = Comparison(Taxonomy.load(taxonomy), reference, text)
    tiles = tuple(Tile(match, comparison.title_of(match), comparison.changes(match)) for match in matches)
    told = Board(tiles, reference is not None, None, None, comparison.title, text, caption, max_pixels, explanation)
    if isinstance(reference, Match):
        return replace(told, name=reference.id, photo=told.small(reference.photo, DETAIL))
    if isinstance(reference, Recognition):
        return replace(told, name=reference.source, photo=reference.image)
    if reference is None:
        return told
    return replace(told, name=describe(reference), photo=load_image(reference, max_pixels=max_pixels))


class Comparison:
    """Compares results with a reference and with a modification text."""

    def __init__(self, taxonomy: Taxonomy, reference: object, text: str | None) -> None:
        self._groups = (CATEGORY, COLOR, *(group.name for group in taxonomy.attributes))
        groups = {group.name: group for group in (taxonomy.category, *taxonomy.attributes)}
        self._phrases = {(name, v.name): v.phrases[0] for name, group in groups.items() for v in group.values}
        vocabulary = vocabulary_of(taxonomy)
        said = read_wish(text, vocabulary).parts if text else ()
        self._asked = {(part.group, part.name) for part in said if part.wanted}
        refused = [part for part in said if part.sense == "unwanted"]
        self._refused = {(part.group, value) for part in refused for value in vocabulary.values(part.group, part.value)}
        self._before = self._facts(reference)
        self.title = self.title_of(reference)

    def changes(self, match: Match) -> tuple[Change, ...] | None:
        """Values that were asked for, then others that differ; None unless both were recognized."""
        now = self._facts(match)
        if not self._before or not now:
            return None
        found = []
        for group, value in now.items():
            before = self._before.get(group)
            gone = (group, before) in self._refused and (group, value) not in self._refused
            asked = gone or (group, value) in self._asked
            if asked or before not in (None, value):
                label = self._label(group, value)
                was = None if before in (None, value) else _shortened(self._label(group, before), label)
                found.append(Change(label, was, asked))
        return tuple(sorted(found, key=lambda change: not change.asked))

    def title_of(self, source: object) -> str:
        """Color and category in words: "blue shirt dress"; empty if it was not recognized."""
        facts = self._facts(source)
        return " ".join(self._label(group, facts[group]) for group in (COLOR, CATEGORY) if group in facts)

    def _facts(self, source: object) -> dict[str, str]:
        """Value by group, of a Match or of the largest garment of a Recognition."""
        values: Mapping[str, object] = source.fields if isinstance(source, Match) else {}
        if isinstance(source, Recognition):
            values = garment_fields(source)
        return {group: value for group in self._groups if isinstance(value := values.get(group), str)}

    def _label(self, group: str, value: str) -> str:
        """The value as the taxonomy's prompts say it, or its name in words."""
        words = value.replace("_", " ") if group in (CATEGORY, COLOR) else Attribute(group, value, 1.0).label
        return self._phrases.get((group, value), words)


def _shortened(words: str, beside: str) -> str:
    """The words without a last one that both share: "short sleeve" beside "long sleeve" is "short"."""
    *first, last = words.split()
    return " ".join(first) if first and last == beside.split()[-1] else words
