"""Mappings from files become frozen dataclasses: all faults at once, unknown keys refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from fashion_retrieval.errors import FashionRetrievalError

T = TypeVar("T")
Location = tuple[str | int, ...]
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""For `pydantic.with_config` above each dataclass that is read from a file: no coercion, no unknown keys."""

_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_type": "a text",
    "tuple_type": "a list",
}
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")

Text = Annotated[str, Field(pattern=r"\S", description="a text that is not empty")]


def one_of(names: Sequence[str]) -> Any:  # noqa: ANN401  # as pydantic has it
    """For `Annotated`: a text that is one of these names."""
    return Field(pattern=f"^({'|'.join(names)})$", description=f"one of {', '.join(names)}")


def requirement(words: str) -> PydanticCustomError:
    """The error that a field's own validator raises: the value must … these words."""
    return PydanticCustomError("requirement", "{words}", {"words": words})


def validate(
    kind: type[T],
    data: Mapping[str, object],
    where: str,
    error: type[FashionRetrievalError],
    *,
    context: object = None,
) -> T:
    """Build a dataclass from the parsed JSON, TOML or YAML of a file.

    The dataclass has `STRICT` as its pydantic configuration. The description of a field says what its value must be in
    the error's words; a field's own validator raises `requirement(...)`, and finds `context` in its `info`. A
    `ValueError`, as of `__post_init__`, is a whole message: it names the key itself. The error is one line that names
    the file and lists every fault with its key, what was expected and what came.
    """
    faults: list[str] = []
    try:
        given = _as_json(data, (), faults)
    except TypeError as problem:
        raise error(f"{where} has 1 fault(s): {problem}") from None
    adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # a class is hashable
    try:
        result = adapter.validate_json(json.dumps(given), context=context)
    except ValidationError as problem:
        faults += _faults(adapter.json_schema(ref_template="{model}"), problem, given)
    if faults:
        raise error(f"{where} has {len(faults)} fault(s): {'; '.join(faults)}")
    return result


@cache
def _adapter(kind: Any) -> Any:  # noqa: ANN401  # a cached function can't be generic
    return TypeAdapter(kind)


def _as_json(value: object, location: Location, faults: list[str]) -> Any:  # noqa: ANN401  # whatever JSON has
    """A copy for `json.dumps`; keys that are no texts become faults, a value that JSON does not have is a TypeError."""
    if isinstance(value, Mapping):
        owner = f"of '{_key(location)}' " if location else ""
        faults += [f"key {key!r} {owner}must be a text, quote it" for key in value if not isinstance(key, str)]
        return {key: _as_json(item, (*location, key), faults) for key, item in value.items() if isinstance(key, str)}
    if isinstance(value, list | tuple):
        return [_as_json(item, (*location, place), faults) for place, item in enumerate(value)]
    if isinstance(value, str | int | float | None):
        return value
    raise TypeError(f"'{_key(location)}' must be a text, a number, a list or a mapping, got {value!r:.80}")


def _faults(schema: dict[str, Any], problem: ValidationError, given: object) -> list[str]:
    """One text a fault; unknown keys of one mapping share a text."""
    unknown: dict[Location, list[str]] = {}
    others = []
    for item in problem.errors():
        if item["type"] in _UNKNOWN:
            unknown.setdefault(item["loc"][:-1], []).append(str(item["loc"][-1]))
        else:
            others.append(_fault(schema, item["type"], item["loc"], item["msg"], given))
    grouped = [_unknown_keys(schema, owner, keys) for owner, keys in unknown.items()]
    return list(dict.fromkeys(grouped + others))


def _fault(schema: dict[str, Any], problem: str, location: Location, message: str, given: object) -> str:
    if problem == "value_error":
        return message.removeprefix("Value error, ")
    if location[-1] == "[key]":
        *owner, key, _ = location
        rule = _node(schema, tuple(owner)).get("propertyNames", {}).get("description", message)
        return f"key {key!r} of '{_key(tuple(owner))}' must be {rule}"
    if problem in _MISSING and isinstance(location[-1], str):
        return f"'{_key(location)}' is missing"
    expected = message if problem == "requirement" else message.rpartition(" should ")[2]
    expected = f"be {_EXPECTED[problem]}" if problem in _EXPECTED else expected.replace(" after validation", "")
    for place in (location, location[:-1]) if problem != "requirement" else ():
        if words := _described(schema, place):
            location, expected = place, f"be {words}"
            break
    location, value = _reached(given, location)
    return f"'{_key(location)}' must {expected}, got {value!r:.80}"


def _reached(value: Any, location: Location) -> tuple[Location, object]:  # noqa: ANN401  # whatever JSON has
    """The value at a location and its place; pydantic's locations may end with the name of a type."""
    for place, step in enumerate(location):
        inside = step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
        if not inside:
            return location[:place], value
        value = value[step]
    return location, value


def _unknown_keys(schema: dict[str, Any], owner: Location, keys: list[str]) -> str:
    known = sorted(_target(schema, _node(schema, owner)).get("properties", ()))
    named = []
    for key in sorted(keys):
        near = get_close_matches(key, known, 1)
        named.append(_key((*owner, key)) + (f" (did you mean {near[0]}?)" if near else ""))
    return f"unknown keys {', '.join(named)} (known: {', '.join(known)})"


def _node(schema: dict[str, Any], location: Location) -> dict[str, Any]:
    """What a JSON schema says of the value at a location; nothing where it says nothing."""
    node = schema
    for step in location:
        owner = _target(schema, node)
        others = [*owner.get("patternProperties", {}).values(), owner.get("additionalProperties"), owner.get("items")]
        parts = [owner.get("properties", {}).get(step), *others]
        node = next((part for part in parts if isinstance(part, dict)), {})
    return node


def _described(schema: dict[str, Any], location: Location) -> str | None:
    """The description of a field."""
    node = _node(schema, location) if location else {}
    return next((one["description"] for one in (node, *node.get("anyOf", ())) if "description" in one), None)


def _target(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The definition of a dataclass that a node refers to, or the node itself."""
    names = [choice["$ref"] for choice in (node, *node.get("anyOf", ())) if "$ref" in choice]
    target: dict[str, Any] = schema["$defs"][names[0]] if names else node
    return target


def _key(location: Location) -> str:
    return ".".join(map(str, location))
