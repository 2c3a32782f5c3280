"""What the commands share: options, errors in one line, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from fashion_retrieval._utils.deprecation import renaming
from fashion_retrieval._utils.one_line import EXPECTED, one_line
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import FashionRetrievalError

if TYPE_CHECKING:
    from fashion_retrieval import FashionModel

Item = TypeVar("Item")
Failed = tuple[str, FashionRetrievalError]
"""An argument or photo, and why it can't be used."""

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

_RENAMED = {"--labelled": "--labeled", "--recognise": "--recognize", "--no-recognise": "--no-recognize"}
"""Options under their old names, which --help does not show."""


class Commands(TyperGroup):
    """The commands: expected errors become one line, and options keep their old names."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  # typer has click's types as a private copy
        """Run a command."""
        with handle_errors():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """Find a command; its arguments come back under their new names."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, [_renamed(argument) for argument in rest]


@contextmanager
def handle_errors() -> Iterator[None]:
    """Turn expected errors into one line on stderr and an exit status: 1, or 130 after an interrupt."""
    try:
        yield
    except BrokenPipeError:
        raise
    except EXPECTED as error:
        typer.echo(f"error: {one_line(error)}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def usage_error(message: str) -> NoReturn:
    """Wrong usage: the usage and one line on stderr; exit status 2."""
    raise typer.BadParameter(message)


def report_failures(failures: Sequence[Failed]) -> None:
    """List what was skipped on stderr; exit status 1 if there is anything to list."""
    if failures:
        typer.echo(f"{len(failures)} failed:", err=True)
        for source, error in failures:
            typer.echo(f"  {source}: {error}", err=True)
        raise typer.Exit(1)


def load_model(
    model: str, *, device: str, dtype: str, backend: str = "auto", revision: str | None = None
) -> FashionModel:
    """`FashionModel.from_pretrained`, imported here because it brings torch."""
    from fashion_retrieval import FashionModel

    return FashionModel.from_pretrained(model, revision=revision, device=device, dtype=dtype, backend=backend)


def progress(items: Iterable[Item], total: int, *, streaming: bool = False) -> Iterator[Item]:
    """Pass the items on under a progress bar on stderr, where that is a terminal which the output does not share."""
    shown = sys.stderr.isatty() and not (streaming and sys.stdout.isatty())
    return tracked(items, "photos", total, shown=shown, transient=True)


def _renamed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if name not in _RENAMED:
        return argument
    typer.echo(f"warning: {renaming(name, _RENAMED[name])}", err=True)
    return _RENAMED[name] + equals + value
