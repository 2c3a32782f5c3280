"""The fields of a gallery: their types, and the values that recognition gives."""

from __future__ import annotations

from collections.abc import Mapping

from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.engines.base import TYPES
from fashion_retrieval.gallery.filters import Scalar
from fashion_retrieval.results import Garment, Recognition
from fashion_retrieval.taxonomy import Taxonomy

_MOST_FIELDS = 30
_RESERVED = frozenset({"id", "photo", "score"})


def recognized_fields(taxonomy: Taxonomy) -> list[str]:
    """The fields that recognition gives: category, color and the attribute groups."""
    return list(dict.fromkeys(["category", "color", *(group.name for group in taxonomy.attributes)]))


def field_types(taxonomy: Taxonomy | None, fields: Mapping[str, type]) -> dict[str, str]:
    """The fields of a new gallery, those of recognition and the user's own, as a name of `TYPES` each.

    Raises:
        InputError: A name or a type can't be used, or there are too many.
    """
    found = dict.fromkeys(recognized_fields(taxonomy), "str") if taxonomy else {}
    names = {kind: name for name, kind in TYPES.items()}
    for name, kind in fields.items():
        if not isinstance(name, str) or not name.strip() or name in _RESERVED:
            raise InputError(f"fields must be named by a text other than {', '.join(sorted(_RESERVED))}, got {name!r}")
        if name in found:
            raise InputError(f"fields names {name!r}, which recognition gives; choose another name")
        if kind not in names:
            raise InputError(f"fields[{name!r}] must be str, int, float or bool, got {kind!r}")
        found[name] = names[kind]
    if len(found) > _MOST_FIELDS:
        raise InputError(f"a gallery must have at most {_MOST_FIELDS} fields, got {len(found)}; leave some out")
    return found


def garment_fields(recognition: Recognition) -> dict[str, Scalar | None]:
    """Values of the recognized fields: those of the largest garment; none where no garment was found."""
    garment: Garment | None = max(recognition.garments, key=lambda garment: garment.area, default=None)
    if garment is None:
        return {}
    values: dict[str, Scalar | None] = {"category": garment.category.name, "color": garment.color}
    return values | {name: attribute.value for name, attribute in garment.attributes.items()}
