"""The data pack's pairs: galleries, what is refused, and the counts of the real pack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fashion_retrieval.errors import ConfigError, InputError
from tests.support.drawn_pack import write_lines
from tests.support.fashioniq_tree import draw
from tests.support.paths import ROOT
from training.data.pairs import read_pairs

DATA = ROOT.parent / "shared/data"
IDS = {("shirt", "val"): range(10, 22), ("dress", "val"): range(30, 33), ("toptee", "val"): range(40, 43),
       ("shirt", "train"): range(10), ("dress", "train"): range(33, 35), ("toptee", "train"): range(43, 44),
       (None, "val"): range(50, 52)}  # fmt: skip
PAIRS = [("shirt", "val", "10", "20", "is left"), ("shirt", "val", "12", "11", "is left"),
         ("dress", "val", "31", "32", "is left"), ("toptee", "val", "40", "41", "is right"),
         ("shirt", "train", "01", "02", "is left"), ("dress", "train", "33", "34", "is left"),
         ("toptee", "train", "43", "43", "is left")]  # fmt: skip


def pair(group: str, split: str, candidate: str, target: str, caption: str) -> dict[str, Any]:
    captions = [caption, "has a collar"]
    return {"group": group, "split": split, "candidate": candidate, "target": target, "captions": captions}


def write_pairs(root: Path) -> Path:
    """pairs.jsonl, pairs_changes.jsonl, products.jsonl and photos, of numbers that `Compass` understands."""
    products = [
        {"id": f"{number:02}", "split": split, "group": group, "name": f"product {number // 2}"}
        for (group, split), numbers in IDS.items()
        for number in numbers
    ]
    for row in products:
        draw(root / f"products/{row['split']}/{row['id']}.jpg")
    write_lines(root / "products.jsonl", products)
    write_lines(root / "pairs.jsonl", [pair(*row) for row in PAIRS])
    write_lines(root / "pairs_changes.jsonl", [pair(*row) for row in PAIRS[1:]])
    return root


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pack")


def test_the_gallery_of_the_split_and_with_distractors(pack: Path) -> None:
    split, full = (read_pairs(pack, "val", gallery=gallery) for gallery in ("split", "full"))
    assert (split.source, split.split, split.protocol, full.protocol) == ("pairs", "val", "split", "full")
    assert [(g.name, len(g.triplets), len(g.gallery)) for g in split.groups] == [
        ("shirt", 2, 12), ("dress", 1, 3), ("toptee", 1, 3)
    ]  # fmt: skip
    assert [len(g.gallery) for g in full.groups] == [22, 5, 4]
    shirt = full.groups[0]
    assert shirt.gallery[:12] == split.groups[0].gallery
    assert (shirt.photos["10"], shirt.photos["03"]) == (pack / "products/val/10.jpg", pack / "products/train/03.jpg")
    assert shirt.target_rows.tolist() == [10, 1]
    assert shirt.excluded_rows.tolist() == [-1, -1]
    assert shirt.leaked is None


def test_a_training_split_has_no_other_distractors(pack: Path) -> None:
    galleries = [read_pairs(pack, "train", gallery=g, groups=["shirt"]).groups[0].gallery for g in ("split", "full")]
    assert len(galleries[0]) == 10
    assert galleries[0] == galleries[1]


def test_missing_photos_are_an_error_or_listed(pack: Path) -> None:
    (pack / "products/val/20.jpg").unlink()
    (pack / "products/train/03.jpg").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"products: shirt 2 of 22 \(20, 03\); get them, or go on"):
        read_pairs(pack, "val", gallery="full")
    (shirt, *_) = read_pairs(pack, "val", gallery="full", missing="report").groups
    assert (shirt.missing, len(shirt.gallery)) == (("20", "03"), 20)
    assert [(t.candidate, t.target) for t in shirt.left_out] == [("10", "20")]
    assert shirt.target_rows.tolist() == [1]
    (pack / "products/val/12.jpg").unlink()
    with pytest.raises(ConfigError, match="no query of shirt can be asked; get the photos"):
        read_pairs(pack, "val", missing="report")


def test_faults_come_at_once(pack: Path) -> None:
    (pack / "pairs.jsonl").write_text("{}\n[1]\n")
    (pack / "products.jsonl").write_text('{"id": "1"')
    with pytest.raises(ConfigError) as error:
        read_pairs(pack, "val")
    assert "pairs.jsonl: 2 rows are not a JSON object with group, split, the first is row 1" in str(error.value)
    assert "products.jsonl can't be read as JSON" in str(error.value)
    with pytest.raises(ConfigError, match=r"nowhere/pairs\.jsonl is missing; .*nowhere/products\.jsonl is missing"):
        read_pairs(pack / "nowhere", "val")
    (pack / "pairs.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match=r"pairs\.jsonl has no rows"):
        read_pairs(pack, "val")


def test_faults_of_rows_come_at_once(pack: Path) -> None:
    rows = [pair(*row) for row in PAIRS]
    rows[0]["target"], rows[1]["captions"] = "01", []
    write_lines(pack / "pairs.jsonl", [*rows, pair("dress", "val", "31", "99", "is left")])
    with pytest.raises(ConfigError) as error:
        read_pairs(pack, "val")
    assert "shirt pairs: 1 rows have no two captions, the first is row 2" in str(error.value)
    assert "dress: 1 targets are not in the val products of the group: 99" in str(error.value)
    write_lines(pack / "pairs.jsonl", [*rows[2:3], pair("hat", "val", "31", "32", "is left")])
    with pytest.raises(ConfigError, match=r"unknown groups: hat; known .* no rows of shirt, toptee in split 'val'"):
        read_pairs(pack, "val")
    with pytest.raises(ConfigError, match="no rows of split 'test'; it has val"):
        read_pairs(pack, "test")
    with (pack / "products.jsonl").open("a") as file:
        file.write('{"id": "31", "split": "val", "group": null}\n')
    with pytest.raises(ConfigError, match="lists 1 ids more than once: 31"):
        read_pairs(pack, "val", groups=["dress"])


def test_arguments_that_cant_be_used(pack: Path) -> None:
    with pytest.raises(InputError, match="gallery must be one of split, full, split_noref, full_noref, got 'all'"):
        read_pairs(pack, "val", gallery="all")
    with pytest.raises(InputError, match="got hat"):
        read_pairs(pack, "val", groups=["hat"])
    with pytest.raises(ConfigError, match="toptee pairs: 1 rows have their candidate as target"):
        read_pairs(pack, "train")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"REAL PAIRS NOT CHECKED: no open data pack at {DATA}")
def test_the_real_counts() -> None:
    split, full = (read_pairs(DATA, "val", gallery=gallery) for gallery in ("split", "full"))
    assert {g.name: (len(g.triplets), len(g.gallery)) for g in split.groups} == {
        "shirt": (80, 283), "dress": (80, 44), "toptee": (80, 81)
    }  # fmt: skip
    assert {g.name: len(g.gallery) for g in full.groups} == {"shirt": 3026, "dress": 542, "toptee": 886}
    assert {(g.missing, g.empty_captions) for g in (*split.groups, *full.groups)} == {((), 0)}
