"""Which photos are there, hold bytes and can be decoded."""

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

from training.engine.progress import watched

State = Literal["good", "missing", "zero_byte", "corrupt"]


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at a file said; `size` is (width, height) in pixels, of good photos only."""

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
            return Looked("good", image.size)
    except FileNotFoundError:
        return Looked("missing")
    except Exception:  # damaged data makes Pillow's readers raise nearly anything
        return Looked("corrupt")


def look_at_all(paths: Sequence[Path], *, decode: bool, workers: int) -> list[Looked]:
    """Look at files, in order; decoding is spread over processes."""
    return list(watched(_looks(paths, decode, workers), len(paths), "decoding" if decode else "photos"))


def _looks(paths: Sequence[Path], decode: bool, workers: int) -> Iterator[Looked]:
    if not decode or workers < 2:
        yield from (look(path, decode=decode) for path in paths)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(look, decode=decode), paths, chunksize=32)
