"""Which earlier modification texts a new one contradicts: "blue" replaces "red", "sleeveless" "long sleeves"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from fashion_retrieval._utils.files import asset
from fashion_retrieval.inference.colors import PALETTE
from fashion_retrieval.taxonomy import Taxonomy

COLOR = "color"
_WORDS = json.loads(asset("modification_words.json"))
_MORE_COLORS: dict[str, str] = _WORDS["colors"]
"""Other color words, each with the nearest name of the palette."""
_SHADES: dict[str, str] = _WORDS["shades"]
_PARTS = frozenset(_WORDS["parts"])
_NEGATIONS, _ARTICLES, _FILLERS = (frozenset(_WORDS[kind]) for kind in ("negations", "articles", "fillers"))
_EXCLAIMED = re.compile(r"\b(?:no|not)(?=\s*[,;.!:])", re.IGNORECASE)
_SEPARATOR = re.compile(r"[,;.]|\b(?:and|but|with)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_AN = re.compile(r"\ban(?= [^aeio])", re.IGNORECASE)


class Mention(NamedTuple):
    """What the words from `start` up to `end` of a text say about one group; a negation is included.

    The group is "color", "shade", one of the taxonomy, or "color of stripe" for the color of a part, which the word
    `part` names. The value is the taxonomy's name, or the color with its shade ("dark blue"). It is not `wanted` after
    "not", "without", "instead of" and the like.
    """

    group: str
    value: str
    wanted: bool
    start: int
    end: int
    part: int | None = None

    @property
    def name(self) -> str:
        """The value as recognition calls it: "dark navy" is "blue"."""
        word = self.value.split()[-1]
        return _MORE_COLORS.get(word, word) if self.group == COLOR else self.value


class Vocabulary:
    """Finds the words for attributes and colors in free text, whatever their endings.

    Categories are found only on request: without them, asking for a belt does not cancel a scarf.
    """

    def __init__(self, taxonomy: Taxonomy, *, categories: bool = False) -> None:
        self._phrases: dict[tuple[str, ...], tuple[str, str]] = {}
        for group in (*taxonomy.attributes, *([taxonomy.category] if categories else [])):
            for value in group.values:
                words = value.name.replace("_", " ")
                names = [words] if len(words) > 3 and " " not in words else []
                for phrase in () if value.absent else (*value.phrases, f"{words} {group.name}", *names):
                    self._phrases.setdefault(tuple(map(_stem, _WORD.findall(phrase.lower()))), (group.name, value.name))
        self._longest = max(map(len, self._phrases), default=0)
        self._colors = {_stem(name): name for name in (*PALETTE, *_MORE_COLORS)}

    def mentions(self, text: str) -> list[Mention]:
        """What a text says, in the order of its words."""
        lowered = [word.lower() for word in _WORD.findall(_EXCLAIMED.sub("oh", text))]
        words = [_WORDS["spellings"].get(word, word) for word in lowered]
        stems = [_stem(word) for word in words]
        return [_negated(item, words) for start in range(len(words)) for item in self._at(start, words, stems)]

    def remaining(self, earlier: str, newer: str) -> str | None:
        """What is left of an earlier text beside a newer one; None where nothing is."""
        old, new = self.mentions(earlier), self.mentions(newer)
        lost = {item.group for item in old if any(_contradicts(other, item) for other in new)}
        contradicted = [item for item in old if item.group in lost]
        gone = {word for item in contradicted for word in range(item.start, (item.part or item.end - 1) + 1)}
        gone |= {word for item in old if item.part in gone for word in range(item.start, item.end)}
        return _without(earlier, gone) if gone else earlier

    def _at(self, start: int, words: list[str], stems: list[str]) -> Iterable[Mention]:
        for length in range(min(self._longest, len(stems) - start), 0, -1):
            if known := self._phrases.get(tuple(stems[start : start + length])):
                yield Mention(*known, True, start, start + length)
                break
        if stems[start] in self._colors:
            yield self._color(start, words, stems)
        elif stems[start] in ("dark", "light"):
            yield Mention("shade", stems[start], True, start, start + 1)

    def _color(self, place: int, words: list[str], stems: list[str]) -> Mention:
        shade = _SHADES.get(stems[place - 1]) if place else None
        color = self._colors[stems[place]]
        value, start, after = f"{shade} {color}" if shade else color, place - bool(shade), place + 1
        while after < len(words) and (words[after] == "and" or stems[after] in self._colors):
            after += 1
        part = words[after].removesuffix("s") if after < len(words) else None
        if part in _PARTS:
            return Mention(f"{COLOR} of {part}", value, True, start, place + 1, after)
        return Mention(COLOR, value, True, start, place + 1)


def _negated(item: Mention, words: list[str]) -> Mention:
    """The mention with the negation before it, if there is one."""
    before = item.start - 1
    while before >= 0 and words[before] in _ARTICLES:
        before -= 1
    if before < 0:
        return item
    if before and words[before] == "of" and words[before - 1] == "instead":
        return item._replace(wanted=False, start=before - 1)
    if words[before] in _NEGATIONS:
        return item._replace(wanted=False, start=before - (before > 0 and words[before - 1] == "rather"))
    return item


def _contradicts(newer: Mention, item: Mention) -> bool:
    """Whether the newer mention gives the group another value, or negates this one."""
    return newer.group == item.group and (newer.wanted or (item.wanted and newer.value == item.value))


def _without(text: str, gone: set[int]) -> str | None:
    """The text without these words, and without clauses of which only fillers are left."""
    kept, last = "", 0
    spans = [match.span() for match in _WORD.finditer(text)]
    for place in sorted(gone):
        start, end = spans[place]
        between = text[last:start]
        kept += " " if place - 1 in gone and not _SEPARATOR.search(between) else between
        last = end
    clauses = [" ".join(clause.split()) for clause in _SEPARATOR.split(kept + text[last:])]
    meaningful = [clause for clause in clauses if {word.lower() for word in _WORD.findall(clause)} - _FILLERS]
    return _AN.sub(lambda article: article[0][0], " and ".join(meaningful)) or None


def _stem(word: str) -> str:
    """A word without its ending: "striped" and "stripes" are both "strip"."""
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        word = word[:-1]
    for ending, least in (("ed", 5), ("y", 8), ("er", 5), ("e", 4)):
        if word.endswith(ending) and len(word) >= least:
            word = word.removesuffix(ending)
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
