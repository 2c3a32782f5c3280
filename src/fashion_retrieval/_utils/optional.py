"""Optional packages: imported on demand, and kept from printing what a user can do nothing about."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from types import ModuleType

from fashion_retrieval.errors import MissingExtraError


@contextmanager
def quiet() -> Iterator[None]:
    """Within it Python prints nothing: no warnings, no log lines below an error, no progress bars."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


def imported(package: str, extra: str) -> ModuleType:
    """A package that comes with an extra of this one.

    Raises:
        MissingExtraError: It is not installed, or can't be imported.
    """
    try:
        with quiet():
            return import_module(package)
    except ImportError as error:
        remedy = f"pip install 'fashion-retrieval[{extra}]'"
        raise MissingExtraError(f"{package} is needed and can't be imported ({error}); run: {remedy}") from error
