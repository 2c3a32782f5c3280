"""Arguments that name photos, and boxes in them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

import typer

from fashion_retrieval.cli.options import Failed
from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.images.folder import files_below


def find_photos(arguments: Sequence[str], on_error: str = "raise") -> tuple[list[Path], list[Failed]]:
    """Files, folders (with all folders in them) and glob patterns -> photos, and the arguments that hold none.

    The order is that of the arguments, sorted within a folder or pattern; a photo named twice comes once. A file that
    doesn't exist stays in the list: the error comes when it is read. What a folder has besides is told on stderr.
    """
    photos: dict[Path, None] = {}
    failures: list[Failed] = []
    for argument in arguments:
        try:
            photos.update(dict.fromkeys(_expand(argument)))
        except ImageError as error:
            if on_error == "raise":
                raise
            failures.append((argument, error))
    return list(photos), failures


def name_photos(
    arguments: Sequence[str], prefix: str = "", on_error: str = "raise", *, suffix: str | None = None
) -> tuple[dict[str, Path], list[Failed]]:
    """Photos by id, in order, and the arguments that hold none.

    The id is the path below the folder given, or below the fixed part of a pattern; the id of a file is its name. Two
    photos with the same id are an `InputError`. With a suffix, ids end in it in place of their own.
    """
    ids: dict[Path, str] = {}
    failures: list[Failed] = []
    for argument in arguments:
        found, failed = find_photos([argument], on_error)
        failures += failed
        base = _base(Path(argument))
        for photo in found:
            below = photo.relative_to(base)
            below = below.with_suffix(suffix) if suffix else below
            # Labels are found by their photos' names, letter by letter; ids are lines of text.
            ids.setdefault(photo, below.as_posix() if suffix else prefix + identifier(below).replace(os.sep, "/"))
    photos: dict[str, Path] = {}
    for photo, name in ids.items():
        if name in photos:
            other = "rename one" if suffix else "one after the other with --prefix"
            remedy = f"give the folder above both, or {other}"
            raise InputError(f"id {name!r} must stand for one photo, got {photos[name]} and {photo}; {remedy}")
        photos[name] = photo
    return photos, failures


def photo_sources(arguments: Sequence[str]) -> list[str]:
    """What `encode_shards` takes: URIs, folders, lists and files as they are, and the photos that patterns match."""
    given = [[argument] if _is_plain(argument) else find_photos([argument])[0] for argument in arguments]
    return [str(one) for group in given for one in group]


def identifier(photo: Path) -> str:
    """The path as one line of valid UTF-8."""
    return os.fsencode(photo).decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\r", "\\r")


def parse_box(text: str) -> tuple[float, float, float, float]:
    """ "x1,y1,x2,y2" -> four finite numbers, in pixels."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"expected four numbers x1,y1,x2,y2 in pixels, got {text!r}") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise typer.BadParameter(f"expected four finite numbers x1,y1,x2,y2, got {text!r}")
    return x1, y1, x2, y2


def _expand(argument: str) -> list[Path]:
    """The photos that an argument stands for; an `ImageError` where there is none."""
    found: list[Path] = []
    try:
        plain = _is_plain(argument)
        # The pattern may be absolute, which Path.glob refuses.
        for match in [Path(argument)] if plain else sorted(map(Path, glob(argument, recursive=True))):  # noqa: PTH207
            if not match.is_dir():
                found.append(match)
                continue
            files = files_below(match)
            if plain and not files.photos:
                raise ImageError(files.why_empty)
            if files.report:
                typer.echo(files.report, err=True)
            found += [match / name for name in files.photos]
    except OSError as error:
        raise ImageError(f"{argument} can't be looked up ({error.strerror}); check the path") from error
    if not found:
        raise ImageError(f"no file matches {argument!r}; check the pattern")
    return found


def _is_plain(argument: str) -> bool:
    return "://" in argument or not has_magic(argument) or Path(argument).exists()


def _base(path: Path) -> Path:
    """The folder that ids are counted from."""
    if path.is_dir():
        return path
    if path.exists() or not has_magic(str(path)):
        return path.parent
    fixed = next(place for place, part in enumerate(path.parts) if has_magic(part))
    return Path(*path.parts[:fixed])
