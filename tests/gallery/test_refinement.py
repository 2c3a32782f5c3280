"""Turns: what a query is made of, which wishes stay, what is left out, and the way back."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval.errors import InputError, UnsupportedError
from fashion_retrieval.gallery.refinement import Refinement, Turn
from fashion_retrieval.gallery.vocabulary import Vocabulary
from fashion_retrieval.gallery.wish import remaining
from fashion_retrieval.results import Explanation, Match, Recognition
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.tiny import drawn_photo

IDS = ["a", "b", "c", "d", "e"]


class Model:
    """Tells what it was asked; every query is its number, so that the gallery can be seen to get it."""

    model_id = "drawn"
    config = SimpleNamespace(taxonomy="default")

    def __init__(self):
        self.asked = []
        self.limits = []

    def encode(self, *, images=None, texts=None, max_pixels=None):
        self.limits.append(max_pixels)
        return self._answer(("image", images[0]) if images else ("text", texts[0]))

    def compose(self, reference, text, *, text_weight=None, max_pixels=None):
        self.limits.append(max_pixels)
        return self._answer(("both", getattr(reference, "id", reference), text, text_weight))

    def explain(self, reference, text, *, text_weight=None, max_pixels=None):
        if getattr(reference, "id", "") == "e":
            raise InputError("the photo is gone")
        self.explained = (getattr(reference, "id", reference), text, text_weight)
        return Explanation(np.ones((1, 1)), 0.4, 0.6, (0.1, 0.5), (("red", 1.0),))

    def recognize(self, photo, *, taxonomy, max_pixels=None):
        self.limits.append(max_pixels)
        self.asked.append(("recognize", photo, taxonomy.name))
        return Recognition(4, 6, (), "drawn", "x.png", Image.new("RGB", (4, 6)))

    def _answer(self, question):
        self.asked.append(question)
        return np.full((1, 3), len(self.asked), dtype=np.float32)


class Shelf:
    """A gallery whose photos always come in the order of their ids."""

    def __init__(self, fields=(), taxonomy=None):
        self.rows = {name: Match(name, 0.5, f"{name}.png", dict.fromkeys(fields)) for name in IDS}
        self.info = SimpleNamespace(fields=dict.fromkeys(fields, "str"), count=len(IDS))
        self.taxonomy = taxonomy
        self.queries = []
        self.negatives = []
        self.answers = []

    def __contains__(self, name):
        return name in self.rows

    def get(self, name):
        return self.rows[name]

    def _answer(self, query, asked):
        top_k, where, exclude = asked.pop("top_k"), asked.pop("where"), asked.pop("exclude")
        if where == "bad":
            raise InputError("where can't be read")
        if "negative" in asked:
            self.negatives.append((len(asked.pop("negative")), asked.pop("preferred"), where))
        self.answers.append(asked)
        self.queries.append((float(query[0, 0]), top_k, where, sorted(exclude)))
        return [row for name, row in self.rows.items() if name not in exclude][:top_k]


@pytest.fixture
def turns():
    return Refinement(Model(), Shelf())


def test_ask_in_three_turns_composes_each_query(turns):
    first = turns.ask("red", top_k=3, where="price < 5")
    assert [match.id for match in first] == ["a", "b", "c"]
    second = turns.ask("long sleeves", first[1])
    assert [match.id for match in second] == ["a", "c", "d", "e"]
    third = turns.ask("a collar", "c", exclude=["e"], text_weight=0.7)
    assert [match.id for match in third] == ["a", "d"]
    assert turns.model.asked == [
        ("text", "red"),
        ("both", "b", "red and long sleeves", None),
        ("both", "c", "red and long sleeves and a collar", 0.7),
    ]
    assert turns.gallery.queries == [
        (1.0, 3, "price < 5", []),
        (2.0, 10, None, ["b"]),
        (3.0, 10, None, ["b", "c", "e"]),
    ]
    assert turns.picked == ("b", "c")
    assert turns.wishes == ("red", "long sleeves", "a collar")
    assert repr(turns) == "Refinement(3 turns, wishes: red and long sleeves and a collar)"


def test_ask_passes_on_what_answers_should_be(turns):
    turns.ask("red", "a", offset=2, min_score=0.1, group_by="price", unique=True)
    turns.ask("not blue")
    given = {"offset": 2, "min_score": 0.1, "group_by": "price", "unique": True}
    assert turns.gallery.answers == [given, {"offset": 0, "min_score": None, "group_by": None, "unique": False}]


def test_history_holds_frozen_turns(turns):
    first = turns.ask("red")
    turns.ask("blue", first[0], where="x = 1")
    assert turns.history == (
        Turn(None, ("red",), first),
        Turn(first[0], ("blue",), first[1:], "x = 1"),
    )
    assert [turn.text for turn in turns.history] == ["red", "blue"]
    with pytest.raises(AttributeError):
        turns.history[0].wishes = ()


def test_ask_keeps_the_reference_until_another_is_picked(turns):
    photo = drawn_photo()
    turns.ask(reference=photo)
    turns.ask("red")
    turns.ask(reference="d")
    turns.ask("longer")
    assert turns.model.asked == [
        ("image", photo),
        ("both", photo, "red", None),
        ("both", "d", "red", None),
        ("both", "d", "red and longer", None),
    ]
    assert turns.history[0].text is None


def test_ask_with_an_id_alone_encodes_its_photo(turns):
    found = turns.ask(reference="b")
    assert turns.model.asked == [("image", "b.png")]
    assert [match.id for match in found] == ["a", "c", "d", "e"]


def test_ask_takes_an_id_before_a_path(turns, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "photo.png"):
        (tmp_path / name).touch()
    turns.ask(reference="photo.png")
    turns.ask(reference="a")
    assert turns.model.asked == [("image", "photo.png"), ("image", "a.png")]


def test_undo_removes_the_last_turn(turns):
    first = turns.ask("red")
    turns.ask("blue", first[0])
    undone = turns.undo()
    assert (undone.wishes, turns.wishes, turns.picked) == (("blue",), ("red",), ())
    assert [match.id for match in turns.ask("long")] == IDS
    assert turns.wishes == ("red", "long")
    turns.undo()
    turns.undo()
    with pytest.raises(InputError, match="no turn to take back; ask first"):
        turns.undo()


def test_ask_first_with_nothing_is_refused(turns):
    with pytest.raises(InputError, match="first turn needs a text or a reference photo, got neither"):
        turns.ask()
    assert turns.history == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": " \n"}, "text must be a wish that is not empty"),
        ({"text": 3}, "text must be a wish that is not empty, got 3"),
        ({"text": "red", "reference": "f"}, "'f' is neither an id of the gallery nor a photo file"),
        ({"text": "red", "reference": "x" * 5000}, "neither an id"),
        ({"text": "red", "reference": "a\0b"}, "neither an id"),
        ({"text": "red", "reference": Match("z", 0.1)}, "reference 'z' is not in the gallery"),
        ({"text": "red", "where": "bad"}, "where can't be read"),
        ({"text": "red", "exclude": "abc"}, "exclude must be a collection of ids, got the text 'abc'"),
    ],
)
def test_ask_that_fails_leaves_no_trace(turns, arguments, message):
    turns.ask("green", "e")
    before = turns.history
    with pytest.raises(InputError, match=message):
        turns.ask(**arguments)
    assert turns.history == before
    assert (turns.wishes, turns.picked) == (("green",), ("e",))


def test_ask_with_a_reference_without_a_path_is_refused(turns):
    turns.gallery.rows["a"] = Match("a", 0.5)
    with pytest.raises(InputError, match="'a' was added without a path; give its photo"):
        turns.ask(reference="a")


def test_ask_without_a_composer_works_by_text_or_image_alone(turns, monkeypatch):
    def refuse(*args, **options):
        raise UnsupportedError("no composer")

    monkeypatch.setattr(Model, "compose", refuse)
    turns.ask("red")
    with pytest.raises(UnsupportedError, match="no composer"):
        turns.ask("blue", "a")
    assert turns.wishes == ("red",)


def test_ask_with_the_same_text_twice_keeps_it_once(turns):
    turns.ask("Red  dots")
    turns.ask("red dots")
    assert turns.wishes == ("red dots",)


REMAINING = [
    ("red", "blue instead", None),
    ("long sleeves", "sleeveless", None),
    ("long-sleeved", "with short sleeves", None),
    ("looser", "a tight fit", None),
    ("v neckline", "crew neck", None),
    ("striped", "no stripes", None),
    ("embroidery", "pleats", None),
    ("gray", "gray", None),
    ("light blue", "dark blue", None),
    ("darker", "no, lighter", None),
    ("red instead of blue", "green", None),
    ("not red", "red after all", None),
    ("red stripes", "dots", None),
    ("red logo", "blue logo", None),
    ("is red with long sleeves", "blue", "long sleeves"),
    ("a long-sleeved red dress", "make it navy", "a long-sleeved dress"),
    ("An orange jumpsuit", "black", "A jumpsuit"),
    ("cotton, red and floral", "polka dots", "cotton and red"),
    ("light blue", "darker", "blue"),
    ("longer sleeves and a collar", "sleeveless", "a collar"),
    ("red", "long sleeves", "red"),
    ("red", "with white buttons", "red"),
    ("red", "not blue", "red"),
    ("blue", "darker", "blue"),
    ("white collar", "red", "white collar"),
    ("deep v-neck", "lighter", "deep v-neck"),
    ("赤い服", "red", "赤い服"),
    ("İİİ red", "blue", "İİİ"),
    ("navy", "blue", None),
    ("...", "red", "..."),
]


@pytest.mark.parametrize(("earlier", "newer", "kept"), REMAINING, ids=lambda value: str(value).replace(" ", "_"))
def test_vocabulary_remaining_is_what_a_newer_text_leaves(earlier, newer, kept):
    assert remaining(earlier, newer, Vocabulary(Taxonomy.load("default"))) == kept


def test_ask_takes_what_is_not_wanted_out_of_the_query(turns):
    turns.ask("long sleeves, not blue", "a")
    assert turns.model.asked == [("text", "blue"), ("both", "a", "long sleeves", None)][::-1]
    assert turns.gallery.negatives == [(1, None, None)]
    assert turns.history[-1].understood == "long sleeves, not blue"
    turns.ask("without stripes")
    assert turns.model.asked[2:] == [("both", "a", "long sleeves", None), ("text", "blue")]
    assert turns.history[-1].understood == "long sleeves, not blue, without stripes"
    assert turns.wishes == ("long sleeves, not blue", "without stripes")
    turns.undo()
    assert turns.history[-1].understood == "long sleeves, not blue"


def test_ask_with_negative_wishes_alone_goes_on_from_the_photo_or_from_any_garment(turns):
    turns.ask("not blue", "a")
    assert turns.model.asked == [("image", "a.png"), ("text", "blue")]
    fresh = Refinement(Model(), Shelf())
    fresh.ask("anything but black")
    assert fresh.model.asked == [("text", "a photo of clothing"), ("text", "black")]
    assert fresh.history[-1].understood == "not black"


def test_ask_removes_an_earlier_wish_that_a_negative_takes_back(turns):
    for wish in ("blue", "a belt", "short sleeves", "not blue", "no belt", "longer sleeves"):
        turns.ask(wish)
    assert turns.wishes == ("not blue", "no belt", "longer sleeves")
    turns.ask("navy after all")
    assert turns.wishes == ("no belt", "longer sleeves", "navy after all")


def test_ask_with_a_wish_that_contradicts_itself_is_refused_in_one_line(turns):
    with pytest.raises(
        InputError, match=r"^text asks for red and for no red, got 'red, not red'; keep one of the two$"
    ):
        turns.ask("red, not red")
    assert turns.history == ()


@pytest.mark.parametrize(
    "text", ["red but not red", "without stripes, striped", "a collar, no collar", "long sleeves but no long sleeves"]
)
def test_ask_refuses_what_is_wanted_and_refused(turns, text):
    with pytest.raises(InputError, match=r"^text asks for .* and for no .*; keep one of the two$"):
        turns.ask(text, "a")
    assert turns.model.asked == []


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("long sleeves and short sleeves", "long sleeves and short sleeves exclude each other"),
        ("red, sleeveless, with long sleeves", "sleeveless and long sleeves exclude each other"),
        ("a crew neck and a v neck", "crew neck and v neck exclude each other"),
    ],
)
def test_ask_searches_for_two_values_of_one_thing_and_says_so(turns, text, note):
    turns.ask(text, "a")
    assert turns.model.asked == [("both", "a", text, None)]
    assert turns.history[-1].understood == f"{text}; {note}"


@pytest.mark.parametrize(
    "text",
    [
        "long or short sleeves", "red and blue", "short sleeves instead of long sleeves", "long sleeves, v neck",
        "a v neck with a collar",
    ],
)  # fmt: skip
def test_ask_has_no_note_where_nothing_is_excluded(turns, text):
    turns.ask(text)
    assert "exclude" not in turns.history[-1].understood


def test_ask_with_a_wish_that_only_negates_keeps_the_photo(turns):
    photo = drawn_photo()
    turns.ask("not blue, no collar", photo)
    assert turns.model.asked[0] == ("image", photo)
    assert turns.history[-1].understood == "not blue, without collar"


def test_ask_puts_what_is_recognized_as_unwanted_last():
    taxonomy = Taxonomy.load("default")
    turns = Refinement(Model(), Shelf(fields=("color", "texture"), taxonomy=taxonomy))
    found = turns.ask("not red, no print", where="price < 5")
    conditions = (
        '("color" is null or "color" not in (\'red\'))'
        " and (\"texture\" is null or \"texture\" not in ('animal', 'dotted', 'floral', 'graphic', 'other_print'))"
    )
    assert turns.gallery.negatives == [(1, conditions, "price < 5")]
    assert [match.id for match in found] == IDS
    turns.ask("not navy, no lace")
    assert turns.gallery.negatives[-1] == (1, conditions, None)


def test_ask_replaces_texts_by_the_words_of_the_taxonomy():
    heel = {"values": {"flat": "flat heel", "stiletto": "stiletto heel"}}
    taxonomy = {"category": {"values": ["boot", "shoe"]}, "attributes": {"heel": heel}}
    turns = Refinement(Model(), Shelf(), taxonomy=taxonomy)
    for wish in ("a flat heel", "long sleeves", "red", "stiletto heels", "sleeveless", "navy"):
        turns.ask(wish)
    assert turns.wishes == ("long sleeves", "stiletto heels", "sleeveless", "navy")


def test_refinement_uses_the_taxonomy_of_the_gallery_whole():
    heel = {"values": {"flat": "flat heel", "stiletto": "stiletto heel"}}
    own = Taxonomy.load({"name": "default", "category": {"values": ["boot", "shoe"]}, "attributes": {"heel": heel}})
    turns = Refinement(Model(), Shelf(taxonomy=own))
    for wish in ("a flat heel", "long sleeves", "stiletto heels", "sleeveless"):
        turns.ask(wish)
    assert turns.wishes == ("long sleeves", "stiletto heels", "sleeveless")
    shipped = Refinement(Model(), Shelf(taxonomy=own), taxonomy="default")
    shipped.ask("long sleeves")
    shipped.ask("sleeveless")
    assert shipped.wishes == ("sleeveless",)


@pytest.fixture
def drawn(monkeypatch):
    """What `draw_board` was called with."""
    calls = []

    def record(matches, **options):
        calls.append((matches, options))
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("fashion_retrieval.gallery.board.draw_board", record)
    return calls


def test_draw_shows_the_last_turn(turns, drawn):
    with pytest.raises(InputError, match="there is no turn yet; ask first"):
        turns.draw()
    turns.ask("red", "a", top_k=2, where="x = 1")
    turns.draw(width=700)
    [(matches, options)] = drawn
    assert [match.id for match in matches] == ["b", "c"]
    assert options["reference"].id == "a"
    assert (options["text"], options["width"]) == ("red", 700)
    assert options["caption"] == "2 of 5 photos · drawn · x = 1"
    assert options["explanation"].mix == ("photo 40 %", "text 60 %")


def test_explain_is_of_the_last_turn_and_of_what_went_into_its_query(turns):
    with pytest.raises(InputError, match="there is no turn yet; ask first"):
        turns.explain()
    turns.ask("red, not blue", "a", text_weight=0.7)
    assert turns.explain().words == (("red", 1.0),)
    assert turns.model.explained == ("a", "red", 0.7)
    turns.ask("not red")
    turns.explain()
    assert turns.model.explained == ("a", None, None)
    alone = Refinement(Model(), Shelf())
    alone.ask("not red")
    alone.explain()
    assert alone.model.explained == (None, "a photo of clothing", None)


def test_a_board_without_wishes_or_photo_explains_nothing(turns, drawn):
    for given in (("red", "e"), (None, "a")):
        fresh = Refinement(Model(), Shelf())
        fresh.ask(*given)
        fresh.draw()
        assert drawn[-1][1]["explanation"] is None
        assert not hasattr(fresh.model, "explained")


def test_draw_recognizes_a_photo_from_elsewhere_where_the_gallery_is_recognized(drawn):
    plain, recognized = Refinement(Model(), Shelf()), Refinement(Model(), Shelf(fields=["category"]))
    photo = drawn_photo()
    for turns in (plain, recognized):
        turns.ask("red", photo)
        turns.draw()
    assert drawn[0][1]["reference"] is photo
    assert isinstance(drawn[1][1]["reference"], Recognition)
    assert recognized.model.asked[-1] == ("recognize", photo, "default")


def test_max_pixels_reaches_whatever_reads_a_reference(drawn, tmp_path):
    turns = Refinement(Model(), Shelf(fields=("category",)), max_pixels=70)
    photo = tmp_path / "x.png"
    drawn_photo((8, 8)).save(photo)
    turns.ask(reference=photo)
    turns.ask("red")
    turns.draw()
    assert turns.model.limits == [70, 70, 70]
    assert drawn[0][1]["max_pixels"] == 70
    with pytest.raises(InputError, match="max_pixels must be a whole number of at least 1 or None, got 0"):
        Refinement(Model(), Shelf(), max_pixels=0)


def test_several_texts_at_once_are_held_as_one_after_the_other(turns):
    turns.ask(["red", "with stripes", "in green"])
    assert turns.wishes == ("with stripes", "in green")
    assert len(turns.history) == 1
