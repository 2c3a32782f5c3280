"""What the commands share: options, one-line errors, progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fashion_retrieval.cli.photos import Trouble
from fashion_retrieval.errors import FashionRetrievalError

if TYPE_CHECKING:
    from fashion_retrieval import FashionModel

Item = TypeVar("Item")
Given = ParamSpec("Given")

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Photos at a time.")]
Backend = Annotated[str, typer.Option("--backend", help="auto, torch, openvino or onnx.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
Model = Annotated[str, typer.Option("--model", help="'compact', a folder or a Hub repository.")]
ModelId = Annotated[str, typer.Argument(metavar="ID", help="'compact', a folder or a Hub repository.")]
OnError = Annotated[Literal["raise", "skip"], typer.Option("--on-error", help="At a bad photo: stop, or go on.")]
Paths = Annotated[list[str], typer.Argument(help="Files, folders (searched to the bottom) or glob patterns.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of the Hub repository.")]


def guarded(command: Callable[Given, None]) -> Callable[Given, None]:
    """Turn expected errors into one line on stderr and an exit status."""

    @wraps(command)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except FashionRetrievalError as error:
            fail(str(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run


def fail(message: str) -> NoReturn:
    """Print one line on stderr; exit status 1."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def refuse(message: str) -> NoReturn:
    """Wrong usage: the usage and one line on stderr; exit status 2."""
    raise typer.BadParameter(message)


def report_failures(troubles: list[Trouble]) -> None:
    """List what was skipped on stderr; exit status 1 if there is anything to list."""
    if troubles:
        typer.echo(f"{len(troubles)} failed:", err=True)
        for source, error in troubles:
            typer.echo(f"  {source}: {error}", err=True)
        raise typer.Exit(1)


def load_model(model: str, device: str, dtype: str, revision: str | None = None, backend: str = "auto") -> FashionModel:
    """`FashionModel.from_pretrained`, imported here because it brings torch."""
    from fashion_retrieval import FashionModel

    return FashionModel.from_pretrained(model, revision=revision, device=device, dtype=dtype, backend=backend)


def watched(items: Iterable[Item], total: int, *, streaming: bool) -> Iterator[Item]:
    """Pass the items on under a progress bar on stderr, where that is a terminal which the output does not share."""
    columns = (TextColumn("photos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not sys.stderr.isatty() or (streaming and sys.stdout.isatty())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=hidden) as progress:
        yield from progress.track(items, total=total)
