"""Checks of arguments that several folders share."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

from fashion_retrieval._utils.forks import check_fork
from fashion_retrieval.errors import InputError

LONGEST_ID = 4_096
"""Bytes of UTF-8."""


def check_id(name: object, index: int) -> str:
    """A photo's name; an InputError refuses what is no text, empty, too long, or not valid as UTF-8."""
    if not isinstance(name, str) or not name or not fits(name, LONGEST_ID):
        expected = f"a text of 1 to {LONGEST_ID} bytes of UTF-8"
        raise InputError(f"ids[{index}] must be {expected}, got {name!r:.80}; give other ids")
    return str.__str__(name)  # of a subclass, what it holds and not what it says


def check_ids(name: str, ids: object) -> list[str]:
    """The texts of a collection; anything else is an `InputError` that begins with the name."""
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        got = f"the text {ids!r:.60}" if isinstance(ids, str) else f"{ids!r:.60}"
        raise InputError(f"{name} must be a collection of ids, got {got}; put it in a list")
    given = list(ids)
    for index, id in enumerate(given):
        if not isinstance(id, str):
            raise InputError(f"{name}[{index}] must be a text, got {id!r:.60}; give ids of the gallery")
    return given


def check_whole(name: str, number: object, most: int, *, least: int = 1) -> None:
    """Refuse what is no whole number from `least` to `most` with an `InputError` that begins with the name."""
    if not isinstance(number, Integral) or isinstance(number, bool) or not least <= int(number) <= most:
        raise InputError(f"{name} must be a whole number from {least} to {most}, got {number!r:.60}")


def check_reading(max_pixels: int | None, batch_size: int = 1, on_error: str = "raise") -> None:
    """Refuse wrong values of the arguments of what reads photos with an `InputError`, and a process that would hang."""
    check_fork()
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    if max_pixels is not None and (not isinstance(max_pixels, Integral) or max_pixels < 1 or max_pixels is True):
        raise InputError(f"max_pixels must be a whole number of at least 1 or None, got {max_pixels!r:.60}")


def fits(text: str, longest: int) -> bool:
    """Whether a text is valid UTF-8 of at most `longest` bytes without NUL, which stores cut texts at."""
    try:
        return len(text.encode()) <= longest and "\0" not in text
    except UnicodeEncodeError:
        return False
