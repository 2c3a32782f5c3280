"""The vocabulary of recognition: categories, attribute groups and the prompts that ask for them.

A taxonomy is a YAML or JSON file, or a dict of the same shape; `assets/taxonomies/default.yaml` is the model to follow.
Any word may be used, also one that no model was trained on: recognition is zero-shot.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, with_config

from fashion_retrieval._utils.deprecation import warn_renamed, with_color_placeholder
from fashion_retrieval._utils.files import asset
from fashion_retrieval._utils.validation import STRICT, Text, one_of, requirement, validate
from fashion_retrieval.errors import TaxonomyError

SHIPPED = ("default", "deepfashion")
FAMILIES = (("upper", "outerwear", "dress"), ("trousers", "shorts", "skirt", "legwear"))
"""Kinds that are easily taken for one another."""
KINDS = (*FAMILIES[0], *FAMILIES[1], "footwear", "bag", "headwear", "other")
"""What the segmenter tells apart; a category may name the kind it belongs to."""
_TEMPLATE = ("a photo of {attribute} {category}",)


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a group; its probability is the sum over its phrases."""

    name: str  # what results call it
    phrases: tuple[str, ...]  # synonyms that are put into the prompt
    kind: str | None = None  # of a category: the kind of region it is found in, one of `KINDS`
    absent: bool = False  # whether the value says that there is nothing to see ("no visible neckline")


@dataclass(frozen=True, slots=True)
class Group:
    """At least two values, of which a garment has exactly one, and the prompt templates that ask for them."""

    name: str  # "category", or that of the attribute, "sleeve"
    templates: tuple[str, ...]  # with `{category}` and `{attribute}` or `{color}`; several are averaged
    values: tuple[Value, ...]
    applies_to: frozenset[str] | None = None  # kinds and categories that the group makes sense for; None is all

    def applies(self, category: Value) -> bool:
        """Whether the group makes sense for a garment of this category."""
        return self.applies_to is None or not self.applies_to.isdisjoint({category.name, category.kind})

    @property
    def words(self) -> dict[str, str]:
        """The value's name by each of its names and phrases as `plain_word` writes them."""
        phrases = {plain_word(word): value.name for value in self.values for word in value.phrases}
        return phrases | {plain_word(value.name): value.name for value in self.values}


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """A category group and any number of attribute groups."""

    name: str
    category: Group
    attributes: tuple[Group, ...]

    @classmethod
    def load(cls, source: Taxonomy | Mapping[str, Any] | str | Path) -> Taxonomy:
        """Read a taxonomy: "default", "deepfashion", a YAML or JSON file, a dict, or a Taxonomy itself.

        Raises:
            TaxonomyError: All faults of the file in one message.
        """
        if isinstance(source, Taxonomy):
            return source
        if isinstance(source, Mapping):
            return _parse(_renamed(source), "the given dict")
        if isinstance(source, str) and source in SHIPPED:
            return _shipped(source)
        expected = f"one of {', '.join(SHIPPED)}, or a YAML or JSON file"
        if not isinstance(source, str | Path):
            raise TaxonomyError(f"a taxonomy must be {expected}, or a dict, got {type(source).__name__}")
        path = Path(source)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # a null byte in the path and bytes that aren't UTF-8 are ValueErrors
            raise TaxonomyError(f"taxonomy {str(source)!r} can't be read ({error}); expected {expected}") from error
        _renamed(_read(text, path))  # warns of old names at each call
        return _parse_text(text, path)

    def with_values(self, name: str, values: Iterable[str]) -> Taxonomy:
        """A taxonomy whose attribute group of this name has these values too, each asked for by its own words.

        A group that is not there is added, for all categories.
        """
        new = tuple(Value(value, (value.replace("_", " "),)) for value in values)
        known = {group.name: group for group in self.attributes}
        group = known.get(name, Group(name, _TEMPLATE, ()))
        known[name] = replace(group, values=group.values + new)
        return replace(self, attributes=tuple(known.values()))

    def to_dict(self) -> dict[str, Any]:
        """The dict that `load` reads back to an equal taxonomy."""
        groups = {group.name: _group_to_dict(group) for group in self.attributes}
        return {"name": self.name, "category": _group_to_dict(self.category), "attributes": groups}


def plain_word(word: str) -> str:
    """A label as it is compared: whatever its case, and with "-", "_" and " " alike."""
    return re.sub(r"[\s_-]+", " ", word.strip()).casefold()


def category_prompts(group: Group, value: Value, color: str) -> list[str]:
    """Prompts of a category: "a photo of {color} {category}", one per template and phrase, phrase by phrase."""
    return [t.format(color=color, category=phrase) for phrase in value.phrases for t in group.templates]


def attribute_prompts(group: Group, value: Value, category: Value) -> list[str]:
    """Prompts of an attribute: "a photo of {attribute} {category}", one per template and phrase, phrase by phrase."""
    noun = category.phrases[0]
    return [t.format(attribute=phrase, category=noun) for phrase in value.phrases for t in group.templates]


@lru_cache(maxsize=16)
def _parse_text(text: str, path: Path) -> Taxonomy:
    """The taxonomy of a file's text; the same object for the same text."""
    return _parse(with_color_placeholder(_read(text, path)), str(path))


@cache
def _shipped(name: str) -> Taxonomy:
    return _parse(yaml.safe_load(asset(f"taxonomies/{name}.yaml")), name)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As SafeLoader's."""
        _without_repeats([(key.value, None) for key, _ in node.value])
        return super().construct_mapping(node, deep)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1 and key != "<<")
    if repeated:
        raise ValueError(f"{', '.join(repeated)} stands there twice")
    return dict(pairs)


@lru_cache(maxsize=16)
def _read(text: str, path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".json":
            data = json.loads(text, object_pairs_hook=_without_repeats)
        else:
            data = yaml.load(text, _Loader)  # a SafeLoader
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise TaxonomyError(f"taxonomy {path} is not valid {path.suffix or 'YAML'}: {reason}") from error
    if not isinstance(data, Mapping):
        expected = "a mapping with 'category' and 'attributes'"
        raise TaxonomyError(f"taxonomy {path} must be {expected}, got {type(data).__name__}")
    return data


def _renamed(data: Mapping[str, Any]) -> Mapping[str, Any]:
    new = with_color_placeholder(data)
    if new is not data:
        warn_renamed("{colour} in a taxonomy's prompts", "{color}", stacklevel=4)
    return new


def _listed(data: object) -> object:
    return (data,) if isinstance(data, str) else tuple(data) if isinstance(data, list) else data


def _named(data: object) -> object:
    """Values in any form -> name -> the keys of `_ValueFile`."""
    if isinstance(data, Mapping):
        return {name: value if isinstance(value, Mapping) else {"phrases": value} for name, value in data.items()}
    if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
        return data
    if len(set(data)) < len(data):
        raise requirement("name each value once")
    return {name: {} for name in data}


def _template(needed: str, other: str) -> AfterValidator:
    def check(template: str) -> str:
        try:
            # A width, "{category:>9999}", would make prompts of any length.
            fields = {f"{field}{spec}{kind or ''}" for _, field, spec, kind in Formatter().parse(template) if field}
            template.format(**{needed: "", other: ""})
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            fields = {""}
        if not fields <= {needed, other}:
            raise requirement(f"use only {{{needed}}} and {{{other}}}")
        if needed not in fields:
            raise requirement(f"contain {{{needed}}}")
        return template

    return AfterValidator(check)


def _known(name: str, info: ValidationInfo) -> str:
    if name not in (info.context or ()):
        raise requirement("be a kind or a category")
    return name


_TEXTS = (BeforeValidator(_listed), Field(min_length=1, description="a text or a list of texts"))
_VALUES = (BeforeValidator(_named), Field(min_length=2, description="a list or a mapping of at least two values"))


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class _ValueFile:
    """A value as a file describes it."""

    phrases: Annotated[tuple[Text, ...], *_TEXTS] = ()
    kind: Annotated[str, one_of(KINDS)] | None = None
    absent: bool = False


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupFile:
    """A group as a file describes it."""

    template: Annotated[tuple[Annotated[Text, _template("attribute", "category")], ...], *_TEXTS] = _TEMPLATE
    values: Annotated[dict[Text, _ValueFile], *_VALUES]
    applies_to: Annotated[tuple[Annotated[Text, AfterValidator(_known)], ...], *_TEXTS] | None = None


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class _CategoryFile(_GroupFile):
    """The category group as a file describes it: its prompts have a color."""

    template: Annotated[tuple[Annotated[Text, _template("category", "color")], ...], *_TEXTS] = (
        "a photo of {color} {category}",
    )


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class _TaxonomyFile:
    """What a file holds."""

    name: Annotated[str, BeforeValidator(str)] = "custom"
    category: _CategoryFile
    attributes: dict[Text, _GroupFile] = field(default_factory=dict)


def _parse(data: Mapping[str, Any], where: str) -> Taxonomy:
    category = data.get("category")
    values = category.get("values") if isinstance(category, Mapping) else None
    known = {*KINDS, *map(str, values if isinstance(values, list | Mapping) else ())}
    file = validate(_TaxonomyFile, data, f"taxonomy {where}", TaxonomyError, context=known)
    attributes = tuple(_group(name, group) for name, group in file.attributes.items())
    return Taxonomy(file.name, _group("category", file.category), attributes)


def _group(name: str, file: _GroupFile) -> Group:
    values = tuple(
        Value(key, value.phrases or (key.replace("_", " "),), value.kind, value.absent)
        for key, value in file.values.items()
    )
    return Group(name, file.template, values, None if file.applies_to is None else frozenset(file.applies_to))


def _group_to_dict(group: Group) -> dict[str, Any]:
    data: dict[str, Any] = {"template": list(group.templates)}
    if group.applies_to is not None:
        data["applies_to"] = sorted(group.applies_to)
    for value in group.values:
        optional = {"kind": value.kind, "absent": value.absent}
        given = {key: item for key, item in optional.items() if item}
        data.setdefault("values", {})[value.name] = {"phrases": list(value.phrases), **given}
    return data
