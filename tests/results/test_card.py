"""Cards show every garment in its color, keep text and tags inside and apart, and take any photo."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageFont, features

from fashion_retrieval.drawing import canvas
from fashion_retrieval.errors import InputError
from fashion_retrieval.results import Attribute, Color, Garment, Recognition, Score
from fashion_retrieval.results.card import _COLUMN, _TAG, GARMENT_COLORS
from tests.support.painted import check_apart, record_painted
from tests.support.paths import ROOT


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
    assert words[1] == "Blue shirt dress"  # after the tag on the photo
    for expected in ("Shirt dress", "93%", "blue 70%", "white 30%", "sleeve", "long sleeve", "90%"):
        assert words.count(expected) == 1
    assert not {"fabric", "not applicable"} & set(words)
    assert words[-1] == "photo.jpg · 60 x 90 · compact"
    grayed = [shape.words for shape, _, _ in painted if getattr(shape, "fill", "") == canvas.FAINT]
    assert grayed == ["not visible: length", "photo.jpg · 60 x 90 · compact"]


@pytest.mark.parametrize(
    ("names", "title"),
    [
        ("tee", "Blue tee"),
        ("tee skirt", "Blue tee and blue skirt"),
        ("tee skirt tee hat", "Blue tee, blue skirt and blue hat"),
        ("tee skirt hat belt coat", "Blue tee, blue skirt, blue hat and 2 more"),
    ],
)
def test_the_title_is_what_was_found(painted, names, title):
    garments = tuple(garment((0, 0, 30, 30), (60, 90), name) for name in names.split())
    Recognition(60, 90, garments, "compact", None, Image.new("RGB", (60, 90))).draw()
    assert title in [text for text, _, _ in texts_of(painted)]


CODES = (
    *("001068a8.jpg", "001068a8-3f4c-4b2a-9d1e-aa00bb11cc22.jpg", "d41d8cd98f00b204e9800998ecf8427e"),
    *("IMG_20240101_123456.jpg", "DSC_0042.JPG", "shop/deadbeef.png", "20240101.heic", "PXL_20230512_101112345.jpg"),
)
NAMES = ("photo.jpg", "street 1.png", "navy-blazer_0012.jpg", "facade.jpg", "cafe.jpg", "クール服.png", "7.png", "")


def test_a_code_is_told_from_a_name():
    assert [name for name in (*CODES, *NAMES) if canvas.is_code(name)] == list(CODES)
    assert [canvas.short_name(name) for name in (*NAMES, CODES[0])] == [*NAMES, CODES[0]]
    assert canvas.short_name(f"shop/{CODES[1]}") == "shop/001068a8…cc22.jpg"


def test_a_card_leaves_a_code_out(painted):
    shown = recognition()
    Recognition(60, 90, shown.garments, "compact", CODES[1], shown.image).draw()
    assert texts_of(painted)[-1][0] == "60 x 90 · compact"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_text_is_legible_at_800_pixels(painted, count):
    card = recognition((300, 400), count).draw(width=800)
    assert card.width == 800
    sizes = {shape.size * 800 / canvas.WIDTH for shape, _, _ in painted if isinstance(shape, canvas.Text)}
    assert min(sizes) >= 12
    _, top, _, bottom = canvas.FontMetrics(None).fonts(min(sizes))[0].getbbox("x")
    assert bottom - top >= 6


def test_each_garment_is_outlined_and_numbered_in_its_own_color():
    card = recognition((300, 200), 3).draw()
    photo, panel = card.crop((36, 92, 804, 604)), card.crop((36, 604, 804, card.height))
    for color in GARMENT_COLORS[:3]:
        assert has(photo, color, 300)
        assert has(panel, color, 300)
    assert not has(card, GARMENT_COLORS[3], 1)
    assert has(panel, "#123456", 100)
    assert has(panel, "#fedcba", 100)


def test_a_card_keeps_the_colors_of_garments_and_fades_the_rest():
    card = recognition((90, 90)).draw()
    inside, outside = card.getpixel((200, 300)), card.getpixel((380, 300))
    tinted = 0.93 * 128 + 0.07 * np.array(ImageColor.getrgb(GARMENT_COLORS[0]))
    assert np.abs(np.array(inside) - tinted).max() < 3
    assert np.abs(np.array(outside) - (0.7 * 128 + 0.3 * 255)).max() < 3


def test_white_numbers_and_gray_text_stand_out():
    def light(color):
        parts = np.array(ImageColor.getrgb(color)) / 255
        return np.where(parts <= 0.04, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    for color in (*GARMENT_COLORS, canvas.INK, canvas.MUTED, canvas.FAINT):
        assert 1.05 / (light(color) + 0.05) >= 4.5, color


def test_a_card_without_garments_says_so(painted):
    card = Recognition(60, 90, (), "compact", None, Image.new("RGB", (60, 90), "red")).draw()
    assert [text for text, _, _ in texts_of(painted)] == ["No garment found", "60 x 90 · compact"]
    assert card.getpixel((420, 300)) == (255, 0, 0)


LONG = "extraordinarily_long_hand_knitted_asymmetric_withoutanyspaceinsideofitatallwhatsoever"
MANY = tuple(Color(f"dark goldenrod yellow {i}" + i * " and so on", "#aabbcc", 0.2) for i in range(5))
FORTY = {name: Attribute(name, f"{LONG[:50]}_{name}", 0.5) for name in (f"attribute_group_{i}" for i in range(40))}
SCRIPTS = {
    "Größe": "Café ÅŁŻ",
    "длина": "короткое_платье",
    "χρώμα": "μπλε_φόρεμα",
    "颜色": "蓝色连衣裙" * 8,
    "色": "青いワンピース",
    "색": "파란_드레스",
    "صبغ": "قميص_أزرق_طويل_70%",
    "צבע": "שמלה_כחולה_ארוכה",
    "สี": "เสื้อเชิ้ตสีน้ำเงิน",
    "रंग": "नीली_कमीज़",
    "emoji": "👗_\ud800_\x07_\u200d_\ue000",
}
FOREIGN = {group: Attribute(group, value, 0.5) for group, value in SCRIPTS.items()}


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
        ((60, 90), 9, {"category": "服装_Größe", "attributes": FOREIGN}),
        ((90, 60), 1, {"attributes": FORTY}),
        ((60, 90), 2, {"category": LONG, "attributes": {LONG: Attribute(LONG, LONG, 1.0)}, "colors": MANY}),
    ],
)
def test_a_card_overlaps_and_cuts_nothing(painted, size, count, changes):
    card = recognition(size, count, **changes).draw()
    assert len(check_apart(painted, card.size)) >= 3 * count
    assert card.width == canvas.WIDTH


def test_all_of_a_long_list_is_there(painted):
    recognition(attributes=FORTY).draw()
    words = "".join(text for text, _, _ in texts_of(painted)).replace(" ", "")
    for attribute in FORTY.values():
        assert attribute.value.replace("_", "") in words
    assert words.count("attributegroup") == 80


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


@pytest.mark.parametrize(
    ("size", "count", "columns"),
    [((60, 90), 1, "R"), ((60, 90), 6, "RRRRLR"), ((90, 60), 1, "R"), ((90, 60), 3, "LRL"), ((90, 20), 2, "LR")],
)
def test_each_garment_stands_in_the_column_that_is_shorter(painted, size, count, columns):
    card = recognition(size, count).draw()
    heads = [box for text, box, page in texts_of(painted) if text == "Shirt dress" and page == card.size]
    assert "".join("LR"[box[0] > _COLUMN] for box in heads) == columns


def test_a_panorama_lies_above_its_garments():
    card = recognition((900, 100), 3).draw()
    assert has(card.crop((0, 60, 840, 215)), GARMENT_COLORS[2], 100)
    assert has(card.crop((0, 215, 840, card.height)), GARMENT_COLORS[2], 300)


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


def test_letters_come_from_the_first_font_that_has_them(painted, tmp_path):
    shown = recognition(category="Größe_Café_服装")
    shown.draw()
    assert "Größe Café 服装" in [text for text, _, _ in texts_of(painted)]
    mixed = canvas.FontMetrics(None).runs("Größe 服装 कमीज़")
    assert mixed == [(0, "Größe"), (0, " "), (1, "服装"), (0, " "), (0, "कमीज़")]
    font = tmp_path / "font.ttf"
    font.write_bytes(ImageFont.load_default(16).font_bytes)
    mixed = canvas.FontMetrics(font).runs("size 服 длина")
    assert mixed == [(0, "size"), (0, " "), (2, "服"), (0, " "), (1, "длина")]
    shown.draw(font=font)


def test_a_long_word_is_broken_between_letters():
    metrics, word = canvas.FontMetrics(None), "สีน้ำเงิน" * 300
    lines = metrics.wrap(word, 17, 100)
    assert "".join(lines) == word
    assert max(metrics.length(line, 17) for line in lines) <= 100
    assert not {line[0] for line in lines} & set("\u0e35\u0e49\u0e34")


def test_the_bundled_fonts_have_letters_of_many_scripts():
    metrics = canvas.FontMetrics(None)
    missing = [bytes(font.getmask("\uffff")) for font in metrics.fonts(16)]
    words = [*map(chr, range(33, 127)), "·…½", *SCRIPTS, *list(SCRIPTS.values())[:-1]]
    for letter in "".join(words):
        ((font, _),) = metrics.runs(letter)
        assert bytes(metrics.fonts(16)[font].getmask(letter)) != missing[font], letter
    assert metrics.runs("👗") == [(0, "👗")]


def test_bundled_fonts_are_small_and_have_their_licenses():
    folder = ROOT / "src/fashion_retrieval/assets/fonts"
    fonts = sorted(folder.glob("*.ttf"))
    assert [font.name for font in fonts] == sorted(canvas._BUNDLED)
    assert sum(font.stat().st_size for font in fonts) < 6e6
    told = (folder / "README.md").read_text(encoding="utf-8")
    for font in fonts:
        (text,) = folder.glob(f"{font.stem.partition('-')[0]}-*.txt")
        assert "License" in text.read_text(encoding="utf-8")
        assert f"`{font.name}`" in told
        assert f"({text.name})" in told


@pytest.mark.skipif(not features.check("raqm"), reason="Raqm orders and joins letters")
def test_arabic_is_joined_with_raqm():
    metrics = canvas.FontMetrics(None)
    assert metrics.length("سسس", 40) < 0.95 * 3 * metrics.length("س", 40)


@pytest.mark.skipif(not features.check("raqm"), reason="Raqm orders and joins letters")
def test_a_name_from_right_to_left_leaves_the_rest_of_its_line_in_place():
    def painted(words):
        picture = Image.new("RGB", (400, 40), canvas.PAGE)
        canvas.Painter(picture, 1, canvas.FontMetrics(None)).paint([canvas.Text(0, 0, words, 20, "#000", "l")], 5, 20)
        return np.asarray(picture)

    assert (painted("\u200e" + "فستان.jpg · 400 x 534") == painted("فستان.jpg · 400 x 534")).all()


def test_without_raqm_right_to_left_letters_keep_their_order(monkeypatch):
    monkeypatch.setattr(ImageFont.core, "HAVE_RAQM", False)
    metrics = canvas.FontMetrics(None)
    assert metrics.runs("size: שָׁלוֹם עולם 70%") == [(0, "size: םלוע םולש 70%")]
    assert metrics.runs("قميص 服") == [(0, "صيمق"), (0, " "), (1, "服")]
    recognition(attributes=FOREIGN).draw()


def test_a_name_of_another_form_is_composed_and_what_is_no_text_is_replaced():
    assert canvas.FontMetrics(None).clean(" cafe\u0301 \n x\udcff ") == "café x?"


def test_a_card_without_photo_or_with_a_bad_width_or_font_is_refused(tmp_path):
    shown = recognition()
    with pytest.raises(InputError, match="has no photo; recognize it with keep_image=True"):
        Recognition(60, 90, shown.garments, "compact").draw()
    for width in (10, -5, 100_000, 800.5, "800", True):
        with pytest.raises(InputError, match="width must be a whole number from 320 to 10000, got"):
            shown.draw(width=width)
    with pytest.raises(InputError, match="font must be a path or None, got int"):
        shown.draw(font=5)
    with pytest.raises(InputError, match=r"can't be read .*give a \.ttf or \.otf file"):
        shown.draw(font=tmp_path / "none.ttf")
