"""Inspection of photo files: missing, empty, damaged or good."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from PIL import Image

from fashion_retrieval._utils.progress import tracked
from training.data.deepfashion import upright_size

State = Literal["good", "missing", "zero_byte", "corrupt"]


@dataclass(frozen=True, slots=True)
class Looked:
    """State of a photo file; `size` is (width, height) in pixels of the upright photo, None unless it is good."""

    state: State
    size: tuple[int, int] | None = None


def look(path: Path, *, decode: bool) -> Looked:
    """Look at one file: its header, or all its pixels."""
    try:
        if path.stat().st_size == 0:
            return Looked("zero_byte")
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if decode:
                image.load()
            return Looked("good", upright_size(image))
    except FileNotFoundError:
        return Looked("missing")
    except Exception:  # damaged data makes Pillow's readers raise nearly anything
        return Looked("corrupt")


def look_at_all(paths: Sequence[Path], *, decode: bool, workers: int) -> list[Looked]:
    """Look at files, in order; decoding is spread over processes."""
    return list(tracked(_looks(paths, decode, workers), "decoding" if decode else "photos", len(paths), shown=True))


def _looks(paths: Sequence[Path], decode: bool, workers: int) -> Iterator[Looked]:
    if not decode or workers < 2:
        yield from (look(path, decode=decode) for path in paths)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(look, decode=decode), paths, chunksize=32)
