"""Files that a long command can be stopped over: whole or not there, and JSON lines that go on where they ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion_retrieval.errors import ConfigError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a stop at any moment, or another process, leaves no half of it; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def check_settings(path: Path, found: object, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than those of the results that are there.

    Raises:
        ConfigError: They differ; the message names how.
    """
    if found == settings:
        return
    before = found if isinstance(found, dict) else {}
    names = [name for name in {**settings, **before} if settings.get(name) != before.get(name)]
    changes = ", ".join(f"{name} {before.get(name)!r} instead of {settings.get(name)!r}" for name in names)
    raise ConfigError(f"{path} was made with {changes or 'no settings'}; take another --out, or remove it")


class LineFile:
    """A JSON-lines file: its settings first, then rows with an `id`.

    Attributes:
        done: Ids of the rows that are there.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open the file or begin it. A last line that was cut off is removed.

        Raises:
            ConfigError: It was made with other settings, or has a line that is no row.
        """
        self.path = path
        self.done: set[str] = set()
        if not path.exists():
            write_whole(path, (json.dumps(settings) + "\n").encode())
            return
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                self.done |= {row["id"]} if number > 1 else set()
            except (ValueError, KeyError, TypeError):
                raise ConfigError(f"{path} line {number} is no row of this command; remove the line") from None
            if number == 1:
                check_settings(path, row, settings)
        if not lines:
            write_whole(path, (json.dumps(settings) + "\n").encode())
        elif whole < len(data):
            os.truncate(path, whole)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, in one write that reaches the disk."""
        with self.path.open("ab") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
            file.flush()
            os.fsync(file.fileno())
        self.done |= {row["id"] for row in rows}
