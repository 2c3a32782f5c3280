"""Progress of long work, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@contextmanager
def adding_bar(total: int | None, shown: bool, doing: str = "adding photos") -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; what it gives is told how many photos are through, and how many failed so far."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} photos/s"),
        TextColumn("{task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    started, done = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("", total=total, rate=0.0, failed=0)

        def tell(number: int, failed: int) -> None:
            nonlocal done
            done += number
            rate = done / max(time.monotonic() - started, 1e-6)
            bar.update(task, completed=done, rate=rate, failed=failed)

        yield tell
