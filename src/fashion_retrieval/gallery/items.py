"""What is given to `Gallery.add`: photos with their ids and metadata, checked before anything is done."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import count
from numbers import Integral, Real
from typing import Any

import numpy as np

from fashion_retrieval._utils.checks import check_id, fits
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.filters import INT64, Scalar
from fashion_retrieval.images.inputs import ImageInput

LONGEST_TEXT = 65_535
"""Bytes of UTF-8."""


@dataclass(frozen=True, slots=True)
class Item:
    """A photo to add.

    Attributes:
        index: Its position among the photos given.
        id: Its name in the gallery.
        image: The photo.
        photo: Its path, or None.
        fields: Values of the user's, or None for no word on them.
    """

    index: int
    id: str
    image: ImageInput
    photo: str | None
    fields: dict[str, Scalar | None] | None


def read_items(
    images: Iterable[ImageInput],
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
    types: Mapping[str, type],
) -> Iterator[Item]:
    """The photos with all that belongs to them; what can be checked is checked before the first is given out."""
    single = isinstance(images, str | bytes | os.PathLike | np.ndarray) or hasattr(images, "read")
    if single or hasattr(images, "element_size") or not isinstance(images, Iterable):  # the last but one is a tensor's
        raise InputError(f"images must be several photos, got {type(images).__name__}; put one photo in a list")
    if isinstance(ids, str):
        raise InputError(f"ids must be a sequence, got the text {ids!r:.60}; put it in a list")
    if isinstance(metadata, Mapping):
        raise InputError("metadata must be a sequence with a dict for each photo, got one dict; put it in a list")
    names = None if ids is None else [check_id(name, index) for index, name in enumerate(ids)]
    values = None if metadata is None else [check_fields(item, types, index) for index, item in enumerate(metadata)]
    if isinstance(images, Sequence) and names is None:
        names = [_path_id(image, index) for index, image in enumerate(images)]
    lengths = {"images": images, "ids": names, "metadata": values}
    sizes = {name: len(given) for name, given in lengths.items() if isinstance(given, Sized)}
    _check_equal(sizes)
    if names and len(set(names)) < len(names):
        raise _twice(next(name for name, times in Counter(names).items() if times > 1))
    return _stream(images, names, values, sizes)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; where they end in an error, those that came before are given first."""
    batch: list[Item] = []
    fault: Exception | None = None
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception as error:  # whatever the user's iterable raises
        fault = error
    if batch:
        yield batch
    if fault:
        raise fault


def check_fields(values: object, types: Mapping[str, type], index: int) -> dict[str, Scalar | None]:
    """The user's values for one photo, in the types of the gallery.

    Raises:
        InputError: No mapping, an unknown field, or a value of another type.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"metadata[{index}] must be a dict of fields, got {type(values).__name__}")
    unknown = [str(name) for name in values if name not in types]
    if unknown:
        known = ", ".join(types) or "none; name them in Gallery.create(fields=…)"
        raise InputError(f"metadata[{index}] has the unknown field {unknown[0]!r}; this gallery's fields are: {known}")
    return {name: _checked(value, types[name], f"metadata[{index}][{name!r}]") for name, value in values.items()}


def _checked(value: object, kind: type, where: str) -> Scalar | None:
    number = not isinstance(value, bool | np.bool_)
    if value is None:
        return None
    if kind is str and isinstance(value, str) and fits(value, LONGEST_TEXT):
        return str(value)
    if kind is bool and not number:
        return bool(value)
    if kind is int and number and isinstance(value, Integral) and abs(int(value)) <= INT64:
        return int(value)
    if kind is float and number and isinstance(value, Real) and math.isfinite(value):
        return float(value)
    expected = {
        str: f"a text of at most {LONGEST_TEXT} bytes of UTF-8",
        bool: "True or False",
        int: "a whole number of 64 bits",
        float: "a finite number",
    }[kind]
    raise InputError(f"{where} must be {expected}, or None, got {type(value).__name__} {value!r:.60}")


def _stream(
    images: Iterable[ImageInput],
    names: Sequence[str] | None,
    values: Sequence[dict[str, Any]] | None,
    sizes: dict[str, int],
) -> Iterator[Item]:
    index = -1
    seen: set[str] = set()
    others = {name: size for name, size in sizes.items() if name != "images"}
    least = min(others.values(), default=None)
    for index, image in zip(count(), images, strict=False):
        if index == least:
            _check_equal({"images": index + 1} | others)
        name = names[index] if names else _path_id(image, index)
        if names is None and name in seen:
            raise _twice(name)
        seen.add(name)
        yield Item(index, name, image, _path_of(image), values[index] if values else None)
    _check_equal({"images": index + 1} | others)


def _path_of(image: ImageInput) -> str | None:
    """The path as given, what is no UTF-8 in it as escapes, or None where the photo is no path."""
    if not isinstance(image, str | os.PathLike):
        return None
    return os.fsdecode(image).encode("utf-8", "backslashreplace").decode("utf-8")


def _path_id(image: ImageInput, index: int) -> str:
    if not isinstance(image, str | os.PathLike):
        raise InputError(f"images[{index}] is no path but a {type(image).__name__}, so it needs a name; pass ids=")
    return check_id(os.fsdecode(image), index)


def _check_equal(sizes: Mapping[str, int]) -> None:
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise InputError(f"images, ids and metadata must have one entry a photo each, got {got}")


def _twice(name: str) -> InputError:
    return InputError(f"ids must be distinct, got {name!r:.120} twice; leave one out, or pass other ids")
