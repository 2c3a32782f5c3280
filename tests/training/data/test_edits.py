"""Edits made from the labels of drawn products: what is asked, what is right, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_retrieval.errors import ConfigError, InputError
from tests.support.drawn_pack import write_lines
from tests.support.drawn_products import write_products
from tests.support.paths import ROOT
from training.data.edits import (
    EditSet,
    average_precision_at_10,
    edits,
    read_words,
    reworded,
    with_wrong_references,
)
from training.data.manifest import COLORS, GROUPS

DATA = ROOT.parent / "shared/data"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three copies of twelve looks a split: four colors, three sleeves."""
    return write_products(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def labels(pack: Path) -> dict[str, dict[str, Any]]:
    rows = map(json.loads, (pack / "attributes.jsonl").read_text().splitlines())
    return {f"products/{row['id']}": row for row in rows}


def test_edits_ask_for_one_other_value_and_count_all_that_have_it(pack: Path, labels: dict[str, Any]) -> None:
    data = edits(pack, "val", most=None)
    assert (data.source, data.split, len(data.gallery)) == ("edits", "val", 36)
    assert {query.group for query in data.queries} == {"color", "sleeve"}
    assert len(data.queries) == 36 * (3 + 2)  # each in the other colors, and with the other sleeves
    for query in data.queries:
        field = {"color": "colour"}.get(query.group, query.group)
        reference, wanted = labels[query.reference], {**labels[query.reference], field: query.new, "id": None}
        assert reference[field] == query.old != query.new
        assert len(query.right) == 3
        assert all({**labels[name], "id": None} == wanted for name in query.right)
    assert data.photos["products/0100"] == pack / "products/val/0100.jpg"
    rows = dict(zip(data.gallery, range(36), strict=True))
    assert data.excluded_rows.tolist() == [rows[query.reference] for query in data.queries]
    assert [found.tolist() for found in data.right_rows] == [[rows[n] for n in q.right] for q in data.queries]


def test_texts_name_the_new_value_and_are_drawn_by_the_seed(pack: Path) -> None:
    data = edits(pack, "val", most=None)
    texts = {query.text for query in data.queries if (query.old, query.new) == ("red", "blue")}
    assert texts <= {"replace red with blue", "in blue instead of red", "make it blue", "the same in blue",
                     "change red to blue"}  # fmt: skip
    assert len(texts) > 2
    long = {query.text for query in data.queries if (query.old, query.new) == ("sleeveless", "long_sleeve")}
    assert long <= {
        "replace no sleeves with long sleeves",
        "with long sleeves instead of no sleeves",
        "make it long-sleeved",
        "the same with long sleeves",
        "long-sleeved instead of sleeveless",
    }
    drawn = edits(pack, "val", most=10, seed=4)
    assert drawn == edits(pack, "val", most=10, seed=4)
    assert drawn != edits(pack, "val", most=10, seed=5)
    assert [query.group for query in drawn.queries] == ["color"] * 10 + ["sleeve"] * 10


def test_labels_that_the_reference_lacks_dont_count(pack: Path, tmp_path: Path) -> None:
    root = write_products(tmp_path)
    rows = [json.loads(line) for line in (pack / "attributes.jsonl").read_text().splitlines()]
    for row in rows:
        if row["id"] == "0100":  # red, with long sleeves
            row["sleeve"] = "na"
    write_lines(root / "attributes.jsonl", rows)
    data = edits(root, "val", most=None)
    blue = [query for query in data.queries if query.reference == "products/0100" and query.new == "blue"]
    assert [len(query.right) for query in blue] == [9]  # with any sleeves
    assert not any(query.group == "sleeve" for query in data.queries if query.reference == "products/0100")
    others = [q for q in data.queries if q.reference != "products/0100" and q.new == "red" and q.group == "color"]
    assert {"products/0100" in query.right for query in others} == {False}  # its sleeves aren't known to be theirs


def test_edits_for_training_ask_in_more_words_of_the_same(pack: Path) -> None:
    data, more = (edits(pack, "train", most=None, training=training) for training in (False, True))
    assert {name.split("/")[1][1] for name in more.gallery} == {"0"}  # the train split
    asked = [[(q.reference, q.right, q.group, q.old, q.new) for q in one.queries] for one in (data, more)]
    assert asked[0] == asked[1]
    texts, many = ({q.text for q in one.queries if q.new == "blue"} for one in (data, more))
    phrases = read_words()["training"]["color"]["blue"]
    heard = [sum(any(phrase in text for phrase in phrases) for text in some) for some in (texts, many)]
    assert heard[0] == 0 < heard[1]
    assert len(many) > 2 * len(texts)


def test_six_wordings_of_each_wish(pack: Path) -> None:
    data = edits(pack, "val", most=None)
    sets = reworded(data)
    assert len(sets) == 6
    place = next(i for i, query in enumerate(data.queries) if query.new == "short_sleeve")
    assert {name: one.queries[place].text for name, one in sets.items()} == {
        "thing": "with short sleeves", "look": "short-sleeved", "verb": "has short sleeves",
        "request": "I would like it with short sleeves", "same": "similar, but short-sleeved",
        "synonym": "with half sleeves",
    }  # fmt: skip
    texts = {query.text for query in data.queries}
    for one in sets.values():
        assert [(q.reference, q.right) for q in one.queries] == [(q.reference, q.right) for q in data.queries]
        assert not texts & {query.text for query in one.queries}


def test_wrong_references_are_of_the_same_attribute_and_not_right(pack: Path) -> None:
    data = edits(pack, "val", most=20)
    wrong = with_wrong_references(data, seed=1)
    assert wrong == with_wrong_references(data, seed=1) != with_wrong_references(data, seed=2)
    of_group = {g: {q.reference for q in data.queries if q.group == g} for g in ("color", "sleeve")}
    for query, other in zip(data.queries, wrong.queries, strict=True):
        assert other.reference in of_group[query.group] - {query.reference, *query.right}
        assert (other.text, other.right) == (query.text, query.right)
    alone = EditSet("edits", "val", data.queries[:1], data.gallery, data.photos)
    with pytest.raises(ConfigError, match="edits need a third photo to ask with a wrong one; take more photos"):
        with_wrong_references(alone)


def test_average_precision_at_10_by_hand() -> None:
    hits = np.zeros((5, 50), dtype=bool)
    hits[0, [0, 2]] = True
    hits[1, :10] = True
    hits[2, 9] = True
    hits[3, 10:] = True  # behind the tenth
    hits[4, [0, 2, 3]] = True
    found = average_precision_at_10(hits, np.array([2, 20, 3, 40, 12]))
    assert found.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1, 1 / 10 / 3, 0, (1 + 2 / 3 + 3 / 4) / 10])


def test_edits_of_bad_input_are_refused(pack: Path, tmp_path: Path) -> None:
    for most in (0, True, 2.5):
        with pytest.raises(InputError, match=f"most must be a whole number from 1 on or None, got {most!r}"):
            edits(pack, "val", most=most)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no two garments of split 'test' in .* differ in one value; take another"):
        edits(pack, "test")
    root = write_products(tmp_path)
    (root / "products/val/0100.jpg").unlink()
    with pytest.raises(ConfigError, match=r"1 photos in .* are missing or can't be read: products/0100"):
        edits(root, "val")
    with pytest.raises(ConfigError, match=r"attributes\.jsonl is missing"):
        edits(tmp_path / "nowhere", "val")


def test_every_phrase_is_of_a_value_that_the_pack_labels() -> None:
    words = read_words()
    assert set(words["values"]["color"]) == set(COLORS)
    assert {"color", *GROUPS} == set(words["values"]) == set(words["said"])
    assert {len(phrases) for values in words["values"].values() for phrases in values.values()} == {3}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"REAL EDITS NOT CHECKED: no open data pack at {DATA}")
def test_the_real_counts() -> None:
    data = edits(DATA, "val")
    counts = {group: sum(query.group == group for query in data.queries) for group in ("color", "texture", "sleeve")}
    assert (len(data.queries), len(data.gallery), counts) == (663, 505, {"color": 200, "texture": 200, "sleeve": 84})
