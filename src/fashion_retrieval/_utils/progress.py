"""Progress of long work: one bar, on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, count: int = 1, *, failed: int = 0, description: str | None = None) -> None:
        """Add to what is done and, of that, to what failed; change the words before the bar."""


@contextmanager
def progress_bar(
    description: str, total: int | None, *, shown: bool, unit: str = "images", transient: bool = False
) -> Iterator[Advance]:
    """A bar on stderr with count, rate, failures and remaining time; yields a function that moves it on.

    A `total` of None is not known; a `transient` bar goes when it ends.
    """
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TextColumn("{task.fields[failures]}"),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(
        *columns,
        console=Console(stderr=True),
        transient=transient,
        disable=not shown,
        redirect_stdout=False,  # or rich replaces the streams of the process
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(description, total=total, rate="", failures="")
        broken = 0

        def advance(count: int = 1, *, failed: int = 0, description: str | None = None) -> None:
            nonlocal broken
            broken += failed
            speed = progress.tasks[task].speed
            progress.update(
                task,
                advance=count,
                description=description,
                rate="" if speed is None else f"{speed:.1f} {unit}/s",
                failures=f"{broken} failed" if broken else "",
            )

        yield advance


def tracked(
    items: Iterable[T],
    description: str,
    total: int | None,
    *,
    shown: bool,
    unit: str = "images",
    transient: bool = False,
) -> Iterator[T]:
    """Pass the items on under a `progress_bar`."""
    with progress_bar(description, total, shown=shown, unit=unit, transient=transient) as advance:
        for item in items:
            yield item
            advance()


def length_of(items: Iterable[object]) -> int | None:
    """How many there are, for a bar; None where that is not known."""
    return len(items) if isinstance(items, Sized) else None
