"""The words of a wish: what a taxonomy, the palette and some everyday words call in a text, whatever their endings."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from fashion_retrieval._utils.files import asset
from fashion_retrieval.inference.colors import PALETTE
from fashion_retrieval.taxonomy import Group, Taxonomy

COLOR, SHADE, DETAIL, LENGTH = "color", "shade", "detail", "length"
WORDS = json.loads(asset("modification_words.json"))
_COLORS: dict[str, str] = WORDS["colors"]
"""Other color words, each with the nearest name of the palette."""
ONE_EACH = frozenset(("fit", "length", "neckline", "sleeve"))
"""Groups of which a garment has one value only."""
BESIDES = frozenset(("collar", "hooded"))
"""Values of them that go with another one: a polo shirt has a collar and a v-neck."""
_KINDS: dict[str, list[str]] = WORDS["kinds"]
_UNSTEMMED, _PARTS = frozenset(WORDS["unstemmed"]), frozenset(WORDS["parts"])
_WORD = re.compile(r"\bw/o\b|\bno-[^\W_]+|[^\W_]+(?:['\u2019]t\b)?", re.IGNORECASE)
_BREAK = re.compile(r"[,;.:!?()\n\u2013\u2014\u2026]|\s-+\s")
_THINGS = frozenset(("collar", "embroidery", "hood", "pattern", "print"))
_ABSORBED = ("print", "prints", "pattern", "patterns", "design")


Sense = Literal["wanted", "unwanted", "more", "less"]


class Token(NamedTuple):
    """A word in lower case and usual spelling, its stem, its place in characters, and whether it opens a clause."""

    word: str
    stem: str
    start: int
    end: int
    opens: bool


class Term(NamedTuple):
    """What the tokens from `start` up to `end` name: a value of a group.

    The group is "color", "shade", one of the taxonomy, "color of stripe" for the color of a part, which the token
    `part` names, or "detail" for what has no group. The value is the taxonomy's name, a kind of values ("print"), the
    color with its shade ("dark blue"), or the detail in the singular.
    """

    group: str
    value: str
    start: int
    end: int
    compared: bool = False
    part: int | None = None


class Part(NamedTuple):
    """One thing that a wish says: in which sense it speaks of a value of a group, and in which words."""

    sense: Sense
    group: str
    value: str
    words: str
    start: int
    end: int
    part: int | None = None

    @property
    def name(self) -> str:
        """The value as recognition calls it: "dark navy" is "blue"."""
        return color_name(self.value) if self.group == COLOR else self.value

    @property
    def wanted(self) -> bool:
        """Whether it should be there."""
        return self.sense in ("wanted", "more")

    def __str__(self) -> str:
        if self.sense == "wanted" or (self.sense == "more" and self.words.split()[0].endswith("er")):
            return self.words
        if self.sense != "unwanted":
            return f"{self.sense} {self.words}"
        return f"{'without' if is_noun(self.group, self.words) else 'not'} {self.words}"


def tokens_of(text: str) -> list[Token]:
    """The words of a text."""
    found: list[Token] = []
    last = 0
    for match in _WORD.finditer(text):
        word = match[0].lower().replace("\u2019", "'")
        word = WORDS["spellings"].get(word, word)
        opens = not found or bool(_BREAK.search(text[last : match.start()]))
        found.append(Token(word, _stem(word), *match.span(), opens))
        last = match.end()
    return found


class Vocabulary:
    """Finds the words for attributes, colors, categories and details in tokens."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._phrases: dict[tuple[str, ...], tuple[str, str]] = {}
        self._words = {*PALETTE, *_COLORS}
        groups = (*taxonomy.attributes, taxonomy.category)
        self._groups = {value.name: group for group in reversed(groups) for value in group.values}
        for word, kind in WORDS["kind_words"].items():
            values = [value for value in _KINDS[kind] if value in self._groups]
            if values:
                self._call(word, self._groups[values[0]].name, kind)
        for group in groups:
            self._learn(group)
        for detail in WORDS["details"]:
            self._call(detail, DETAIL, detail)
        self._longest = max(map(len, self._phrases), default=0)
        self._colors = {_stem(name): name for name in (*PALETTE, *_COLORS)}
        self._shades = {_stem(name): shade for name, shade in WORDS["shades"].items()}
        self.open_groups = frozenset((DETAIL, taxonomy.category.name))
        """Groups of which a garment may have several values, so that one does not exclude another."""

    def terms(self, tokens: Sequence[Token]) -> list[Term]:
        """What the tokens name, in order; no token is in two terms."""
        found: list[Term] = []
        start = 0
        while start < len(tokens):
            if term := self._phrase(tokens, start) or self._color(tokens, start) or self._size(tokens, start):
                found.append(term)
            start = term.end if term else start + 1
        return found

    def values(self, group_name: str, value: str) -> frozenset[str]:
        """The values of a field that a term stands for: of "print" several, of "light blue" none for sure."""
        if group_name == COLOR:
            return frozenset((value,)) if value in PALETTE else frozenset()
        group = self._groups.get(value) or self._groups.get(next(iter(_KINDS.get(value, [])), ""))
        if group is None or group.name != group_name:
            return frozenset()
        return frozenset(_KINDS.get(value, (value,))) & {item.name for item in group.values}

    def _learn(self, group: Group) -> None:
        for value in group.values:
            words = value.name.replace("_", " ")
            names = [words] if len(words) > 3 and " " not in words else []
            named = () if value.absent else (*value.phrases, f"{words} {group.name}", *names)
            for phrase in (*named, *(() if value.absent else WORDS["values"].get(value.name, ()))):
                self._call(phrase, group.name, value.name)

    def _call(self, phrase: str, group: str, value: str) -> None:
        tokens = tokens_of(phrase)
        self._words |= {token.word for token in tokens}
        self._phrases.setdefault(tuple(token.stem for token in tokens), (group, value))

    def _phrase(self, tokens: Sequence[Token], start: int) -> Term | None:
        for end in range(min(start + self._longest, len(tokens)), start, -1):
            inside = tokens[start:end]
            known = self._phrases.get(tuple(token.stem for token in inside))
            if known and not any(token.opens for token in inside[1:]):
                while end < len(tokens) and tokens[end].word in _ABSORBED and known[1] in _KINDS["pattern"]:
                    end += 1
                return Term(*known, start, end, any(map(self._compares, inside)))
        return None

    def _color(self, tokens: Sequence[Token], start: int) -> Term | None:
        place, shade = start, self._shades.get(tokens[start].stem)
        if shade and start + 1 < len(tokens) and tokens[start + 1].stem in self._colors and not tokens[start + 1].opens:
            place += 1
        compared = any(map(self._compares, tokens[start : place + 1]))
        if tokens[place].stem not in self._colors:
            alone = shade and tokens[start].word != "deep"
            return Term(SHADE, shade, start, start + 1, compared) if shade and alone else None
        color = self._colors[tokens[place].stem]
        value, after = color if place == start else f"{shade} {color}", place + 1
        while after < len(tokens) and (tokens[after].word == "and" or tokens[after].stem in self._colors):
            after += 1
        part = tokens[after].word.removesuffix("s") if after < len(tokens) and not tokens[after].opens else ""
        if part in _PARTS:
            return Term(f"{COLOR} of {part}", value, start, place + 1, compared, after)
        return Term(COLOR, value, start, place + 1, compared)

    def _size(self, tokens: Sequence[Token], place: int) -> Term | None:
        """A long or short garment: said alone, compared, or before the garment's name."""
        token, value = tokens[place], WORDS["sizes"].get(tokens[place].stem)
        if value is None or token.word in _UNSTEMMED:
            return None
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        lone = after is None or after.opens or after.word in {*WORDS["fillers"], "enough"}
        known = None if lone else self._phrase(tokens, place + 1)
        if not lone and not token.word.endswith("er") and (known is None or known.group not in self.open_groups):
            return None
        group = self._groups.get(value)
        compared = self._compares(token)
        return Term(group.name if group else LENGTH, value if group else token.stem, place, place + 1, compared)

    def _compares(self, token: Token) -> bool:
        return token.word.endswith("er") and token.word not in self._words


def is_noun(group: str, words: str) -> bool:
    """Whether words name a thing ("stripes") and don't say how it is ("striped")."""
    plural = words.endswith("s") and not words.endswith("ss")
    return plural or group in (DETAIL, "category") or words.split()[-1] in _THINGS


def color_name(value: str) -> str:
    """A color as recognition calls it: "dark navy" is "blue"."""
    word = value.split()[-1]
    return _COLORS.get(word, word)


def _stem(word: str) -> str:
    """A word without its ending: "striped" and "stripes" are both "strip"."""
    if word in _UNSTEMMED:
        return word
    if word.endswith("ier") and len(word) > 5:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        word = word[:-1]
    for ending, least in (("ed", 5), ("y", 8), ("er", 5), ("e", 4)):
        if word.endswith(ending) and len(word) >= least:
            word = word.removesuffix(ending)
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


@lru_cache(maxsize=16)
def vocabulary_of(taxonomy: Taxonomy) -> Vocabulary:
    """The vocabulary of a taxonomy; making one takes some milliseconds."""
    return Vocabulary(taxonomy)
