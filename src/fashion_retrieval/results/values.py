"""Plain values of results, and how they are checked and become JSON."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import InputError

Box = tuple[float, float, float, float]
Mask = NDArray[np.bool_]
Scalar = str | float | int | bool
Status = Literal["visible", "not_applicable", "not_visible"]

ROUNDING = 1e-5
_NAMED_BY_GROUP = frozenset({"fit", "length", "neckline", "sleeve"})


@dataclass(frozen=True, slots=True)
class Plain:
    """A result without arrays."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict; numbers are rounded to six decimals."""
        return {item.name: jsonable(getattr(self, item.name)) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Score(Plain):
    """A name and how probable it is.

    Attributes:
        name: As the taxonomy calls it.
        probability: In [0, 1].
    """

    name: str
    probability: float

    def __post_init__(self) -> None:
        assign(self, "probability", checked_fraction(self, "probability", self.probability))


@dataclass(frozen=True, slots=True)
class Color(Plain):
    """One color of a garment.

    Attributes:
        name: A name of the palette ("blue").
        hex: The color as it is in the photo, "#rrggbb".
        share: Its share of the garment's mask, in [0, 1].
    """

    name: str
    hex: str
    share: float

    def __post_init__(self) -> None:
        digits = self.hex[1:].lower()
        if len(digits) != 6 or self.hex[0] != "#" or not set(digits) <= set("0123456789abcdef"):
            raise InputError(f"Color.hex must be '#rrggbb', got {self.hex!r}")
        assign(self, "share", checked_fraction(self, "share", self.share))


@dataclass(frozen=True, slots=True)
class Attribute(Plain):
    """The value of one attribute group for one garment.

    Attributes:
        group: The group ("sleeve").
        value: The most probable value ("long_sleeve"); None unless visible.
        probability: Of the value, or of the status if there is no value; in [0, 1].
        status: "visible", "not_applicable" (a bag has no sleeve) or "not_visible" (hidden, or outside the photo).
        alternatives: The most probable values, best first.
    """

    group: str
    value: str | None
    probability: float
    status: Status = "visible"
    alternatives: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise InputError(f"Attribute.status must be one of {', '.join(get_args(Status))}, got {self.status!r}")
        if (self.value is not None) != (self.status == "visible"):
            got = f"{self.value!r} with {self.status!r} for {self.group!r}"
            raise InputError(f"Attribute.value must be a name exactly when the status is 'visible', got {got}")
        assign(self, "probability", checked_fraction(self, "probability", self.probability))
        assign(self, "alternatives", tuple(self.alternatives))

    @property
    def label(self) -> str:
        """The value in words: "long sleeve", "v neckline", "neckline not visible"."""
        if self.value is None:
            return f"{self.group} {self.status}".replace("_", " ")
        words = self.value.replace("_", " ")
        return f"{words} {self.group}" if self.group in _NAMED_BY_GROUP and self.group not in words else words


def assign(result: object, name: str, value: object) -> None:
    """Set an attribute of a frozen dataclass, in its `__post_init__`."""
    object.__setattr__(result, name, value)


def checked_fraction(result: object, name: str, value: float) -> float:
    """The value, clipped to [0, 1] where rounding alone put it outside; further outside it is an `InputError`."""
    number = float(value)
    if not -ROUNDING <= number <= 1 + ROUNDING:
        raise InputError(f"{type(result).__name__}.{name} must be in [0, 1], got {number}")
    return min(max(number, 0.0), 1.0)


def jsonable(value: object) -> object:
    """The value as JSON has it: lists for tuples, dicts for results, six decimals, messages for errors."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {name: jsonable(item) for name, item in value.items()}
    if isinstance(value, Plain):
        return value.to_dict()
    return str(value) if isinstance(value, Exception) else value
