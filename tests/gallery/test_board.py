"""Boards name what changed, keep photos whole and words apart, and show what is missing."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from fashion_retrieval.drawing import canvas
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.board import draw_board
from fashion_retrieval.gallery.comparison import Comparison
from fashion_retrieval.results import Attribute, Color, Explanation, Garment, Match, Recognition, Score
from fashion_retrieval.results.board import Change
from fashion_retrieval.results.picture import _ACCENT, _DOT, _columns
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.painted import check_apart, record_painted

BLUE = {"category": "dress", "color": "blue", "texture": "lattice", "sleeve": "short_sleeve", "neckline": None}
RED = {"category": "dress", "color": "red", "texture": "solid", "sleeve": "long_sleeve", "neckline": "crew"}
DEFAULT = Taxonomy.load("default")


@pytest.fixture
def photo(tmp_path):
    """Writes a photo of one color and returns its path."""

    def write(color="#30a050", size=(60, 80), name="photo.png"):
        Image.new("RGB", size, color).save(tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.fixture
def painted(monkeypatch):
    return record_painted(monkeypatch)


def words_of(painted):
    return [shape.words for shape, *_ in painted if isinstance(shape, canvas.Text)]


def many(count, photo, **fields):
    path = photo()
    return [Match(f"folder/{index:03}.png", 0.9 - index / 1000, path, fields) for index in range(count)]


def recognized(**values):
    mask = np.ones((8, 6), dtype=bool)
    small = np.zeros((8, 6), dtype=bool)
    small[0, 0] = True

    def garment(mask, category):
        best = Score(category, 0.9)
        attributes = {"sleeve": Attribute("sleeve", values["sleeve"], 0.8)}
        colors = (Color(values["color"], "#123456", 0.7),)
        box = (0, 0, 6, 8)
        return Garment(box, mask, 0.9, category=best, categories=(best,), attributes=attributes, colors=colors)

    garments = (garment(small, "belt"), garment(mask, values["category"]))
    return Recognition(6, 8, garments, "drawn", "street.png", Image.new("RGB", (6, 8), "#204080"))


def test_changes_are_named_and_what_was_asked_comes_first():
    comparison = Comparison(DEFAULT, Match("a", 1.0, None, BLUE), "with long sleeves, not red")
    assert comparison.title == "blue dress"
    assert comparison.changes(Match("b", 0.5, None, RED)) == (
        Change("long sleeve", "short", True),
        Change("red", "blue", False),
        Change("solid", "checked", False),
    )


def test_what_was_asked_is_named_even_where_it_did_not_change():
    comparison = Comparison(DEFAULT, Match("a", 1.0, None, BLUE), "short sleeves and a crew neck, dark red")
    changes = comparison.changes(Match("b", 0.5, None, RED | {"sleeve": "short_sleeve"}))
    assert changes[:3] == (
        Change("red", "blue", True),
        Change("short sleeve", None, True),
        Change("crew neck", None, True),
    )


def test_what_is_gone_as_asked_is_named_first():
    comparison = Comparison(DEFAULT, Match("a", 1.0, None, BLUE), "without the checks, not red")
    changes = comparison.changes(Match("b", 0.5, None, RED))
    assert changes[0] == Change("solid", "checked", True)
    assert not any(change.asked for change in changes[1:])


def test_comparison_knows_a_category_asked_for():
    comparison = Comparison(DEFAULT, Match("a", 1.0, None, BLUE), "a turtleneck sweater")
    changes = comparison.changes(Match("b", 0.5, None, BLUE | {"category": "turtleneck", "neckline": "turtleneck"}))
    assert changes == (Change("turtleneck sweater", "dress", True),)


def test_comparison_knows_other_words_for_a_color():
    comparison = Comparison(DEFAULT, Match("a", 1.0, None, RED), "a dark navy one")
    assert comparison.changes(Match("b", 0.5, None, RED | {"color": "blue"})) == (Change("blue", "red", True),)


def test_only_groups_of_the_taxonomy_change():
    brand = {"brand": "x of y", "price": 3.5}
    comparison = Comparison(DEFAULT, Match("a", 1.0, None, BLUE | {"brand": "y", "price": 4.5}), None)
    assert comparison.changes(Match("b", 0.5, None, BLUE | brand)) == ()
    own = {"category": {"values": ["dress", "tee"]}, "attributes": {"brand": {"values": ["x of y", "y"]}}}
    comparison = Comparison(Taxonomy.load(own), Match("a", 1.0, None, BLUE | {"brand": "y"}), "from x of y")
    assert comparison.changes(Match("b", 0.5, None, BLUE | brand)) == (Change("x of y", "y", True),)


def test_without_recognition_on_both_sides_nothing_is_compared():
    plain, full = Match("a", 1.0), Match("b", 1.0, None, RED)
    assert Comparison(DEFAULT, None, "red").changes(full) is None
    assert Comparison(DEFAULT, plain, "red").changes(full) is None
    assert Comparison(DEFAULT, full, "red").changes(plain) is None
    assert Comparison(DEFAULT, plain, "red").title_of(full) == "red dress"


def test_a_recognition_compares_by_its_largest_garment():
    comparison = Comparison(DEFAULT, recognized(category="shirtdress", color="blue", sleeve="sleeveless"), "red")
    assert comparison.title == "blue shirt dress"
    assert comparison.changes(Match("b", 0.5, None, RED)) == (
        Change("red", "blue", True),
        Change("dress", "shirt", False),
        Change("long sleeve", "sleeveless", False),
    )


def test_a_board_says_what_was_asked_and_found(painted, photo):
    found = [Match("b.png", 0.834, photo(), RED), Match("c.png", -0.25, photo(), BLUE)]
    reference = Match("start.png", 1.0, photo(), BLUE)
    board = draw_board(found, reference=reference, text="red and long sleeves", caption="2 of 9 photos")
    assert board.mode == "RGB"
    words = words_of(painted)
    for expected in ("start.png", "blue dress", "red and long sleeves", "2 of 9 photos", "b.png", "0.83", "-0.25"):
        assert expected in words
    for expected in ("1", "2", "red", "(was blue)", "long sleeve", "(was short)", "solid", "(was checked)"):
        assert words.count(expected) == 1
    assert {"as asked for", "changed besides", "as the reference"} <= set(words)
    dots = [shape.fill for shape, *_ in painted if getattr(shape, "width", 0) == _DOT]
    assert dots == [_ACCENT, canvas.FAINT] + [_ACCENT] * 2 + [canvas.FAINT]


def test_without_a_reference_results_say_what_they_are(painted, photo):
    draw_board([Match("b", 0.5, photo(), RED), Match("c", 0.4, photo())], text="something red")
    words = words_of(painted)
    assert "red dress" in words
    assert not {"as asked for", "changed", "as the reference"} & set(words)


def test_photos_are_whole_and_in_their_proportions(photo):
    shapes = {"tall.png": (50, 100), "wide.png": (100, 50), "tiny.png": (1, 1), "strip.png": (600, 2)}
    found = [Match(name, 0.5, photo("#ff0000", size, name)) for name, size in shapes.items()]
    board = np.asarray(draw_board(found, text="x"))
    red = (board == (255, 0, 0)).all(axis=-1)
    lefts = [36 + index * 198 for index in range(4)]
    for left, (width, height) in zip(lefts, shapes.values(), strict=True):
        tile = red[:, left : left + 174]
        across, down = tile.any(axis=0).sum(), tile.any(axis=1).sum()
        assert across == 174 or down >= 130
        assert across / down == pytest.approx(width / height, rel=0.03) or min(across, down) == 1


def test_a_photo_that_is_gone_is_an_empty_frame(painted, photo, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no photo")
    found = [Match(name, 0.5, path) for name, path in (("x1", None), ("x2", "/none.png"), ("x3", str(broken)))]
    draw_board(found, reference=Match("x4", 1.0, "/none.png"), text="red")
    words = words_of(painted)
    assert words.count("photo not found") == 4
    assert {"x1", "x2", "x3", "x4"} <= set(words)


LONG = "an-extraordinarily-long-name-without-any-space-in-it/and-a-folder/" * 3 + "shirt.png"
WORDY = {"category": "extraordinarily_long_asymmetric_hand_knitted_garment_of_unknown_kind", "color": "red"}


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 7, 20, 61])
def test_a_board_overlaps_and_cuts_nothing(painted, photo, count):
    found = many(count, photo, **RED)
    board = draw_board(found, reference=Match("r", 1.0, photo(), BLUE), text="red and long sleeves", caption="all")
    check_apart(painted, board.size)
    assert board.width == canvas.WIDTH
    assert min(shape.size for shape, *_ in painted if isinstance(shape, canvas.Text)) >= 13
    assert words_of(painted).count("(was blue)") == count
    assert ("Nothing found" in words_of(painted)) == (count == 0)


@pytest.mark.parametrize("width", [None, 320, 2000])
def test_a_board_with_long_words_keeps_them_inside(painted, photo, width):
    path = photo()
    found = [Match(LONG, 0.5, path, RED | WORDY), Match("x", 0.4, path, BLUE)]
    wish = "red, " + "and with a remarkably long list of further wishes, " * 30
    board = draw_board(found, reference=Match(LONG, 1.0, path, BLUE), text=wish, caption=LONG, width=width)
    check_apart(painted, painted[0][2])
    assert board.width == (width or 840)
    shown = [text for text in words_of(painted) if "…" in text]
    assert len([text for text in shown if text.endswith("shirt.png") and text.startswith("an-extra")]) == 2
    assert any(text.startswith(("and", "with", "a ", "list", "of", "further", "remark", "long")) for text in shown)


@pytest.mark.parametrize(
    ("count", "columns"),
    [(0, 4), (1, 3), (4, 4), (5, 3), (6, 3), (7, 4), (8, 4), (9, 3), (10, 4), (21, 4), (200, 4)],
)
def test_a_board_has_columns_by_its_results(count, columns):
    assert _columns(count) == columns


def test_more_changes_than_fit_are_counted(painted, photo):
    before = {group.name: group.values[0].name for group in DEFAULT.attributes} | {"category": "tee", "color": "red"}
    after = {group.name: group.values[1].name for group in DEFAULT.attributes} | {"category": "top", "color": "blue"}
    draw_board([Match("b", 0.5, photo(), after)], reference=Match("a", 1.0, photo(), before))
    assert "+ 3 more" in words_of(painted)


def test_any_photo_may_be_the_reference(painted, photo):
    path = photo("#10ff10")
    with Image.open(path) as opened:
        for reference in (path, opened, np.asarray(opened)):
            board = draw_board([], reference=reference, text="red")
            assert board.getpixel((186, 200)) == ImageColor.getrgb("#10ff10")
    draw_board([], reference=recognized(category="tee", color="blue", sleeve="sleeveless"), text="red")
    assert {"photo.png", "street.png", "blue t-shirt"} <= set(words_of(painted))


def test_a_board_draws_other_scripts(painted, photo):
    fields = {"category": "服", "color": "赤"}
    board = draw_board([Match("クール.png", 0.5, photo(), fields)], text="“赤い” a long, Größe… קצר")
    assert {"クール.png", "赤 服", "“赤い” a long, Größe… קצר"} <= set(check_apart(painted, board.size))


def explained(*words, photo=0.38, gates=(0.1, 0.5)):
    return Explanation(np.ones((1, 1), np.float32), photo, 1 - photo, gates, words)


@pytest.mark.parametrize("width", [None, 320, 2000])
def test_a_board_shows_the_mix_and_shades_the_words(painted, photo, width):
    why = explained(("navy", 0.8), ("and", 0.0), ("long", 0.2))
    told = {"text": "Navy, without stripes and long", "explanation": why, "width": width}
    draw_board(many(3, photo, **RED), reference=Match("r", 1.0, photo(), BLUE), **told)
    check_apart(painted, painted[0][2])
    words = words_of(painted)
    assert {"photo 38 %", "text 62 %", "Navy,", "without", "stripes", "and", "long"} <= set(words)
    inks = {shape.words: shape.fill for shape, *_ in painted if isinstance(shape, canvas.Text)}
    assert [inks[word] for word in ("Navy,", "and", "long")] == [canvas.INK] * 3
    assert inks["without"] == inks["stripes"] == canvas.FAINT
    rects = [shape for shape, *_ in painted if isinstance(shape, canvas.Rect)]
    assert [rect.width for rect in rects if rect.height == 8 != rect.width] == [240, pytest.approx(0.38 * 240)]
    shades = [rect.fill for rect in rects if rect.fill not in (canvas.RULE, canvas.BACKDROP, canvas.FAINT, canvas.INK)]
    assert [canvas.blend("#ffffff", _ACCENT, 0.45 * part) for part in (1, 0.25)] == [
        fill for fill in shades if fill not in (_ACCENT, "#ffffff")
    ]


def test_a_board_shades_nothing_where_there_is_nothing_to_compare(painted, photo):
    for text, words in (("red", [("red", 1.0)]), ("not red", [("a", 0.5), ("photo", 0.5)]), ("in red", [("in", 0.0)])):
        draw_board([], text=text, explanation=explained(*words, photo=0, gates=None))
        assert text in words_of(painted)
    assert not any("%" in words for words in words_of(painted))


def test_a_board_shades_broken_words_and_leaves_lines_from_right_to_left_whole(painted, photo):
    def shaded(text):
        painted.clear()
        draw_board([], text=text, explanation=explained(*((word, 0.25) for word in text.split()), gates=None))
        return sum(isinstance(shape, canvas.Rect) and shape.radius == 4 for shape, *_ in painted)

    assert shaded(f"{'x' * 200} red") == len(words_of(painted)) - 1  # all but "Nothing found"
    assert "red" in words_of(painted)
    assert shaded("red קצר אדום") == 0
    assert "red קצר אדום" in words_of(painted)


def test_an_id_that_is_a_code_is_shortened_and_another_is_whole(painted, photo):
    code = "shop/d41d8cd98f00b204e9800998ecf8427e.png"
    draw_board([Match(code, 0.5, photo()), Match("d41d8cd9", 0.5)], reference=Match(code, 1.0, photo(), RED))
    words = words_of(painted)
    assert {"Red dress", "shop/d41d8cd9…427e.png", "d41d8cd9"} <= set(words)
    assert code not in words


def test_a_board_drawn_twice_is_the_same(photo):
    found = many(3, photo, **RED)
    np.testing.assert_array_equal(np.asarray(draw_board(found, text="x")), np.asarray(draw_board(found, text="x")))


def test_a_board_with_too_many_results_or_a_bad_width_photo_or_font_is_refused(photo, tmp_path):
    with pytest.raises(InputError, match="at most 200 results, got 201; draw the first 200"):
        draw_board([Match("a", 0.5)] * 201)
    with pytest.raises(InputError, match="width must be a whole number from 320 to 10000, got 10"):
        draw_board([], width=10)
    with pytest.raises(InputError, match="does not exist"):
        draw_board([], reference=str(tmp_path / "none.png"))
    with pytest.raises(InputError, match=r"can't be read .*give a \.ttf or \.otf file"):
        draw_board([], font=tmp_path / "none.ttf")
