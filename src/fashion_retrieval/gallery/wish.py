"""What a wish in plain English asks for: "green, not blue" wants green, and blue is not wanted."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from fashion_retrieval.gallery.grammar import Reader
from fashion_retrieval.gallery.vocabulary import BESIDES, COLOR, ONE_EACH, SHADE, WORDS, Part, Vocabulary, tokens_of

_FILLERS = frozenset(WORDS["fillers"])
_SEPARATOR = re.compile(r"([,;.]|\b(?:and|but|with)\b)", re.IGNORECASE)
_LOOSE = re.compile(
    r"^(?:[-\u2013\u2014\s]|(?:or|nor|by)\b)+|(?:\s(?:a|an|are|for|in|is|nor|or|that|the|to|which)|[-\u2013\u2014\s])+$",
    re.IGNORECASE,
)
"""What stays behind at the edges of a clause when words between are taken out."""
_AN = re.compile(r"\ban(?= [^aeio])", re.IGNORECASE)


@dataclass(frozen=True)
class Wish:
    """A text and what it says.

    Attributes:
        text: The text.
        parts: What it says, in the order of its words.
        left: Its words that say something else.
        positive: The text without its negative parts; None where nothing is left.
    """

    text: str
    parts: tuple[Part, ...]
    left: str
    positive: str | None

    @cached_property
    def negative(self) -> tuple[Part, ...]:
        """The parts that should not be there, or less of them."""
        return tuple(part for part in self.parts if not part.wanted)

    @cached_property
    def contradiction(self) -> str | None:
        """What is wanted and unwanted at once."""
        wanted = {(part.group, part.value) for part in self.parts if part.sense == "wanted"}
        return next((p.words for p in self.parts if p.sense == "unwanted" and (p.group, p.value) in wanted), None)

    @cached_property
    def rivals(self) -> str | None:
        """Two things wanted at once that no garment has: "long sleeves and short sleeves"; with "or" they are none."""
        parts = (part for part in self.parts if part.group in ONE_EACH and part.value not in BESIDES)
        wanted = [part for part in parts if part.sense == "wanted"]
        for one, other in combinations(wanted, 2):
            between = {token.word for token in tokens_of(self.text)[one.end : other.start]}
            if one.group == other.group and one.value != other.value and "or" not in between:
                return f"{one.words} and {other.words}"
        return None


def read_wish(text: str, vocabulary: Vocabulary) -> Wish:
    """Read a text; what is not certain is left to the text tower."""
    reader = Reader(text, vocabulary)
    reader.read()
    instead = [words for part in reader.parts if (words := _instead(part))]
    kept = without_words(text, reader.gone) if reader.gone and reader.parts else text
    left = " ".join(reader.tokens[place].word for place in reader.left)
    return Wish(text, tuple(reader.parts), left, " and ".join(filter(None, (kept, *dict.fromkeys(instead)))) or None)


def remaining(earlier: str, newer: str, vocabulary: Vocabulary) -> str | None:
    """What is left of an earlier text beside a newer one that contradicts it; None where nothing is."""
    old, new = ([*_aspects(read_wish(text, vocabulary))] for text in (earlier, newer))
    lost = [item for item in old if any(_contradicts(other, item, vocabulary) for other in new)]
    gone = {word for item in lost for word in range(item.start, (item.part or item.end - 1) + 1)}
    gone |= {word for item in old if item.part in gone for word in range(item.start, item.end)}
    return without_words(earlier, gone) if gone else earlier


def without_words(text: str, gone: Collection[int]) -> str | None:
    """The text without these words, and without clauses of which only fillers are left."""
    kept, last = "", 0
    tokens = tokens_of(text)
    for place in sorted(gone):
        between = text[last : tokens[place].start]
        kept += " " if place - 1 in gone and not _SEPARATOR.search(between) else between
        last = tokens[place].end
    first, *others = _SEPARATOR.split(kept + text[last:])
    said = ""
    for joint, clause in (("", first), *zip(others[::2], others[1::2], strict=True)):
        words = _LOOSE.sub("", " ".join(clause.split()))
        if {token.word for token in tokens_of(words)} - _FILLERS:
            said += f"{' with ' if joint.lower() == 'with' else ' and '}{words}" if said else words
    return _AN.sub(lambda article: article[0][0], said) or None


def _aspects(wish: Wish) -> Iterator[Part]:
    """The parts, and of a light blue also the shade."""
    for part in wish.parts:
        yield part
        if part.group == COLOR and " " in part.value:
            start = part.end - 2 if part.wanted else part.start
            yield part._replace(group=SHADE, value=part.value.split()[0], start=start, end=start + 1, part=None)


def _contradicts(newer: Part, item: Part, vocabulary: Vocabulary) -> bool:
    """Whether the newer part gives the group another value, or speaks of the same value again."""
    same = newer.value == item.value or item.name in vocabulary.values(newer.group, newer.value)
    exclusive = newer.wanted and newer.group not in vocabulary.open_groups
    return newer.group == item.group and (exclusive or same)


def _instead(part: Part) -> str | None:
    """What to ask for where a negative part leaves one thing: "sleeveless" without sleeves, "longer" if too short."""
    if part.wanted:
        return None
    words: str | None = WORDS["absences" if part.sense == "unwanted" else "opposites"].get(part.value)
    return words
