"""The CLI's arguments: which photos are meant, and which boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

import typer

from fashion_retrieval.errors import FashionRetrievalError, ImageError
from fashion_retrieval.images.folder import photos_below, why_empty

Trouble = tuple[str, FashionRetrievalError]


def find_photos(arguments: Sequence[str]) -> tuple[list[Path], list[Trouble]]:
    """Files, folders (searched to the bottom) and glob patterns -> photos, and the arguments that hold none.

    The order is that of the arguments, sorted within a folder or pattern; a photo named twice comes once.
    A file that doesn't exist stays in the list: reading it tells what is wrong.
    """
    photos: dict[Path, None] = {}
    troubles: list[Trouble] = []
    for argument in arguments:
        try:
            found = list(_expand(argument))
        except OSError as error:
            troubles.append((argument, ImageError(f"{argument} can't be looked up ({error.strerror}); check the path")))
            continue
        photos.update(dict.fromkeys(found))
        if not found:
            troubles.append((argument, ImageError(_why_empty(argument))))
    return list(photos), troubles


def parse_box(text: str) -> tuple[float, float, float, float]:
    """ "x1,y1,x2,y2" -> four finite numbers, in pixels."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"expected four numbers x1,y1,x2,y2 in pixels, got {text!r}") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise typer.BadParameter(f"expected four finite numbers x1,y1,x2,y2, got {text!r}")
    return x1, y1, x2, y2


def _expand(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if path.is_dir():
        yield from photos_below(path)
    elif has_magic(argument) and not path.exists():
        for match in sorted(map(Path, glob(argument, recursive=True))):  # noqa: PTH207
            yield from photos_below(match) if match.is_dir() else (match,)
    else:
        yield path


def _why_empty(argument: str) -> str:
    if Path(argument).is_dir():
        return why_empty(argument)
    return f"no file matches {argument!r}; check the pattern"
