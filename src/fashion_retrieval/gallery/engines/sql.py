"""Conditions in LanceDB's SQL."""

from __future__ import annotations

from fashion_retrieval.gallery.filters import Filter, Operator, Scalar, Values, like_pieces


def render(condition: Filter, columns: dict[str, str]) -> str:
    """The condition in LanceDB's SQL."""

    def compare(field: str, operator: Operator, values: Values) -> str:
        column, words = columns[field], operator.upper()
        match operator:
            case "null" | "not null":
                return f"{column} IS {words}"
            case "in" | "not in":
                listed = f"{column} {words} ({', '.join(map(_literal, values))})"
                # DataFusion reads NOT IN (1) OR NOT IN (2) as true, also of a null.
                return listed if operator == "in" else f"({column} IS NOT NULL AND {listed})"
            case "like" | "not like":
                pieces = like_pieces(str(values[0]))
                pattern = "".join(f"\\{text}" if text in r"\%_" and not wildcard else text for text, wildcard in pieces)
                return f"{column} {words} {_literal(pattern)}"
        return f"{column} {words} {_literal(values[0])}"

    return condition.render(compare, lambda operator, parts: f"({f' {operator.upper()} '.join(parts)})")


def any_of(ids: list[str]) -> str:
    """The condition that the id is one of these."""
    return f"id IN ({', '.join(map(_literal, ids))})"


def _literal(value: Scalar) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value).lower()
