"""What is wrong with the input, in one line: for every command of training, alone or under torchrun."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from fashion_retrieval.errors import FashionRetrievalError

_GRACE = 10.0
"""Seconds in which torchrun ends this process where the leading one has failed too."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Errors of the input become one line on stderr and exit status 1.

    Of torchrun's processes the leading one tells. Another tells, and names itself, only where it alone has failed. To
    be entered after `parallel.world`, so that the processes are not parted before that.
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
