"""Texts as people type them, for training: what they mean, and that none is of the test half or held out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT
from tests.support.tiny_wordnet import write_wordnet
from training.data.manifest import read_held_out, read_synonyms, without_held_out
from training.data.typed_words import read_typed_words
from training.data.word_texts import TypedTexts
from training.data.wordnet import read_nouns

HELD_OUT = read_held_out(ROOT / "training/configs/held_out.toml")
KNOWN, TYPED, WORDNET = range(3)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> TypedTexts:
    folder: Path = write_wordnet(tmp_path_factory.mktemp("wordnet") / "dict")
    return TypedTexts(
        read_typed_words(),
        synonyms=read_synonyms(ROOT / "training/configs/synonyms.toml", HELD_OUT),
        held_out=[*HELD_OUT],
        nouns=read_nouns(folder),
        captions=["is a red sweater with dots", "looser"],
    )


def test_no_phrase_is_held_out(texts: TypedTexts) -> None:
    found = texts.phrases()
    assert len(found) > 3000
    assert {"jumper", "grey"} <= found & texts.tested
    assert len(without_held_out(sorted(found), [*HELD_OUT])) == len(found)


def test_no_drawn_text_is_of_the_test_half_or_held_out(texts: TypedTexts) -> None:
    generator = torch.Generator().manual_seed(0)
    found = [texts.draw(source, generator, slips=0.5) for source in (KNOWN, TYPED, WORDNET) for _ in range(500)]
    drawn = [text for of in found for text in (of.text, of.other)]
    assert read_typed_words().tested().isdisjoint(drawn)
    assert without_held_out(drawn, [*HELD_OUT]) == drawn
    assert len(set(drawn)) > 900


def test_phrases_mean_words_of_the_known_vocabulary(texts: TypedTexts) -> None:
    meant = {phrase.text: phrase.meant for source in texts.sources for phrase in source}
    assert meant["tshirts"] == "t-shirt"
    assert meant["graphic tees"] == "graphic t-shirt"
    assert meant["aran sweater"] == "sweater"
    assert meant["busby"] == "hat"
    assert meant["violet"] == "purple"
    spelled = {other.text: other.meant for others in texts.spelled.values() for other in others}
    assert spelled["light gray"] == "gray"
    assert spelled["t shirt"] == "t-shirt"
    assert all(p.plain for source in texts.sources for p in source if p.text == "tshirt")
    assert spelled["colorblock"] == "colour block"


def test_drawn_texts_say_the_same_in_known_words(texts: TypedTexts) -> None:
    generator = torch.Generator().manual_seed(0)
    found = [texts.draw(WORDNET, generator, slips=0) for _ in range(300)]
    drawn = [(of.text, of.meant, of.category) for of in found]
    others = {of.other for of in found if of.text == "busby"}
    assert others == {"busby", "busbies"}
    assert ("busby", "a photo of plain hat", "hat") in drawn
    assert ("is a red aran sweater with dots", "is a red sweater with dots", "sweater") in drawn
    assert any(text.endswith("busby") and meant == "a photo of red hat" for text, meant, _ in drawn)
