"""Expected errors of a training command in one line, with and without torchrun."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from fashion_retrieval.errors import FashionRetrievalError

_GRACE = 10.0
"""Seconds in which torchrun ends this process if the main one has failed too."""


class TrainingError(FashionRetrievalError, RuntimeError):
    """A training that can't go on, such as one whose loss is not finite."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn expected errors into one line on stderr and exit status 1.

    Under torchrun the main process prints the line. Another process prints one, with its rank, only if it alone has
    failed. Enter this after `distributed_env`, so that the process group is still there meanwhile.
    """
    try:
        yield
    except FashionRetrievalError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        return
    rank = int(os.environ.get("RANK", "0"))
    if rank:
        time.sleep(_GRACE)
        message = f"process {rank}: {message}"
    typer.echo(f"error: {message}", err=True)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # what torchrun's own report will quote
        Path(report).write_text(json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8")
    raise SystemExit(1)


def report_failures(failures: Sequence[tuple[str, str]]) -> None:
    """List what failed, with the reasons, on stderr; exit status 1 if there is anything to list."""
    if failures:
        typer.echo(f"{len(failures)} failed, the rest is done:", err=True)
        for name, reason in failures[:20]:
            typer.echo(f"  {name}: {reason}", err=True)
        if len(failures) > 20:
            typer.echo(f"  and {len(failures) - 20} more", err=True)
        raise typer.Exit(1)
