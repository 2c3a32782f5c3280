"""What a gallery is given: its fields, and photos with their ids and metadata, checked before anything is done."""

from __future__ import annotations

import math
import operator
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

import numpy as np

from fashion_retrieval._utils.checks import check_id, fits
from fashion_retrieval._utils.deprecation import warn_renamed
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.engines.base import TYPES, Settings
from fashion_retrieval.gallery.filters import INT64, Scalar
from fashion_retrieval.images.inputs import ImageInput
from fashion_retrieval.results import Recognition
from fashion_retrieval.taxonomy import Taxonomy

LARGEST_BATCH = 1_024
"""The most photos that are written at a time."""
_MAX_FIELDS, _MAX_BYTES = 30, 65_535
_RESERVED = frozenset({"id", "photo", "score"})
_EXPECTED = {
    str: f"a text of at most {_MAX_BYTES} bytes of UTF-8",
    bool: "True or False",
    int: "a whole number of 64 bits",
    float: "a finite number",
}


def recognized_fields(taxonomy: Taxonomy) -> list[str]:
    """The fields that recognition gives: category, color and the attribute groups."""
    return list(dict.fromkeys(["category", "color", *(group.name for group in taxonomy.attributes)]))


def field_types(taxonomy: Taxonomy | None, fields: Mapping[str, type]) -> dict[str, str]:
    """The fields of a new gallery, those of recognition and the user's own, as a name of `TYPES` each.

    An `InputError` says which name or type can't be used, or that there are too many.
    """
    found = dict.fromkeys(recognized_fields(taxonomy), "str") if taxonomy else {}
    names = {kind: name for name, kind in TYPES.items()}
    if not isinstance(fields, Mapping):
        raise InputError(f"fields must be a dict of types by name, as {{'price': float}}, got {type(fields).__name__}")
    for name, kind in fields.items():
        if not isinstance(name, str) or not name.strip() or name in _RESERVED:
            raise InputError(f"fields must be named by a text other than {', '.join(sorted(_RESERVED))}, got {name!r}")
        if name in found:
            raise InputError(f"fields names {name!r}, which recognition gives; choose another name")
        if kind not in names:
            raise InputError(f"fields[{name!r}] must be str, int, float or bool, got {kind!r}")
        found[name] = names[kind]
    if len(found) > _MAX_FIELDS:
        raise InputError(f"a gallery must have at most {_MAX_FIELDS} fields, got {len(found)}; leave some out")
    return found


def garment_fields(recognition: Recognition) -> dict[str, Scalar | None]:
    """Values of the recognized fields: those of the largest garment; none where no garment was found."""
    garment = max(recognition.garments, key=lambda garment: garment.area, default=None)
    if garment is None:
        return {}
    values: dict[str, Scalar | None] = {"category": garment.category.name, "color": garment.color}
    return values | {name: attribute.value for name, attribute in garment.attributes.items()}


@dataclass(frozen=True, slots=True)
class Item:
    """What becomes one row: its position among those given, its id, its photos, and the user's values or None.

    `photo` is the absolute path of the first photo, or None; `views` are those of the others that have one.
    """

    index: int
    id: str
    images: tuple[ImageInput, ...]
    photo: str | None
    views: tuple[str, ...]
    fields: dict[str, Scalar | None] | None


def read_items(
    images: Iterable[ImageInput | Sequence[ImageInput]],
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
    settings: Settings,
) -> Iterator[Item]:
    """The photos with all that belongs to them; what can be checked is checked before the first is given out."""
    single = isinstance(images, str | bytes | os.PathLike | np.ndarray) or hasattr(images, "read")
    if single or hasattr(images, "element_size") or not isinstance(images, Iterable):  # the last but one is a tensor's
        raise InputError(f"images must be several photos, got {type(images).__name__}; put one photo in a list")
    if isinstance(ids, str):
        raise InputError(f"ids must be a sequence, got the text {ids!r:.60}; put it in a list")
    if isinstance(metadata, Mapping):
        raise InputError("metadata must be a sequence with a dict for each photo, got one dict; put it in a list")
    types, renamed = settings.types, settings.renamed
    names = None if ids is None else [check_id(name, index) for index, name in enumerate(ids)]
    given = None if metadata is None else list(metadata)
    if any(isinstance(item, Mapping) and renamed.keys() & item.keys() for item in given or ()):
        old, new = (", ".join(map(repr, words)) for words in (renamed.keys(), renamed.values()))
        warn_renamed(f"metadata's field {old}", new, stacklevel=4)
    values = None if given is None else [_check_fields(item, types, renamed, i) for i, item in enumerate(given)]
    if isinstance(images, Sequence):
        given_photos = [_photos(given, index, settings) for index, given in enumerate(images)]
        names = names or [_path_id(photos[0], index) for index, photos in enumerate(given_photos)]
    lengths = {"images": images, "ids": names, "metadata": values}
    sizes = {name: len(given) for name, given in lengths.items() if isinstance(given, Sized)}
    _check_equal(sizes)
    if names and len(set(names)) < len(names):
        raise _twice(next(name for name, times in Counter(names).items() if times > 1))
    return _stream(images, names, values, sizes, settings)


def _check_fields(
    values: object, types: Mapping[str, type], renamed: Mapping[str, str], index: int
) -> dict[str, Scalar | None]:
    """The user's values for one photo, in the types of the gallery; what can't be one is an `InputError`."""
    if not isinstance(values, Mapping):
        raise InputError(f"metadata[{index}] must be a dict of fields, got {type(values).__name__}")
    values = {renamed.get(name, name): value for name, value in values.items()}
    unknown = [str(name) for name in values if name not in types]
    if unknown:
        known = ", ".join(types) or "none; name them in Gallery.create(fields=…)"
        raise InputError(f"metadata[{index}] has the unknown field {unknown[0]!r}; this gallery's fields are: {known}")
    return {name: _checked(value, types[name], f"metadata[{index}][{name!r}]") for name, value in values.items()}


def _checked(value: object, kind: type, where: str) -> Scalar | None:
    number = not isinstance(value, bool | np.bool_)
    if value is None:
        return None
    if kind is str and isinstance(value, str) and fits(value, _MAX_BYTES):
        return str.__str__(value)
    if kind is bool and not number:
        return bool(value)
    if kind is int and number and isinstance(value, Integral) and abs(operator.index(value)) <= INT64:
        return operator.index(value)
    if kind is float and number and isinstance(value, Real) and _is_finite(value):
        return float(value) + 0.0  # -0.0 becomes 0.0: stores and filters may tell them apart
    long = isinstance(value, int) and abs(value) > INT64  # has no decimal digits in Python
    shown = f"{value:#x}" if long else repr(value)
    raise InputError(f"{where} must be {_EXPECTED[kind]}, or None, got {type(value).__name__} {shown:.60}")


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number or fraction beyond all floats
        return False


def _stream(
    images: Iterable[ImageInput | Sequence[ImageInput]],
    names: Sequence[str] | None,
    values: Sequence[dict[str, Any]] | None,
    sizes: dict[str, int],
    settings: Settings,
) -> Iterator[Item]:
    index = -1
    seen: set[str] = set()
    others = {name: size for name, size in sizes.items() if name != "images"}
    least = min(others.values(), default=None)
    for index, given in enumerate(images):
        if index == least:
            _check_equal({"images": index + 1} | others)
        photos = _photos(given, index, settings)
        name = names[index] if names else _path_id(photos[0], index)
        if names is None and name in seen:
            raise _twice(name)
        seen.add(name)
        photos = tuple(map(_placed, photos))
        first, *others_of_it = (_path_text(photo) for photo in photos)
        views = tuple(path for path in others_of_it if path)
        yield Item(index, name, photos, first, views, values[index] if values else None)
    _check_equal({"images": index + 1} | others)


def _photos(given: ImageInput | Sequence[ImageInput], index: int, settings: Settings) -> tuple[ImageInput, ...]:
    """The photos of one item: several where a list or tuple was given, else one."""
    if not isinstance(given, list | tuple):
        return (cast("ImageInput", given),)
    if not given or any(isinstance(photo, list | tuple) for photo in given):
        got = "a list in a list" if given else "none"
        raise InputError(f"images[{index}] must be a photo, or a list of photos of one item, got {got}")
    if len(given) > 1 and not settings.keeps_views:
        raise InputError(
            f"images[{index}] has {len(given)} photos, and this gallery was made by a release that keeps one an item; "
            "call migrate, with the same model too, or give the first photo alone"
        )
    return tuple(given)


def _placed(image: ImageInput) -> ImageInput:
    """A path as an absolute one, which stays right when the process changes its folder."""
    if not isinstance(image, str | os.PathLike) or "://" in os.fsdecode(image):
        return image
    return Path(os.fsdecode(image)).absolute()


def _path_text(image: ImageInput) -> str | None:
    """A path as UTF-8, with escapes for what is none in it; None for a photo without one."""
    if not isinstance(image, str | os.PathLike):
        return None
    return os.fsdecode(image).encode("utf-8", "backslashreplace").decode()


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
