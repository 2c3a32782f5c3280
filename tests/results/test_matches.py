"""Results as rows, tables, files and boards: exact, safe in a spreadsheet, escaped, in every script."""

import base64
import csv
import io
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval.errors import InputError, MissingExtraError
from fashion_retrieval.results import Explanation, Match, Matches
from fashion_retrieval.results.board import Board, Change, Tile
from fashion_retrieval.results.page import page_of, part_of

FIELDS = {"category": "dress", "price": 0.1 + 0.2, "stock": 2**62 + 1, "sale": True, "note": None}
NASTY = "\"><script>alert('x')</script>&amp;"
FOUND = Matches(
    [
        Match("a", 0.1234567, "photos/a.jpg", FIELDS),
        Match("ב", -0.0, None, dict.fromkeys(FIELDS)),
        Match("=1+1", 1.0, 'c, "d"\n.jpg', FIELDS | {"note": "", "category": "@SUM(A1)", "sale": False}),
    ]
)


class Reader(HTMLParser):
    """Collects elements, texts and attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.values = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.texts += [data.strip()] if data.strip() else []


def test_matches_slice_and_index():
    assert isinstance(FOUND, list)
    assert type(FOUND[:2]) is Matches
    assert FOUND[:2] == FOUND[0:2] == [FOUND[0], FOUND[1]]
    assert FOUND[-1].id == "=1+1"
    assert FOUND[np.int64(0)].id == "a"


def test_rows_are_json_with_exact_numbers():
    rows = json.loads(json.dumps(FOUND.to_dicts()))
    assert rows[0] == {"id": "a", "score": 0.1234567, "photo": "photos/a.jpg", "fields": FIELDS}
    assert Match("a", 0.5, views=("x", "y")).to_dict()["views"] == ["x", "y"]


def test_pandas_keeps_whole_numbers_and_truth_values_beside_nulls():
    table = FOUND.to_pandas()
    assert list(table.columns) == ["id", "score", "photo", *FIELDS]
    assert table["score"].tolist() == [0.1234567, 0.0, 1.0]
    assert (str(table["stock"].dtype), table["stock"][0], table["stock"].isna().tolist()) == (
        "Int64",
        2**62 + 1,
        [False, True, False],
    )
    assert (str(table["sale"].dtype), str(table["price"].dtype)) == ("boolean", "float64")
    assert table["price"][0] == 0.1 + 0.2
    assert table["photo"].isna().tolist() == [False, True, False]


def test_pandas_of_nothing_has_the_columns_of_every_match():
    assert list(Matches().to_pandas().columns) == ["id", "score", "photo"]
    assert len(Matches().to_pandas()) == 0


def test_fields_named_like_columns_get_a_prefix():
    found = Matches([Match("a", 0.5, None, {"id": "x", "score": 1, "fields.id": "y"})])
    row = found.to_pandas().iloc[0].to_dict()
    assert (row["id"], row["fields.score"], row["fields.id"], row["fields.fields.id"]) == ("a", 1, "y", "x")


def test_without_pandas_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"to_pandas needs pandas .*; run: pip install pandas$"):
        FOUND.to_pandas()


def test_csv_round_trips_and_no_text_is_a_formula(tmp_path):
    FOUND.save(tmp_path / "found.csv")
    text = (tmp_path / "found.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["id"] for row in rows] == ["a", "ב", "'=1+1"]
    assert (rows[2]["category"], rows[2]["photo"]) == ("'@SUM(A1)", 'c, "d"\n.jpg')
    assert [float(row["score"]) for row in rows] == [0.1234567, 0.0, 1.0]
    assert (float(rows[0]["price"]), int(rows[0]["stock"])) == (0.1 + 0.2, 2**62 + 1)
    assert [row["sale"] for row in rows] == ["true", "", "false"]
    assert text.splitlines()[1].endswith(",true,")  # null
    assert text.endswith(',false,""\r\n')  # an empty text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_shields_texts_but_not_numbers(tmp_path, start):
    Matches([Match(f"{start}1", -0.5, None, {"change": -2.5})]).save(tmp_path / "a.csv")
    (row,) = csv.DictReader(io.StringIO((tmp_path / "a.csv").read_bytes().decode(), newline=""))
    assert (row["id"], row["score"], row["change"]) == (f"'{start}1", "-0.5", "-2.5")


def test_json_lines_round_trip(tmp_path):
    odd = Match("line\u2028end", 0.25, None, {"name": "فستان"})
    Matches([*FOUND, odd]).save(tmp_path / "found.jsonl")
    lines = (tmp_path / "found.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == Matches([*FOUND, odd]).to_dicts()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("found.xlsx", r"must end in \.csv, \.jsonl, \.html, got 'found\.xlsx'"),
        ("found", "must end in"),
        ("none/found.csv", "must lie in an existing folder, .*; create .*none first"),
    ],
)
def test_save_refuses_other_places(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        FOUND.save(tmp_path / name)
    with pytest.raises(InputError, match="must be a path, got int"):
        FOUND.save(3)
    assert list(tmp_path.iterdir()) == []


def test_save_that_fails_leaves_the_old_file(tmp_path):
    many = Matches([Match(str(index), 0.5) for index in range(201)])
    (tmp_path / "board.html").write_text("before")
    with pytest.raises(InputError, match="at most 200 results, got 201; draw the first 200"):
        many.save(tmp_path / "board.html")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
    assert "the first 50 of 201 results" in many._repr_html_()


def noise(path, size=(900, 1200)):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)
    return str(path)


def test_page_holds_photos_and_text_and_nothing_else(tmp_path):
    photo = noise(tmp_path / "a.jpg")
    found = Matches([Match(f"item {index}", 0.9, photo, {"category": "dress", "color": "red"}) for index in range(10)])
    found.save(tmp_path / "board.html")
    page = (tmp_path / "board.html").read_text(encoding="utf-8")
    read = Reader(page)
    pictures = [value for tag, name, value in read.values if (tag, name) == ("img", "src")]
    assert len(pictures) == 10
    with Image.open(io.BytesIO(base64.b64decode(pictures[0].removeprefix("data:image/jpeg;base64,")))) as small:
        assert (small.format, small.size) == ("JPEG", (360, 480))
    assert {"script", "link", "iframe"} & set(read.tags) == set()
    assert not re.search(r"https?:|url\(|@import|\son\w+=", page)
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in read.values
    assert read.texts.count("red dress") == 10
    assert "10 results" in read.texts


def test_photos_of_common_kinds_are_small(tmp_path):
    rows = np.linspace(0, 255, 1200, dtype=np.uint8)
    Image.fromarray(np.repeat(np.stack([rows] * 3, -1)[:, None], 900, axis=1)).save(tmp_path / "a.jpg")
    page = Matches([Match(str(index), 0.5, str(tmp_path / "a.jpg")) for index in range(10)]).to_html()
    assert len(page.encode()) < 400_000


def test_everything_is_escaped():
    fields = {"category": NASTY, "color": NASTY, NASTY: NASTY}
    tiles = (Tile(Match(NASTY, 0.5, NASTY, fields), NASTY, (Change(NASTY, NASTY, True),)),)
    asked = Board(tiles, True, None, NASTY, NASTY, NASTY, NASTY)
    for page in (page_of(asked), Matches([tiles[0].match]).to_html(), Matches([tiles[0].match])._repr_html_()):
        read = Reader(page)
        assert "script" not in read.tags
        assert NASTY in read.texts
        assert ("h2", "title", NASTY) in read.values
        assert "photo not found" in read.texts


def test_every_script_stands_as_it_is_and_runs_its_own_way():
    names = ["فستان أحمر", "שמלה", "红色连衣裙", "ชุดเดรส", "लाल पोशाक", "드레스"]
    read = Reader(Matches([Match(name, 0.5, None, {"category": name}) for name in names]).to_html())
    assert [text for text in read.texts if text in names] == [name for name in names for _ in range(2)]
    assert read.values.count(("h2", "dir", "auto")) == 6
    assert read.values.count(("p", "dir", "auto")) == 7  # each category, and the count


def test_photos_that_are_missing_or_broken_are_empty_frames(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    found = Matches(
        [Match("a", 0.5), Match("b", 0.4, str(tmp_path / "no.jpg")), Match("c", 0.3, str(tmp_path / "broken.jpg"))]
    )
    read = Reader(found.to_html())
    assert read.texts.count("photo not found") == 3
    assert "img" not in read.tags


def test_board_tells_changes_and_what_the_marks_mean():
    changes = (*(Change(f"value {index}", "old", index == 0) for index in range(7)),)
    told = Board((Tile(Match("a", 0.5), "red dress", changes), Tile(Match("b", 0.5), "red dress", ())), text="red")
    texts = Reader(part_of(told)).texts
    assert "+ 2 more" in texts
    assert "as the reference" in texts
    assert texts.index("as asked for") < texts.index("changed besides") < texts.index("value 0")
    assert "value 5" not in texts
    assert "red dress" not in texts  # what differs is told in its place


def test_board_tells_what_moved_the_query():
    words = ((NASTY, 0.5), ("long", 0.25), ("now", 0.25))
    why = Explanation(np.ones((1, 1), np.float32), 0.375, 0.625, (0.1, 0.5), words)
    page = part_of(Board((), True, None, "x", "dress", f"{NASTY} long, not red now", explanation=why))
    read = Reader(page)
    assert "script" not in read.tags
    assert [value for tag, name, value in read.values if (tag, name) == ("mark", "style")] == [
        f"--moved: {part}%" for part in (100, 50, 50)
    ]
    assert [text for text in read.texts if text in ("not", "red")] == ["not", "red"]
    assert ("i", "style", "--photo: 37.5%") in read.values
    assert {"photo 38 %", "text 62 %"} <= set(read.texts)
    assert "mark" not in Reader(part_of(Board((), text="red now"))).tags
    alone = Explanation(np.ones((1, 1), np.float32), 0, 1, None, (("red", 0.5), ("now", 0.5)))
    assert "i" not in Reader(part_of(Board((), text="red now", explanation=alone))).tags


def test_several_photos_of_an_item_are_counted():
    assert "3 photos" in Reader(Matches([Match("a", 0.5, views=("b", "c"))]).to_html()).texts


def test_nothing_found_is_told():
    assert "Nothing found" in Reader(Matches().to_html()).texts
