"""The command's parts: finding photos, naming and writing files."""

import os
from pathlib import Path

import pytest
from PIL import Image

from fashion_retrieval.cli.output import save_cards
from fashion_retrieval.cli.photos import find_photos, identifier
from tests.support.tiny import drawn_photo, photo_folder


@pytest.fixture
def photos(tmp_path):
    return photo_folder(tmp_path / "photos")


def test_find_photos_of_folders_and_files_names_each_once(photos):
    found, failures = find_photos([str(photos), str(photos / "a.png"), "missing.jpg"])
    assert [str(p) for p in found] == [
        *(str(photos / name) for name in ("a.png", "b.JPG", "inner/a.webp", "nothing.png")),
        "missing.jpg",
    ]
    assert failures == []


def test_find_photos_of_a_pattern_is_sorted(photos):
    assert find_photos([str(photos / "**" / "a.*")])[0] == [photos / "a.png", photos / "inner" / "a.webp"]
    odd = photos / "[1].png"
    drawn_photo().save(odd)
    assert find_photos([str(odd)]) == ([odd], [])


def test_find_photos_tells_what_holds_none(photos):
    (photos / "empty").mkdir()
    arguments = [str(photos / "*.bmp"), str(photos / "empty"), "x" * 5000]
    found, failures = find_photos(arguments, "skip")
    assert found == []
    assert [name for name, _ in failures] == arguments
    messages = [str(error) for _, error in failures]
    assert messages[0] == f"no file matches '{photos / '*.bmp'}'; check the pattern"
    assert messages[1].startswith(f"folder {photos / 'empty'} holds no photo")
    assert "File name too long" in messages[2]


def test_save_cards_names_never_collide(tmp_path):
    card = drawn_photo((20, 10))

    class Drawn:
        def draw(self):
            return card

    results = [(Path(name), Drawn()) for name in ("x/a.png", "y/A.jpg", "é" * 150 + ".jpg")]
    assert list(save_cards(iter(results), tmp_path)) == results
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "A-2.png", "é" * 100 + ".png"}
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.size == (20, 10)


def test_identifier_is_one_line_of_text():
    assert identifier(Path("a\nb.jpg")) == "a\\nb.jpg"
    assert identifier(Path(os.fsdecode(b"\xff.jpg"))) == "\\xff.jpg"
