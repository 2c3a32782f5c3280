"""Random filters on rows of hostile values, answered by each engine and by SQLite, which must agree.

python -m tests.support.random_filters --number 5000      # writes benchmarks/results/filters.json

SQLite compares as `where` does, with three settings: LIKE regards case (PRAGMA case_sensitive_like), its escape is the
backslash (ESCAPE '\\'), and numbers are bound in the type of their field.
"""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fashion_retrieval.errors import UnsupportedError
from fashion_retrieval.gallery.engines import lancedb
from fashion_retrieval.gallery.engines.base import Row, VectorStore
from fashion_retrieval.gallery.filters import parse_where
from tests.support.galleries import ENGINES, FIELDS, clustered, empty_gallery, rows

KINDS = ("lancedb in memory", "lancedb on disk", "milvus")
_TEXT = [*"""'"\\%_aAbBéÉß袖😀\n\r\t .*+?[](){}^$|""", *"\x01\x7f\u017f\u2028\u212a\U0010ffff", "e\u0301", "\\%"]
_WHOLE = [0, 1, -1, 2, 3, 7, 2**31, -(2**31), 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63 - 2, -(2**63) + 1]
_REAL = [0.0, -0.0, 0.1, 0.2, 0.1 + 0.2, 0.3, 1 / 3, 1e308, -1e308, 5e-324, -5e-324, 2.2250738585072014e-308, 1e-7, 1.0]
_REAL += [2.0, -1.5, 7.0, float(2**53), float(2**53 + 2), 1e22, 123456789.123456789, 1.7976931348623157e308]
_TEXTS = [name for name, kind in FIELDS.items() if kind is str]
_ORDERS = ("=", "!=", "<>", "<", "<=", ">", ">=")
Condition = tuple[str, str, list[object]]
"""A condition for `where`, the same for SQLite, and the values of the latter."""


def random_rows(number: int, seed: int) -> list[Row]:
    """Rows with fields of every kind, a quarter of them null."""
    dice = random.Random(seed)
    makers = {str: _text, int: _whole, float: _real, bool: lambda dice: dice.random() < 0.5}
    columns = {
        name: [None if dice.random() < 0.25 else makers[kind](dice) for _ in range(number)]
        for name, kind in FIELDS.items()
    }
    return rows(clustered(number), **columns)


class Asker:
    """Makes random conditions about rows, most of them with values that the rows have."""

    def __init__(self, given: list[Row], seed: int, *, prefixes: bool) -> None:
        self._dice = random.Random(seed)
        self._values = {n: [row.fields[n] for row in given if row.fields[n] is not None] for n in FIELDS}
        self._prefixes = prefixes

    def condition(self, depth: int = 0) -> Condition:
        """A tree of AND, OR and NOT."""
        if depth == 4 or self._dice.random() < 0.3 + 0.15 * depth:
            return self._comparison()
        if self._dice.random() < 0.25:
            where, sql, values = self.condition(depth + 1)
            return f"not ({where})", f"NOT ({sql})", values
        parts = [self.condition(depth + 1) for _ in range(self._dice.choice([2, 2, 3]))]
        word = self._dice.choice(["and", "or"])
        wheres, sqls = (f" {word} ".join(f"({part[which]})" for part in parts) for which in (0, 1))
        return wheres, sqls, [value for part in parts for value in part[2]]

    def _comparison(self) -> Condition:
        name = self._dice.choice(list(FIELDS))
        kind, field = FIELDS[name], f'"{name}"'
        form = self._dice.choice(["order", "order", "in", "null", "bool" if kind is bool else "between"])
        if kind is str and self._dice.random() < 0.4:
            form = "like"
        negation = self._dice.choice(["", "not "])
        match form:
            case "null":
                return (f"{field} is {negation}null",) * 2 + ([],)
            case "bool":
                return f"{negation}{field}", f"{negation}{field}", []
            case "like":
                pattern = self._pattern(name)
                sql = f"{field} {negation}like ? escape '\\'"
                return f"{field} {negation}like {_written(pattern, self._dice)}", sql, [pattern]
            case "in":
                values = [self._value(name) for _ in range(self._dice.choice([1, 2, 3, 5, 20]))]
                listed = ", ".join(_written(value, self._dice) for value in values)
                return f"{field} {negation}in ({listed})", f"{field} {negation}in ({_marks(values)})", values
            case "between":
                low, high = self._value(name), self._value(name)
                written = f"{_written(low, self._dice)} and {_written(high, self._dice)}"
                return f"{field} {negation}between {written}", f"{field} {negation}between ? and ?", [low, high]
        operator, value = self._dice.choice(_ORDERS[:3] if kind is bool else _ORDERS), self._value(name)
        return f"{field} {operator} {_written(value, self._dice)}", f"{field} {operator} ?", [value]

    def _value(self, name: str) -> object:
        if self._dice.random() < 0.7:
            return self._dice.choice(self._values[name])
        makers = {str: _text, int: _whole, float: _real, bool: lambda dice: dice.random() < 0.5}
        return makers[FIELDS[name]](self._dice)

    def _pattern(self, name: str) -> str:
        """A pattern of a text of the rows, or of any; parts of it are wildcards, escaped or not."""
        text = str(self._value(name))
        if self._prefixes and self._dice.random() < 0.9:
            start = text[: self._dice.randint(0, len(text))]
            return "".join(f"\\{letter}" if letter in "\\%_" else letter for letter in start) + "%"
        letters = [self._dice.choice(["%", "_", letter, letter, f"\\{letter}", f"\\{letter}"]) for letter in text]
        pattern = self._dice.choice(["", "", "%", "%%", "_", "\\%"]) + "".join(letters) + self._dice.choice(["", "%"])
        return f"{pattern}%" if (len(pattern) - len(pattern.rstrip("\\"))) % 2 else pattern


def _text(dice: random.Random) -> str:
    return "".join(dice.choice(_TEXT) for _ in range(dice.choice([0, 1, 1, 2, 2, 3, 5])))


def _whole(dice: random.Random) -> int:
    return dice.choice(_WHOLE) if dice.random() < 0.7 else dice.randint(-(2**63) + 1, 2**63 - 1)


def _real(dice: random.Random) -> float:
    return dice.choice(_REAL) if dice.random() < 0.7 else dice.uniform(-10, 10) * 10.0 ** dice.randint(-300, 300)


def _marks(values: list[object]) -> str:
    return ", ".join("?" * len(values))


def _written(value: object, dice: random.Random) -> str:
    """A value as `where` has it."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6 and dice.random() < 0.5:
        return ("-" if str(value).startswith("-") else "") + str(abs(int(value)))
    return str(value).lower() if isinstance(value, bool) or dice.random() < 0.5 else str(value).upper()


class Oracle:
    """The same rows in SQLite."""

    def __init__(self, given: list[Row]) -> None:
        self._base = sqlite3.connect(":memory:")
        self._base.execute("PRAGMA case_sensitive_like = ON")
        types = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER"}
        columns = ", ".join(f'"{name}" {types[kind]}' for name, kind in FIELDS.items())
        self._base.execute(f"CREATE TABLE photos (id TEXT, {columns})")
        values = [(row.id, *(row.fields[name] for name in FIELDS)) for row in given]
        self._base.executemany(f"INSERT INTO photos VALUES (?, {_marks(list(FIELDS))})", values)

    def answer(self, sql: str, values: list[object]) -> set[str]:
        """The ids of the rows for which the condition is true."""
        return {id for (id,) in self._base.execute(f"SELECT id FROM photos WHERE {sql}", values)}

    def close(self) -> None:
        self._base.close()


def differences(store: VectorStore, given: list[Row], number: int, seed: int) -> Iterator[tuple[str, str]]:
    """What came of each filter, "same", "refused" or "different", and the filter."""
    asker = Asker(given, seed, prefixes=store.name == "milvus")
    query = given[0].vector
    with closing(Oracle(given)) as oracle:
        for _ in range(number):
            where, sql, values = asker.condition()
            wanted = oracle.answer(sql, values)
            try:
                found = {row.id for row in store.nearest(query, len(given), parse_where(where, FIELDS))}
            except UnsupportedError:  # Milvus, of LIKE with a wildcard that is not at the end
                yield "refused", where
            else:
                yield "same" if found == wanted else "different", where


def main(
    number: Annotated[int, typer.Option(help="Filters for each engine.")] = 5_000,
    seed: int = 10,
    out: Path = Path("benchmarks/results/filters.json"),
    show: Annotated[int, typer.Option(help="How many filters that differ are shown for each engine.")] = 10,
    only: Annotated[list[str] | None, typer.Option(help=f"Some of {', '.join(KINDS)}.")] = None,
) -> None:
    """Ask each engine and SQLite the same, and write how often they differ."""
    results = {}
    given = random_rows(300, seed)
    for kind in only or KINDS:
        lancedb.MEMORY_BUDGET = 0 if kind.endswith("disk") else 5 << 29
        begun, counts, differing = time.monotonic(), Counter[str](), []
        engine = kind.partition(" ")[0]
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(ENGINES[engine].open(empty_gallery(engine, Path(folder)))) as store,
        ):
            store.write(given)
            for outcome, where in differences(store, given, number, seed + 1):
                counts[outcome] += 1
                if outcome == "different":
                    differing.append(where)
        results[kind] = {"filters": number} | {name: counts[name] for name in ("same", "refused", "different")}
        print(kind, results[kind], f"{time.monotonic() - begun:.0f} s")
        for where in sorted(differing, key=len)[:show]:
            print("   ", repr(where))
    report = {"rows": len(given), "sqlite": sqlite3.sqlite_version, "results": results}
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
