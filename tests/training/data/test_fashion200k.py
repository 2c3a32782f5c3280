"""Fashion200k's layout on a drawn tree: what is asked and right by TIRG's rule, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion_retrieval.errors import ConfigError, InputError
from tests.support.fashioniq_tree import draw
from training.data.fashion200k import KINDS, difference, read_captions, read_fashion200k

CAPTIONS = {
    "dress": ["red dress", "blue dress", "blue dress", "long red dress"], "jacket": ["black wool jacket"],
    "pants": ["black trousers"], "skirt": ["white skirt"], "top": ["white top", "white cropped top"],
}  # fmt: skip
QUERIES = [(0, 1), (3, 0), (7, 8)]
"""The photos' places in the test split."""


def write_fashion200k(root: Path) -> list[str]:
    """Labels, photos and queries as published; the names of the photos of the test split, numbered in their order."""
    names: list[str] = []
    for kind, captions in CAPTIONS.items():
        for split in ("train", "test"):
            lines = []
            for caption in captions:
                number = len(names) if split == "test" else 90
                name = f"women/{kind}/{split}_{kind}/51{number:02}/51{number:02}_{number:02}.jpeg"
                lines.append(f"{name}\t-1.25\t{caption}\n")
                if split == "test":
                    names.append(name)
                draw(root / name)
            path = root / f"labels/{kind}_{split}_detect_all.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines))
    (root / "test_queries.txt").write_text("".join(f"{names[a]} {names[b]}\n" for a, b in QUERIES))
    return names


def test_read_fashion200k_asks_as_tirg_does(tmp_path: Path) -> None:
    names = write_fashion200k(tmp_path)
    data = read_fashion200k(tmp_path)
    assert (data.source, data.split, data.gallery) == ("fashion200k", "test", tuple(names))
    assert data.photos[names[0]] == tmp_path / names[0]
    asked = [(query.reference, query.text, query.right) for query in data.queries]
    assert asked == [
        (names[0], "replace red with blue", (names[1], names[2])),  # all with the target's caption
        (names[3], "replace long with dress", (names[0],)),  # the target says nothing new: its last word
        (names[7], "replace top with cropped", (names[8],)),
    ]
    assert len(read_captions(tmp_path, "train")) == len(KINDS)
    assert difference("a b", "b a") == ("b", "a")


def test_faults_of_fashion200k_come_at_once(tmp_path: Path) -> None:
    names = write_fashion200k(tmp_path)
    (tmp_path / names[1]).unlink()
    (tmp_path / names[2]).write_text("no photo")
    (tmp_path / "labels/skirt_test_detect_all.txt").unlink()
    (tmp_path / "labels/pants_test_detect_all.txt").write_text("\n")
    with (tmp_path / "labels/top_test_detect_all.txt").open("a") as file:
        file.write("women/x.jpeg\twhite top\n")
    with (tmp_path / "test_queries.txt").open("a") as file:
        file.write(f"{names[0]} women/gone.jpeg\n")
    with pytest.raises(ConfigError) as error:
        read_fashion200k(tmp_path)
    told = str(error.value)
    for said in ("skirt_test_detect_all.txt is missing", "pants_test_detect_all.txt is empty",
                 "top_test_detect_all.txt: 1 lines are not photo, score, caption; the first is line 3",
                 "test_queries.txt: 1 photos have no caption in labels/: women/gone.jpeg",
                 f"2 photos are missing or can't be read: {names[1]}, {names[2]}",
                 "take labels/ and women/ as published"):  # fmt: skip
        assert said in told
    assert "\n" not in told
    (tmp_path / "test_queries.txt").write_text(f"{names[0]} {names[0]}\n{names[0]}\n")
    with pytest.raises(ConfigError, match=r"test_queries\.txt: 2 lines are not two photos; the first is line 1"):
        read_fashion200k(tmp_path)
    with pytest.raises(ConfigError, match=r"dress_train_detect_all\.txt is missing; .*top_train_"):
        read_captions(tmp_path / "nowhere", "train")


def test_files_of_other_editors_are_read_or_named(tmp_path: Path) -> None:
    names = write_fashion200k(tmp_path)
    expected = read_fashion200k(tmp_path)
    labels = tmp_path / "labels/dress_test_detect_all.txt"
    plain = labels.read_text()
    labels.write_bytes(plain.replace("\n", "\r\n").encode("utf-8-sig"))
    assert read_fashion200k(tmp_path) == expected
    labels.write_text(plain.replace(names[0], "women/\0.jpeg"))
    with pytest.raises(ConfigError, match="1 photos are missing or can't be read: women/"):
        read_fashion200k(tmp_path)


def test_splits_without_queries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="those of its split 'test', got 'val'; take that one"):
        read_fashion200k(tmp_path, "val")
    with pytest.raises(InputError, match="split must be one of train, test, got 'val'"):
        read_captions(tmp_path, "val")
