"""Packages that hand on names without importing what those need."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package: a name is imported on first use from "module:name" within `fashion_retrieval`."""

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        value = getattr(import_module(f"fashion_retrieval.{module}"), attribute)
        setattr(sys.modules[package], name, value)
        return value

    return load
