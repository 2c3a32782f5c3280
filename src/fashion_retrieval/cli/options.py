"""What the commands share: options, errors in one line, progress."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperGroup

from fashion_retrieval._utils.deprecation import renaming
from fashion_retrieval._utils.one_line import EXPECTED, one_line
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import FashionRetrievalError

if TYPE_CHECKING:
    from fashion_retrieval import Failure

Result = TypeVar("Result")
Failed = tuple[str, FashionRetrievalError]
"""An argument or photo, and why it can't be used."""

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Photos at a time.")]
Backend = Annotated[str, typer.Option("--backend", help="auto, torch, openvino or onnx.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
MaxPixels = Annotated[
    int | None, typer.Option("--max-pixels", min=1, help="Refuse photos with more pixels; by default 179 million.")
]
Model = Annotated[str, typer.Option("--model", help="'compact', a folder or a Hub repository.")]
ModelId = Annotated[str, typer.Argument(metavar="ID", help="'compact', a folder or a Hub repository.")]
OnError = Annotated[Literal["raise", "skip"], typer.Option("--on-error", help="At a bad photo: stop, or go on.")]
Paths = Annotated[list[str], typer.Argument(help="Files, folders (searched to the bottom) or glob patterns.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of the Hub repository.")]

Dimensions = Annotated[int | None, typer.Option(min=1, help="Numbers an embedding has; by default all of the model's.")]
Precision = Annotated[
    Literal["float32", "float16", "int8", "binary", "ubinary"], typer.Option(help="Numbers of an embedding.")
]
StoredPrecision = Annotated[
    Literal["float32", "float16", "int8"], typer.Option("--precision", help="How a new gallery stores embeddings.")
]

_RENAMED = {"--labelled": "--labeled", "--recognise": "--recognize", "--no-recognise": "--no-recognize"}
"""Options under their old names, which --help does not show."""


def env(name: str) -> dict[str, Any]:
    """For an option of a service: its environment variable, which --help tells of once for all."""
    return {"envvar": f"FASHION_RETRIEVAL_{name}", "show_envvar": False}


class Commands(TyperGroup):
    """The commands: expected errors become one line, and options keep their old names."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  # typer has click's types as a private copy
        """Run a command; the exit status is 1 after an expected error, and 130 after an interrupt."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged photos are errors, in a line each
                return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except EXPECTED as error:
            typer.echo(f"error: {one_line(error)}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """Find a command; its arguments come back under their new names."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, [_renamed(argument) for argument in rest]


def report_failures(failures: Sequence[Failed], *, most: int | None = None, note: str = "") -> None:
    """List what was skipped on stderr, or the first of it; exit status 1 if there is anything to list."""
    if failures:
        typer.echo(f"{len(failures)} failed{note}:", err=True)
        for source, error in failures[:most]:
            typer.echo(f"  {source}: {error}", err=True)
        raise typer.Exit(1)


def successes(
    photos: Sequence[Path], results: Iterable[Result | Failure], failures: list[Failed], *, streaming: bool = False
) -> Iterator[tuple[Path, Result]]:
    """Each photo with its result; what failed joins the failures.

    A progress bar is on stderr, where that is a terminal which the output does not share.
    """
    from fashion_retrieval import Failure

    shown = sys.stderr.isatty() and not (streaming and sys.stdout.isatty())
    watched = tracked(results, "photos", len(photos), shown=shown, transient=True)
    for photo, result in zip(photos, watched, strict=True):
        if isinstance(result, Failure):
            failures.append((str(photo), result.error))
        else:
            yield photo, result


def _renamed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if name not in _RENAMED:
        return argument
    typer.echo(f"warning: {renaming(name, _RENAMED[name])}", err=True)
    return _RENAMED[name] + equals + value
