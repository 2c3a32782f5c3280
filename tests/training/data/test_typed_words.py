"""The lists of typed words: their size, the halves, and that no held-out word is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.paths import ROOT
from training.data.manifest import COLORS, read_held_out, without_held_out
from training.data.typed_words import TypedWord, TypedWords, contained, in_test_half, key, read_typed_words, untested

CONFIGS = ROOT / "training/configs"
WORDS = read_typed_words()
MORE = read_typed_words(CONFIGS / "typed_more.toml")


def test_the_list_has_over_250_words_of_categories_in_each_half() -> None:
    halves = [word.tests for word in WORDS.words if word.group == "category"]
    assert (halves.count(False), halves.count(True)) == (463, 450)
    assert len({(word.group, word.text) for word in WORDS.words}) == len(WORDS.words)
    assert sum(map(len, WORDS.pairs.values())) == 110


@pytest.mark.parametrize("listed", [WORDS, MORE])
def test_the_lists_mean_values_of_the_default_taxonomy(listed: TypedWords) -> None:
    taxonomy = Taxonomy.load("default")
    names = {group.name: {value.name for value in group.values} for group in (taxonomy.category, *taxonomy.attributes)}
    names["color"] = set(COLORS)
    assert all(names[word.group].issuperset(word.meanings) for word in listed.words)
    assert {word.meanings[0] for word in listed.words if word.group == "category"} == names["category"]


@pytest.mark.parametrize("listed", [WORDS, MORE])
def test_the_lists_have_no_held_out_word(listed: TypedWords) -> None:
    pairs = [text for found in listed.pairs.values() for pair in found for text in pair]
    texts = [*(word.text for word in listed.words), *pairs]
    assert without_held_out(texts, [*read_held_out(CONFIGS / "held_out.toml")]) == texts


def test_further_words_share_no_key_with_the_test_half() -> None:
    words = untested(WORDS, MORE)
    assert len(MORE.words) == 6111
    assert len(words) == 5483
    assert {key(text) for text in WORDS.tested()}.isdisjoint(key(word.text) for word in words)
    known = {(word.group, key(word.text)) for word in WORDS.words}
    assert known.isdisjoint((word.group, key(word.text)) for word in words)


def test_untested_drops_other_spellings_too() -> None:
    words = TypedWords((TypedWord("jumper", "category", ("sweater",)), TypedWord("tee", "category", ("tee",))), {})
    texts = ("Jum-per", "school jumper", "tee", "knit")
    more = TypedWords(tuple(TypedWord(text, "category", ("sweater",)) for text in texts), {})
    assert [word.text for word in untested(words, more)] == ["school jumper", "knit"]


def test_contained_finds_whole_words() -> None:
    texts = {"jumper", "red jumper", "t-shirt", "jump", "is"}
    assert contained(texts, ["is a Red jumper, with a t-shirt", "jumps"]) == {"jumper", "red jumper", "t-shirt", "is"}


def test_spellings_that_differ_in_spacing_are_in_one_half() -> None:
    assert in_test_half("t shirt") == in_test_half("T-Shirt") == in_test_half("tshirt") is False
    assert in_test_half("jumper") is True
    assert "jumper" in WORDS.tested()
    assert "tshirt" not in WORDS.tested()


def test_read_typed_words_names_a_fault(tmp_path: Path) -> None:
    (tmp_path / "words.toml").write_text("[categories]\n")
    with pytest.raises(ConfigError, match=r"words.toml is no list of typed words \('pairs'\)"):
        read_typed_words(tmp_path / "words.toml")
