"""One filter language: what it reads, what it refuses, and that both stores answer like a plain Python filter."""

from __future__ import annotations

import fnmatch
import re

import pytest
from sqlglot.tokens import Tokenizer

from fashion_retrieval.errors import InputError, UnsupportedError
from fashion_retrieval.gallery.engines import lancedb, milvus
from fashion_retrieval.gallery.filters import like_prefix, parse_where
from tests.support.galleries import ENGINES, FIELDS, clustered, empty_gallery, rows
from tests.support.random_filters import differences, random_rows

NASTY = [
    "it's",
    'a "quote"',
    "back\\slash",
    "50%",
    "a_b",
    "line\nbreak",
    "😀é",
    "'; DROP TABLE photos; --",
    "",
    "tab\t",
]
CATEGORY = ["dress", "shirt", None, "skirt", "Dress", "dressing gown", *NASTY, None, "\U0010ffff!"]
PRICE = [5.0, None, 19.5, -3.25, 0.0, 1e-7, 100.0, 5.0, 7.5, 1e12, None, 2.0, 3.0, 4.0, 5.5, 6.0, None, 8.0]
STOCK = [0, 1, None, -5, 2**63 - 1, -(2**63 - 1), 7, 7, 8, 9, 10, 11, 12, None, 14, 15, 16, 17]
SALE = [True, False, None] * 6
SLEEVE = ["長い", "短い", None] * 6
TABLE = {"category": CATEGORY, "price": PRICE, "stock": STOCK, "sale": SALE, "袖 丈": SLEEVE}


def like(value, pattern):
    """SQL's LIKE through fnmatch: % is *, _ is ?, a backslash takes either as itself."""
    parts = re.findall(r"\\[\\%_]|.", pattern, re.DOTALL)
    marks = {"%": "*", "_": "?"}
    glob = "".join(marks.get(part) or f"[{part[-1]}]" if part[-1] not in "!^" else part[-1] for part in parts)
    return value is not None and fnmatch.fnmatchcase(value, glob)


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


FILTERS = {
    "category = 'dress'": lambda r: r["category"] == "dress",
    "category != 'dress'": lambda r: r["category"] not in ("dress", None),
    "not category = 'dress'": lambda r: r["category"] not in ("dress", None),
    "category <> 'dress' and price >= 5": lambda r: (
        r["category"] not in ("dress", None) and r["price"] is not None and r["price"] >= 5
    ),
    "category < 'dress'": lambda r: r["category"] is not None and r["category"].encode() < b"dress",
    "category is null": lambda r: r["category"] is None,
    "category IS NOT NULL": lambda r: r["category"] is not None,
    "not (category is null or price is null)": lambda r: None not in (r["category"], r["price"]),
    "category in ('dress', 'shirt')": lambda r: r["category"] in ("dress", "shirt"),
    "category not in ('dress', 'shirt')": lambda r: r["category"] not in ("dress", "shirt", None),
    "category like 'dress%'": lambda r: like(r["category"], "dress%"),
    "category not like 'dress%'": lambda r: r["category"] is not None and not like(r["category"], "dress%"),
    "category not in ('a', 'dress') or category not in ('b', 'c')": lambda r: r["category"] is not None,
    "price in (-0.0, 7.5)": lambda r: r["price"] in (0.0, 7.5),
    r"category like '50\%'": lambda r: r["category"] == "50%",
    r"category like 'a\_%'": lambda r: r["category"] == "a_b",
    r"category like 'back\\%'": lambda r: r["category"] == "back\\slash",
    "category like '%'": lambda r: r["category"] is not None,
    "category not like '%'": lambda r: False,
    "category like 'line%'": lambda r: r["category"] == "line\nbreak",
    "category like '\U0010ffff%'": lambda r: r["category"] == "\U0010ffff!",
    "price = 5": lambda r: r["price"] == 5,
    "price = 0.0000001": lambda r: r["price"] == 1e-7,
    "price < -1.5e0": lambda r: r["price"] == -3.25,
    "price between 5 and 7.5": lambda r: r["price"] is not None and 5 <= r["price"] <= 7.5,
    "price not between 5 and 7.5": lambda r: r["price"] is not None and not 5 <= r["price"] <= 7.5,
    "stock = 9223372036854775807": lambda r: r["stock"] == 2**63 - 1,
    "stock >= -9223372036854775807": lambda r: r["stock"] is not None,
    "stock in (7, 8, -5)": lambda r: r["stock"] in (7, 8, -5),
    "sale": lambda r: r["sale"] is True,
    "not sale": lambda r: r["sale"] is False,
    "sale = false or price > 99": lambda r: r["sale"] is False or (r["price"] or 0) > 99,
    "sale != true": lambda r: r["sale"] is False,
    "\"袖 丈\" = '長い' and not (sale = false or stock < 5)": lambda r: (
        r["袖 丈"] == "長い" and r["sale"] is True and r["stock"] is not None and r["stock"] >= 5
    ),
    "(category = 'dress' or category = 'shirt') and (price > 1 or price is null)": lambda r: (
        r["category"] in ("dress", "shirt") and (r["price"] is None or r["price"] > 1)
    ),
} | {f"category = {quoted(text)}": (lambda r, text=text: r["category"] == text) for text in NASTY}


@pytest.fixture(scope="module", params=ENGINES)
def store(request, tmp_path_factory):
    opened = ENGINES[request.param].open(empty_gallery(request.param, tmp_path_factory.mktemp("where")))
    opened.write(rows(clustered(len(CATEGORY)), **TABLE))
    yield opened
    opened.close()


def matching(store, where):
    query = clustered(1, seed=7)[0]
    return {row.id: row.fields for row in store.nearest(query, 100, parse_where(where, FIELDS))}


@pytest.mark.parametrize("budget", [lancedb.MEMORY_BUDGET, 0])
def test_every_store_answers_like_python(store, budget, monkeypatch):
    monkeypatch.setattr(lancedb, "MEMORY_BUDGET", budget)
    records = {row.id: row.fields for row in rows(clustered(len(CATEGORY)), **TABLE)}
    for where, wanted in FILTERS.items():
        expected = {name: fields for name, fields in records.items() if wanted(fields)}
        assert matching(store, where) == expected, where


def test_like_with_any_pattern_works_or_is_refused(store):
    for pattern in ("%ress%", "_ress", "%k", "d%g%n", r"%\%", "_"):
        where = f"category like '{pattern}'"
        if store.name == "milvus":
            with pytest.raises(UnsupportedError, match="Milvus takes LIKE with % at the end only"):
                matching(store, where)
        else:
            found = [fields["category"] for fields in matching(store, where).values()]
            assert sorted(found) == sorted(value for value in CATEGORY if like(value, pattern)), pattern


def test_deep_and_long_filters_work(store):
    deep = "price > 1"
    for level in range(11):
        deep = f"({deep} {'and' if level % 2 else 'or'} stock > {level})"
    long = " or ".join(f"stock = {number}" for number in range(400))
    assert len(matching(store, long)) == sum(value is not None and 0 <= value < 400 for value in STOCK)
    assert len(matching(store, deep)) > 0


def test_random_filters_find_what_sqlite_finds(store, monkeypatch):
    before, given = store.read([f"p{number:05}" for number in range(len(CATEGORY))]), random_rows(120, seed=3)
    store.write(given)
    for budget in (lancedb.MEMORY_BUDGET, 0)[: 1 if store.name == "milvus" else 2]:
        monkeypatch.setattr(lancedb, "MEMORY_BUDGET", budget)
        outcomes = list(differences(store, given, 200, seed=4))
        assert [where for outcome, where in outcomes if outcome == "different"] == []
        assert sum(outcome == "same" for outcome, _ in outcomes) >= (180 if store.name == "milvus" else 200)
    store.remove([row.id for row in given])
    store.write(list(before.values()))


def rendered(where, fields=FIELDS, **options):
    """The condition as nested tuples: (field, operator, values), or (operator, part, part …)."""
    return parse_where(where, fields, **options).render(lambda *comparison: comparison, lambda op, parts: (op, *parts))


def test_render_moves_negations_into_the_comparisons():
    assert rendered("not (category = 'a' and (price < 1 or stock in (1, 2)))") == (
        "or",
        ("category", "!=", ("a",)),
        ("and", ("price", ">=", (1.0,)), ("stock", "not in", (1, 2))),
    )
    assert rendered("category like 'no wildcard'") == ("category", "=", ("no wildcard",))


def test_parse_where_takes_the_old_name_of_a_field_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"the field 'kind' is now 'category'; the old name goes in release"):
        found = rendered("kind = 'a' or not (stock > 1 and kind is null)", renamed={"kind": "category"})
    assert found == rendered("category = 'a' or not (stock > 1 and category is null)")
    assert rendered("stock = 1", renamed={"stock": "price"}) == ("stock", "=", (1,))


def test_filter_renders_for_both_stores():
    condition = parse_where("category = 'it''s' and not stock in (1, -2) and price is null and sale", FIELDS)
    columns = {name: f"f{number}" for number, name in enumerate(FIELDS)}
    assert lancedb.render(condition, columns) == (
        "(f0 = 'it''s' AND (f2 IS NOT NULL AND f2 NOT IN (1, -2)) AND f1 IS NULL AND f3 = true)"
    )
    assert milvus.render(condition, columns) == (
        '(((f0_set == true and f0 == "it\\047s") and (f2_set == true and f2 not in [1, -2]))'
        " and ((f1_set == false) and (f3_set == true and f3 == true)))"
    )


def test_like_prefix_is_the_text_before_a_final_percent_sign():
    assert [like_prefix(p) for p in ("long%", "long%%", "%", r"50\%%", "l_ng%", "%long", "long")] == (
        ["long", "long", "", "50%", None, None, None]
    )


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "where must be a text such as"),
        (7, "got 7"),
        ("category = '\ud800'", "must be a text that UTF-8 can hold"),
        ("category = '\0'", "must be a text that UTF-8 can hold"),
        ("price = 1" + "0" * 400, "expects a finite number"),
        ("stock = -9223372036854775808", "expects a whole number of 64 bits"),
        ("stock in (1, 1" + "0" * 5000 + ")", "expects a whole number of 64 bits"),
        ("category =", "can't be read"),
        ("category = 'a", "can't be read"),
        ("category = 'a'; sale", "must be one condition"),
        ("category = 'a'; drop table photos", "can't be read"),
        ("select 1", "can't be read"),
        ("drop table photos", "can't be read"),
        ("show tables", "can't be read"),
        ("sale; show tables", "can't be read"),
        ("袖 丈 = '長い'", "; put the field name '袖 丈' in double quotes"),
        ("color = 'red'", "unknown field 'color'; this gallery's fields are: category, price, stock, sale, 袖 丈"),
        ("Category = 'red'", "unknown field 'Category'"),
        ('category = "dress"', "expects a text in single quotes for 'category', got '\"dress\"'"),
        ("category = 5", "expects a text in single quotes"),
        ("category = -'a'", "expects a text in single quotes"),
        ("price = 'cheap'", "expects a finite number for 'price', got \"'cheap'\""),
        ("price < 1e999", "expects a finite number"),
        ("stock = 1.5", "expects a whole number of 64 bits"),
        ("stock = 9223372036854775808", "expects a whole number of 64 bits"),
        ("sale = 1", "expects true or false"),
        ("sale > false", "can't use > on 'sale'"),
        ("price like '5%'", "can't use LIKE on 'price', a float"),
        ("category like '%5\\'", "ends in a single backslash; write two for one"),
        ("category ilike 'd%'", "can't use"),
        ("category = null", "never true; use category IS NULL"),
        ("category", "names field 'category' alone"),
        ("'dress' = category", "must have a field at the left"),
        ("photos.category = 'dress'", "must have a field at the left"),
        ("lower(category) = 'dress'", "must have a field at the left"),
        ("category in ()", "can't use"),
        ("category in (select id from photos)", "can't use"),
        ("stock = price", "expects a whole number"),
        ("stock = 1 + 1", "expects a whole number"),
        ("price = 1 limit 5", "can't be read"),
        ("1 = 1", "must have a field at the left"),
        ("true", "can't use"),
        ("category = 'a' or " * 800 + "sale", "at most 10000 characters"),
        ("(" * 4000 + "sale" + ")" * 4000, "can't be read"),
        ("".join(f"sale {'and' if i % 2 else 'or'} (" for i in range(20)) + "sale" + ")" * 20, "at most 12 deep"),
    ],
)
def test_parse_where_refuses_with_a_message(where, message):
    with pytest.raises(InputError) as caught:
        parse_where(where, FIELDS)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 320


def test_words_of_sql_are_field_names_and_nothing_is_logged(caplog):
    words = {word.lower() for word in Tokenizer.KEYWORDS if re.fullmatch(r"\w+", word)} | {"if", "key", "next", "cast"}
    assert len(words) > 250
    refused = {}
    for word in words:
        for where in ("{} = 1", "({} < 3)", "a or {} in (1, 2)", "not {} is null and {} not between 1 and 2"):
            fields = {word: int, "a": bool}
            expected = rendered(where.replace("{}", f'"{word}"'), fields)
            try:
                found = rendered(where.replace("{}", word), fields)
            except InputError as error:
                refused[word] = str(error)
            else:
                assert found == expected, word
    assert refused.keys() == {"and", "between", "false", "like", "not", "null", "or", "true"}
    for word, message in refused.items():
        assert message.endswith(f"; put the field name {word!r} in double quotes")
    assert caplog.records == []
