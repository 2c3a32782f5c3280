"""Words as people type them, with what they mean: one half trains the text tower, the other half tests it."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion_retrieval.errors import ConfigError

PATH = Path(__file__).parents[1] / "configs/typed_words.toml"

MADE = "made.txt"
"""In a run's folder: texts of the test half that its rules made. No training text equals one, longer ones may."""


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
    key = "".join(letter for letter in text.lower() if letter.isascii() and letter.isalnum())
    return hashlib.sha256(key.encode()).digest()[0] % 2 == 1


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
