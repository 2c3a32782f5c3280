"""The vocabulary of recognition: categories, attribute groups and the prompts that ask for them.

A taxonomy is a YAML or JSON file, or a dict of the same shape; `assets/taxonomies/default.yaml` is the model to follow.
Any word may be used, also one that no model was trained on: recognition is zero-shot.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from fashion_retrieval.errors import TaxonomyError

SHIPPED = ("default", "deepfashion")
KINDS = (
    "upper",
    "outerwear",
    "dress",
    "trousers",
    "shorts",
    "skirt",
    "legwear",
    "footwear",
    "bag",
    "headwear",
    "other",
)
"""What the segmenter tells apart; a category may name the kind it belongs to."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a group.

    Attributes:
        name: What results call it.
        phrases: Synonyms put into the prompt; the probability of the value is the sum over them.
        kind: For categories, the kind of region it is found in (one of `KINDS`), or None.
        absent: True when the value says that there is nothing to see ("no visible neckline").
    """

    name: str
    phrases: tuple[str, ...]
    kind: str | None = None
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Values of which a garment has exactly one, and the prompt templates that ask for them.

    Attributes:
        name: "category", or the attribute group ("sleeve").
        templates: Prompts with `{category}` and `{attribute}` or `{color}`; several are averaged.
        values: At least two values.
        applies_to: Kinds and category names the group makes sense for; None is all.
    """

    name: str
    templates: tuple[str, ...]
    values: tuple[Value, ...]
    applies_to: frozenset[str] | None = None

    def applies(self, category: Value) -> bool:
        """Whether the group makes sense for a garment of this category."""
        return self.applies_to is None or not self.applies_to.isdisjoint({category.name, category.kind})


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
            return _parse(source, "the given dict")
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
        return _parse(_decode(text, path), str(path))

    def to_dict(self) -> dict[str, Any]:
        """The dict that `load` reads back to an equal taxonomy."""
        groups = {group.name: _group_to_dict(group) for group in self.attributes}
        return {"name": self.name, "category": _group_to_dict(self.category), "attributes": groups}


def category_prompts(group: Group, value: Value, color: str) -> list[str]:
    """Prompts of a category: "a photo of {color} {category}", one per template and phrase, phrase by phrase."""
    return [t.format(color=color, category=phrase) for phrase in value.phrases for t in group.templates]


def attribute_prompts(group: Group, value: Value, category: Value) -> list[str]:
    """Prompts of an attribute: "a photo of {attribute} {category}", one per template and phrase, phrase by phrase."""
    noun = category.phrases[0]
    return [t.format(attribute=phrase, category=noun) for phrase in value.phrases for t in group.templates]


@cache
def _shipped(name: str) -> Taxonomy:
    text = files("fashion_retrieval").joinpath(f"assets/taxonomies/{name}.yaml").read_text(encoding="utf-8")
    return _parse(yaml.safe_load(text), name)


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


def _decode(text: str, path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".json":
            data = json.loads(text, object_pairs_hook=_without_repeats)
        else:
            data = yaml.load(text, _Loader)  # a SafeLoader
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise TaxonomyError(f"taxonomy {path} is not valid {path.suffix or 'YAML'}: {reason}") from error
    if not isinstance(data, Mapping):
        raise TaxonomyError(
            f"taxonomy {path} must be a mapping with 'category' and 'attributes', got {type(data).__name__}"
        )
    return data


def _parse(data: Mapping[str, Any], where: str) -> Taxonomy:
    faults: list[str] = []
    _reject_unknown(data, {"name", "category", "attributes"}, "the top level", faults)
    category = _parse_group("category", data.get("category"), {"color", "category"}, faults)
    raw = data.get("attributes", {})
    if not isinstance(raw, Mapping):
        faults.append(f"'attributes' must map group names to groups, got {type(raw).__name__}")
        raw = {}
    attributes = tuple(_parse_group(str(n), g, {"attribute", "category"}, faults) for n, g in raw.items())
    known = set(KINDS) | {value.name for value in category.values}
    for group in attributes:
        strangers = sorted((group.applies_to or frozenset()) - known)
        if strangers:
            faults.append(f"{group.name}.applies_to names {', '.join(strangers)}: neither a kind nor a category")
    if faults:
        raise TaxonomyError(f"taxonomy {where} has {len(faults)} fault(s): {'; '.join(faults)}")
    return Taxonomy(str(data.get("name", "custom")), category, attributes)


def _parse_group(name: str, data: object, placeholders: set[str], faults: list[str]) -> Group:
    if not isinstance(data, Mapping):
        faults.append(f"'{name}' must be a mapping with 'template' and 'values', got {type(data).__name__}")
        return Group(name, (), ())
    _reject_unknown(data, {"template", "values", "applies_to"}, f"'{name}'", faults)
    default = "a photo of {color} {category}" if name == "category" else "a photo of {attribute} {category}"
    templates = _strings(data.get("template", default), f"{name}.template", faults)
    needed = "category" if name == "category" else "attribute"
    for template in templates:
        _check_template(template, name, needed, placeholders, faults)
    raw = data.get("values")
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        items = _strings(raw, f"{name}.values", faults) if raw else ()
        faults += [f"{name}.values names {item} twice" for item, count in Counter(items).items() if count > 1]
        raw = {item: {} for item in items} if items else None
    if not isinstance(raw, Mapping) or len(raw) < 2:
        faults.append(f"{name}.values must name at least two values")
        raw = {}
    faults += [f"{name}.values: {key!r} must be a text; quote it" for key in raw if not isinstance(key, str)]
    values = tuple(_parse_value(str(key), item, f"{name}.{key}", faults) for key, item in raw.items())
    applies = data.get("applies_to")
    kinds = None if applies is None else frozenset(_strings(applies, f"{name}.applies_to", faults))
    return Group(name, templates, values, kinds)


def _parse_value(name: str, data: object, where: str, faults: list[str]) -> Value:
    if not isinstance(data, Mapping):
        return Value(name, _strings(data, where, faults))
    _reject_unknown(data, {"phrases", "kind", "absent"}, where, faults)
    kind = data.get("kind")
    if kind is not None and kind not in KINDS:
        faults.append(f"{where}.kind must be one of {', '.join(KINDS)}, got {kind!r}")
    absent = data.get("absent", False)
    if not isinstance(absent, bool):
        faults.append(f"{where}.absent must be true or false, got {absent!r}")
    phrases = _strings(data.get("phrases", name.replace("_", " ")), f"{where}.phrases", faults)
    return Value(name, phrases, kind, bool(absent))


def _check_template(template: str, name: str, needed: str, allowed: set[str], faults: list[str]) -> None:
    try:
        fields = {field for _, field, *_ in Formatter().parse(template) if field is not None}
        template.format(**dict.fromkeys(allowed, ""))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        fields = {""}
    if not fields <= allowed:
        faults.append(f"{name}.template {template!r} may use only {', '.join('{' + p + '}' for p in sorted(allowed))}")
    elif needed not in fields:
        faults.append(f"{name}.template {template!r} must contain {{{needed}}}")


def _strings(data: object, where: str, faults: list[str]) -> tuple[str, ...]:
    items = [data] if isinstance(data, str) else data
    if isinstance(items, Sequence) and items and all(isinstance(item, str) and item.strip() for item in items):
        return tuple(items)
    faults.append(f"{where} must be a text or a list of texts, got {data!r}")
    return ()


def _reject_unknown(data: Mapping[str, Any], known: set[str], where: str, faults: list[str]) -> None:
    unknown = sorted(str(key) for key in data if key not in known)
    if unknown:
        faults.append(f"{where} has unknown keys {', '.join(unknown)} (known: {', '.join(sorted(known))})")


def _group_to_dict(group: Group) -> dict[str, Any]:
    data: dict[str, Any] = {"template": list(group.templates)}
    if group.applies_to is not None:
        data["applies_to"] = sorted(group.applies_to)
    data["values"] = {
        value.name: {"phrases": list(value.phrases)}
        | ({"kind": value.kind} if value.kind else {})
        | ({"absent": True} if value.absent else {})
        for value in group.values
    }
    return data
