"""Settings of a recipe: a TOML file becomes frozen dataclasses, and all its faults come in one message.

A schema may have a method `faults() -> list[str]` that names what can't be combined; it is asked once the types fit.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from fashion_retrieval.errors import ConfigError

Settings = TypeVar("Settings")

_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    list: "a list",
    dict: "a table",
}


def read_settings(path: Path, schema: type[Settings]) -> Settings:
    """Read a TOML file into a dataclass; nested dataclasses are tables.

    Raises:
        ConfigError: The file can't be read, or all its faults.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config {path} can't be read: {error}") from error
    return from_mapping(data, schema, str(path))


def from_mapping(data: Mapping[str, Any], schema: type[Settings], where: str) -> Settings:
    """Build a settings dataclass from a mapping.

    Raises:
        ConfigError: Unknown or missing keys, values of another type, combinations that the schema refuses.
    """
    faults: list[str] = []
    settings = _build(data, schema, where, faults)
    if settings is None or faults:
        raise ConfigError("; ".join(faults))
    return settings


def _build(data: Mapping[str, Any], schema: type[Settings], where: str, faults: list[str]) -> Settings | None:
    """The settings, or None where they can't be made; what is wrong is added to `faults`."""
    known = {field.name: field for field in fields(schema)}  # type: ignore[arg-type]  # every schema is a dataclass
    unknown = sorted(set(data) - set(known))
    if unknown:
        faults.append(f"{where} has unknown keys {', '.join(unknown)} (known: {', '.join(sorted(known))})")
    needed = {name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING}
    missing = sorted(needed - set(data))
    if missing:
        faults.append(f"{where} lacks {', '.join(missing)}")
    kinds, values, whole = get_type_hints(schema), {}, not missing
    for key, value in data.items():
        if key in unknown:
            continue
        if is_dataclass(kinds[key]) and isinstance(value, Mapping):
            values[key] = _build(value, kinds[key], f"{where} [{key}]", faults)
            whole = whole and values[key] is not None
        elif (expected := _expected(value, kinds[key])) is not None:
            faults.append(f"{where}: {key} must be {expected}, got {value!r:.80}")
            whole = False
        else:
            values[key] = value
            faults += [
                f"{where}: {key}: {said} is unknown (known: {known_as})"
                for said, known_as in _strays(value, kinds[key])
            ]
    if not whole:
        return None
    settings = schema(**values)
    if hasattr(settings, "faults"):
        faults += [f"{where}: {fault}" for fault in settings.faults()]
    return settings


def _expected(value: object, kind: Any) -> str | None:  # noqa: ANN401  # a type hint
    """What a value of another type should have been, or None where it fits; hints not used here always fit."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return _expected(value, str)
    if is_dataclass(origin):
        return "a table"
    if origin not in _EXPECTED:
        return None
    fits = isinstance(value, (int, float) if origin is float else origin)
    if not fits or (isinstance(value, bool) and origin is not bool):
        return _EXPECTED[origin]
    parts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    wrong = next((said for part in parts if inner and (said := _expected(part, inner[-1]))), None)
    return wrong and f"{_EXPECTED[origin]} in which each is {wrong}"


def _strays(value: object, kind: Any) -> list[tuple[str, str]]:  # noqa: ANN401  # a type hint
    """Values of a `Literal`, or of a list of them, that are none of its; with those that are."""
    if get_origin(kind) is list:
        return [stray for part in value for stray in _strays(part, get_args(kind)[0])]  # type: ignore[attr-defined]
    if get_origin(kind) is Literal and value not in get_args(kind):
        return [(str(value), ", ".join(get_args(kind)))]
    return []
