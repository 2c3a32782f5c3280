"""Which earlier modification texts a new one contradicts: "blue" replaces "red", "sleeveless" "long sleeves"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fashion_retrieval.inference.colors import PALETTE
from fashion_retrieval.taxonomy import Taxonomy

COLOR = "color"
_MORE_COLORS = {
    **{"aqua": "cyan", "burgundy": "red", "camel": "beige", "charcoal": "gray", "coral": "orange", "cream": "beige"},
    **{"gold": "yellow", "indigo": "blue", "ivory": "white", "khaki": "beige", "lavender": "purple", "lilac": "purple"},
    **{"magenta": "pink", "maroon": "red", "mint": "green", "mustard": "yellow", "navy": "blue", "olive": "green"},
    **{"peach": "orange", "rust": "orange", "silver": "gray", "tan": "beige", "teal": "cyan", "turquoise": "cyan"},
    **{"violet": "purple"},
}
"""Other color words, each with the nearest name of the palette."""
_SHADES = {"dark": "dark", "deep": "dark", "light": "light", "pale": "light", "bright": "bright"}
_ALONE = frozenset({"dark", "light"})
_PARTS = frozenset(
    (
        *("accent", "belt", "border", "bow", "button", "check", "collar", "cuff", "detail", "dot", "edge"),
        *("embroidery", "flower", "graphic", "hem", "lace", "letter", "lining", "logo", "neckline", "panel"),
        *("pattern", "pocket", "print", "slogan", "sole", "strap", "stripe", "text", "trim", "waistband", "writing"),
        "zip",
    )
)
_SPELT = {"grey": "gray", "greyer": "gray", "colour": "color", "coloured": "colored"}
_NEGATIONS = frozenset({"less", "no", "not", "than", "without"})
_ARTICLES = frozenset({"a", "an", "any", "so", "the"})
_FILLERS = frozenset(
    (
        *("a", "also", "an", "and", "any", "are", "be", "bit", "but", "color", "colored", "has", "have", "having"),
        *("i", "in", "instead", "is", "it", "its", "just", "like", "little", "make", "more", "much", "now", "of"),
        *("one", "only", "or", "please", "quite", "rather", "should", "so", "that", "the", "this", "to", "too"),
        *("very", "want", "with", "would"),
    )
)
_EXCLAIMED = re.compile(r"\b(?:no|not)(?=\s*[,;.!:])", re.IGNORECASE)
_SEPARATOR = re.compile(r"[,;.]|\b(?:and|but|with)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_AN = re.compile(r"\ban(?= [^aeio])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mention:
    """What a text says about one group.

    Attributes:
        group: "color", "shade", a group of the taxonomy, or "color of stripe" for the color of a part.
        value: The taxonomy's name of the value, or the color with its shade ("dark blue").
        wanted: False after "not", "without", "instead of" and the like.
        start: The first word, counted from 0; a negation is included.
        end: The word after the last.
        part: The word that names the part, or None.
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

    Args:
        taxonomy: The taxonomy of the attribute groups.
        categories: Find its categories too. Without them, asking for a belt does not cancel a scarf.
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
        words = [_SPELT.get(word, word) for word in lowered]
        stems = [_stem(word) for word in words]
        found: list[Mention] = []
        for start in range(len(words)):
            found += [_negated(item, words) for item in self._at(start, words, stems)]
        return found

    def remaining(self, earlier: str, newer: str) -> str | None:
        """What is left of an earlier text beside a newer one; None where nothing is."""
        old, new = self.mentions(earlier), self.mentions(newer)
        lost = {item.group for item in old if _contradicted(item, new)}
        gone = {
            word for item in old if item.group in lost for word in range(item.start, (item.part or item.end - 1) + 1)
        }
        gone |= {word for item in old if item.part in gone for word in range(item.start, item.end)}
        return _without(earlier, gone) if gone else earlier

    def _at(self, start: int, words: list[str], stems: list[str]) -> Iterable[Mention]:
        for length in range(min(self._longest, len(stems) - start), 0, -1):
            known = self._phrases.get(tuple(stems[start : start + length]))
            if known:
                yield Mention(*known, True, start, start + length)
                break
        if stems[start] in self._colors:
            yield self._color(start, words, stems)
        elif stems[start] in _ALONE:
            yield Mention("shade", _SHADES[stems[start]], True, start, start + 1)

    def _color(self, place: int, words: list[str], stems: list[str]) -> Mention:
        shaded = place > 0 and stems[place - 1] in _SHADES
        shade = f"{_SHADES[stems[place - 1]]} " if shaded else ""
        value, start, end = shade + self._colors[stems[place]], place - shaded, place + 1
        after = end
        while after < len(words) and (words[after] == "and" or stems[after] in self._colors):
            after += 1
        if after < len(words) and words[after].removesuffix("s") in _PARTS:
            part = words[after].removesuffix("s")
            return Mention(f"{COLOR} of {part}", value, True, start, end, after)
        return Mention(COLOR, value, True, start, end)


def _negated(item: Mention, words: list[str]) -> Mention:
    """The mention with the negation before it, if there is one."""
    before = item.start - 1
    while before >= 0 and words[before] in _ARTICLES:
        before -= 1
    if before < 0:
        return item
    if before and words[before] == "of" and words[before - 1] == "instead":
        return Mention(item.group, item.value, False, before - 1, item.end, item.part)
    if words[before] in _NEGATIONS:
        first = before - (before > 0 and words[before - 1] == "rather")
        return Mention(item.group, item.value, False, first, item.end, item.part)
    return item


def _contradicted(item: Mention, newer: Iterable[Mention]) -> bool:
    """Whether newer mentions give the group another value, or negate this one."""
    same = [other for other in newer if other.group == item.group]
    return any(other.wanted or (item.wanted and other.value == item.value) for other in same)


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
