"""The FashionIQ reader: what it reads, what it refuses, and the counts of the real captions and splits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from fashion_retrieval.errors import ConfigError, InputError
from tests.support.fashioniq_tree import write_json, write_tree
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo
from training.data.fashioniq import find_photos, leaked, read_annotations, read_fashioniq
from training.data.triplets import GROUPS, CaptionMode, Triplet, join_captions, training_caption

REAL = ROOT.parent / "shared/data/fashioniq"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"REAL CAPTIONS NOT CHECKED: no FashionIQ at {REAL}")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("fashioniq"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A tree of the test's own, to break."""
    return write_tree(tmp_path / "own")


def test_a_split_is_read(tree: Path) -> None:
    data = read_fashioniq(tree, "val")
    assert (data.source, data.split, data.protocol) == ("fashioniq", "val", "original")
    assert [(g.name, len(g.triplets), len(g.gallery)) for g in data.groups] == [
        ("shirt", 2, 12), ("dress", 4, 60), ("toptee", 3, 55)
    ]  # fmt: skip
    shirt, dress, toptee = data.groups
    assert dress.triplets[0] == Triplet("D03", "D10", ("is left.", " shorter, to the right?"))
    assert dress.photos["D10"] == tree / "images/D10.jpg"
    assert dress.target_rows.tolist() == [10, 50, 8, 4]
    assert dress.excluded_rows.tolist() == [-1] * 4
    assert [g.empty_captions for g in data.groups] == [0, 0, 1]
    assert (shirt.leaked, dress.leaked, toptee.leaked) == (("S01",), (), ("T05", "T44"))


def test_protocols_differ_in_gallery_and_reference(tree: Path) -> None:
    (_, whole, _), (_, captioned, _) = (
        read_annotations(tree, "val", protocol=p) for p in ("original_noref", "val_split")
    )
    assert len(whole.gallery) == 60
    assert whole.excluded_rows.tolist() == [3, 20, 59, 5]
    assert captioned.gallery == ("D03", "D10", "D20", "D50", "D59", "D08", "D05", "D04")
    assert captioned.target_rows.tolist() == [1, 3, 5, 7]
    assert captioned.excluded_rows.tolist() == [0, 2, 4, 6]


def test_training_reads_the_photos_of_its_captions(tree: Path) -> None:
    (dress,) = read_fashioniq(tree, "train", protocol="val_split", groups=["dress"]).groups
    assert dress.gallery == ("D90", "D91")
    assert dress.leaked is None


@pytest.mark.parametrize("folder", ["images/{group}", "resized_image", "resized_image/{group}"])
@pytest.mark.parametrize("suffix", [".png", ".JPG"])
def test_other_layouts_of_photos(tmp_path: Path, folder: str, suffix: str) -> None:
    root = write_tree(tmp_path, folder=folder, suffix=suffix)
    (dress,) = read_fashioniq(root, "val", groups=["dress"]).groups
    assert dress.photos["D07"] == root / folder.format(group="dress") / f"D07{suffix}"
    assert len(dress.photos) == 60


def test_of_several_copies_one_is_taken(tmp_path: Path) -> None:
    for name in ("resized_image/D1.jpg", "images/D1.png", "images/D2.png", "images/D2.jpg", "images/dress/D2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images = tmp_path / "images"
    assert find_photos(tmp_path, "dress") == {"D1": images / "D1.png", "D2": images / "dress/D2.png"}
    assert find_photos(tmp_path, "shirt") == {"D1": images / "D1.png", "D2": images / "D2.jpg"}


def test_missing_photos_are_an_error_or_listed(own: Path) -> None:
    (own / "images/D10.jpg").unlink()
    (own / "images/D59.jpg").write_text("<html>gone</html>")
    (own / "images/T07.jpg").write_bytes(b"")
    drawn_photo((200, 300)).save(own / "images/S05.jpg")
    whole = (own / "images/S05.jpg").read_bytes()
    (own / "images/S05.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError) as error:
        read_fashioniq(own, "val")
    assert "shirt 1 of 12 (S05); dress 2 of 60 (D10, D59); toptee 1 of 55 (T07); get them" in str(error.value)
    shirt, dress, toptee = read_fashioniq(own, "val", missing="report").groups
    assert (shirt.missing, dress.missing, toptee.missing) == (("S05",), ("D10", "D59"), ("T07",))
    assert (len(shirt.gallery), len(dress.gallery), len(toptee.gallery)) == (11, 58, 54)
    assert [(t.candidate, t.target) for t in dress.left_out] == [("D03", "D10"), ("D59", "D08")]
    assert [(t.candidate, t.target) for t in dress.triplets] == [("D20", "D50"), ("D05", "D04")]
    assert dress.target_rows.tolist() == [dress.gallery.index("D50"), dress.gallery.index("D04")]
    assert shirt.left_out == toptee.left_out == ()


def test_no_photos_at_all_are_an_error_also_in_a_report(own: Path) -> None:
    (own / "images").rename(own / "elsewhere")
    with pytest.raises(ConfigError, match=r"toptee 55 of 55 \(T00, .* and 47 more\); no query of shirt, dress, toptee"):
        read_fashioniq(own, "val", missing="report")


def test_test_rows_have_no_target(tree: Path) -> None:
    with pytest.raises(ConfigError, match=r"cap\.dress\.test\.json: 1 rows have no target .* use train or val"):
        read_fashioniq(tree, "test")


def test_all_faults_of_the_files_come_at_once(own: Path) -> None:
    (own / "captions/cap.dress.val.json").unlink()
    (own / "captions/cap.shirt.val.json").write_text("[{'candidate': 1}]")
    (own / "image_splits/split.shirt.val.json").write_bytes(b'["\xff"]')
    (own / "image_splits/split.toptee.val.json").unlink()
    write_json(own / "image_splits/split.dress.val.json", {"ids": []})
    with pytest.raises(ConfigError) as error:
        read_fashioniq(own, "val")
    told = str(error.value)
    assert "\n" not in told
    assert "captions/cap.dress.val.json is missing" in told
    assert "captions/cap.shirt.val.json can't be read as JSON" in told
    assert "image_splits/split.shirt.val.json can't be read as JSON" in told
    assert "image_splits/split.toptee.val.json is missing" in told
    assert "image_splits/split.dress.val.json must be a JSON list with entries, got dict" in told


def test_faults_of_rows_are_counted(own: Path) -> None:
    good = {"candidate": "D01", "target": "D02", "captions": ["is left", "is red"]}
    rows = [good, 7, {**good, "candidate": ""}, {**good, "target": None}, {**good, "captions": ["is left"]},
            {**good, "captions": [" .", ""]}, {**good, "target": "D01"}, {**good, "captions": [1, 2]}]  # fmt: skip
    write_json(own / "captions/cap.dress.val.json", rows)
    write_json(own / "image_splits/split.toptee.val.json", ["T00", "T11", 5])
    with pytest.raises(ConfigError) as error:
        read_annotations(own, "val")
    told = str(error.value)
    assert "cap.dress.val.json: 2 rows have no candidate, the first is row 2" in told
    assert "1 rows have no target and can't be measured" in told
    assert "2 rows have no two captions, the first is row 5" in told
    assert "1 rows have no words in either caption, the first is row 6" in told
    assert "1 rows have their candidate as target, the first is row 7" in told
    assert "split.toptee.val.json must list ids, each a text" in told


def test_targets_outside_the_gallery_are_a_fault(own: Path) -> None:
    write_json(own / "image_splits/split.toptee.val.json", ["T00", "T11"])
    with pytest.raises(
        ConfigError, match=r"toptee: 2 targets are not in image_splits/split\.toptee\.val\.json: T54, T44"
    ):
        read_annotations(own, "val")


def test_arguments_and_folders_that_cant_be_used(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="some of shirt, dress, toptee, got hat"):
        read_fashioniq(tree, "val", groups=["dress", "hat"])
    with pytest.raises(InputError, match="got none"):
        read_fashioniq(tree, "val", groups=[])
    with pytest.raises(InputError, match="protocol must be one of original, original_noref, val_split, got 'voc'"):
        read_fashioniq(tree, "val", protocol="voc")
    with pytest.raises(InputError, match="missing must be one of error, report, got 'drop'"):
        read_fashioniq(tree, "val", missing="drop")
    with pytest.raises(InputError, match="split must be one of train, val, test, got 'dev'"):
        read_fashioniq(tree, "dev")
    with pytest.raises(ConfigError, match=r"cap\.shirt\.val\.json is missing; .*split\.toptee\.val\.json is missing"):
        read_fashioniq(tmp_path, "val")
    with pytest.raises(ConfigError, match="is no folder; expected FashionIQ's"):
        read_fashioniq(tmp_path / "nothing", "val")


def test_the_leak_is_unknown_without_the_train_splits(own: Path) -> None:
    assert leaked(own, "val") == {"shirt": {"S01"}, "dress": set(), "toptee": {"T05", "T44"}}
    (own / "image_splits/split.shirt.train.json").unlink()
    assert leaked(own, "val") is None
    assert [g.leaked for g in read_fashioniq(own, "val").groups] == [None] * 3


def test_captions_are_joined() -> None:
    pair = (" is Red and A-line. ", "has sleeves?,")
    wanted = {"c1_and_c2": "Is Red and A-line and has sleeves", "c2_and_c1": "Has sleeves and is Red and A-line",
              "c1": "Is Red and A-line", "c2": "Has sleeves"}  # fmt: skip
    assert {str(mode): join_captions(pair, mode) for mode in CaptionMode} == wanted
    assert {join_captions((" .", "is red"), mode) for mode in CaptionMode} == {"Is red"}
    assert {join_captions(("is red", ""), mode) for mode in CaptionMode} == {"Is red"}


def test_training_mixes_four_wordings_evenly() -> None:
    generator = torch.Generator().manual_seed(3)
    texts = [training_caption(("is red", "long"), generator) for _ in range(4000)]
    counts = Counter(texts)
    assert set(counts) == {"Is red and long", "Long and is red", "Is red", "Long"}
    assert all(abs(count - 1000) < 110 for count in counts.values())  # four standard deviations
    assert [training_caption(("is red", "long"), generator.manual_seed(3)) for _ in range(3)] == [texts[0]] * 3


@real
def test_the_real_counts() -> None:
    sizes = {
        s: {g.name: (len(g.triplets), len(g.gallery)) for g in read_annotations(REAL, s)} for s in ("train", "val")
    }
    assert sizes["train"] == {"dress": (5985, 11452), "shirt": (5988, 19036), "toptee": (6027, 16121)}
    assert sizes["val"] == {"dress": (2017, 3817), "shirt": (2038, 6346), "toptee": (1961, 5373)}
    captioned = {g.name: len(g.gallery) for g in read_annotations(REAL, "val", protocol="val_split")}
    assert captioned == {"dress": 2628, "shirt": 3089, "toptee": 2902}
    leaks = leaked(REAL, "val")
    assert leaks is not None
    assert {name: len(ids) for name, ids in leaks.items()} == {"dress": 0, "shirt": 419, "toptee": 392}
    assert len(set().union(*leaks.values())) == 811


@real
def test_the_real_empty_captions() -> None:
    counts = {s: sum(g.empty_captions for g in read_annotations(REAL, s)) for s in ("train", "val")}
    assert counts == {"train": 13, "val": 3}  # 12 are empty, and one in train says only "."
    blank = Counter(
        split
        for split in ("train", "val", "test")
        for group in GROUPS
        for row in json.loads((REAL / f"captions/cap.{group}.{split}.json").read_text())
        if not all(caption.strip() for caption in row["captions"])
    )
    assert blank == {"train": 12, "val": 3, "test": 1}
    with pytest.raises(ConfigError, match="2038 rows have no target"):
        read_annotations(REAL, "test")
