"""Optional packages: imported on demand, with an error that names the extra to install."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from fashion_retrieval.errors import MissingExtraError


def imported(package: str, extra: str) -> ModuleType:
    """Import a package that comes with an extra of this one; a MissingExtraError where that fails."""
    try:
        return import_module(package)
    except ImportError as error:
        raise _missing(package, extra, str(error)) from error


def check_torch() -> None:
    """Raise a MissingExtraError where PyTorch was left out, as it may be for an exported model."""
    if sys.modules.get("torch"):
        return
    try:
        import_module("torch")
    except ImportError as error:
        remedy = "run: pip install torch, or use a model with its export beside it"
        raise MissingExtraError(f"PyTorch is needed for this and can't be imported ({error}); {remedy}") from error


def check_installed(package: str, extra: str) -> None:
    """Look for a package without importing it; a MissingExtraError where it is not installed."""
    if find_spec(package) is None:
        raise _missing(package, extra, f"No module named {package!r}")


def _missing(package: str, extra: str, reason: str) -> MissingExtraError:
    remedy = f"pip install 'fashion-retrieval[{extra}]'"
    return MissingExtraError(f"{package} is needed and can't be imported ({reason}); run: {remedy}")
