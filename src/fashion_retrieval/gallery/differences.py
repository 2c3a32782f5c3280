"""How a result differs from a reference, in the words of a taxonomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fashion_retrieval.gallery.items import garment_fields
from fashion_retrieval.gallery.modification_text import COLOR, Vocabulary
from fashion_retrieval.results import Attribute, Match, Recognition
from fashion_retrieval.taxonomy import Taxonomy

CATEGORY = "category"


@dataclass(frozen=True, slots=True)
class Change:
    """A value that the text asked for or that differs from the reference: what it is now, and what it was.

    `was` is None where it is the same.
    """

    label: str
    was: str | None
    asked: bool


class Comparison:
    """Compares results with a reference and with a modification text."""

    def __init__(self, taxonomy: Taxonomy, reference: object, text: str | None) -> None:
        self._groups = (CATEGORY, COLOR, *(group.name for group in taxonomy.attributes))
        groups = {group.name: group for group in (taxonomy.category, *taxonomy.attributes)}
        self._phrases = {(name, v.name): v.phrases[0] for name, group in groups.items() for v in group.values}
        mentions = Vocabulary(taxonomy, categories=True).mentions(text) if text else []
        self._asked = {(item.group, item.name) for item in mentions if item.wanted}
        self._before = self._facts(reference)
        self.title = self.title_of(reference)

    def changes(self, match: Match) -> tuple[Change, ...] | None:
        """Values that were asked for, then others that differ; None unless both were recognized."""
        now = self._facts(match)
        if not self._before or not now:
            return None
        found = []
        for group, value in now.items():
            asked, before = (group, value) in self._asked, self._before.get(group)
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
