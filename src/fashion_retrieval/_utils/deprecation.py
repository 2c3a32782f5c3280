"""Old spellings: they work for one release and say what replaces them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

REMOVED_IN = "0.3"

P = ParamSpec("P")
R = TypeVar("R")


def warn_renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Tell the caller's caller that a name has changed; `old` is as the user wrote it: "Gallery.create(recognise=)".

    A `stacklevel` of 3 names the line that called the function that calls this one.
    """
    warnings.warn(renaming(old, new), DeprecationWarning, stacklevel=stacklevel)


def renaming(old: str, new: str) -> str:
    """The message of `warn_renamed`."""
    return f"{old} is now {new}; the old name goes in release {REMOVED_IN}"


def with_color_placeholder(taxonomy: Mapping[str, Any]) -> Mapping[str, Any]:
    """A taxonomy's dict with `{color}` for an earlier release's `{colour}`; the given dict itself where it has none."""
    category = taxonomy.get("category")
    if not isinstance(category, Mapping) or "{colour}" not in str(category.get("template")):
        return taxonomy
    template = category["template"]
    texts = [template] if isinstance(template, str) else template
    new = [text.replace("{colour}", "{color}") if isinstance(text, str) else text for text in texts]
    return {**taxonomy, "category": {**category, "template": new[0] if isinstance(template, str) else new}}


def accept_old_keywords(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: the function takes keyword arguments under old names too (`recognise="recognize"`) and warns."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                warn_renamed(f"{function.__qualname__}({old}=)", f"{names[old]}=")
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def renamed_attribute(old: str, new: str) -> property:
    """A property under the old name of an attribute."""

    def read(owner: object) -> object:
        warn_renamed(f"{type(owner).__name__}.{old}", new)
        return getattr(owner, new)

    return property(read, doc=f"Deprecated: `{new}`.")


def alias_module(old: str, homes: Mapping[str, str]) -> ModuleType:
    """Register a module under its old dotted path; a warning comes with each name, imported from its new home.

    Homes are "module:name" within `fashion_retrieval`, by the name in the old module.
    """
    alias = ModuleType(old, "Deprecated: its names have moved.")

    def look_up(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        warn_renamed(f"{old}.{name}", f"fashion_retrieval.{module}.{attribute}")
        return getattr(import_module(f"fashion_retrieval.{module}"), attribute)

    alias.__dict__["__getattr__"] = look_up
    return sys.modules.setdefault(old, alias)
