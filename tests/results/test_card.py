"""Cards show every garment in its color, keep text and tags inside and apart, and take any photo."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageFont

from fashion_retrieval.drawing import canvas
from fashion_retrieval.errors import InputError
from fashion_retrieval.results import Attribute, Color, Garment, Recognition, Score
from fashion_retrieval.results.card import _TAG, GARMENT_COLORS
from tests.support.painted import record_painted


def garment(box, size, category="shirt_dress", **changes):
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    score = Score(category, 0.93)
    fields = {
        "attributes": {
            "sleeve": Attribute("sleeve", "long_sleeve", 0.9),
            "length": Attribute("length", None, 0.7, "not_visible"),
            "fabric": Attribute("fabric", None, 1.0, "not_applicable"),
        },
        "colors": (Color("blue", "#123456", 0.7), Color("white", "#fedcba", 0.3)),
    }
    return Garment(box, mask, 0.9, category=score, categories=(score,), **(fields | changes))


def recognition(size=(60, 90), count=1, **changes):
    """`count` garments side by side on a gray photo."""
    width, height = size
    step = width / count
    boxes = [(int(i * step), height // 10, max(int(i * step) + 1, int((i + 0.8) * step)), height) for i in range(count)]
    garments = tuple(garment(box, size, **changes) for box in boxes)
    return Recognition(width, height, garments, "compact", "photo.jpg", Image.new("RGB", size, "#808080"))


def has(card, color, least=20):
    exact = (np.asarray(card) == ImageColor.getrgb(color)).all(axis=-1)
    return int(exact.sum()) >= least


@pytest.fixture
def painted(monkeypatch):
    return record_painted(monkeypatch)


def texts_of(painted):
    return [(shape.words, box, size) for shape, box, size in painted if isinstance(shape, canvas.Text)]


def test_a_card_says_what_was_recognized(painted):
    recognition().draw()
    words = [text for text, _, _ in texts_of(painted)]
    for expected in ("Shirt dress", "93%", "blue 70%", "white 30%", "sleeve", "long sleeve", "90%", "length"):
        assert expected in words
    assert "not visible" in words
    assert not {"fabric", "not applicable"} & set(words)
    assert "photo.jpg · 60 x 90 · compact" in words
    grayed = [shape for shape, _, _ in painted if getattr(shape, "words", "") == "not visible"]
    assert [shape.fill for shape in grayed] == [canvas.FAINT]


def test_each_garment_is_outlined_and_numbered_in_its_own_color():
    card = recognition((300, 200), 3).draw()
    photo = card.crop((36, 36, 760, 656))
    panel = card.crop((card.width - 456, 0, card.width, card.height))
    for color in GARMENT_COLORS[:3]:
        assert has(photo, color, 300)
        assert has(panel, color, 300)
    assert not has(card, GARMENT_COLORS[3], 1)
    assert has(panel, "#123456", 100)
    assert has(panel, "#fedcba", 100)


def test_a_card_keeps_the_colors_of_garments_and_fades_the_rest():
    card = recognition((90, 90)).draw()
    inside, outside = card.getpixel((200, 400)), card.getpixel((640, 400))
    tinted = 0.93 * 128 + 0.07 * np.array(ImageColor.getrgb(GARMENT_COLORS[0]))
    assert np.abs(np.array(inside) - tinted).max() < 3
    assert np.abs(np.array(outside) - (0.7 * 128 + 0.3 * 255)).max() < 3


@pytest.mark.parametrize(("probability", "length"), [(0.0, 6), (0.5, 46), (1.0, 92)])
def test_a_bar_is_as_long_as_its_probability(painted, probability, length):
    recognition(attributes={"fit": Attribute("fit", "loose", probability)}).draw()
    bars = [shape.width for shape, _, _ in painted if isinstance(shape, canvas.Rect) and shape.height == 6]
    assert bars == [92, length]


def test_a_card_without_garments_says_so(painted):
    card = Recognition(60, 90, (), "compact", None, Image.new("RGB", (60, 90), "red")).draw()
    assert [text for text, _, _ in texts_of(painted)] == ["60 x 90 · compact", "No garment found"]
    assert card.getpixel((100, 300)) == (255, 0, 0)


LONG = "extraordinarily_long_hand_knitted_asymmetric_withoutanyspaceinsideofitatallwhatsoever"
MANY = tuple(Color(f"dark goldenrod yellow {i}", "#aabbcc", 0.2) for i in range(5))


@pytest.mark.parametrize(
    ("size", "count", "changes"),
    [
        ((60, 90), 1, {}),
        ((64, 64), 12, {}),
        ((90, 60), 5, {}),
        ((300, 50), 12, {}),
        ((4000, 2), 3, {}),
        ((2, 4000), 2, {}),
        ((1, 1), 1, {}),
        ((60, 90), 2, {"category": LONG, "attributes": {LONG: Attribute(LONG, LONG, 1.0)}, "colors": MANY}),
    ],
)
def test_a_card_overlaps_and_cuts_nothing(painted, size, count, changes):
    card = recognition(size, count, **changes).draw()
    for _, (left, top, right, bottom), (width, height) in painted:
        assert left > -1
        assert top > -1
        assert right < width + 1
        assert bottom < height + 1
    panel = [box for _, box, page in texts_of(painted) if page == card.size]
    assert len(panel) >= 3 * count
    for one, other in combinations(panel, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] + 1 or other[3] <= one[1] + 1
        assert apart, (one, other)
    assert card.width <= 2500


@pytest.mark.parametrize("same_place", [False, True])
def test_tags_are_inside_the_photo_and_clear_of_each_other(painted, same_place):
    size = (64, 64)
    boxes = [(30, 30, 34, 34)] * 12 if same_place else [(5 * i, 10, 5 * i + 8, 60) for i in range(11)]
    garments = tuple(garment(box, size) for box in boxes)
    card = Recognition(64, 64, garments, "compact", None, Image.new("RGB", size)).draw()
    tags = [box for shape, box, page in painted if page != card.size and getattr(shape, "radius", 0) == _TAG + 2]
    assert len(tags) == len(boxes)
    centers = np.array([((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in tags])
    gaps = [np.linalg.norm(one - other) for one, other in combinations(centers, 2)]
    assert min(gaps) >= 2 * (_TAG + 2) - 1e-6


def test_twelve_garments_stand_in_columns():
    one, twelve = recognition(count=1).draw(), recognition(count=12).draw()
    assert twelve.width > one.width + 400
    assert twelve.height < 1100


def test_a_panorama_lies_above_its_garments():
    card = recognition((900, 100), 3).draw()
    assert card.width == 3 * 420 + 2 * 44 + 2 * 36
    assert has(card.crop((0, 0, card.width, 200)), GARMENT_COLORS[2], 100)
    assert has(card.crop((0, 250, card.width, card.height)), GARMENT_COLORS[2], 300)


@pytest.mark.parametrize("width", [320, 701, 3000])
def test_a_card_has_the_width_asked_for(width):
    natural = recognition(count=2).draw()
    card = recognition(count=2).draw(width=width)
    assert card.width == width
    assert card.height == pytest.approx(natural.height * width / natural.width, abs=2)


def test_an_empty_mask_still_gets_its_tag():
    shown = recognition()
    empty = Garment(
        shown.garments[0].box,
        np.zeros((90, 60), dtype=bool),
        0.5,
        category=Score("hat", 0.5),
        categories=(Score("hat", 0.5),),
        attributes={},
        colors=(),
    )
    card = Recognition(60, 90, (empty,), "compact", None, shown.image).draw()
    assert has(card.crop((36, 36, 450, 656)), GARMENT_COLORS[0], 300)


def test_the_photo_is_left_alone_and_cards_repeat():
    shown = recognition(count=2)
    before = np.asarray(shown.image).copy()
    np.testing.assert_array_equal(np.asarray(shown.draw()), np.asarray(shown.draw()))
    np.testing.assert_array_equal(np.asarray(shown.image), before)


def test_letters_the_built_in_font_lacks_become_plain_ones_or_question_marks(painted, tmp_path):
    shown = recognition(category="Größe_Café_服装")
    shown.draw()
    assert "Grosse Cafe ??" in [text for text, _, _ in texts_of(painted)]
    font = tmp_path / "font.ttf"
    font.write_bytes(ImageFont.load_default(16).font_bytes)
    shown.draw(font=font)
    assert "Größe Café 服装" in [text for text, _, _ in texts_of(painted)]


def test_the_built_in_font_has_every_plain_letter():
    font = ImageFont.load_default(20)
    missing = bytes(font.getmask("\uffff"))
    for letter in map(chr, [*range(33, 127), ord("·")]):
        assert bytes(font.getmask(letter)) != missing, letter


def test_a_card_without_photo_or_with_a_bad_width_or_font_is_refused(tmp_path):
    shown = recognition()
    with pytest.raises(InputError, match="has no photo; recognize it with keep_image=True"):
        Recognition(60, 90, shown.garments, "compact").draw()
    with pytest.raises(InputError, match="width must be at least 320 pixels, got 10"):
        shown.draw(width=10)
    with pytest.raises(InputError, match=r"can't be read .*give a \.ttf or \.otf file"):
        shown.draw(font=tmp_path / "none.ttf")
