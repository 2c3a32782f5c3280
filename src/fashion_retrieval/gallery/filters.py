"""The filter of a search: a part of SQL, checked against the gallery's fields and rendered by each vector store."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from fashion_retrieval._utils.checks import fits
from fashion_retrieval._utils.deprecation import warn_renamed
from fashion_retrieval.errors import InputError

if TYPE_CHECKING:
    from sqlglot import exp

T = TypeVar("T")
Scalar: TypeAlias = str | float | int | bool
Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "in", "not in", "like", "not like", "null", "not null"]
Values: TypeAlias = tuple[Scalar, ...]
"""What a field is compared with: several for "in" and "not in", none for "null" and "not null", else one."""
Compare: TypeAlias = Callable[[str, Operator, Values], T]
Join: TypeAlias = Callable[[Literal["and", "or"], list[T]], T]

INT64 = 2**63 - 1
_MAX_LENGTH = 10_000
_MAX_DEPTH = 12
_OPERATORS: dict[str, Operator] = {"eq": "=", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_PAIRS: tuple[tuple[Operator, Operator], ...] = (
    *(("=", "!="), ("<", ">="), (">", "<="), ("in", "not in"), ("like", "not like"), ("null", "not null")),
)
_OPPOSITE = dict(_PAIRS) | {after: before for before, after in _PAIRS}
_EXPECTED = {
    str: "a text in single quotes",
    int: "a whole number of 64 bits",
    float: "a finite number",
    bool: "true or false",
}
_WORDS = frozenset(["and", "between", "false", "in", "is", "like", "not", "null", "or", "true"])
_GRAMMAR = "=, !=, <, <=, >, >=, IN, LIKE, BETWEEN, IS NULL, AND, OR, NOT and parentheses"
_LIKE = re.compile(r"\\(.)|(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition that `parse_where` has checked."""

    tree: exp.Expr
    fields: Mapping[str, type]

    def render(self, compare: Compare[T], join: Join[T]) -> T:
        """Translate the condition: `compare` a field, an operator and its values, `join` the translated parts.

        Negations are moved into the comparisons, which must be false where the field is null, unless they ask for null.
        "like" takes % for any text, _ for one character, and a backslash before any character meant as itself.
        """
        return self._render(self.tree, False, compare, join)

    def __and__(self, other: Filter | None) -> Filter:
        from sqlglot import exp

        return self if other is None else Filter(exp.and_(self.tree, other.tree), self.fields)

    def _render(self, node: exp.Expr, negated: bool, compare: Compare[T], join: Join[T]) -> T:
        match node.key:
            case "paren" | "not":
                return self._render(node.this, negated != (node.key == "not"), compare, join)
            case "and" | "or":
                parts = [self._render(part, negated, compare, join) for part in node.flatten()]
                return join("and" if (node.key == "and") != negated else "or", parts)
            case "between":
                name = self._field(node.this)
                low, high = (self._value(name, node.args[bound]) for bound in ("low", "high"))
                if negated:
                    return join("or", [compare(name, "<", (low,)), compare(name, ">", (high,))])
                return join("and", [compare(name, ">=", (low,)), compare(name, "<=", (high,))])
        name, operator, values = self._comparison(node)
        if negated != bool(node.args.get("negate")):
            operator = _OPPOSITE[operator]
        return compare(name, operator, values)

    def _comparison(self, node: exp.Expr) -> tuple[str, Operator, Values]:
        match node.key:
            case "column":
                name = self._field(node)
                if self.fields[name] is not bool:
                    raise InputError(f'where names field {name!r} alone; compare it, as in "{name} = …"')
                return name, "=", (True,)
            case "is" if node.expression.key == "null":
                return self._field(node.this), "null", ()
            case "in" if node.expressions:
                name = self._field(node.this)
                return name, "in", tuple(self._value(name, value) for value in node.expressions)
            case "like":
                return self._like(self._field(node.this), node.expression)
            case key if key in _OPERATORS:
                name, operator = self._field(node.this), _OPERATORS[key]
                if self.fields[name] is bool and operator not in ("=", "!="):
                    raise InputError(f"where can't use {operator} on {name!r}, which is true or false; use = or !=")
                return name, operator, (self._value(name, node.expression),)
        raise InputError(f"where can't use {_shortened(node.sql())}; it is made of {_GRAMMAR}")

    def _like(self, name: str, node: exp.Expr) -> tuple[str, Operator, Values]:
        if self.fields[name] is not str:
            raise InputError(f"where can't use LIKE on {name!r}, a {self.fields[name].__name__}; it is for texts")
        pattern = str(self._value(name, node))
        pieces = list(like_pieces(pattern))
        if _LIKE.findall(pattern)[-1:] == [("", "\\")]:
            raise InputError("where has a LIKE pattern that ends in a single backslash; write two for one")
        if any(wildcard for _, wildcard in pieces):
            return name, "like", (pattern,)
        return name, "=", ("".join(text for text, _ in pieces),)

    def _field(self, node: exp.Expr) -> str:
        if node.key != "column" or len(node.parts) != 1:  # type: ignore[attr-defined]
            raise InputError(f"where must have a field at the left of each comparison, got {_shortened(node.sql())}")
        if node.name not in self.fields:
            known = ", ".join(self.fields) or "none"
            raise InputError(f"where names an unknown field {node.name!r}; this gallery's fields are: {known}")
        return node.name

    def _value(self, name: str, node: exp.Expr) -> Scalar:
        if node.key == "null":
            raise InputError(f"where compares {name!r} with NULL, which is never true; use {name} IS NULL")
        value = _literal(node, self.fields[name])
        if value is None:
            raise InputError(f"where expects {_EXPECTED[self.fields[name]]} for {name!r}, got {_shortened(node.sql())}")
        return value


def parse_where(where: str, fields: Mapping[str, type], renamed: Mapping[str, str] | None = None) -> Filter:
    """Read a filter like "category = 'dress' and not color in ('red', 'pink')", for fields of these types.

    The old name of a renamed field is accepted with a `DeprecationWarning`; what can't be used is an `InputError`.
    """
    if not isinstance(where, str) or not where.strip():
        raise InputError(f"where must be a text such as \"category = 'dress'\", or None for no filter, got {where!r}")
    if len(where) > _MAX_LENGTH:
        raise InputError(f"where must have at most {_MAX_LENGTH} characters, got {len(where)}; use IN for many values")
    if not fits(where, 4 * _MAX_LENGTH):
        raise InputError(f"where must be a text that UTF-8 can hold, without NUL, got {_shortened(where)}")
    try:
        return _parsed(where, fields, renamed or {})
    except InputError as error:
        for name in fields:
            plain = re.fullmatch(r"[^\W\d]\w*", name) and name.lower() not in _WORDS
            if not plain and name in where and f'"{name}"' not in where:
                raise InputError(f"{error}; put the field name {name!r} in double quotes") from error
        raise


def _parsed(where: str, fields: Mapping[str, type], renamed: Mapping[str, str]) -> Filter:
    import sqlglot
    from sqlglot.errors import SqlglotError
    from sqlglot.parser import Parser
    from sqlglot.tokenizer_core import TokenType

    names = fields.keys() | renamed.keys()
    try:
        tokens = sqlglot.tokenize(f"({where}")[1:]  # at the start of a text, words like SHOW would take the rest of it
        for token in tokens:
            if token.text in names and token.text.lower() not in _WORDS and token.token_type != TokenType.STRING:
                token.token_type = TokenType.IDENTIFIER  # also where it is a word of SQL
        statements = Parser().parse_into(sqlglot.exp.Condition, tokens, where)
    except (SqlglotError, RecursionError, ValueError) as error:
        raise InputError(f"where {_shortened(where)} can't be read; it is made of {_GRAMMAR}") from error
    tree = statements[0] if len(statements) == 1 else None
    if not isinstance(tree, sqlglot.exp.Expression):
        raise InputError(f"where {_shortened(where)} must be one condition; it is made of {_GRAMMAR}")
    for column in tree.find_all(sqlglot.exp.Column):
        new = renamed.get(column.name)
        if new and column.name not in fields:
            warn_renamed(f"the field {column.name!r}", repr(new), stacklevel=5)
            column.this.set("this", new)
    condition, depth = Filter(tree, fields), _MAX_DEPTH + 1
    with suppress(RecursionError):
        depth = condition.render(lambda *_: 0, lambda _, depths: 1 + max(depths))
    if depth > _MAX_DEPTH:
        remedy = "use IN for many values"
        raise InputError(f"where {_shortened(where)} must nest AND and OR at most {_MAX_DEPTH} deep; {remedy}")
    return condition


def none_of(field: str, values: Collection[Scalar], fields: Mapping[str, type]) -> Filter:
    """The condition that a field is null or none of these values."""
    from sqlglot import exp

    column = exp.column(field, quoted=True)
    return Filter(exp.or_(column.is_(exp.null()), exp.not_(column.isin(*values))), fields)


def like_prefix(pattern: str) -> str | None:
    """The prefix that a LIKE pattern asks for, if it asks for nothing else ('long%'), else None."""
    pieces = list(like_pieces(pattern))
    prefix = "".join(text for text, _ in takewhile(lambda piece: not piece[1], pieces))
    return prefix if set(pieces[len(prefix) :]) == {("%", True)} else None


def like_pieces(pattern: str) -> Iterator[tuple[str, bool]]:
    """The characters of a LIKE pattern, and whether each is a wildcard."""
    for found in _LIKE.finditer(pattern):
        escaped, character = found.groups()
        yield (escaped, False) if escaped else (character, character in "%_")


def _literal(node: exp.Expr, kind: type) -> Scalar | None:
    """The value of a literal; None where it is not one of this type."""
    if kind is bool:
        return bool(node.this) if node.key == "boolean" else None
    sign, number = (-1, node.this) if node.key == "neg" else (1, node)
    if number.key != "literal" or number.is_string != (kind is str) or (kind is str and sign < 0):
        return None
    if kind is str:
        return str(number.this)
    try:
        value: float = sign * kind(number.this)
    except ValueError:
        return None
    return value if (math.isfinite(value) if kind is float else abs(value) <= INT64) else None


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")
