"""Texts as people type them, each with the text of the known vocabulary that means the same.

What is written by hand is the training half of the typed words; all else comes of rules for the whole vocabulary and of
WordNet. No text equals one of the test half, and none contains a held-out word. A phrase may be of the test half where
rules or WordNet make it, in a longer text: `made` tells which are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from fashion_retrieval.taxonomy import SHIPPED, Taxonomy
from training.data.manifest import COLORS, LABELS, read_lines, without_held_out
from training.data.spellings import mistyped, respaced, spellings
from training.data.texts import Synonyms
from training.data.typed_words import TypedWord, TypedWords, in_test_half
from training.data.wordnet import Nouns, kinds

_GENERAL = {
    "button_down": "shirt", "dress_shoes": "shoe", "handbag": "bag", "hat": "headdress", "jewellery": "jewelry",
    "nightdress": "nightwear", "underwear": "undergarment",
}  # fmt: skip
"""What WordNet calls the class of a category, beside the category's own names."""
_ALONE = ("{}", "a {}", "a photo of a {}", "a photo of {}")
_COLORED = ("{color} {}", "a photo of {color} {}", "a {color} {}")
_MORE = ("{more} {}", "{} {more}", "a photo of {more} {}")
Item = TypeVar("Item")
_SHORT = 6
_TRIES = 4
"""Slips of a pen that are looked at until one is no text of the test half."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """What is typed."""

    text: str
    meant: str  # the same in words of the known vocabulary
    category: str | None = None  # of the default taxonomy; None is an attribute, a color or another thing
    color: bool = False
    plain: bool = False  # whether `meant` is a category's own phrase, without anything that describes it


@dataclass(frozen=True, slots=True)
class Drawn:
    """A text for training."""

    text: str
    other: str  # the same in another spelling
    meant: str  # the same in known words
    category: str | None


class TypedTexts:
    """Draws typed texts and what they mean."""

    def __init__(
        self,
        words: TypedWords,
        *,
        synonyms: Synonyms,
        held_out: Sequence[str],
        more: Sequence[TypedWord] = (),
        data: Path | None = None,
        nouns: Nouns | None = None,
        captions: Sequence[str] = (),
    ) -> None:
        """Collect the phrases: of taxonomies, synonyms, the pack's articles, the training half, `more`, WordNet."""
        self.tested, self._held_out = words.tested(), list(held_out)
        compounds = {w for w in nouns.senses if w.isalpha() and len(w) > 2} if nouns else set[str]()
        self.taxonomy = Taxonomy.load("default")
        known = [*self._known(synonyms), *_articles(data)]
        train = [word for word in words.words if not word.tests]
        typed = [*self._typed([*train, *more], {p.text: p.category for p in known if p.category})]
        meant = {p.text: p for p in [*known, *typed] if p.category}
        pairs = [pair for found in words.pairs.values() for pair in found if not in_test_half(pair[1])]
        typed += [replace(meant.get(a, Phrase(a, a)), text=b) for a, b in pairs]
        of_wordnet = self._of_wordnet(nouns, {p.text for p in [*known, *typed]}) if nouns else []
        self.sources = [self._allowed(phrases) for phrases in (known, typed, of_wordnet)]
        self.spelled = {
            phrase: self._allowed(replace(phrase, text=text) for text in spellings(phrase.text, compounds))
            for source in self.sources
            for phrase in source
        }
        self._weights = [_weights(source) for source in self.sources]
        self._nouns = [value.phrases[0] for value in self.taxonomy.category.values]
        self._more = [value.phrases[0] for group in self.taxonomy.attributes for value in group.values]
        self._short = [caption for caption in captions if caption.count(" ") < _SHORT]
        self.captions = _captions_by_phrase(captions, {p.meant for source in self.sources for p in source})

    def _known(self, synonyms: Synonyms) -> Iterator[Phrase]:
        """The vocabulary of the taxonomies and their synonyms, each meaning itself."""
        own = {phrase: value.name for value in self.taxonomy.category.values for phrase in value.phrases}
        for taxonomy in map(Taxonomy.load, SHIPPED):
            for value in taxonomy.category.values:
                yield from (Phrase(p, p, own.get(p), plain=True) for p in value.phrases)
            for group in taxonomy.attributes:
                yield from (Phrase(p, p) for value in group.values if not value.absent for p in value.phrases)
        yield from (Phrase(p, p) for group in synonyms.values() for phrases in group.values() for p in phrases)
        yield from (Phrase(color, color, color=True) for color in COLORS)

    def _typed(self, train: Sequence[TypedWord], known: Mapping[str, str]) -> Iterator[Phrase]:
        """Words that train; "crew neck jumper" means "crew neck sweater" if "jumper" alone means "sweater"."""
        values = {"category": self.taxonomy.category, **{group.name: group for group in self.taxonomy.attributes}}
        phrases = {(n, v.name): v.phrases[0] for n, group in values.items() for v in group.values}
        alone = {**known, **{word.text: word.meanings[0] for word in train if word.group == "category"}}
        alone |= {text: value for of, value in [*alone.items()] for text in spellings(of, frozenset())}
        for word in train:
            value = word.meanings[0]
            if word.group == "color":
                yield Phrase(word.text, value, color=True)
            elif word.group != "category":
                yield Phrase(word.text, phrases[word.group, value])
            else:
                described = _description(word.text, value, alone)
                meant = f"{described} {phrases['category', value]}" if described else phrases["category", value]
                yield Phrase(word.text, meant, value, plain=not described)

    def _of_wordnet(self, nouns: Nouns, known: set[str]) -> Iterator[Phrase]:
        values = self.taxonomy.category.values
        general = {value.name: [_GENERAL[value.name]] if value.name in _GENERAL else [] for value in values}
        classes = {v.name: [*v.phrases, v.name.replace("_", " "), *general[v.name]] for v in values}
        phrases = {value.name: value.phrases[0] for value in values}
        for lemma, category in kinds(nouns, classes).items():
            if lemma not in known:
                yield Phrase(lemma, phrases[category], category, plain=True)

    def _allowed(self, phrases: Iterable[Phrase]) -> list[Phrase]:
        """Each once, without those with held-out words."""
        once = list(dict.fromkeys(phrases))
        allowed = set(without_held_out([p.text for p in once], self._held_out))
        return [p for p in once if p.text in allowed]

    def phrases(self) -> frozenset[str]:
        """Every text of a phrase that may be drawn, but for slips of the pen."""
        return frozenset(p.text for phrase, others in self.spelled.items() for p in (phrase, *others))

    def _spelled(self, phrase: Phrase, slips: float, generator: torch.Generator) -> Phrase:
        """A phrase as it is or spelled by the rules, sometimes mistyped."""
        others = self.spelled[phrase]
        if others and _chance(0.5, generator):
            phrase = _choose(others, generator)
        if _chance(slips, generator):
            tries = (replace(phrase, text=mistyped(phrase.text, generator)) for _ in range(_TRIES))
            phrase = next((p for found in tries for p in self._allowed([found])), phrase)
        return phrase

    def draw(self, source: int, generator: torch.Generator, *, slips: float) -> Drawn:
        """A text with a phrase of a source, spelled twice, rare categories oftener; no text of the test half.

        The source behind the last is short captions, as they are, and with a slip of the pen or of a space.
        """
        while True:
            if source == len(self.sources):
                text = meant = _choose(self._short, generator)
                other, category = (respaced if _chance(0.5, generator) else mistyped)(meant, generator), None
            else:
                place = int(torch.multinomial(self._weights[source], 1, generator=generator))
                phrase = self._spelled(self.sources[source][place], slips, generator)
                second = self._spelled(self.sources[source][place], slips, generator)
                text, meant = self._in_context(phrase, generator)
                other, category = text.replace(phrase.text, second.text), phrase.category
            if self.tested.isdisjoint({text, other}) and self._allowed([Phrase(other, meant)]):
                return Drawn(text, other, meant, category)

    def _in_context(self, phrase: Phrase, generator: torch.Generator) -> tuple[str, str]:
        """A text with the phrase, and the same text in known words."""
        kind = int(torch.randint(4, (), generator=generator))
        if kind == 3 and phrase.meant in self.captions:
            caption = _choose(self.captions[phrase.meant], generator)
            return re.sub(rf"\b{re.escape(phrase.meant)}\b", phrase.text, caption), caption
        if phrase.category is None and not phrase.plain:
            noun = _choose(self._nouns, generator)
            if kind < 2 and not phrase.color:
                return phrase.text, phrase.meant
            template = ("{} " + noun, f"a photo of {{}} {noun}", f"a {{}} {noun}")[kind % 3]
            return template.format(phrase.text), f"a photo of {phrase.meant} {noun}"
        if kind < 2:
            alone = f"a photo of plain {phrase.meant}" if phrase.plain else f"a photo of {phrase.meant}"
            return _choose(_ALONE, generator).format(phrase.text), alone
        color, more = _choose(COLORS, generator), _choose(self._more, generator)
        if kind == 2:
            return _choose(_COLORED, generator).format(phrase.text, color=color), f"a photo of {color} {phrase.meant}"
        place = int(torch.randint(len(_MORE), (), generator=generator))
        meant = _MORE[place] if place else "a photo of {more} {}"
        return _MORE[place].format(phrase.text, more=more), meant.format(phrase.meant, more=more)


def _description(text: str, value: str, alone: Mapping[str, str]) -> str:
    """The words before the shortest end of a text that means the value by itself; "" if there is none."""
    parts = text.split(" ")
    places = range(len(parts) - 1, 0, -1)
    return next((" ".join(parts[:i]) for i in places if alone.get(" ".join(parts[i:])) == value), "")


def _articles(data: Path | None) -> Iterator[Phrase]:
    """What the pack's shop calls its articles, as it writes them and in the singular."""
    categories = LABELS["product_categories"]
    values = {value.name: value.phrases[0] for value in Taxonomy.load("default").category.values}
    for article in sorted(
        {row["article_type"] for row in read_lines(data / "products.jsonl", "train")} if data else ()
    ):
        name, category = article.lower(), categories.get(article)
        yield Phrase(name, values[category] if category else name, category, plain=True)


def _weights(phrases: Sequence[Phrase]) -> torch.Tensor:
    """One over the root of how many phrases have the category; 1 for those without one: (n,) float64."""
    counts = Counter(phrase.category for phrase in phrases if phrase.category)
    return torch.tensor([counts.get(p.category or "", 1) ** -0.5 for p in phrases], dtype=torch.float64)


def _captions_by_phrase(captions: Sequence[str], phrases: set[str]) -> dict[str, list[str]]:
    """Captions by the phrase of those given that they contain."""
    found: dict[str, list[str]] = {}
    pattern = re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, phrases), key=len, reverse=True)) + r")\b")
    for caption in captions:
        for phrase in set(pattern.findall(caption)):
            found.setdefault(phrase, []).append(caption)
    return found


def _choose(items: Sequence[Item], generator: torch.Generator) -> Item:
    return items[int(torch.randint(len(items), (), generator=generator))]


def _chance(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)
