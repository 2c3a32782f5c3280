"""The list of typed words: its size, its halves, and that no held-out word is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.paths import ROOT
from training.data.manifest import COLORS, read_held_out, without_held_out
from training.data.typed_words import in_test_half, read_typed_words

WORDS = read_typed_words()


def test_the_list_has_over_250_words_of_categories_in_each_half() -> None:
    halves = [word.tests for word in WORDS.words if word.group == "category"]
    assert (halves.count(False), halves.count(True)) == (463, 450)
    assert len({(word.group, word.text) for word in WORDS.words}) == len(WORDS.words)
    assert sum(map(len, WORDS.pairs.values())) == 110


def test_the_list_means_values_of_the_default_taxonomy() -> None:
    taxonomy = Taxonomy.load("default")
    names = {group.name: {value.name for value in group.values} for group in (taxonomy.category, *taxonomy.attributes)}
    names["color"] = set(COLORS)
    assert all(names[word.group].issuperset(word.meanings) for word in WORDS.words)
    assert {word.meanings[0] for word in WORDS.words if word.group == "category"} == names["category"]


def test_the_list_has_no_held_out_word() -> None:
    texts = [*(word.text for word in WORDS.words), *(t for pairs in WORDS.pairs.values() for p in pairs for t in p)]
    assert without_held_out(texts, [*read_held_out(ROOT / "training/configs/held_out.toml")]) == texts


def test_spellings_that_differ_in_spacing_are_in_one_half() -> None:
    assert in_test_half("t shirt") == in_test_half("T-Shirt") == in_test_half("tshirt") is False
    assert in_test_half("jumper") is True
    assert "jumper" in WORDS.tested()
    assert "tshirt" not in WORDS.tested()


def test_read_typed_words_names_a_fault(tmp_path: Path) -> None:
    (tmp_path / "words.toml").write_text("[categories]\n")
    with pytest.raises(ConfigError, match=r"words.toml is no list of typed words \('pairs'\)"):
        read_typed_words(tmp_path / "words.toml")
