"""Errors of the input in one line, for commands."""

from __future__ import annotations

from fashion_retrieval.errors import FashionRetrievalError

EXPECTED = (FashionRetrievalError, OSError)
"""What a command reports in one line; any other error is a fault of the program and shows its traceback."""


def one_line(error: Exception) -> str:
    """The message of an expected error: ours as it is, the system's with the file it is about."""
    if isinstance(error, OSError) and not isinstance(error, FashionRetrievalError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
