"""What keeps a LanceDB table of many small writes small, whoever wrote them, and those who read it undisturbed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")
EVERY, ROWS = 64, 64_000
"""Versions after which small files are merged, and as many more for each further so many rows: merging rewrites them
all, which is at most 1,000 rows a write, so that the whole effort stays linear."""
SPARE_SECONDS, SLOW_DISK = 2.0, 20e6
"""How long the files of a replaced version stay: these seconds, and what reading all vectors takes at so many bytes a
second. A process that is still reading it then starts over at the newest version."""
_TRIES = 4


def is_time(version: int, table: Any) -> bool:  # noqa: ANN401  # a LanceDB table, whose type stubs know less than it does
    """Whether to compact after the write that made this version: told by what all writers share."""
    every, rest = divmod(version, EVERY)
    return not rest and every % (1 + table.count_rows() // ROWS) == 0


def compact(table: Any, *, vector_bytes: int) -> None:  # noqa: ANN401  # as above
    """Merge small files, refresh the indices, and remove the files of versions that nobody reads any more."""
    now, spare = time.time(), SPARE_SECONDS + vector_bytes / SLOW_DISK
    # A version may be old and yet have been replaced, and read, a moment ago: the one of `spare` seconds ago stays.
    made = [version["timestamp"].timestamp() for version in table.list_versions()]
    oldest = max((moment for moment in made if moment <= now - spare), default=now)
    table.optimize(cleanup_older_than=timedelta(seconds=now - oldest + spare))


def newest(version: Callable[[], int], read: Callable[[], T]) -> T:
    """What is read; read anew where another process meanwhile removed the files of a version that it replaced."""
    failed = None
    for _ in range(_TRIES):
        try:
            return read()
        except (RuntimeError, OSError, ValueError) as error:  # what LanceDB raises for files that are missing
            now = version()
            gone = any(words in str(error).lower() for words in ("not found", "no longer exists"))
            if not gone or now == failed:
                raise
            failed = now
    return read()
