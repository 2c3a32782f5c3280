"""The filter of a search: one SQL-like language, checked against the gallery's fields, for every engine."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, TypeAlias

from fashion_retrieval.errors import InputError

if TYPE_CHECKING:
    from sqlglot import exp

Scalar: TypeAlias = str | float | int | bool
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "not in", "like", "not like", "null", "not null"]

INT64 = 2**63 - 1
_LONGEST = 10_000
_DEEPEST = 12
_OPPOSITE: dict[Operator, Operator] = {
    "=": "!=",
    "<": ">=",
    ">": "<=",
    "in": "not in",
    "like": "not like",
    "null": "not null",
}
_OPPOSITE |= {after: before for before, after in _OPPOSITE.items()}
_EXPECTED = {
    str: "a text in single quotes",
    int: "a whole number of 64 bits",
    float: "a finite number",
    bool: "true or false",
}
_GRAMMAR = "=, !=, <, <=, >, >=, IN, LIKE, BETWEEN, IS NULL, AND, OR, NOT and parentheses"
_LIKE = re.compile(r"\\([\\%_])|(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against values of its type; not true where the field is null, unless the operator is "null".

    Attributes:
        field: A field of the gallery.
        operator: "like" takes % for any text, _ for one character and a backslash before either meant as itself.
        values: One, several for "in" and "not in", none for "null" and "not null".
    """

    field: str
    operator: Operator
    values: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True)
class Junction:
    """All of the parts, or any of them."""

    operator: Literal["and", "or"]
    parts: tuple[Condition, ...]


Condition: TypeAlias = Comparison | Junction
"""Negations are already drawn into the comparisons, so that unknown counts as false at every leaf, as in SQL."""


def parse_where(where: str, fields: Mapping[str, type]) -> Condition:
    """Read a filter like "category = 'dress' and not color in ('red', 'pink')".

    Args:
        where: The filter; names that are no plain words stand in double quotes.
        fields: What may be asked for, and whether it is str, int, float or bool.

    Raises:
        InputError: Not of this language, an unknown field, or a value of another type.
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    if not isinstance(where, str) or not where.strip():
        raise InputError(f"where must be a text such as \"category = 'dress'\", or None for no filter, got {where!r}")
    if len(where) > _LONGEST:
        raise InputError(f"where must have at most {_LONGEST} characters, got {len(where)}; use IN for many values")
    try:
        statements = sqlglot.parse(where, dialect="")
    except (SqlglotError, RecursionError, ValueError) as error:
        raise InputError(f"where {_shown(where)} can't be read; it is made of {_GRAMMAR}") from error
    tree = statements[0] if len(statements) == 1 else None
    if not isinstance(tree, sqlglot.exp.Expression):
        raise InputError(f"where {_shown(where)} must be one condition; it is made of {_GRAMMAR}")
    with suppress(RecursionError):
        condition = _Reader(fields).condition(tree, negated=False)
        if _height(condition) <= _DEEPEST:
            return condition
    raise InputError(f"where {_shown(where)} must nest AND and OR at most {_DEEPEST} deep; use IN for many values")


def like_prefix(pattern: str) -> str | None:
    """The text a pattern demands at the start, if that is all it demands ('long%'), else None."""
    pieces = list(like_pieces(pattern))
    prefix = "".join(text for text, _ in takewhile(lambda piece: not piece[1], pieces))
    return prefix if set(pieces[len(prefix) :]) == {("%", True)} else None


def like_pieces(pattern: str) -> Iterator[tuple[str, bool]]:
    """The characters of a pattern, and whether each is a wildcard."""
    for found in _LIKE.finditer(pattern):
        escaped, character = found.groups()
        yield (escaped, False) if escaped else (character, character in "%_")


class _Reader:
    def __init__(self, fields: Mapping[str, type]) -> None:
        self.fields = fields

    def condition(self, node: exp.Expr, negated: bool) -> Condition:
        from sqlglot import exp

        if isinstance(node, exp.Paren):
            return self.condition(node.this, negated)
        if isinstance(node, exp.Not):
            return self.condition(node.this, not negated)
        if isinstance(node, exp.And | exp.Or):
            parts = tuple(self.condition(part, negated) for part in node.flatten())
            return Junction("and" if isinstance(node, exp.And) != negated else "or", parts)
        if isinstance(node, exp.Between):
            name, bounds = self.field(node.this), ("low", "high")
            low, high = (self.value(name, node.args[bound]) for bound in bounds)
            both = Comparison(name, ">=", (low,)), Comparison(name, "<=", (high,))
            return Junction("or", tuple(map(_opposite, both))) if negated else Junction("and", both)
        if node.args.get("negate"):
            negated = not negated
        plain = self.comparison(node)
        return _opposite(plain) if negated else plain

    def comparison(self, node: exp.Expr) -> Comparison:
        from sqlglot import exp

        signs: dict[type[exp.Expr], Operator] = {
            exp.EQ: "=",
            exp.NEQ: "!=",
            exp.LT: "<",
            exp.LTE: "<=",
            exp.GT: ">",
            exp.GTE: ">=",
        }
        if isinstance(node, exp.Column):
            name = self.field(node)
            if self.fields[name] is not bool:
                raise InputError(f'where names field {name!r} alone; compare it, as in "{name} = …"')
            return Comparison(name, "=", (True,))
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return Comparison(self.field(node.this), "null")
        if isinstance(node, exp.In) and node.expressions:
            name = self.field(node.this)
            return Comparison(name, "in", tuple(self.value(name, value) for value in node.expressions))
        if isinstance(node, exp.Like):
            return self.like(self.field(node.this), node.expression)
        if type(node) not in signs:
            raise InputError(f"where can't use {_shown(node.sql())}; it is made of {_GRAMMAR}")
        name, operator = self.field(node.this), signs[type(node)]
        if self.fields[name] is bool and operator not in ("=", "!="):
            raise InputError(f"where can't use {operator} on {name!r}, which is true or false; use = or !=")
        return Comparison(name, operator, (self.value(name, node.expression),))

    def like(self, name: str, node: exp.Expr) -> Comparison:
        if self.fields[name] is not str:
            raise InputError(f"where can't use LIKE on {name!r}, a {self.fields[name].__name__}; it is for texts")
        pattern = str(self.value(name, node))
        pieces = list(like_pieces(pattern))
        if any(wild for _, wild in pieces):
            return Comparison(name, "like", (pattern,))
        return Comparison(name, "=", ("".join(text for text, _ in pieces),))

    def field(self, node: exp.Expr) -> str:
        from sqlglot import exp

        if not isinstance(node, exp.Column) or len(node.parts) != 1:
            raise InputError(f"where must have a field at the left of each comparison, got {_shown(node.sql())}")
        if node.name not in self.fields:
            known = ", ".join(self.fields) or "none"
            raise InputError(f"where names an unknown field {node.name!r}; this gallery's fields are: {known}")
        return node.name

    def value(self, name: str, node: exp.Expr) -> Scalar:
        from sqlglot import exp

        kind = self.fields[name]
        if isinstance(node, exp.Null):
            raise InputError(f"where compares {name!r} with NULL, which is never true; use {name} IS NULL")
        value = _literal(node, kind)
        if value is None:
            raise InputError(f"where expects {_EXPECTED[kind]} for {name!r}, got {_shown(node.sql())}")
        return value


def _literal(node: exp.Expr, kind: type) -> Scalar | None:
    from sqlglot import exp

    if kind is bool:
        return bool(node.this) if isinstance(node, exp.Boolean) else None
    sign, number = (-1, node.this) if isinstance(node, exp.Neg) else (1, node)
    if not isinstance(number, exp.Literal) or number.is_string != (kind is str) or (kind is str and sign < 0):
        return None
    if kind is str:
        return str(number.this)
    try:
        value = sign * kind(number.this)
    except ValueError:
        return None
    return value if (math.isfinite(value) if kind is float else abs(value) <= INT64) else None


def _opposite(plain: Comparison) -> Comparison:
    return Comparison(plain.field, _OPPOSITE[plain.operator], plain.values)


def _height(condition: Condition) -> int:
    return 1 + max(map(_height, condition.parts)) if isinstance(condition, Junction) else 0


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")
