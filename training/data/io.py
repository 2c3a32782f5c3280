"""Reading JSON files and images, with errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval.errors import ConfigError, ImageError


def read_json(path: Path, *, lines: bool = False) -> Any:  # noqa: ANN401  # any JSON value
    """A JSON value; with `lines`, the list of values of a file with one a line."""
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read as JSON: {error}") from error


def read_label_image(path: Path) -> NDArray[np.uint8]:
    """The label of each pixel of a mask file: (H, W) uint8."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"the mask {path} can't be read ({error}); make it again") from None


def readable(photo: Path) -> bool:
    """Whether the file is a whole photo; dead links leave empty files, web pages and halves behind."""
    try:
        state = photo.stat()
    except (OSError, ValueError):  # a name that no file can have
        return False
    return _decodes(photo, state.st_size, state.st_mtime_ns)


def shown(names: Sequence[str], most: int | None = 8) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if most is not None and len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_rows(path: Path, keys: tuple[str, ...], faults: list[str]) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; if it can't be read or a row lacks a key, no rows and a line in `faults`."""
    try:
        rows: list[dict[str, Any]] = read_json(path, lines=True)
    except ConfigError as error:
        faults.append(str(error))
        return []
    if not rows:
        faults.append(f"{path} has no rows")
    lacking = [line for line, row in enumerate(rows, 1) if not isinstance(row, dict) or not row.keys() >= {*keys}]
    if lacking:
        expected = f"a JSON object with {', '.join(keys)}"
        faults.append(f"{path.name}: {len(lacking)} rows are not {expected}, the first is row {lacking[0]}")
        return []
    return rows


@cache
def _decodes(photo: Path, size: int, changed: int) -> bool:
    """Whether it can be decoded; cached as long as size and time stay the same."""
    try:
        with Image.open(photo) as image:
            image.draft("RGB", (1, 1))
            image.load()
    except Exception:  # damaged data makes Pillow's readers raise nearly anything
        return False
    return True
