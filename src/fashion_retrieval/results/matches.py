"""The answer of a gallery: matches, best first, as rows, a table, a file or a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from fashion_retrieval._utils.files import check_target, write_text
from fashion_retrieval.errors import MissingExtraError
from fashion_retrieval.results.retrieval import Match
from fashion_retrieval.results.values import Scalar

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # its type hints are a package of their own

ENDINGS = (".csv", ".jsonl", ".html")
_COLUMNS = ("id", "score", "photo")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is a formula to a spreadsheet."""
_SHOWN = 50
"""Most results that a notebook shows by itself."""


class Matches(list[Match]):
    """The matches of one search, best first: a list, and so is a slice of it. A notebook shows it as a board."""

    @overload
    def __getitem__(self, place: SupportsIndex) -> Match: ...
    @overload
    def __getitem__(self, place: slice) -> Matches: ...
    def __getitem__(self, place: SupportsIndex | slice) -> Match | Matches:
        found = super().__getitem__(place)
        return found if isinstance(found, Match) else Matches(found)

    def to_dicts(self) -> list[dict[str, Any]]:
        """A JSON-ready dict for each, `Match.to_dict`."""
        return [match.to_dict() for match in self]

    def to_pandas(self) -> pd.DataFrame:
        """A table with the columns id, score and photo, and one for each field.

        A field named like one of the three has "fields." before its name. Whole numbers and truth values stay such
        where some are null, as pandas' Int64 and boolean.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError(f"to_pandas needs pandas ({error}); run: pip install pandas") from error
        kinds = {int: "Int64", bool: "boolean"}
        columns = {}
        for name, values in self._columns().items():
            types = {type(value) for value in values if value is not None}
            kind = kinds.get(types.pop()) if None in values and len(types) == 1 else None
            columns[name] = pandas.Series(values, dtype=kind or (None if values else object))
        return pandas.DataFrame(columns)

    def to_html(self) -> str:
        """The board as a page of its own: selectable text, thumbnails inside it; nothing is fetched, nothing runs.

        Raises:
            InputError: There are more than 200 matches.
        """
        from fashion_retrieval.results.board import Board  # what draws is loaded when it is used
        from fashion_retrieval.results.page import page_of

        return page_of(Board.of(self, caption=_count(len(self))))

    def save(self, path: str | Path) -> None:
        """Write a file, whole or not at all.

        Args:
            path: "….csv" has the columns of `to_pandas`: texts stand in quotes, nulls are empty, numbers are exact, and
                an apostrophe comes before a text that a spreadsheet would compute ("=1+1"). "….jsonl" has a line of
                JSON for each match. "….html" is `to_html`.

        Raises:
            InputError: Another ending, no such folder, or too many matches for a board.
        """
        target = check_target(path, ENDINGS)
        write = {".csv": self._to_csv, ".jsonl": self._to_json_lines, ".html": self.to_html}[target.suffix.lower()]
        write_text(target, write())

    def _to_json_lines(self) -> str:
        return "".join(f"{json.dumps(row)}\n" for row in self.to_dicts())

    def _to_csv(self) -> str:
        columns = self._columns()
        rows = [tuple(columns), *zip(*columns.values(), strict=True)]
        return "".join(",".join(map(_cell, row)) + "\r\n" for row in rows)

    def _columns(self) -> dict[str, list[Scalar | None]]:
        """Values by column."""
        fields = dict.fromkeys(name for match in self for name in match.fields)
        names = dict.fromkeys(_COLUMNS)
        columns: dict[str, list[Scalar | None]] = {name: [getattr(match, name) for match in self] for name in names}
        for name in fields:
            column = name
            while column in names or (column != name and column in fields):
                column = f"fields.{column}"
            columns[column] = [match.fields.get(name) for match in self]
        return columns

    def _repr_html_(self) -> str:
        from fashion_retrieval.results.board import Board
        from fashion_retrieval.results.page import part_of

        shown = self[:_SHOWN]
        told = _count(len(self)) if len(shown) == len(self) else f"the first {_SHOWN} of {_count(len(self))}"
        return part_of(Board.of(shown, caption=told))


def _cell(value: Scalar | None) -> str:
    if isinstance(value, str):
        shielded = f"'{value}" if value.startswith(_FORMULA) else value
        return '"' + shielded.replace('"', '""') + '"'
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _count(number: int) -> str:
    return f"{number:,} result{'' if number == 1 else 's'}"
