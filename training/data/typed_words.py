"""Words as people type them, with what they mean: one half trains the text tower, the other half tests it."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion_retrieval.errors import ConfigError

PATH = Path(__file__).parents[1] / "configs/typed_words.toml"

MADE = "made.txt"
"""In a run's folder: texts of the test half that its training texts contain. None equals one."""

_LONGEST = 5
"""Words in a text of the test half, at most."""


@dataclass(frozen=True, slots=True)
class TypedWord:
    """A word or phrase."""

    text: str
    group: str  # "category", "color", or an attribute group of the default taxonomy
    meanings: tuple[str, ...]  # values of the group: the one that is meant, then others that are right, too

    @property
    def tests(self) -> bool:
        """Whether it is in the half that tests."""
        return in_test_half(self.text)


@dataclass(frozen=True, slots=True)
class TypedWords:
    """The words of a file, and its pairs of spellings by kind; both halves."""

    words: tuple[TypedWord, ...]
    pairs: dict[str, list[tuple[str, str]]]

    def tested(self) -> frozenset[str]:
        """Every text that no training text may equal: words that test, and second texts of pairs that do."""
        seconds = [second for pairs in self.pairs.values() for _, second in pairs]
        return frozenset(text for text in [*(word.text for word in self.words), *seconds] if in_test_half(text))


def in_test_half(text: str) -> bool:
    """Whether a text tests: the first byte of the SHA-256 of its letters and digits, in lower case, is odd."""
    return hashlib.sha256(key(text).encode()).digest()[0] % 2 == 1


def key(text: str) -> str:
    """What spellings of a text with other spaces, hyphens and capitals share."""
    return "".join(letter for letter in text.lower() if letter.isascii() and letter.isalnum())


def untested(words: TypedWords, more: TypedWords) -> tuple[TypedWord, ...]:
    """The words of `more` that share no key with a text of the test half of `words`, or with a word of its other half.

    The same word may stand in several groups: "denim" is a garment and a fabric.
    """
    tested = {key(text) for text in words.tested()}
    known = {(word.group, key(word.text)) for word in words.words}
    return tuple(w for w in more.words if key(w.text) not in tested and (w.group, key(w.text)) not in known)


def contained(texts: Iterable[str], within: Iterable[str]) -> frozenset[str]:
    """Those of some texts that occur, as whole words, in one of others."""
    wanted, found = frozenset(texts), set[str]()
    for text in within:
        words = re.findall(r"[^\s,.;:!?()]+", text.lower())
        found.update(" ".join(words[i : i + n]) for n in range(1, _LONGEST + 1) for i in range(len(words) - n + 1))
    return wanted & found


def read_typed_words(path: Path = PATH) -> TypedWords:
    """Read a file such as `training/configs/typed_words.toml`.

    Raises:
        ConfigError: It can't be read.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        pairs = {kind: [(first, second) for first, second in found] for kind, found in data["pairs"].items()}
        return TypedWords(tuple(_words(data)), pairs)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path} is no list of typed words ({error}); see {PATH.name}") from error


def _words(data: dict[str, Any]) -> Iterator[TypedWord]:
    groups = {"category": data["categories"], "color": data["colors"], **data["attributes"]}
    for group, values in groups.items():
        others = data["also"] if group == "category" else {}
        for value, texts in values.items():
            for text in texts:
                yield TypedWord(text, group, (value, *others.get(text, ())))
