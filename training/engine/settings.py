"""Settings of a recipe: a TOML file becomes frozen dataclasses, and all its faults come in one message.

A schema is a frozen dataclass under `with_config(SCHEMA)`. Fields say their range with the types below; a rule that
binds two settings is a pydantic validator of the later one, which finds the earlier ones in `info.data`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo

from fashion_retrieval._utils.deprecation import warn_renamed
from fashion_retrieval._utils.validation import STRICT, validate
from fashion_retrieval.errors import ConfigError

Settings = TypeVar("Settings")
Value = TypeVar("Value")

SCHEMA = ConfigDict(**STRICT, validate_default=True)
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
ImageSize = Annotated[list[AtLeastOne], Field(min_length=2, max_length=2)]
"""[height, width] in pixels."""
_RENAMED = {"optimisation": "optimization", "licence": "license"}
"""Keys of recipes of an earlier release -> their names of today."""


def requires(*others: str) -> AfterValidator:
    """Refuse a setting that says something where none of the others, which stand before it, does."""

    def check(value: Value, info: ValidationInfo) -> Value:
        if value and not any(info.data.get(other, True) for other in others):
            raise ValueError(f"'{info.field_name}' needs '{' or '.join(others)}', set it too")
        return value

    return AfterValidator(check)


def one_of(names: Collection[str]) -> AfterValidator:
    """Refuse a name that is not among those known."""

    def check(name: str, info: ValidationInfo) -> str:
        if name not in names:
            raise ValueError(f"'{info.field_name}' must be one of {', '.join(names)}, got {name!r}")
        return name

    return AfterValidator(check)


def read_settings(path: Path, schema: type[Settings]) -> Settings:
    """Read a TOML file into a dataclass; nested dataclasses are tables, and one ConfigError names all faults."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config {path} can't be read: {error}") from error
    return from_mapping(data, schema, str(path))


def from_mapping(data: Mapping[str, Any], schema: type[Settings], where: str) -> Settings:
    """Build a settings dataclass from a mapping; one ConfigError names all faults."""
    settings = validate(schema, _with_new_names(data), where, ConfigError)
    if hasattr(settings, "faults") and (faults := settings.faults()):
        raise ConfigError(f"{where}: {'; '.join(faults)}")
    return settings


def check_settings(settings: Any, where: str) -> None:  # noqa: ANN401  # any dataclass
    """Validate settings that were made in Python; one ConfigError names all faults."""
    validate(type(settings), asdict(settings), where, ConfigError)


def _with_new_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with the keys of today, in its tables too."""
    renamed = {}
    for key, value in data.items():
        name = _RENAMED.get(key, key)
        if name != key:
            warn_renamed(f"key '{key}'", f"'{name}'", stacklevel=4)
        renamed[name] = _with_new_names(value) if isinstance(value, Mapping) else value
    return renamed
