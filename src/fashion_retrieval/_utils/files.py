"""Files: their digests, and writing them whole."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def sha256(path: Path) -> str:
    """Hex digest of a file's content, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_atomically(target: Path) -> Iterator[Path]:
    """A path to write to; at the end it takes the place of `target`, so that no reader ever sees half a file.

    The path lies beside the target and ends like it. After an error it is removed, and the target stays as it was.
    """
    partial = target.with_name(f".{uuid4().hex[:12]}.partial{target.suffix}")
    try:
        yield partial
        partial.replace(target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
