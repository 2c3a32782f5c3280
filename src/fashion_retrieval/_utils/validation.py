"""Mappings from files become frozen dataclasses: all faults at once, unknown keys refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fashion_retrieval.errors import FashionRetrievalError

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""For `pydantic.with_config` above each dataclass that is read from a file: no coercion, no unknown keys."""


def validate(kind: type[T], data: Mapping[str, object], where: str, error: type[FashionRetrievalError]) -> T:
    """Build a dataclass from the parsed JSON, TOML or YAML of a file.

    Args:
        kind: A dataclass with `STRICT` as its pydantic configuration; a list fits a field of tuples.
        data: Keys and values; numbers, texts, lists and mappings as JSON has them.
        where: The file, named in the error.
        error: What to raise.

    Raises:
        error: One line that lists every fault with its key, what was expected and what came.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(data))
    except (TypeError, ValueError) as problem:
        faults = _faults(problem) if isinstance(problem, ValidationError) else [str(problem)]
        raise error(f"{where} has {len(faults)} fault(s): {'; '.join(faults)}") from None


def _faults(problem: ValidationError) -> list[str]:
    return [_fault(item["type"], _key(item["loc"]), item["msg"], item["input"]) for item in problem.errors()]


def _fault(kind: str, key: str, message: str, value: object) -> str:
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"'{key}' is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"'{key}' is an unknown key"
    if kind == "value_error":  # of a validator of ours, whose message is whole
        return message.removeprefix("Value error, ")
    return f"'{key}' must be {message.removeprefix('Input should be ')}, got {value!r:.80}"


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)
