"""How far a command is, how fast it goes and when it will be done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar("Item")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Items a second, once that is known."""
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


def watched(items: Iterable[Item], total: int, what: str, *, shown: bool = True) -> Iterator[Item]:
    """Pass the items on under a bar on stderr with rate and remaining time."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, disable=not shown) as progress:
        yield from progress.track(items, total=total, description=what)


def report_failures(failures: Sequence[tuple[str, str]]) -> None:
    """List what failed on stderr, with why; exit status 1 if there is anything to list."""
    if failures:
        typer.echo(f"{len(failures)} failed, the rest is done:", err=True)
        for name, reason in failures[:20]:
            typer.echo(f"  {name}: {reason}", err=True)
        if len(failures) > 20:
            typer.echo(f"  and {len(failures) - 20} more", err=True)
        raise typer.Exit(1)
